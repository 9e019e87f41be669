"""Retry, hold, release, bounce, drop, redirect: what a person does to waiting mail while the queue works, and while none runs.

A page of entries is looked through at a time.  Those that are meant are claimed: taken out of the active queues, so that
nothing delivers them meanwhile.  What is being delivered cannot be claimed and is left as it is.  Then the change is one
transaction of the store, and the entries are given back.

Why each step stands where it does (`Orders.carry_out`, `Runner.claim`):

* The claim comes before the decision.  Otherwise a delivery could begin between the look at the store and the change, and a
  message that was reported as held would be delivered.
* What is decided is read again, under the claim.  The page was looked through before it: meanwhile an attempt may have been
  written.
* Before the entries are given back, one empty question goes through the reader.  Reads are answered one after the other, so every
  read that began before the change has had its answer then, and was thrown away because of the claim.  Given back before that,
  an entry could be delivered in its old state.
* The same in `_write`, for the recovery: a page that was read before the change counts its entries in `depth`.  Only when that
  page is over does `Recovery.awaits` say whether the recovery will still count an entry.
* `finally` gives back what was claimed, whatever was raised: an entry that stays claimed would not be delivered before the next
  start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.interfaces import Clock
from mailserver.mail.answers import Local, Remote
from mailserver.mail.held_copy import HeldCopy
from mailserver.mail.outcomes import clean_text
from mailserver.queue.admin.changes import STEPS, Change, Verb, change_states, is_open_to, redirect
from mailserver.queue.admin.held import held_copies
from mailserver.queue.admin.selection import Selection
from mailserver.queue.entry import Attempt, EntryState, EntrySummary, Settled, is_id
from mailserver.queue.lock import lock_directory
from mailserver.queue.mark import End, required_files, write_mark
from mailserver.queue.outcome_writer import remove_files
from mailserver.queue.reader import NumberedSummary, SqliteReader, Unreadable
from mailserver.queue.recovery import Recovery
from mailserver.queue.runner import Runner
from mailserver.queue.spool import Spool
from mailserver.queue.store import SqliteStore

__all__ = ["Order", "Page", "StoppedQueue", "Orders", "select"]

PAGE = 500  # entries looked through at once
PAGES = 20  # for one question
REDIRECTED_OCTETS = 8 << 20  # of messages that are read and written again at once

BUSY = "it is being delivered at this moment; nothing was changed, ask again"
GONE = "it has left the queue meanwhile"
DAMAGED = "it is damaged: it can only be dropped, or repaired before the next start"
NOTHING = "there is nothing to {verb} about it"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done: `by` says who asked, `to` and `routes` where a redirected message goes.

    `holders` are the filters whose holds are meant, none for all.
    """

    verb: Verb
    selection: Selection
    by: str
    to: str = ""
    routes: tuple[Local | Remote, ...] = ()
    holders: frozenset[str] = frozenset()

    @property
    def note(self) -> str:
        """What the store keeps with a destination."""
        where = f" to {self.to}" if self.verb is Verb.REDIRECT else ""
        return clean_text(f"{STEPS[self.verb]}{where} by {self.by}")


@dataclass(slots=True)
class Page:
    """What became of the entries that were looked through: `done` are ids with the recipients concerned, `left` ids with the
    reason why nothing was changed.  `next` is where to go on, None at the end.
    """

    done: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    scanned: int = 0
    next: int | None = None


@dataclass(slots=True)
class _Meant:
    """An entry that is meant, with those of its destinations that are."""

    number: int
    entry: EntrySummary
    indexes: tuple[int, ...]

    @property
    def is_damaged(self) -> bool:
        return self.entry.state == EntryState.DAMAGED

    def recipients(self, indexes: Sequence[int]) -> tuple[str, ...]:
        parts = self.entry.destinations
        return tuple(dict.fromkeys(one.recipient for one in parts if one.index in indexes or self.is_damaged))


def select(
    reader: SqliteReader, selection: Selection, *, after: int, limit: int, now: float
) -> tuple[list[EntrySummary], int | None]:
    """Of the next page after the number `after` those that are meant, up to `limit`; and where to go on.  Blocks."""
    rows = _rows(reader, selection, after)
    found: list[EntrySummary] = []
    for number, entry in rows:
        if selection.chosen(entry, now) is not None:
            found.append(entry)
            if len(found) == limit:
                return found, number
    return found, rows[-1].number if len(rows) == PAGE else None


def _rows(reader: SqliteReader, selection: Selection, after: int) -> Sequence[NumberedSummary]:
    low, high = selection.numbers
    page = reader.held_page if selection.held else reader.page
    return page(max(after, low - 1), high, PAGE)


