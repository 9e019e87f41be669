"""How late the reactor's calls come: what holds it up, or takes its processor away, is seen here first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

__all__ = ["Lag"]

INTERVAL_SECONDS = 0.25


class Lag:
    """Tells `observe` of each call how late it came, in seconds.  `clock` is the reactor."""

    def __init__(self, clock: Any, observe: Callable[[float], None]) -> None:
        self._clock = clock
        self._observe = observe
        self._due = 0.0
        self._call = LoopingCall(self._look)
        self._call.clock = clock

    def start(self) -> None:
        """Begin, where it has not begun."""
        if not self._call.running:
            self._due = self._clock.seconds() + INTERVAL_SECONDS
            self._call.start(INTERVAL_SECONDS, now=False)

    def stop(self) -> None:
        """End it."""
        if self._call.running:
            self._call.stop()

    @property
    def seconds(self) -> float:
        """How late the next call is by now, 0 where it is not."""
        return max(0.0, self._clock.seconds() - self._due) if self._call.running else 0.0

    def _look(self) -> None:
        now = self._clock.seconds()
        self._observe(max(0.0, now - self._due))
        self._due = now + INTERVAL_SECONDS
