"""A chain of certificates as a host shows it: what stands in them, and whether it is valid up to a trust anchor (RFC 5280)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

__all__ = [
    "UNREADABLE",
    "BrokenChain",
    "certificate_of",
    "covers",
    "is_signed_by",
    "key_octets",
    "key_of",
    "names_of",
    "verified_depth",
]

# What `cryptography` raises where it looks into a certificate that only OpenSSL accepts.
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
SEQUENCE = 0x30
TIME_ERRORS = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class BrokenChain(Exception):
    """The chain is not valid.  `is_a_matter_of_time`: it has expired, or is not valid yet."""

    def __init__(self, why: str, *, is_a_matter_of_time: bool = False) -> None:
        super().__init__(why)
        self.is_a_matter_of_time = is_a_matter_of_time


def certificate_of(der: bytes) -> x509.Certificate | None:
    """The certificate; None where the octets are none."""
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE:
        return None


def key_of(der: bytes) -> Any:
    """The public key (a SubjectPublicKeyInfo); None where the octets are none."""
    try:
        return serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None


def key_octets(der: bytes) -> bytes | None:
    """The SubjectPublicKeyInfo of a certificate as it stands there; None where there is none (RFC 5280 section 4.1).

    It is not read: usage 3 has to work with keys of any kind, and encoding them again may give other octets.
    """
    try:
        at, _ = _element(der, 0)  # Certificate
        at, end = _element(der, at)  # TBSCertificate
        if der[at] == 0xA0:  # [0] version
            at = _element(der, at)[1]
        for _ in range(5):  # serialNumber, signature, issuer, validity, subject
            at = _element(der, at)[1]
        behind = _element(der, at)[1]
        return der[at:behind] if der[at] == SEQUENCE and behind <= end else None
    except (IndexError, ValueError):
        return None


def _element(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins, and where it ends (X.690 section 8.1).  Raises IndexError, ValueError."""
    length = der[at + 1]
    begin = at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 4:
            raise ValueError("a length of no kind that certificates have")
        length = int.from_bytes(der[begin : begin + octets])
        begin += octets
    if begin + length > len(der):
        raise ValueError("an element that is cut off")
    return begin, begin + length


def names_of(leaf: x509.Certificate) -> list[str]:
    """The DNS names of a certificate, in lower case; its common names where it has none (RFC 7672 section 3.2.2)."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    except UNREADABLE:
        return []
    try:
        common = [] if names else [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except UNREADABLE:
        common = []
    return [name.lower().removesuffix(".") for name in names or common]


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate stands for this name: ``*.`` stands for one label (RFC 6125 section 6.4.3)."""
    name = name.lower().removesuffix(".")
    if pattern.startswith("*."):
        label, _, rest = name.partition(".")
        return bool(label) and rest == pattern[2:] and "." in rest
    return bool(name) and pattern == name


def is_signed_by(certificate: x509.Certificate, key: Any) -> bool:
    """Whether the key has signed the certificate."""
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        parameters: Any = certificate.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey):
            hashed: Any = certificate.signature_hash_algorithm
            key.verify(signature, signed, parameters, hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, parameters)
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, TypeError, *UNREADABLE):  # a signature of another kind of key
        return False
    return True


def verified_depth(
    anchor: x509.Certificate, leaf: x509.Certificate, others: Sequence[x509.Certificate], now: float
) -> int:
    """How far `anchor` is above `leaf`, where the chain between them is valid for a server at `now` (Unix time).

    OpenSSL finds the way through `others` and judges it.  Raises `BrokenChain`.
    """
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # the anchor need not be a root
    store.set_time(datetime.fromtimestamp(now, UTC))
    try:
        store.add_cert(crypto.X509.from_cryptography(anchor))
        untrusted = [crypto.X509.from_cryptography(one) for one in others]
        context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), untrusted)
        depth = len(context.get_verified_chain()) - 1
    except crypto.X509StoreContextError as error:
        of_time = bool(error.errors) and error.errors[0] in TIME_ERRORS
        raise BrokenChain(f"the chain is not valid: {error}", is_a_matter_of_time=of_time) from None
    except crypto.Error:
        raise BrokenChain("the chain makes no sense") from None
    if not _is_for_servers(leaf):
        raise BrokenChain("the certificate is not for servers (its extended key usage)")
    return depth


def _is_for_servers(leaf: x509.Certificate) -> bool:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except UNREADABLE:
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
