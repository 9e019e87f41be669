"""A certificate with its chain and its private key, read from PEM files and checked.  All of it blocks."""

from __future__ import annotations

import datetime
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from mailserver.transport.certificate_faults import UNREADABLE

__all__ = ["Identity", "IdentityError", "Pair", "key_pem", "read_authorities", "read_identity", "read_revocations"]

FILE_OCTETS = 16 * 1024 * 1024


class IdentityError(ValueError):
    """A file cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of one identity: the certificate with its chain, and the key."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What the files hold: the leaf comes first in `chain`, and `key` is the one that belongs to it."""

    pair: Pair
    chain: tuple[x509.Certificate, ...]
    key: Any = field(compare=False, repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names of the certificate, in lower case.

        From the subjectAltName; the common name counts only where it is missing (RFC 6125 section 6.4.4).
        """
        alternatives = extension_of(self.leaf, x509.SubjectAlternativeName)
        if alternatives is None:
            names = [str(one.value) for one in self.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        else:
            names = alternatives.get_values_for_type(x509.DNSName)
        return tuple([name.lower() for name in names])

    @property
    def expires(self) -> datetime.datetime:
        """When the certificate expires, in UTC."""
        return self.leaf.not_valid_after_utc

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint in lower-case hex."""
        return self.leaf.fingerprint(hashes.SHA256()).hex()


def read_identity(pair: Pair) -> Identity:
    """Read a certificate with its chain and its key, and check that they match.  Raises `IdentityError`."""
    chain, octets = tuple(read_authorities(pair.certificate)), _octets(pair.key)
    try:
        key = serialization.load_pem_private_key(octets, password=None)
    except TypeError:
        raise IdentityError(f"{pair.key}: the key is encrypted; the server cannot be asked for a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError(f"{pair.key}: there is no private key in PEM form that could be read") from None
    if _public_octets(key.public_key()) != _public_octets(chain[0].public_key()):
        raise IdentityError(f"{pair.key}: the key does not belong to the first certificate of {pair.certificate}")
    return Identity(pair, chain, key)


def read_authorities(path: str) -> list[x509.Certificate]:
    """The certificates of a PEM file, one at least.  Raises `IdentityError`."""
    octets = _octets(path)
    if b"-----BEGIN CERTIFICATE-----" not in octets:
        raise IdentityError(f"{path}: there is no certificate in PEM form")
    try:
        return x509.load_pem_x509_certificates(octets)
    except UNREADABLE:
        raise IdentityError(f"{path}: a certificate in it cannot be read") from None


def read_revocations(path: str) -> list[x509.CertificateRevocationList]:
    """The revocation lists of a PEM file, one at least.  Raises `IdentityError`."""
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    lists = []
    for part in _octets(path).split(begin)[1:]:
        octets, found, _ = part.partition(end)
        try:
            lists.append(x509.load_pem_x509_crl(begin + octets + found + b"\n"))
        except UNREADABLE:
            raise IdentityError(f"{path}: a list of revoked certificates in it cannot be read") from None
    if not lists:
        raise IdentityError(f"{path}: there is no list of revoked certificates (X509 CRL) in PEM form")
    return lists


def key_pem(key: Any) -> str:
    """A private key as its file has it: PEM, PKCS #8, without a password."""
    octets: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return octets.decode("ascii")


def extension_of(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    """The value of an extension; None where it is missing, and where the extensions are malformed."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except UNREADABLE:
        return None


def is_readable_by_others(path: str) -> bool:
    """Whether every user of the host can read the file, which holds a private key."""
    return bool(stat.S_IMODE(os.stat(path).st_mode) & 0o004)


def _octets(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            octets = file.read(FILE_OCTETS + 1)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(octets) > FILE_OCTETS:
        raise IdentityError(f"{path}: is too large")
    return octets


def _public_octets(key: Any) -> bytes:
    octets: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return octets
