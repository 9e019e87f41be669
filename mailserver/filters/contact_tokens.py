"""One-time reply addresses: ``decide+TOKEN@domain``, where the last character of the token is what is decided.

A token belongs to one user and one sender, ends, and is used once, whatever is decided with it.  The records have its digest: who
reads them cannot decide anything.
"""

from __future__ import annotations

import base64
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

from twisted.internet.defer import Deferred

from mailserver.api import Address, Clock, IRecords
from mailserver.filters.contact_decisions import Choice
from mailserver.filters.contact_records import decoded, encoded, read_subject_of_contact, read_user
from mailserver.plugins.awaiting import all_of

__all__ = ["DECIDE", "LETTERS", "DecideAddress", "Token", "Tokens", "claim_of", "reply_address"]

DECIDE = "decide"
SEPARATOR = "+"
TOKEN_OCTETS = 15  # 24 characters
FORM = re.compile(r"decide\+([a-z2-7]{24})([a-z])")
LETTERS: Mapping[str, Choice] = MappingProxyType(
    {"a": "accept", "d": "accept", "o": "once", "r": "refuse", "n": "refuse-once"}
)  # "d": the sender's whole domain
WHOLE_DOMAIN = "d"
KEPT_SECONDS = 86_400.0  # behind its end: who comes too late hears so
PAGE = 1000


@dataclass(frozen=True, slots=True)
class DecideAddress:
    """What stands in an address: the token, and the letter that says what is decided."""

    secret: str
    letter: str

    @property
    def choice(self) -> Choice:
        """What is decided."""
        return LETTERS[self.letter]

    def subject(self, token: Token) -> str:
        """About whom."""
        return f"domain:{token.sender.rpartition('@')[2]}" if self.letter == WHOLE_DOMAIN else token.sender


@dataclass(frozen=True, slots=True)
class Token:
    """`user` may decide about `sender` until `until` (seconds since the epoch).  `used_by` is the id of the message that has used
    it, "" before, and `used_at` when that was."""

    user: str
    sender: str
    until: float
    used_by: str = ""
    used_at: float = 0.0

    def octets(self) -> bytes:
        """The record's value."""
        kept = {"user": self.user, "sender": self.sender, "until": self.until}
        return encoded(kept | ({"used_by": self.used_by, "used_at": self.used_at} if self.used_by else {}))


def claim_of(address: Address) -> DecideAddress | None:
    """What stands in it; None where that can be no token."""
    found = FORM.fullmatch(address.local.lower())
    return DecideAddress(found[1], found[2]) if found and found[2] in LETTERS else None


def reply_address(secret: str, letter: str, domain: str) -> str:
    """The address that decides so."""
    return f"{DECIDE}{SEPARATOR}{secret}{letter}@{domain}"


class Tokens:
    """In the records.  Raises what `IRecords` raises."""

    def __init__(self, records: IRecords, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def make(self, user: str, ends: Mapping[str, float]) -> dict[str, str]:
        """New ones for these senders, each with its end: their secret parts."""
        made = {sender: base64.b32encode(secrets.token_bytes(TOKEN_OCTETS)).decode().lower() for sender in ends}
        kept = [self._keep(secret, Token(user, sender, ends[sender])) for sender, secret in made.items()]
        await all_of([Deferred.fromCoroutine(one) for one in kept])  # they share a sync
        return made

    async def _keep(self, secret: str, token: Token) -> None:
        await self._records.put(_key(secret), token.octets())

    async def get(self, secret: str) -> Token | None:
        """None where there is none that could still be used."""
        found = await self._found(secret)
        return None if found is None else found[1]

    async def _found(self, secret: str) -> tuple[bytes, Token] | None:
        value = await self._records.get(_key(secret))
        token = None if value is None else _token(value)
        return (value, token) if value is not None and token is not None and self._clock.seconds() < token.until else None

    async def use(self, secret: str, message: str) -> Token | None:
        """The token, which this message has used; None where another one has, or its time is over.

        The same message may come again, after a crash.
        """
        found = await self._found(secret)
        if found is None:
            return None
        value, token = found
        if token.used_by:
            return token if token.used_by == message else None
        used = Token(token.user, token.sender, token.until, message, self._clock.seconds())
        done = await self._records.compare_and_put(_key(secret), value, used.octets())
        return used if done else None  # somebody was quicker

    async def drop_old(self) -> None:
        """Those that have ended long ago, and what is none."""
        first, now = "token\t", self._clock.seconds()
        while page := await self._records.items(first, "token\n", PAGE):
            for key, value in page:
                token = _token(value)
                if token is None or token.until + KEPT_SECONDS <= now:
                    await self._records.compare_and_put(key, value, None)
            first = page[-1][0] + "\0"


def _key(secret: str) -> str:
    return f"token\t{blake2b(secret.encode(), digest_size=24).hexdigest()}"


def _token(value: bytes) -> Token | None:
    """None where the record is damaged: nobody decides anything with it."""
    try:
        kept = decoded(value)
        user, sender = read_user(kept["user"], ""), read_subject_of_contact(kept["sender"])
        used_by, until, used_at = kept.get("used_by", ""), float(kept["until"]), float(kept.get("used_at", 0.0))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    is_sound = isinstance(used_by, str) and math.isfinite(until) and math.isfinite(used_at)
    return Token(user, sender, until, used_by, used_at) if is_sound else None
