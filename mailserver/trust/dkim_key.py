"""Keys of DKIM: a public one as it stands in the DNS (RFC 6376 section 3.6.1; RFC 8301, RFC 8463), and a private one."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["PrivateKey", "PublicKey", "is_shown", "parse_key", "read_private_key"]

RSA_BITS_LEAST = 1024  # RFC 8301 section 3.2: shorter keys must not be accepted
RSA_BITS_MOST = 8192  # what a longer one costs is the verifier's
EXPONENT_BITS_MOST = 64  # everybody's is 65537; one as long as the key makes each look at a signature a hundred times as dear
RSA_BITS = 2048
PREHASHED = Prehashed(SHA256())
PKCS1 = padding.PKCS1v15()
REMEMBERED = 1000  # keys, of those who send much: they come with each message
REMEMBERED_OCTETS = 2048  # a longer one is read anew each time


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key record.  `testing` is t=y: the domain only tries (section 3.6.1); `strict` t=s: i= and d= have to be the same."""

    kind: str
    key: RSAPublicKey | Ed25519PublicKey
    testing: bool = False
    strict: bool = False

    @property
    def bits(self) -> int:
        """The length of an RSA key, 256 for Ed25519."""
        return self.key.key_size if isinstance(self.key, RSAPublicKey) else 256

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether this is the signature of the header whose SHA-256 is `digest`."""
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, PKCS1, PREHASHED)
            else:
                self.key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


def parse_key(text: str) -> PublicKey:
    """A TXT record.  Raises `TagFault`, whose words say why no signature can be verified with it."""
    return _remembered_key(text) if len(text) <= REMEMBERED_OCTETS else _key_of(text)


@functools.lru_cache(REMEMBERED)
def _remembered_key(text: str) -> PublicKey:
    return _key_of(text)


def _key_of(text: str) -> PublicKey:
    tags = parse_tags(text)
    if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):
        raise TagFault("the key record is of another version")
    if "p" not in tags:
        raise TagFault("the key record has no key")
    hashes = [word.strip().lower() for word in tags.get("h", "sha256").split(":")]
    if "sha256" not in hashes:
        raise TagFault("the key is not for SHA-256")
    services = [word.strip().lower() for word in tags.get("s", "*").split(":")]
    if "*" not in services and "email" not in services:
        raise TagFault("the key is not for mail")
    flags = [word.strip().lower() for word in tags.get("t", "").split(":")]
    kind = tags.get("k", "rsa").lower()
    return PublicKey(kind, _public_key(kind, tags["p"]), "y" in flags, "s" in flags)


def _public_key(kind: str, text: str) -> RSAPublicKey | Ed25519PublicKey:
    try:
        octets = binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, ValueError):
        raise TagFault("the key is not base64") from None
    if not octets:
        raise TagFault("the key has been revoked")
    try:
        if kind == "ed25519":
            return Ed25519PublicKey.from_public_bytes(octets)
        found = serialization.load_der_public_key(octets)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TagFault("the key cannot be read") from None
    if kind != "rsa" or not isinstance(found, RSAPublicKey):
        raise TagFault("the key is of another kind than its record says")
    if not RSA_BITS_LEAST <= found.key_size <= RSA_BITS_MOST:
        raise TagFault(f"the key has {found.key_size} bits")
    if found.public_numbers().e.bit_length() > EXPONENT_BITS_MOST:
        raise TagFault(f"the exponent of the key has more than {EXPONENT_BITS_MOST} bits")
    return found


def is_shown(record: str, texts: Iterable[bytes]) -> bool:
    """Whether one of the TXT records has the key of `record`, however it is written.  Never raises."""
    wanted = _key_text(record)
    return any(_key_text(text.decode("ascii", "replace")) == wanted for text in texts)


def _key_text(record: str) -> str:
    try:
        return "".join(parse_tags(record).get("p", "").split())
    except TagFault:
        return ""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key to sign with.  Its `repr` shows nothing of it."""

    key: RSAPrivateKey | Ed25519PrivateKey

    @classmethod
    def generate(cls, kind: str) -> PrivateKey:
        """A new one, "rsa" (2048 bits, some tenths of a second) or "ed25519".  Raises ValueError."""
        if kind == "ed25519":
            return cls(Ed25519PrivateKey.generate())
        if kind != "rsa":
            raise ValueError(f"no kind of key: {kind!r}")
        return cls(generate_private_key(65537, RSA_BITS))

    @property
    def kind(self) -> str:
        """What k= says."""
        return "rsa" if isinstance(self.key, RSAPrivateKey) else "ed25519"

    @property
    def algorithm(self) -> str:
        """What a= says."""
        return f"{self.kind}-sha256"

    @property
    def record(self) -> str:
        """The TXT record of the public key."""
        public = self.key.public_key()
        if isinstance(public, RSAPublicKey):
            octets = public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        else:
            octets = public.public_bytes_raw()
        return f"v=DKIM1; k={self.kind}; p={base64.b64encode(octets).decode()}"

    @property
    def pem(self) -> bytes:
        """To be kept: PKCS #8, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def fingerprint(self) -> str:
        """A short name of the key for people, from its public half."""
        return hashlib.sha256(self.record.encode()).hexdigest()[:16]

    def sign(self, digest: bytes) -> bytes:
        """Sign the SHA-256 of a header.  An RSA key takes half a millisecond, in which other threads run."""
        if isinstance(self.key, RSAPrivateKey):
            return self.key.sign(digest, padding.PKCS1v15(), PREHASHED)
        return self.key.sign(digest)

    def __repr__(self) -> str:
        return f"<PrivateKey {self.kind} {self.fingerprint}>"


def read_private_key(pem: bytes) -> PrivateKey:
    """A key that was kept, ours or another program's (PKCS #1 and #8).  Raises ValueError."""
    try:
        # Whether its factors are primes would take a tenth of a second, for each of the keys of a thousand domains.  No stranger
        # has written the file; whether it is damaged shows below.
        found = serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the key cannot be read: {error}") from error
    if isinstance(found, RSAPrivateKey):
        if not RSA_BITS_LEAST <= found.key_size <= RSA_BITS_MOST:
            raise ValueError(f"an RSA key of {found.key_size} bits is not to be used")
        if not _is_sound(found):
            raise ValueError("the key is damaged: its two halves do not belong together")
        return PrivateKey(found)
    if isinstance(found, Ed25519PrivateKey):
        return PrivateKey(found)
    raise ValueError("the key is neither RSA nor Ed25519")


def _is_sound(key: RSAPrivateKey) -> bool:
    """Whether what it signs verifies: a millisecond."""
    digest = hashlib.sha256(b"").digest()
    try:
        signature = key.sign(digest, padding.PKCS1v15(), PREHASHED)
        key.public_key().verify(signature, digest, padding.PKCS1v15(), PREHASHED)
    except Exception:  # noqa: BLE001  a library that is given nonsense says so in many ways
        return False
    return True
