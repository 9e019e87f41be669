"""A key of this installation that nobody chooses, as a file in the folder of keys.  All functions block."""

from __future__ import annotations

import os
import re
import secrets

from mailserver.mail.durable import locked_directory, make_directory, replace_file

__all__ = ["KEY_OCTETS", "NoKey", "secret_key"]

KEY_OCTETS = 32
HEXADECIMAL = re.compile(r"[0-9a-f]{64}\n?")


class NoKey(OSError):
    """The file is there and holds no key."""


def secret_key(keys_directory: str, name: str, *, makes: bool = True) -> bytes:
    """The key in the file of this name: 64 hexadecimal digits, mode 0400.  One that is missing is made, with `makes`.

    Raises OSError, `NoKey` among it.
    """
    path = os.path.join(keys_directory, name)
    if makes and not os.path.exists(path):
        make_directory(keys_directory)
        with locked_directory(keys_directory, "the keys"):
            if not os.path.exists(path):
                replace_file(path, secrets.token_hex(KEY_OCTETS) + "\n", lambda fd: os.fchmod(fd, 0o400))
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read(100)
    if HEXADECIMAL.fullmatch(text) is None:
        raise NoKey(f"{path} holds no key: 64 hexadecimal digits are one")
    return bytes.fromhex(text)
