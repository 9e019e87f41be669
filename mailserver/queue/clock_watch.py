"""A thread that notices when the clock of the machine is set.

The reactor's timers go by that clock: set back by an hour, it lets them all wait an hour longer, and nobody is left who would
notice.  A thread that sleeps by the steady clock does; it moves the timers back by as much, and tells those who go by age.  A
clock that is set forward makes timers ring early, which harms nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.logger import Logger

from mailserver.queue.clocks import Clocks

__all__ = ["ClockWatch", "boot_seconds"]

EVERY_SECONDS = 5.0


class ReactorTimers(Protocol):
    """The part of the reactor that is needed."""

    def getDelayedCalls(self) -> Iterable[Any]: ...

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> Any: ...


def boot_seconds() -> float:
    """Seconds since the machine was started, sleep included; nobody sets it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ClockWatch:
    """`was_set()` is called in the reactor's thread after its timers have been moved."""

    log = Logger()

    def __init__(
        self,
        *,
        reactor: ReactorTimers,
        was_set: Callable[[], None],
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = boot_seconds,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._reactor = reactor
        self._was_set = was_set
        self._wall = wall
        self._clocks = Clocks(wall=wall, boot=boot)
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch; after a fork, not before."""
        self._clocks.begin()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="clock watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            thread.join()

    def look(self) -> None:
        """Compare the clocks once.  From any thread."""
        by = self._clocks.parted()
        if by:
            self._reactor.callFromThread(self._move, by)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            self.look()

    def _move(self, by: float) -> None:
        """A timer that was set before is due at a time of the clock as it was; one that was set since, mostly before that."""
        self.log.warn("the clock of this machine was set by {by} seconds", by=f"{by:+.0f}")
        as_it_was = self._wall() - by - 2 * self._every_seconds
        for call in list(self._reactor.getDelayedCalls()) if by < 0 else ():
            if call.active() and call.getTime() >= as_it_was:
                call.delay(by)
        self._was_set()
