"""Failures that nobody can be told of: a bounce that bounced, a sender that does not exist.

They stay in the queue, state "failed", for the postmaster's eye, until there are too many or they are too old.

`_tidying`: one look at a time.  Each failure that comes asks for one, and a thousand may come in the time of one transaction.
One that is left out is made up for by the next failure, or by the look of each day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.mail.faults import StorageFault
from mailserver.queue.entry import Attempt, EntryState, Settled
from mailserver.queue.store import SqliteStore

__all__ = ["Undeliverable"]

UNTOLD_MOST = 1000


class Undeliverable:
    """Keeps at most `most` such entries, for `seconds` from their acceptance; the oldest go first, each with a line in the log.

    `do(work)` runs in the store's thread; `dropped` is told which entries are gone.  While the clock has just been set, or read
    for the first time (`is_steady` says no), nothing is too old.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        do: Callable[[Callable[[SqliteStore], list[Settled]]], Deferred[list[Settled]]],
        dropped: Callable[[list[Settled]], None],
        most: int,
        seconds: float,
        is_steady: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._do = do
        self._dropped = dropped
        self._most = most
        self._seconds = seconds
        self._is_steady = is_steady
        self._tidying = False
        self.untold: dict[int, None] = {}  # numbers of those of which no person has been told, the newest `UNTOLD_MOST`

    def told(self, numbers: Iterable[int]) -> None:
        """A person has been told of these."""
        for number in numbers:
            self.untold.pop(number, None)

    def recorded(self, attempts: Iterable[Attempt]) -> None:
        """The store has kept these."""
        failed = [attempt.number for attempt in attempts if attempt.state is EntryState.FAILED and attempt.report is None]
        if failed:
            self.cannot_be_told(failed)

    def cannot_be_told(self, numbers: Iterable[int]) -> None:
        """The store has kept these failures."""
        self.untold.update(dict.fromkeys(numbers))
        for number in list(self.untold)[: max(0, len(self.untold) - UNTOLD_MOST)]:
            del self.untold[number]
        self.tidy()

    def tidy(self) -> Deferred[None]:
        """Drop what is too much or too old."""
        if self._tidying:
            return succeed(None)
        self._tidying = True
        moment = self._clock.seconds() - self._seconds if self._is_steady() else 0.0
        before = max(0, int(moment * 1_000_000)) << 5  # as `entry.number_of` has it
        most = self._most
        return self._do(lambda store: store.drop_failed(most, before)).addCallbacks(self._tidied, self._not_tidied)

    def _tidied(self, entries: list[Settled]) -> None:
        self._tidying = False
        for entry in entries:
            self.log.warn("dropped {id}: it failed, and its sender cannot be told", id=entry.id)
        if entries:
            self._dropped(entries)

    def _not_tidied(self, failure: Failure) -> None:
        self._tidying = False
        if failure.check(StorageFault):  # the next commit finds out, and says so
            self.log.error("old failures could not be dropped: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("old failures could not be dropped", failure)
