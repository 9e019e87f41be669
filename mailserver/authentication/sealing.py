"""Passwords that can be read again, for CRAM-MD5: encrypted (AES-256-GCM) with a key in the folder of keys.

The accounts file alone is not enough to read them; with the server's keys it is.  So they are kept only where the administrator
has configured it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import fcntl
import os
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mailserver.mail.durable import sync_directory

__all__ = ["KEY_FILE", "KeyPlace", "Unsealable", "make_folder", "read_key", "seal", "unseal"]

KEY_FILE = "accounts.key"
KEY_OCTETS, NONCE_OCTETS = 32, 12
MARK = "{AES-GCM}"


class Unsealable(ValueError):
    """The text was not sealed with this key, for this account."""


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where the key lies: in the folder of keys, or in the data folder, where former versions put it."""

    folder: str
    data: str

    @property
    def path(self) -> str:
        """The file that is read."""
        new, old = os.path.join(self.folder, KEY_FILE), os.path.join(self.data, KEY_FILE)
        return old if not os.path.exists(new) and _octets(old) else new


def make_folder(place: KeyPlace, uid: int = -1, gid: int = -1) -> None:
    """Make the folder of keys, where it is missing and needed, readable only by the user `uid`.  Raises OSError."""
    if os.path.dirname(place.path) != place.folder:
        return
    try:
        os.mkdir(place.folder, 0o700)
    except FileExistsError:
        return
    folder = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.geteuid() == 0 and os.fstat(folder).st_uid == 0:  # no other user has replaced it
            os.fchown(folder, uid, gid)
    finally:
        os.close(folder)
    sync_directory(os.path.dirname(place.folder))


def read_key(place: KeyPlace, *, make: bool) -> bytes:
    """The key.  With `make` a missing key is made, readable only by the folder's owner.  Blocks.  Raises OSError.

    An empty file counts as missing.  Former versions left one after a crash, before anything was sealed with it.
    """
    path = place.path
    if make and not _octets(path):
        make_folder(place)
        _make_key(path)
    with open(path, "rb") as file:
        key = file.read(KEY_OCTETS + 1)
    if len(key) != KEY_OCTETS:
        raise OSError(errno.EINVAL, f"holds no key of {KEY_OCTETS} octets", path)
    return key


def _make_key(path: str) -> None:
    """Make the key, atomically.  All who make it at the same time get the same one."""
    directory = os.path.dirname(path)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if _octets(path):
            return
        draft = f"{path}.new"  # only the holder of the lock uses it
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400)
        with open(fd, "wb") as file:
            owner = os.fstat(folder)
            if os.geteuid() == 0:
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(secrets.token_bytes(KEY_OCTETS))
            file.flush()
            os.fsync(fd)
        os.rename(draft, path)
        os.fsync(folder)
    finally:
        os.close(folder)


def _octets(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def seal(secret: str, account: str, key: bytes) -> str:
    """The sealed secret as text for the accounts file.  It can be unsealed for the same account only."""
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
