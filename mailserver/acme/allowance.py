"""The time that a try has: one bound for all of it, and an end when the server stops."""

from __future__ import annotations

import threading
import time

__all__ = ["GivenUp", "TimeAllowance"]


class GivenUp(Exception):
    """No time is left, or the server stops."""


class TimeAllowance:
    """`end()` may be called by any thread; the rest belongs to the thread of the try."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._over = threading.Event()

    def part(self, seconds: float) -> TimeAllowance:
        """A part of this time: what uses it up leaves the rest to others."""
        found = TimeAllowance(min(seconds, max(0.0, self._until - time.monotonic())))
        found._over = self._over
        return found

    @property
    def is_ended(self) -> bool:
        """Whether the server stops."""
        return self._over.is_set()

    def end(self) -> None:
        """Whoever waits, waits no longer."""
        self._over.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing more may begin."""
        return self._over.is_set() or time.monotonic() >= self._until

    def left(self, most: float) -> float:
        """How many seconds something may take, at most `most`.  Raises `GivenUp`."""
        if self.is_over:
            raise GivenUp("the server stops" if self._over.is_set() else "no time is left")
        return min(most, self._until - time.monotonic())

    def wait(self, seconds: float) -> None:
        """Raises `GivenUp`."""
        self._over.wait(self.left(seconds))
        self.left(1.0)
