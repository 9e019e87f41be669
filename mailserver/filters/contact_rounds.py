"""What is done about held mail from time to time: orders are carried out, old mail goes to Junk, users are told what waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger

from mailserver.api import Address, CannotTell, IRecords, StorageFault
from mailserver.filters.contact_book import ContactBook
from mailserver.filters.contact_decisions import Decisions, HeldMail
from mailserver.filters.contact_digest import SENDERS_MOST, WaitingSender, digest_message, waiting_senders
from mailserver.filters.contact_records import decoded, encoded
from mailserver.filters.contact_tokens import Tokens

__all__ = ["Rounds"]

LOOK_SECONDS = 600.0  # between two looks at all that is held
JUNK_AT_ONCE = 200
HELD_MOST = 100_000  # that are looked at


class Rounds:
    """`send` is `Services.send`, None where there is no server; `digest_seconds` 0: nobody is told."""

    log = Logger()

    def __init__(
        self,
        book: ContactBook,
        decisions: Decisions,
        tokens: Tokens,
        *,
        records: IRecords,
        send: Any,
        hostname: str,
        junk_seconds: float,
        digest_seconds: float,
    ) -> None:
        self._book = book
        self._decisions = decisions
        self._tokens = tokens
        self._records: Any = records
        self._send = send
        self._hostname = hostname
        self._junk_seconds = junk_seconds
        self._digest_seconds = digest_seconds
        self._next_look = 0.0

    async def go(self) -> None:
        """One round."""
        await self._decisions.carry_out_all()
        now = self._book.now
        if now < self._next_look <= now + LOOK_SECONDS:  # else it is time, or the clock was set
            return
        self._next_look = now + LOOK_SECONDS
        await self._tokens.drop_old()
        by_user: dict[str, list[HeldMail]] = {}
        old: list[HeldMail] = []
        suspect: list[HeldMail] = []
        seen = 0
        async for one in self._decisions.held():
            seen += 1
            if seen > HELD_MOST:
                break
            if one.is_suspect:
                suspect.append(one)
            elif one.since + self._junk_seconds <= now:
                old.append(one)
            else:
                by_user.setdefault(one.user, []).append(one)
        for held, by in ((suspect, "nobody is asked about what others put aside"), (old, "nobody has decided in time")):
            for start in range(0, len(held), JUNK_AT_ONCE):
                await self._decisions.give_up(held[start : start + JUNK_AT_ONCE], by)
        if self._digest_seconds:
            for user, waiting in by_user.items():
                await self._tell(user, waiting)

    async def _tell(self, user: str, held: Sequence[HeldMail]) -> None:
        """One user's trouble keeps no other from being told."""
        try:
            if await self._is_due(user, held):
                await self._digest(user, waiting_senders(held))
        except (StorageFault, CannotTell) as error:
            self.log.warn("{user} cannot be told of held mail yet: {error}", user=user, error=str(error))
        except ValueError as error:
            self.log.warn("nobody can be told of the held mail of {user}: {error}", user=user, error=str(error))
            await self._note(user)

    async def _is_due(self, user: str, held: Sequence[HeldMail]) -> bool:
        """There is something new, and the last one was long enough ago."""
        value = await self._records.get(_key(user))
        try:
            told = 0.0 if value is None else float(decoded(value)["told"])
        except (ValueError, TypeError, KeyError, OverflowError):
            told = 0.0
        now = self._book.now
        if told > now:  # the clock was ahead
            told = 0.0
        return told + self._digest_seconds <= now and any(one.since > told for one in held)

    async def _digest(self, user: str, waiting: Sequence[WaitingSender]) -> None:
        secrets: dict[str, str] = {}
        for one in waiting[:SENDERS_MOST]:
            secrets[one.sender] = await self._tokens.make(user, one.sender, one.newest.since + self._junk_seconds)
        message = digest_message(user, waiting, secrets, hostname=self._hostname, junk_seconds=self._junk_seconds)
        await self._send(message, sender=None, recipients=[Address.parse(user, utf8=True)])
        await self._note(user)

    async def _note(self, user: str) -> None:
        await self._records.put(_key(user), encoded({"told": self._book.now}))


def _key(user: str) -> str:
    return f"digest\t{user}"
