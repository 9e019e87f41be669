"""One message on its way from another mail store into a Maildir of ours."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Keys", "MailItem", "MailFault", "CannotRead"]


@dataclass(frozen=True, slots=True)
class MailItem:
    """`key` is what it is known by in a second run.  `flags` are Maildir's letters, `keywords` IMAP's words (``$Forwarded``).

    `seconds` since the epoch is when it was received (INTERNALDATE of RFC 9051); `is_new` that no mail program has seen it.
    `octets()` gives its content in pieces, anew with each call; it raises `CannotRead`.  `where` is its place, for people.
    """

    key: str
    folder: tuple[str, ...]
    seconds: float
    flags: str
    keywords: tuple[str, ...]
    is_new: bool
    octets: Callable[[], Iterator[bytes]]
    where: str


@dataclass(frozen=True, slots=True)
class MailFault:
    """What could not be read, or not as it was: the place, and why."""

    where: str
    why: str


class CannotRead(Exception):
    """The content of a message cannot be read.  The message says why."""


class Keys:
    """Gives each message of a run its key: what it is told, and how many times that was told before."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._seen: Counter[str] = Counter()

    def key(self, *parts: str) -> str:
        """32 hexadecimal digits."""
        text = "\0".join((self._kind, *parts))
        self._seen[text] += 1
        return hashlib.sha256(f"{text}\0{self._seen[text]}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
