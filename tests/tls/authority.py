"""A certificate authority for tests: leaves of every kind, and lists of those that it has revoked."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from mailserver.tls.identity import Pair

__all__ = ["Authority", "Leaf"]

DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Leaf:
    """A certificate, its key, and both as PEM."""

    def __init__(self, certificate: x509.Certificate, key: Any) -> None:
        self.certificate = certificate
        self.key = key
        self.certificate_pem = certificate.public_bytes(PEM)
        self.key_pem = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, directory: str, name: str = "server") -> Pair:
        """Put both into files; a change at once looks like one, however coarse the file system's clock is."""
        pair = Pair(os.path.join(directory, f"{name}.pem"), os.path.join(directory, f"{name}.key"))
        for path, octets in ((pair.certificate, self.certificate_pem), (pair.key, self.key_pem)):
            with open(path + ".new", "wb") as file:
                file.write(octets)
            os.chmod(path + ".new", 0o600)
            os.rename(path + ".new", path)
        return pair


class Authority:
    """Signs what it is asked to."""

    def __init__(self, name: str = "Test CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + 400 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(PEM)

    def leaf(
        self,
        *names: str,
        emails: Sequence[str] = (),
        days: tuple[int, int] = (-1, 90),
        client: bool | None = False,
        key: Any = None,
        alternatives: bytes = b"",
    ) -> Leaf:
        """A certificate for these DNS names and addresses, valid between these days from now.

        It is for clients or for servers, or with None for everything.  `alternatives` are the octets of its subjectAltName, where they shall be odd.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        known = [*map(x509.DNSName, names), *map(x509.RFC822Name, emails)]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name((*names, *emails, "nobody")[0]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if client is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternatives:
            odd = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, alternatives)
            builder = builder.add_extension(odd, critical=False)
        elif known:
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        return Leaf(builder.sign(self.key, hashes.SHA256()), key)

    def revocations(self, *revoked: Leaf, days: tuple[int, int] = (-1, 30)) -> bytes:
        """A list of revoked certificates, PEM."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now + days[0] * DAY)
            .next_update(now + days[1] * DAY)
        )
        for leaf in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(leaf.certificate.serial_number)
                .revocation_date(now - DAY)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM)
