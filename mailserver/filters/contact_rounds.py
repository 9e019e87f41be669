"""What is done about held mail from time to time: orders are carried out, old mail goes to Junk, users are told what waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
HELD_OF_ONE_MOST = 1_000  # of one user: beyond that nobody decides, and the oldest go to Junk
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
        surplus: list[HeldMail] = []
        for waiting in by_user.values():
            surplus += waiting[:-HELD_OF_ONE_MOST]
            del waiting[:-HELD_OF_ONE_MOST]
        for held, by in (
            (suspect, "nobody is asked about what others put aside"),
            (old, "nobody has decided in time"),
            (surplus, f"more than {HELD_OF_ONE_MOST} messages wait for a decision"),
        ):
            await self._give_up(held, by)
        if self._digest_seconds:
            for user, waiting in by_user.items():
                await self._tell(user, waiting)

    async def _give_up(self, held: Sequence[HeldMail], by: str) -> None:
        for start in range(0, len(held), JUNK_AT_ONCE):
            try:
                await self._decisions.give_up(held[start : start + JUNK_AT_ONCE], by)
            except StorageFault as fault:  # it is there the next time
                self.log.error("held mail waits for the queue: {fault}", fault=fault)

    async def _tell(self, user: str, held: Sequence[HeldMail]) -> None:
        """One user's trouble keeps no other from being told."""
        try:
            told = await self._told(user)
            shown = told.of(waiting_senders(held), self._book.now, self._digest_seconds)
            if not shown:
                return
            try:
                await self._send_digest(user, waiting_senders(held), shown)
            except ValueError as error:
                self.log.warn("nobody can be told of the held mail of {user}: {error}", user=user, error=str(error))
            await self._records.put(_key(user), encoded({"told": self._book.now, "turn": told.turn + len(shown)}))
        except (StorageFault, CannotTell) as error:
            self.log.warn("{user} cannot be told of held mail yet: {error}", user=user, error=str(error))

    async def _told(self, user: str) -> DigestTurn:
        value = await self._records.get(_key(user))
        try:
            kept = {} if value is None else decoded(value)
            told, turn = float(kept.get("told", 0.0)), int(kept.get("turn", 0))
        except (ValueError, TypeError, OverflowError):
            told, turn = 0.0, 0
        return DigestTurn(told if told <= self._book.now else 0.0, turn)  # else the clock was ahead

    async def _send_digest(self, user: str, waiting: Sequence[WaitingSender], shown: Sequence[WaitingSender]) -> None:
        ends = {one.sender: one.newest.since + self._junk_seconds for one in shown}
        secrets = await self._tokens.make(user, ends)
        message = digest_message(user, waiting, secrets, hostname=self._hostname, junk_seconds=self._junk_seconds)
        await self._send(message, sender=None, recipients=[Address.parse(user, utf8=True)])


@dataclass(frozen=True, slots=True)
class DigestTurn:
    """When a user was told last (seconds since the epoch), and how many senders he has been told of."""

    at: float
    turn: int

    def of(self, waiting: Sequence[WaitingSender], now: float, seconds: float) -> Sequence[WaitingSender]:
        """Of whom he is told now: those with something new, then others in turn where there are more than one message holds."""
        new = [one for one in waiting if one.newest.since > self.at]
        if self.at + seconds > now or not (new or len(waiting) > SENDERS_MOST):
            return ()
        others = [one for one in waiting if one.newest.since <= self.at]
        start = self.turn % len(others) if others else 0
        return [*new, *others[start:], *others[:start]][:SENDERS_MOST]


def _key(user: str) -> str:
    return f"digest\t{user}"
