"""How much of a mail address the log and the roads keep."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from mailserver.observe.lines import as_text

__all__ = ["Redaction"]

# A quoted or a plain local part, then a domain or a literal, wherever it stands in a text such as a peer's reply.  A plain one is
# looked for only where a word begins and without a way back, and the rest has bounds: the time stays linear in the text's length.
WORD = r'[^\s<>()\[\]",:;@\\]'
ADDRESS = re.compile(rf'("(?:[^"\\]|\\.){{0,128}}+"|(?<!{WORD}){WORD}++)@([\w.\-]+|\[[^\]\s]{{1,255}}\])')
ACCOUNTS = frozenset({"account", "login", "mailbox", "user", "username"})  # a name with or without a domain, or anything at all


class Redaction:
    """Makes addresses unreadable in every text field of a step.

    `domain` keeps ``*@example.org``; `hash` puts one word in the place of each address, the same for the same address until the
    server's next start (the key is made then and kept nowhere); `none` keeps ``*``.
    """

    def __init__(self, addresses: Literal["full", "domain", "hash", "none"]) -> None:
        self.is_full = addresses == "full"
        self._addresses = addresses
        self._key = secrets.token_bytes(32)

    def fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields with their addresses redacted."""
        if self.is_full:
            return fields
        return {
            name: self._account(value) if name in ACCOUNTS else self._value(value) for name, value in fields.items()
        }

    def text(self, text: str) -> str:
        """A text with its addresses redacted."""
        return text if self.is_full or "@" not in text else ADDRESS.sub(self._replacement, text)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        return value if isinstance(value, bool | int | float | None) else self.text(as_text(value))

    def _account(self, value: Any) -> Any:
        if not isinstance(value, str) or not value:
            return self._value(value)
        address = ADDRESS.fullmatch(value)
        if address is not None:
            return self._replacement(address)
        return self._word(value.lower()) if self._addresses == "hash" else "*"

    def _replacement(self, match: re.Match[str]) -> str:
        if self._addresses == "domain":
            return "*@" + match[2]
        return self._word(match[0].lower()) if self._addresses == "hash" else "*"

    def _word(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=6)
        return "#" + digest.hexdigest()
