"""Chains of certificates for tests, with keys of any kind: a root, authorities below it, and a host's own."""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailserver.mail.dns_records import TLSA

__all__ = ["KINDS", "NOW", "Link", "chain_of", "new_key", "self_signed", "tlsa"]

DAY = datetime.timedelta(days=1)
NOW = 1_800_000_000.0
KINDS = ("ecdsa", "ed25519", "rsa")


@dataclass
class Link:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def pem(self) -> bytes:
        """The certificate and the key."""
        return self.certificate.public_bytes(serialization.Encoding.PEM) + self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@functools.cache
def new_key(kind: str, number: int = 0) -> Any:
    """A key; the same for the same number, since keys of RSA take long to make."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def _signed(
    subject: str,
    key: Any,
    issuer: Link | None,
    *,
    authority: bool,
    names: Sequence[str] = (),
    days: tuple[int, int] = (-1, 90),
    client_only: bool = False,
    now: float = NOW,
) -> Link:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment + days[0] * DAY)
        .not_valid_after(moment + days[1] * DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    if client_only:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Link(builder.sign(signer, algorithm), key)


def chain_of(
    kinds: Sequence[str] = ("ecdsa", "ecdsa", "ecdsa"),
    names: Sequence[str] = ("mx.example.org",),
    *,
    subject: str = "host",
    leaf_days: tuple[int, int] = (-1, 90),
    authority_days: tuple[int, int] = (-400, 400),
    authority: bool = True,
    client_only: bool = False,
    now: float = NOW,
) -> list[Link]:
    """A chain, the host's own certificate first, one certificate for each of `kinds` (of keys).  Days count from `now`."""
    links: list[Link] = []
    issuer: Link | None = None
    for number, kind in reversed(list(enumerate(kinds))):
        key = new_key(kind, number)
        if number:
            issuer = _signed(f"authority {number}", key, issuer, authority=authority, days=authority_days, now=now)
        else:
            issuer = _signed(
                subject, key, issuer, authority=False, names=names, days=leaf_days, client_only=client_only, now=now
            )
        links.insert(0, issuer)
    return links


def self_signed(kind: str = "ecdsa", names: Sequence[str] = ("elsewhere.example",), *, now: float = NOW) -> Link:
    """A certificate that nobody vouches for."""
    return chain_of((kind,), names, now=now)[0]


def tlsa(link: Link, usage: int, selector: int, matching_type: int) -> TLSA:
    """The record that stands for a certificate."""
    octets = link.public_key if selector else link.der
    digest = {0: lambda data: data, 1: lambda data: hashlib.sha256(data).digest(), 2: lambda data: hashlib.sha512(data).digest()}
    return TLSA(usage, selector, matching_type, digest[matching_type](octets))
