"""Passwords that can be read again, for CRAM-MD5: encrypted with a key that stands in the data directory (AES-256-GCM).

Who has the accounts file alone cannot read them; who has the server's data, too, can.  So they are kept only where the
administrator has said so.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_FILE", "Unsealable", "read_key", "seal", "unseal"]

KEY_FILE = "accounts.key"
KEY_OCTETS, NONCE_OCTETS = 32, 12
MARK = "{AES-GCM}"


class Unsealable(ValueError):
    """The text was not sealed with this key, for this account."""


def read_key(directory: str, *, make: bool) -> bytes:
    """The key in the data directory; made, for the directory's owner alone, where `make` says so.  Blocks.  Raises OSError."""
    path = os.path.join(directory, KEY_FILE)
    if make and not os.path.exists(path):
        owner = os.stat(directory)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(secrets.token_bytes(KEY_OCTETS))
            file.flush()
            os.fsync(fd)
    with open(path, "rb") as file:
        key = file.read(KEY_OCTETS + 1)
    if len(key) != KEY_OCTETS:
        raise OSError(errno.EINVAL, f"holds no key of {KEY_OCTETS} octets", path)
    return key


def seal(secret: str, account: str, key: bytes) -> str:
    """Text for the accounts file; it can be opened for the same account only."""
    nonce = secrets.token_bytes(NONCE_OCTETS)
    sealed = AESGCM(key).encrypt(nonce, secret.encode("utf-8"), account.encode("utf-8"))
    return MARK + base64.b64encode(nonce + sealed).decode("ascii")


def unseal(text: str, account: str, key: bytes) -> bytes:
    """The secret in UTF-8.  Raises `Unsealable`."""
    try:
        octets = base64.b64decode(text.removeprefix(MARK), validate=True)
        return AESGCM(key).decrypt(octets[:NONCE_OCTETS], octets[NONCE_OCTETS:], account.encode("utf-8"))
    except (ValueError, binascii.Error, InvalidTag):
        raise Unsealable(f"the readable password of {account} does not go with {KEY_FILE}") from None
