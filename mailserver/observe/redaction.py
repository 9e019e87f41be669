"""How much of a mail address the log and the roads keep.

A user's name is found in more places than addresses: in the path of a Maildir, in a mailbox without a domain, in a reply that
repeats it.  So a name in one field of a step is removed from its other fields, too.  Paths below the mail folders are cut.  Once
a name was seen it is not written as a part of any path.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from mailserver.observe.lines import as_text

__all__ = ["Redaction"]

# A quoted or a plain local part, then a domain or a literal, wherever it stands in a text such as a peer's reply; the at sign
# may be percent-encoded.  A plain one is looked for only where a word begins and without a way back, and the rest has bounds: the
# time stays linear in the text's length.
WORD = r'[^\s<>()\[\]",:;@\\%]'
ADDRESS = re.compile(
    rf'("(?:[^"\\]|\\.){{0,2048}}+"|(?<!{WORD})(?:{WORD}|%(?!40))++)(?:@|%40)([\w.\-]+|\[[^\]\s]{{1,255}}\])', re.IGNORECASE
)
TEXT_CHARACTERS = 16_384  # of one value; a longer one is cut before it is searched
ACCOUNTS = frozenset({"account", "login", "mailbox", "user", "username"})  # a name with or without a domain, or anything at all
ADDRESSES = frozenset({"address", "recipient", "recipients", "sender"})
PLACES = frozenset({"destination"})  # a mailbox and, behind a slash, its folder
MAIL_FOLDERS = ("/home", "/var/mail", "/var/spool/mail")
NAMES_MOST = 20_000
PATH_PART = re.compile(r"(?<=/)[^/\s\"'<>]++")
TOKEN = re.compile(r"[^\s/<>()\[\]\"',:;=@%]++")


class Redaction:
    """Makes addresses unreadable in every text field of a step.

    `domain` keeps ``*@example.org``.  `hash` replaces each address by one word, the same word for the same address until the
    server's next start (the key is random and never stored).  `none` keeps ``*``.  Paths below `mail_folders` are cut.
    """

    def __init__(
        self, addresses: Literal["full", "domain", "hash", "none"], *, mail_folders: Iterable[str] = ()
    ) -> None:
        self.is_full = addresses == "full"
        self._addresses = addresses
        self._key = secrets.token_bytes(32)
        folders = sorted({folder.rstrip("/") for folder in (*MAIL_FOLDERS, *mail_folders)} - {""}, key=len, reverse=True)
        self._below = re.compile("(" + "|".join(map(re.escape, folders)) + r")/[^\s\"'<>]++")
        self._names: OrderedDict[str, None] = OrderedDict()  # names that were seen, in lower case

    def fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields with their addresses redacted."""
        if self.is_full:
            return fields
        names = {name for key, value in fields.items() for name in _names_in(key, value)}
        self._remember(names)
        return {name: self._field(name, value, names) for name, value in fields.items()}

    def event(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """A log event whose values are about to be put into a sentence, with the names in it redacted."""
        if self.is_full:
            return event
        named = {key: value for key, value in event.items() if key in ACCOUNTS or key in ADDRESSES}
        return {**event, **self.fields(named)} if named else event

    def text(self, text: str) -> str:
        """A text with its addresses, and the names in its paths, redacted."""
        return text if self.is_full else self._text(text, frozenset())

    def _field(self, name: str, value: Any, names: set[str]) -> Any:
        if name in ACCOUNTS:
            return self._account(value)
        if name in PLACES and isinstance(value, str) and value:
            return self._account(value.partition("/")[0])
        return self._value(value, names)

    def _value(self, value: Any, names: set[str]) -> Any:
        if isinstance(value, str):
            return self._text(value, names)
        if isinstance(value, list | tuple):
            return [self._value(item, names) for item in value]
        return value if isinstance(value, bool | int | float | None) else self._text(as_text(value), names)

    def _text(self, text: str, names: Iterable[str]) -> str:
        text = text[:TEXT_CHARACTERS]
        if "@" in text or "%40" in text:
            text = ADDRESS.sub(self._replacement, text)
        if "/" in text:
            text = self._below.sub(r"\1/…", text)
            if self._names:
                text = PATH_PART.sub(self._part, text)
        if names:
            text = TOKEN.sub(lambda match: self._replaced(match[0]) if match[0].lower() in names else match[0], text)
        return text

    def _part(self, match: re.Match[str]) -> str:
        return self._replaced(match[0]) if match[0].lower() in self._names else match[0]

    def _account(self, value: Any) -> Any:
        if not isinstance(value, str) or not value:
            return self._value(value, set())
        address = ADDRESS.fullmatch(value)
        return self._replaced(value) if address is None else self._replacement(address)

    def _replacement(self, match: re.Match[str]) -> str:
        if self._addresses == "domain":
            return "*@" + match[2]
        return self._replaced(match[0].replace("%40", "@"))

    def _replaced(self, text: str) -> str:
        if self._addresses != "hash":
            return "*"
        digest = hashlib.blake2b(text.lower().encode("utf-8", "surrogatepass"), key=self._key, digest_size=6)
        return "#" + digest.hexdigest()

    def _remember(self, names: set[str]) -> None:
        for name in names:
            self._names[name] = None
            self._names.move_to_end(name)
        while len(self._names) > NAMES_MOST:
            self._names.popitem(last=False)


def _names_in(key: str, value: Any) -> Iterable[str]:
    """The user names that a field holds, in lower case: local parts whole and without what follows a plus sign."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _names_in(key, item)
    elif isinstance(value, str) and (key in ACCOUNTS or key in ADDRESSES or key in PLACES):
        local = value.partition("/")[0] if key in PLACES else value
        local = local.rpartition("@")[0] or local
        for name in (local, local.partition("+")[0], local.strip('"')):
            if name:
                yield name.lower()
