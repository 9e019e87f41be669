"""The tokens of a log-in as a file in the folder of keys: sealed, 0400, replaced as a whole.  All functions block."""

from __future__ import annotations

import hashlib
import os

from mailserver.authentication.sealing import Unsealable, seal, unseal
from mailserver.mail.durable import locked_directory, make_directory, replace_file
from mailserver.relay.token_answers import IssuedTokens, tokens_from
from mailserver.trust.secret_key import secret_key

__all__ = ["TOKEN_FILE", "OtherTokens", "TokenFile"]

TOKEN_FILE = "smarthost.token"  # noqa: S105
KEY_FILE = "tokens.key"
OCTETS_MOST = 262_144


class OtherTokens(ValueError):
    """What is in the file belongs to another log-in, or to another key."""


class TokenFile:
    """In the folder of keys.  `whose` names the log-in: issuer, client, user; the file can be opened for the same one only.

    With `is_of_route` it has a name of its own beside that of `[relay]`.
    """

    def __init__(self, keys_directory: str, whose: tuple[str, str, str], *, is_of_route: bool = False) -> None:
        self._whose = "\0".join(("tokens", *whose))
        mark = hashlib.sha256(self._whose.encode()).hexdigest()[:16]
        self.path = os.path.join(keys_directory, f"smarthost-{mark}.token" if is_of_route else TOKEN_FILE)
        self._keys_directory = keys_directory

    def changes(self) -> object:
        """Something that differs after a change; None where there is no file.  Raises OSError."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def sealed(self) -> str:
        """The file as it is, "" where there is none.  Raises OSError."""
        try:
            with open(self.path, encoding="ascii", errors="replace") as file:
                return file.read(OCTETS_MOST)
        except FileNotFoundError:
            return ""

    def opened(self, sealed: str) -> IssuedTokens | None:
        """What is in it, None for "".  Raises OSError where the key cannot be read, `OtherTokens` where it is not ours."""
        if not sealed:
            return None
        try:
            key = secret_key(self._keys_directory, KEY_FILE, makes=False)
        except FileNotFoundError:
            raise OtherTokens(f"{self.path} is there, and its key {KEY_FILE} is not") from None
        try:
            return tokens_from(unseal(sealed, self._whose, key).decode("utf-8"))
        except Unsealable:
            raise OtherTokens(f"{self.path} is of another log-in, or another key") from None
        except ValueError:
            raise OtherTokens(f"{self.path} holds no tokens") from None

    def read(self) -> tuple[str, IssuedTokens | None]:
        """Both.  Raises what they raise."""
        sealed = self.sealed()
        return sealed, self.opened(sealed)

    def write(self, tokens: IssuedTokens, instead_of: str | None = None) -> str | None:
        """Put them in; the file as it is then.  None where it is not `instead_of` any more: somebody has logged in meanwhile.

        Whatever stops this, the old file or the new one is there, and whole.  Raises OSError.
        """
        make_directory(self._keys_directory)
        sealed = seal(tokens.as_text(), self._whose, secret_key(self._keys_directory, KEY_FILE))
        with locked_directory(self._keys_directory, "the keys"):
            if instead_of is not None and self.sealed() != instead_of:
                return None
            replace_file(self.path, sealed, lambda fd: os.fchmod(fd, 0o400))
        return sealed