class Orders:
    """The verbs of a queue that runs.  `do` is `CommitWriter.do`; the rest is what the queue itself works with."""

    def __init__(
        self,
        *,
        runner: Runner,
        reader: SqliteReader,
        do: Callable[[Callable[[SqliteStore], Any]], Deferred[Any]],
        spool: Spool,
        clock: Clock,
        note: Callable[..., None],
        count: Callable[[str, int], None],
        recovery: Callable[[], Recovery | None],
        owed: Callable[[list[Attempt]], None],
    ) -> None:
        self._runner = runner
        self._reader = reader
        self._do = do
        self._spool = spool
        self._clock = clock
        self._note = note
        self._count = count
        self._recovery = recovery
        self._owed = owed

    async def select(self, selection: Selection, after: int, limit: int) -> tuple[list[EntrySummary], int | None]:
        """Up to `limit` entries that are meant, and where to go on: even where none was found there may be more.

        A long queue is looked through in several calls, and deliveries read between the pages.  Raises `StorageBroken`.
        """
        now = self._clock.seconds()
        entries: list[EntrySummary] = []
        for _ in range(PAGES):
            question = partial(select, self._reader, selection, after=after, limit=limit - len(entries), now=now)
            found, further = await self._runner.read(question)
            entries += found
            if further is None:
                return entries, None
            after = further
            if len(entries) == limit:
                break
        return entries, after

    async def held(self, selection: Selection, after: str, most: int) -> tuple[list[HeldCopy], str | None]:
        """Up to `most` copies that verdicts hold and that are meant, behind the copy `after`; and behind which to go on."""
        now = self._clock.seconds()
        question = partial(held_copies, self._reader, selection, after=after, most=most, now=now)
        return await self._runner.read(question)  # type: ignore[no-any-return]

    async def carry_out(self, order: Order, *, after: int, dry_run: bool = False) -> Page:
        """Look through a page of entries and do it.  Raises `StorageFault`; nothing of the page has changed then."""
        page: Page
        meant: list[_Meant]
        page, meant = await self._runner.read(_look_through, self._reader, order, after, self._clock.seconds())
        if dry_run or not meant:
            page.done += [(one.entry.id, one.recipients(one.indexes)) for one in meant]
            return page
        claimed = self._runner.claim({one.number for one in meant})
        page.left += [(one.entry.id, BUSY) for one in meant if one.number not in claimed]
        mine = [one for one in meant if one.number in claimed]
        try:
            while mine:
                now = self._clock.seconds()
                part, changes, mine = await self._runner.read(_decide, self._reader, order, mine, now, page)
                await self._write(order, part, changes, page)
        finally:
            with contextlib.suppress(Exception):  # a read that fails is told by whoever needs its answer
                await self._runner.read(lambda: None)  # what was read before the change has been thrown away now
            self._runner.release(claimed)
        return page

    async def _write(self, order: Order, meant: Sequence[_Meant], changes: Sequence[Change], page: Page) -> None:
        spool = self._spool
        found, finished = await self._do(lambda store: _alter(store, spool, meant, changes))
        await self._runner.read(lambda: None)  # a page of the recovery that saw the old state has been counted now
        _tell(order, meant, changes, found, finished, page, self._note)
        recovery = self._recovery()
        for one in meant:
            if one.number in found:
                if recovery is not None and recovery.awaits(one.number) and is_untouched(one.entry):
                    self._count("depth", 1)  # the recovery will not count it any more
                if one.number in finished:
                    self._count("settled", 1)
        times = [attempt.due for change in changes for attempt in change.attempts if attempt.due is not None]
        self._owed([attempt for change in changes for attempt in change.attempts])
        if times:
            self._runner.due.expect(min(times))


class StoppedQueue:
    """The verbs of a queue that no server works on.  Blocks."""

    def __init__(self, data_directory: str) -> None:
        self._store = SqliteStore(os.path.join(data_directory, "queue.db"))
        self._spool = Spool(os.path.join(data_directory, "spool"))
        self._reader = SqliteReader(path=self._store.path, spool=self._spool)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, data_directory: str) -> Iterator[StoppedQueue | None]:
        """Take the data directory for this process; None where there has never been a queue.

        Raises `QueueInUse` where a server has it, `StorageFault` (`QueueGone` where the file of an earlier queue is missing).
        """
        if not required_files(data_directory).octets:
            yield None
            return
        lock = lock_directory(data_directory)
        try:
            mark = required_files(data_directory).mark
            queue = cls(data_directory)
            queue._store.open(must_exist=True)
            write_mark(data_directory, End.CHANGED)  # this may be killed, too
            try:
                yield queue
            finally:
                queue._reader.close()
                queue._store.close()
                # Where there was no good end before, the next start has to look at it still, but need not miss the log.
                write_mark(data_directory, End.CLOSED if mark is End.CLOSED else End.CHANGED)
        finally:
            os.close(lock)

    def carry_out(
        self, order: Order, *, after: int, now: float, note: Callable[..., None], dry_run: bool = False
    ) -> Page:
        """As `Orders.carry_out`."""
        page, meant = _look_through(self._reader, order, after, now)
        if dry_run:
            page.done += [(one.entry.id, one.recipients(one.indexes)) for one in meant]
            return page
        while meant:
            part, changes, meant = _decide(self._reader, order, meant, now, page)
            found, finished = _alter(self._store, self._spool, part, changes)
            _tell(order, part, changes, found, finished, page, note)
        return page


