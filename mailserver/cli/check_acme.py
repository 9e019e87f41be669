"""What ``mailserver check`` says of certificates that come from a CA by ACME.  Asks nobody outside, and changes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from mailserver.cli.output import moment
from mailserver.config import Configuration
from mailserver.config.acme_endpoints import own_endpoints
from mailserver.config.endpoints import place_of
from mailserver.config.password_file import password_of

__all__ = ["acme_doubts", "acme_faults"]

KEY_OCTETS = 1 << 16


def acme_faults(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """What keeps a certificate from coming, with the key that is to blame."""
    table = configuration.by_acme
    if table is None:
        return
    for key, path in (("eab_key_file", table.eab_key_file), ("second_eab_key_file", table.second_eab_key_file)):
        try:
            if path is not None:
                password_of(path)
        except (OSError, ValueError) as error:
            yield f"acme.{key}", f"cannot be used: {error}"
    if table.dns_key is not None:
        from mailserver.doctor.pushing import read_zone_key

        try:
            with open(table.dns_key, encoding="utf-8") as file:
                read_zone_key(file.read(KEY_OCTETS))
        except OSError as error:
            yield "acme.dns_key", f"{table.dns_key} cannot be read: {error.strerror}"
        except ValueError as error:
            yield "acme.dns_key", f"{table.dns_key}: {error}"
    if table.folder is not None and not os.path.isdir(table.folder):
        yield "acme.folder", f"{table.folder} is no folder"
    if table.ca_file is not None and not os.path.isfile(table.ca_file):
        yield "acme.ca_file", f"{table.ca_file} is not there"
    for endpoint in own_endpoints(configuration)[:1]:
        mine = place_of(endpoint)
        for n, listen in enumerate(configuration.listen):
            place = place_of(listen.endpoint)
            if mine is not None and place is not None and (mine.clashes_with(place) or mine.clashes_across_families(place)):
                yield f"listen[{n}].endpoint", f"is where the server has to listen while the CA looks ({endpoint})"


def acme_doubts(configuration: Configuration) -> list[str]:
    """What there is no certificate for, and why."""
    if configuration.by_acme is None:
        return []
    if all(listen.tls == "none" for listen in configuration.listen):
        return ['acme: no listener has tls = "starttls" or "implicit", so no certificate is got']
    from mailserver.acme.progress import read_progress
    from mailserver.acme.schedule import is_late
    from mailserver.acme.visit import held_of
    from mailserver.tls import IdentityError
    from mailserver.tls.issued import read_issued

    found, now = [], time.time()
    for name in ("mail", "web"):
        try:
            identity, progress = read_issued(configuration.keys_path, name), read_progress(configuration.keys_path, name)
        except PermissionError:
            return ["acme: this user may not read the server's keys, so nothing is said of its certificates"]
        except (OSError, IdentityError) as error:
            found.append(f"acme: {error}")
            continue
        if is_late(held_of(identity), progress, now):
            found.append(f"acme: the certificate {name} is late, since {moment(progress.failing_since)}: {progress.error}")
        elif progress.failures and progress.error:
            found.append(f"acme: the last try for the certificate {name} has failed: {progress.error}")
        found += [f"acme: {remark}" for remark in progress.remarks]
        if progress.waits_for:
            found.append(f"acme: the certificate {name} waits: {progress.waits_for}")
    return found
