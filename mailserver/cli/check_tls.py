"""What ``mailserver check`` says of certificates: the files as the start would read them, and what their clients would think."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mailserver.config import Configuration
from mailserver.config.fault_sentences import key_text
from mailserver.tls import ClientCertificates, IdentityError, Pair, self_signed_pair
from mailserver.tls.certificates import contexts_of
from mailserver.tls.contexts import CertificateParts, Verification
from mailserver.tls.identity import Identity, read_authorities, read_identity, read_revocations
from mailserver.tls.soundness import authority_doubts, identity_doubts, revocation_doubts

__all__ = ["Findings", "look_at_tls"]


@dataclass(slots=True)
class Findings:
    """Faults with the key that is to blame, and warnings."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def read(self, keys: Mapping[str, str], reader: Callable[[Any], Any], source: Any) -> Any:
        """What the reader gives; None with a fault, or with a warning where another user may be able to read the file.

        `keys` has the key for each file.
        """
        for file, key in keys.items():
            if _is_forbidden(file):
                self.warnings.append(f"{key}: this user may not read {file}; the server must be able to, also after each renewal")
                return None
        try:
            return reader(source)
        except IdentityError as error:
            sentence = str(error)
            blamed = [key for file, key in keys.items() if sentence.startswith(file + ": ")]
            self.faults.append(((blamed or [*keys.values()])[0], sentence))
        return None


def look_at_tls(configuration: Configuration) -> Findings:
    """Blocks; changes nothing."""
    findings, tls = Findings(), configuration.tls
    if all(listen.tls == "none" for listen in configuration.listen):
        if tls.certificate is not None or tls.name:
            findings.warnings.append('tls: no listener has tls = "starttls" or "implicit", so the certificates are not used')
        return findings
    now = datetime.datetime.now(datetime.UTC)
    own = None
    if tls.certificate is not None and tls.key is not None:
        own = _identity(findings, "tls", Pair(tls.certificate, tls.key), configuration.hostname, now)
    names = {
        name: _identity(findings, key_text(("tls", "name", name)), Pair(one.certificate, one.key), name, now)
        for name, one in tls.name.items()
    }
    _look_at_clients(findings, configuration, now)
    if tls.certificate is None or own is not None:
        _try_contexts(findings, configuration, own, {name: one for name, one in names.items() if one is not None})
    return findings


def _identity(findings: Findings, place: str, pair: Pair, name: str, now: datetime.datetime) -> Identity | None:
    keys = {pair.certificate: f"{place}.certificate"}
    keys.setdefault(pair.key, f"{place}.key")
    identity: Identity | None = findings.read(keys, read_identity, pair)
    if identity is not None:
        findings.warnings += identity_doubts(identity, name=name, now=now)
    return identity


def _look_at_clients(findings: Findings, configuration: Configuration, now: datetime.datetime) -> None:
    tls, authorities = configuration.tls, None
    for n, listen in enumerate(configuration.listen):
        if listen.client_certificate == ClientCertificates.REQUIRE.value and tls.client_authorities is None:
            key = key_text(("listen", n, "client_certificate"))
            findings.faults.append((key, "nobody could connect: there are no tls.client_authorities to vouch for a certificate"))
    if tls.client_authorities is not None:
        keys = {tls.client_authorities: "tls.client_authorities"}
        authorities = findings.read(keys, read_authorities, tls.client_authorities)
        findings.warnings += authority_doubts(tls.client_authorities, authorities or (), now)
    if tls.client_revocations is not None:
        keys = {tls.client_revocations: "tls.client_revocations"}
        revocations = findings.read(keys, read_revocations, tls.client_revocations)
        if revocations is not None and authorities is not None:
            findings.warnings += revocation_doubts(tls.client_revocations, revocations, authorities, now)


def _try_contexts(
    findings: Findings, configuration: Configuration, own: Identity | None, names: Mapping[str, Identity]
) -> None:
    """Whether OpenSSL takes them, with these ciphers; where the server makes its own certificate, one like it serves."""
    tls = configuration.tls
    try:
        with tempfile.TemporaryDirectory() as folder:
            default = own or read_identity(self_signed_pair(folder, configuration.hostname))
        parts = CertificateParts(default, names, minimum_version=tls.minimum_version, ciphers=tls.ciphers)
        contexts_of(parts, Verification())
    except IdentityError as error:
        findings.faults.append(("tls.ciphers" if tls.ciphers else "tls.certificate", str(error)))


def _is_forbidden(file: str) -> bool:
    try:
        with open(file, "rb"):
            return False
    except PermissionError:
        return True
    except OSError:
        return False
