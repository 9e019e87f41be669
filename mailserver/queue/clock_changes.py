"""What the queue does about a clock that is wrong or is set: see `clocks`.

`_missed`.  The clock is set while the store does not work, so the times in it cannot be mended; when it works again nobody would
ask for that.  `works_again` does, where something was missed.

`_running`.  The clock may be looked at before the store is open and after it is closed: the change is taken note of then, and
nothing is mended.  The next start mends whatever an earlier run has written.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.queue.clocks import Clocks
from mailserver.queue.schedule import Schedules
from mailserver.queue.store import SqliteStore

__all__ = ["ClockChanges"]

STEADY_SECONDS = 3600.0


class ClockChanges:
    """Mends times in the store that lie further ahead than they can.

    `do(work)` runs in the store's thread; `mended()` is called when what is due may have changed, `failed` with an error of the
    store.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        boot_seconds: Callable[[], float] | None,
        schedules: Schedules,
        do: Callable[[Callable[[SqliteStore], int]], Deferred[int]],
        mended: Callable[[], None],
        failed: Callable[[Failure], None],
        held_seconds: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._clocks = Clocks(wall=clock.seconds, boot=boot_seconds)
        self._is_watched = boot_seconds is not None
        self._schedules = schedules
        self._do = do
        self._mended = mended
        self._failed = failed
        self._held_seconds = held_seconds
        self._missed = False
        self._running = False

    def start(self) -> Deferred[None]:
        """Begin to compare the clocks, and mend what an earlier run wrote.  Errbacks with `StorageFault`."""
        self._clocks.begin()
        self._running = True
        return self._mend()

    def stop(self) -> None:
        """The store is about to be closed."""
        self._running = False

    def look(self) -> None:
        """The wall's clock may have been set: what was written by it is looked at again where it was."""
        by = self._clocks.parted()
        if by and self._running:
            self.log.warn("the clock was set by {by} seconds; no message is given up for its age now", by=f"{by:+.0f}")
            self._mend().addErrback(self._not_mended)

    def works_again(self) -> None:
        """What could not be mended while the store did not work."""
        if self._missed:
            self._mend().addErrback(self._not_mended)

    def since(self) -> float:
        """Since when the clock has gone without being set: what was tried before says nothing of a message's age."""
        self.look()
        return self._clocks.since

    @property
    def is_steady(self) -> bool:
        """The clock has not been set, nor read for the first time, for an hour."""
        return not self._is_watched or self._clocks.together_seconds >= STEADY_SECONDS

    def _mend(self) -> Deferred[None]:
        now, schedules, held = self._clock.seconds(), self._schedules, self._held_seconds()
        done = self._do(lambda store: store.mend_times(now, schedules.longest_pauses, schedules.warn_seconds, held))
        return done.addCallback(self._written)

    def _written(self, count: int) -> None:
        self._missed = False
        if count:
            self.log.warn("{count} times that lay further ahead than they can are due now", count=count)
        self._mended()

    def _not_mended(self, failure: Failure) -> None:
        self._missed = True
        self._failed(failure)
