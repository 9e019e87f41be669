"""What waits in the store alone, on its way back into an active queue.

An active queue knows such entries in three ways: as numbers of new mail (`backlog`), as numbers of deferred mail that is due
(`retries`), and, where there are too many numbers, as a range of them (`store_window`).  A read makes messages of numbers, a
refill makes numbers of a range.  Both run in the reader's thread, so both answers may be old when they come; `active_message`
says what guards against that.

Nothing is taken out of a queue for a read that fails.  What was asked for is given back after a pause, in its old order; until
then `reading` stays set, so that a store that cannot be read is asked every few seconds and not in a circle.  The exception is a
damaged store: nothing is asked again, since no answer will come before the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.mail.answers import Remote
from mailserver.mail.faults import StorageDamaged
from mailserver.queue.active import ActiveQueue
from mailserver.queue.active_message import EVERY_DESTINATION, Backlogged
from mailserver.queue.reader import OpenEntry, ReadMessage, SqliteReader, Unreadable

__all__ = ["ReadingBack"]

PAGE = 200  # entries read back at once
RETRIES_PAGE = 50  # of those that were deferred before: they shall not hold up the others
READ_AGAIN_SECONDS = 5.0
REFILL = 1000  # numbers that are read at once for a backlog that had outgrown its place in memory


class ReadingBack:
    """Reads entries for active queues.

    `read(function, *args)` runs in the reader's thread.  `take_up(message, active_queue, again)` is given each message, `damaged`
    each that cannot be read.  `not_to_be_taken(number)` is the mask of destinations that are not to be looked for in the store.
    `later(seconds, work)` calls back, unless the queue stops; `changed()` is called when there may be more to do.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reader: SqliteReader,
        read: Callable[..., Deferred[Any]],
        take_up: Callable[[ReadMessage, ActiveQueue, bool], None],
        damaged: Callable[[Unreadable], None],
        not_to_be_taken: Callable[[int], int],
        later: Callable[[float, Callable[[], None]], None],
        changed: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._read = read
        self._take_up = take_up
        self._damaged = damaged
        self._not_to_be_taken = not_to_be_taken
        self._later = later
        self._changed = changed
        self._stopped = False

    def stop(self) -> None:
        """Hand over nothing any more, not even what a read under way still brings: the store has it."""
        self._stopped = True

    # --- from numbers to messages ---

    def read_back(self, active_queue: ActiveQueue) -> None:
        """Read what the active queue has room for, if it has room and nothing is being read for it."""
        asked = active_queue.next_to_read(PAGE, RETRIES_PAGE)
        if not asked:
            return
        numbers = [one.entry.number for one in asked]
        answer = self._read(self._reader.read, numbers, active_queue.free_octets)
        answer.addCallbacks(self._was_read, self._not_read, callbackArgs=(active_queue, asked), errbackArgs=(active_queue, asked))
        answer.addErrback(self._stumbled)

    def _was_read(
        self, answer: tuple[list[ReadMessage | Unreadable], int], active_queue: ActiveQueue, asked: list[Backlogged]
    ) -> None:
        messages, taken = answer
        if self._stopped:
            active_queue.read_ended(())
            self._changed()
            return
        # Those behind `taken` did not fit into the memory that was free.  They go back first: what is taken up below may find
        # no room either and then stands behind them.
        active_queue.read_ended(asked[taken:])
        again = {one.entry.number: one.entry.again for one in asked}
        for message in messages:
            try:
                if isinstance(message, Unreadable):
                    self._damaged(message)
                else:
                    self._take_up(message, active_queue, again[message.number])
            except Exception:  # noqa: BLE001  one that cannot be taken up keeps no other from its delivery
                self.log.failure("the queue cannot take up entry {number}", number=message.number)
        active_queue.pump()
        self._changed()

    def _not_read(self, failure: Failure, active_queue: ActiveQueue, asked: list[Backlogged]) -> None:
        if self._stopped or failure.check(StorageDamaged):  # damage is told, and does not mend itself
            return
        self.log.failure("the queue could not read its entries back; it tries again", failure)
        self._later(READ_AGAIN_SECONDS, lambda: active_queue.read_ended(asked))

    # --- from a range to numbers ---

    def refill(self, active_queue: ActiveQueue) -> None:
        """Its backlog has room again for numbers that are in the store alone.

        The range is taken whole, and what comes while it is looked through is a new range: an entry that is committed now may
        or may not be in the answer, and is in the new range in any case.  To be in both is harmless.
        """
        low, high = active_queue.store_window.taken()
        asked = self._read(self._reader.open_entries, low - 1, high, REFILL)
        asked.addCallbacks(
            self._refilled, self._not_refilled, callbackArgs=(active_queue, high), errbackArgs=(active_queue, low, high)
        )
        asked.addErrback(self._stumbled)

    def _refilled(self, found: list[OpenEntry], active_queue: ActiveQueue, high: int) -> None:
        active_queue.store_window.reading = False
        for one in found:
            try:
                self._wait(one, active_queue)
            except Exception:  # noqa: BLE001  as above
                self.log.failure("the queue cannot take up entry {number}", number=one.number)
        if len(found) == REFILL:
            active_queue.store_window.add_range(found[-1].number + 1, high)
        self._changed()

    def _wait(self, one: OpenEntry, active_queue: ActiveQueue) -> None:
        busy = self._not_to_be_taken(one.number)
        part = [
            d
            for d in one.destinations
            if isinstance(d.route, Remote) is active_queue.remote
            and d.index not in one.attempted
            and not busy >> d.index & 1
        ]
        # An entry that cannot be read has no destinations here; it is found out, and told, where its message is read.
        if part or (not one.destinations and busy != EVERY_DESTINATION):
            active_queue.wait(active_queue.key_of(part) if part else "", one.number, not active_queue.remote, older=True)

    def _not_refilled(self, failure: Failure, active_queue: ActiveQueue, low: int, high: int) -> None:
        if failure.check(StorageDamaged):
            return
        self.log.failure("the queue could not read which of its entries wait; it tries again", failure)
        active_queue.store_window.add_range(low, high)

        def again() -> None:
            active_queue.store_window.reading = False

        self._later(READ_AGAIN_SECONDS, again)

    def _stumbled(self, failure: Failure) -> None:
        self.log.failure("the queue stumbled", failure)