def _tell(
    order: Order,
    meant: Sequence[_Meant],
    changes: Sequence[Change],
    found: set[int],
    finished: set[int],
    page: Page,
    note: Callable[..., None],
) -> None:
    """Write down what was done: on the page, and on the messages' roads."""
    indexes = {change.number: change.indexes for change in changes}
    for one in meant:
        if one.number not in found:
            page.left.append((one.entry.id, GONE))
            continue
        recipients = one.recipients(indexes.get(one.number, ()))
        page.done.append((one.entry.id, recipients))
        more = {"holders": sorted(order.holders)} if order.holders else {}
        note(one.entry.id, STEPS[order.verb], by=order.by, recipients=list(recipients), to=order.to or None, **more)
        if one.number in finished:
            note(one.entry.id, "settled")


def is_untouched(entry: EntrySummary) -> bool:
    """Nothing was recorded of any of its destinations."""
    return all(one.state == "queued" for one in entry.destinations)


def _look_through(reader: SqliteReader, order: Order, after: int, now: float) -> tuple[Page, list[_Meant]]:
    """The next page, and what of it is meant and open to the verb."""
    page = Page()
    rows = _rows(reader, order.selection, after)
    page.scanned = len(rows)
    page.next = rows[-1].number if len(rows) == PAGE else None
    meant: list[_Meant] = []
    for number, entry in rows:
        indexes = order.selection.chosen(entry, now)
        if indexes is None:
            continue
        one = _Meant(number, entry, indexes)
        if one.is_damaged and order.verb is not Verb.DROP:
            page.left.append((entry.id, DAMAGED))
            continue
        if not one.is_damaged:
            one.indexes = tuple(
                [
                    part.index
                    for part in entry.destinations
                    if part.index in indexes and is_open_to(order.verb, part.state, part.hold)
                ]
            )
            if not one.indexes:
                continue
        meant.append(one)
    return page, meant


def _decide(
    reader: SqliteReader, order: Order, meant: list[_Meant], now: float, page: Page
) -> tuple[list[_Meant], list[Change], list[_Meant]]:
    """The entries and changes of the next transaction, and the entries for those after it."""
    redirected = order.verb is Verb.REDIRECT
    changes, taken = (_redirected if redirected else _changed)(reader, order, meant, now)
    mine, rest = meant[:taken], meant[taken:]
    numbers = {change.number for change in changes}
    page.left += [
        (one.entry.id, NOTHING.format(verb=order.verb))
        for one in mine
        if one.number not in numbers and not one.is_damaged
    ]
    return [one for one in mine if one.number in numbers or one.is_damaged], changes, rest


def _changed(reader: SqliteReader, order: Order, meant: list[_Meant], now: float) -> tuple[list[Change], int]:
    """The changes of all, without a look at their contents."""
    found = reader.without_content([one.number for one in meant if not one.is_damaged])
    changes = [
        change_states(
            order.verb,
            number=one.number,
            destinations=found[one.number].destinations,
            attempts=found[one.number].attempts,
            indexes=one.indexes,
            now=now,
            note=order.note,
            by=order.by,
            holders=order.holders,
        )
        for one in meant
        if one.number in found
    ]
    return [change for change in changes if change is not None], len(meant)


def _redirected(reader: SqliteReader, order: Order, meant: list[_Meant], now: float) -> tuple[list[Change], int]:
    """The changes of the first ones, whose messages are written again, and how many those are."""
    indexes = {one.number: one.indexes for one in meant}
    messages, taken = reader.read(list(indexes), REDIRECTED_OCTETS)
    changes = [
        redirect(message, indexes=indexes[message.number], routes=order.routes, now=now, note=order.note)
        for message in messages
        if not isinstance(message, Unreadable)
    ]
    return [change for change in changes if change is not None], taken


def _alter(
    store: SqliteStore, spool: Spool, meant: Sequence[_Meant], changes: Sequence[Change]
) -> tuple[set[int], set[int]]:
    """Write the changes, forget the damaged ones; the numbers that were there, and those with which all was done."""
    damaged = [one for one in meant if one.is_damaged]
    found, finished = store.alter(
        [one.number for one in damaged],
        [(change.number, *change.row) for change in changes if change.row is not None],
        [attempt for change in changes for attempt in change.attempts],
    )
    forgotten: list[Settled] = [*finished, *(Settled(one.number, one.entry.id, True, is_id(one.entry.id)) for one in damaged)]
    remove_files(spool, forgotten)
    return found, {one.number for one in forgotten}
