"""What may be told once in a while: one line for each kind and minute, not one for each message."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

__all__ = ["Rarely"]

KINDS = 1000


class Rarely:
    """Each kind may be told once in `every_seconds`.  From any thread; at most `KINDS` kinds are remembered."""

    def __init__(self, every_seconds: float = 60.0, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._every_seconds = every_seconds
        self._seconds = seconds
        self._told: dict[Hashable, tuple[float, int]] = {}  # when it was told, how often it was held back since

    def may(self, kind: Hashable) -> bool:
        """Whether this kind may be told now."""
        return self.held_back(kind) is not None

    def held_back(self, kind: Hashable) -> int | None:
        """How often it was held back since it was told last, where it may be told now; else None, and that was once more."""
        now = self._seconds()
        told, times = self._told.pop(kind, (None, 0))
        is_time = told is None or not 0 <= now - told < self._every_seconds
        self._told[kind] = (now, 0) if told is None or is_time else (told, times + 1)
        while len(self._told) > KINDS:
            self._told.pop(next(iter(self._told)), None)
        return times if is_time else None
