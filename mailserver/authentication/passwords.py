"""Password hashes: made, compared, renewed.

New passwords are hashed with Argon2id: 19 MiB, two passes and one lane, as OWASP recommends; about 20 ms.  Older hashes from
other servers are understood.  Making and comparing a hash blocks.
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["PASSWORD_OCTETS", "PasswordError", "hash_password", "is_comparable", "is_hash", "needs_update", "verify_password"]

PASSWORD_OCTETS = 1024
ARGON2_KIBIBYTES = 19 * 1024
SCHEMES = (
    *("argon2", "bcrypt_sha256", "bcrypt", "scrypt", "pbkdf2_sha256", "sha512_crypt", "sha256_crypt"),
    *("ldap_pbkdf2_sha256", "ldap_sha512_crypt", "ldap_sha256_crypt", "ldap_bcrypt"),  # {CRYPT}$6$…, as directories have them
    *("ldap_salted_sha512", "ldap_salted_sha256", "ldap_salted_sha1"),  # {SSHA…}
)


class PasswordError(ValueError):
    """The text is an invalid password; the message says why."""


def hash_password(password: str) -> str:
    """The hash of a password, to be kept.  Blocks.  Raises `PasswordError`."""
    return str(_context().hash(_normal(password)))


def verify_password(password: str, hash: str) -> bool:
    """Whether the password matches the hash.  False for an invalid password or an unknown hash.  Blocks."""
    try:
        return bool(_context().verify(_normal(password), hash))
    except (ValueError, TypeError):  # an unknown hash, or a password that the scheme refuses (bcrypt: 72 octets)
        return False


def needs_update(hash: str) -> bool:
    """Whether the hash is outdated, so that the password should be hashed anew."""
    try:
        return bool(_context().needs_update(hash))
    except (ValueError, TypeError):
        return False


def is_comparable(hash: str) -> bool:
    """Whether passwords can be compared with the hash: its scheme is known, and it is one of that scheme's.  Does not hash."""
    from passlib.registry import get_crypt_handler

    scheme = _context().identify(hash)
    if scheme is None:
        return False
    handler = get_crypt_handler(scheme)
    try:
        return not hasattr(handler, "from_string") or handler.from_string(hash).checksum is not None
    except (ValueError, TypeError):
        return False


def is_hash(text: str) -> bool:
    """Whether the text looks like a hash rather than a typed password.  Does not block; it does not check the scheme."""
    return text.startswith(("$", "{")) and len(text) >= 13


def _normal(password: str) -> str:
    """The OpaqueString profile of RFC 8265 section 4.2: the same password from every keyboard."""
    if len(password.encode("utf-8", "surrogatepass")) > PASSWORD_OCTETS:
        raise PasswordError(f"a password has at most {PASSWORD_OCTETS} octets")
    if not password:
        raise PasswordError("a password is not empty")
    if password.isascii() and password.isprintable():
        return password
    from precis_i18n import get_profile

    try:
        return str(get_profile("OpaqueString").enforce(password))
    except UnicodeError:
        raise PasswordError("the password holds a control character or one that no password may hold") from None


@functools.cache
def _context() -> Any:
    from passlib.context import CryptContext  # takes 50 ms, which a server without logins need not spend

    return CryptContext(
        schemes=SCHEMES,
        deprecated="auto",  # all but the first
        argon2__type="ID",
        argon2__memory_cost=ARGON2_KIBIBYTES,
        argon2__time_cost=2,
        argon2__parallelism=1,
    )
