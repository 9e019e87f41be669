"""What is known of one certificate between tries, on the disk: KEYS/acme/NAME.json.

A server that is killed at any point goes on from here, and what cannot be read is begun anew: only time is lost.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mailserver.mail.durable import make_directory, replace_file

__all__ = ["CertificateProgress", "read_progress", "write_progress"]

OCTETS_MOST = 1 << 20


@dataclass(slots=True)
class CertificateProgress:
    """Times are seconds since the epoch, 0 where there is none.

    `directory` is the CA that has issued the certificate.  `order` is an order that is under way: its `url`, the `directory`, the
    sorted `names`, and `spki`, the key that it is for.

    `window` is the CA's suggestion for the renewal (RFC 9773): `serial` it is for, `start`, `end`, `chosen` within them, `ask_at`
    when to ask again, `url` an explanation.

    `failures` in a row since `failing_since`; the next try is `not_before`, `error` says what the last has met with.
    `begun`: tries in a row that came to no end, as the server was killed or stopped.
    `issued`: the certificates that we were given, each its moment and its names, the last ones.

    `roll`: the next key shall be used, once the DNS has shown it long enough ("wanted"), or with the next certificate ("ready").
    `seen_since`: since when every server of the zone shows the TLSA of `seen_spki`, by a clock that nobody sets; `roll_look_at`:
    when to look again; `waits_for`: what has to be there before.
    `is_urgent`: now, whatever its end.  `revoked` is the serial number of a certificate that we have had revoked.
    `left_out`: names that could not be shown to be ours, and until when they are left out.
    `remarks`: what a postmaster should know though there is a certificate.
    """

    directory: str = ""
    order: dict[str, Any] = field(default_factory=dict)
    window: dict[str, Any] = field(default_factory=dict)
    failures: int = 0
    failing_since: float = 0.0
    not_before: float = 0.0
    error: str = ""
    tried_at: float = 0.0
    begun: int = 0
    issued: list[list[Any]] = field(default_factory=list)
    roll: str = ""
    seen_spki: str = ""
    seen_since: float = 0.0
    roll_look_at: float = 0.0
    waits_for: str = ""
    is_urgent: bool = False
    revoked: str = ""
    left_out: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def read_progress(keys_directory: str, name: str) -> CertificateProgress:
    """What was written last; what is not of the right kind is left out.  Raises OSError."""
    try:
        with open(_path(keys_directory, name), encoding="utf-8", errors="replace") as file:
            kept = json.loads(file.read(OCTETS_MOST))
    except (FileNotFoundError, ValueError, RecursionError):
        return CertificateProgress()
    found, empty = CertificateProgress(), CertificateProgress()
    for one in fields(CertificateProgress):
        value = kept.get(one.name) if isinstance(kept, dict) else None
        wanted = type(getattr(empty, one.name))
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is wanted:
            setattr(found, one.name, value)
    window: dict[str, Any] = found.window
    if any(type(window.get(key, 0.0)) not in (int, float) for key in ("start", "end", "chosen", "ask_at")):
        found.window = {}
    left_out: dict[str, Any] = dict(found.left_out)
    found.left_out = {key: float(until) for key, until in left_out.items() if isinstance(until, int | float)}
    found.remarks = [str(one) for one in found.remarks]
    issued: list[Any] = [*found.issued]
    found.issued = [one for one in issued if isinstance(one, list) and [type(each) for each in one] == [float, str]]
    return found


def write_progress(keys_directory: str, name: str, progress: CertificateProgress) -> None:
    """Raises OSError."""
    path = _path(keys_directory, name)
    make_directory(os.path.dirname(path))
    replace_file(path, json.dumps(asdict(progress), indent=1) + "\n", lambda fd: os.fchmod(fd, 0o600))


def _path(keys_directory: str, name: str) -> str:
    return os.path.join(keys_directory, "acme", f"{name}.json")
