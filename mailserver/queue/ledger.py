"""What becomes of entries, on its way into the store: settled ones, and attempts to remember.

What cannot be written now is kept here and tried again: a disk that is full for an hour costs no message its outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.queue.entry import Attempt, Settled
from mailserver.queue.spool import Spool
from mailserver.queue.store import SqliteStore

__all__ = ["Ledger", "Settled", "remove_files"]

AGAIN_SECONDS = 5.0


class Ledger:
    """Gathers settlements and attempts and hands them to the writer thread, one hand-over at a time.

    `settled(ids)` is called when entries are gone, `recorded(attempts)` when attempts are kept.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        do: Callable[[Callable[[SqliteStore], list[Settled]]], Deferred[list[Settled]]],
        spool: Spool,
        settled: Callable[[list[Settled]], None],
        recorded: Callable[[list[Attempt]], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._clock = clock
        self._do = do
        self._spool = spool
        self._settled = settled
        self._recorded = recorded
        self._failed = failed
        self.settling: set[int] = set()
        """The numbers of entries that are on their way out of the store."""
        self._entries: list[Settled] = []
        self._attempts: list[Attempt] = []
        self._sending = False
        self._delayed: Any = None

    @property
    def is_empty(self) -> bool:
        """Nothing is on its way."""
        return not (self._entries or self._attempts or self._sending)

    def add(self, entries: list[Settled], attempts: list[Attempt]) -> None:
        """Take these along.  An entry that is settled needs no attempts."""
        self._entries += entries
        self._attempts += attempts
        self.settling.update([entry[0] for entry in entries])
        if not self._sending and self._delayed is None:
            self._send()

    def stop(self) -> None:
        """Try nothing again."""
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _send(self) -> None:
        self._delayed = None
        entries, self._entries = self._entries, []
        attempts, self._attempts = self._attempts, []
        if not entries and not attempts:
            return
        if entries and attempts:
            gone = {entry[0] for entry in entries}
            attempts = [attempt for attempt in attempts if attempt.number not in gone]
        self._sending = True
        spool = self._spool

        def write(store: SqliteStore) -> list[Settled]:
            recorded = [number for number, _, has_attempts, _ in entries if has_attempts]
            finished = store.settle([entry[0] for entry in entries], recorded, attempts)
            remove_files(spool, entries)
            remove_files(spool, finished)
            return finished

        self._do(write).addCallbacks(
            self._sent, self._not_sent, callbackArgs=(entries, attempts), errbackArgs=(entries, attempts)
        )

    def _sent(self, finished: list[Settled], entries: list[Settled], attempts: list[Attempt]) -> None:
        self._sending = False
        self.settling.difference_update([entry[0] for entry in entries])
        if self._entries or self._attempts:
            self._send()
        if attempts:
            self._recorded(attempts)
        self._settled(entries + finished)

    def _not_sent(self, failure: Failure, entries: list[Settled], attempts: list[Attempt]) -> None:
        self._sending = False
        self._entries = entries + self._entries
        self._attempts = attempts + self._attempts
        self._delayed = self._clock.callLater(AGAIN_SECONDS, self._send)
        self._failed(failure)


def remove_files(spool: Spool, entries: list[Settled]) -> None:
    """Remove the files of entries that are gone from the store: a crash between leaves files that the start removes."""
    for _, id, _, spooled in entries:
        if spooled:
            spool.remove(id)
