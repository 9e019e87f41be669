"""What may be told once in a while: one line for each kind and minute, not one for each message."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

__all__ = ["Rarely"]

KINDS = 200


class Rarely:
    """`may(kind)` is true once in `every_seconds` for each kind.  From any thread; at most `KINDS` kinds are remembered."""

    def __init__(self, every_seconds: float = 60.0, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._every_seconds = every_seconds
        self._seconds = seconds
        self._told: dict[Hashable, float] = {}

    def may(self, kind: Hashable) -> bool:
        """Whether this kind may be told now."""
        now = self._seconds()
        told = self._told.pop(kind, None)
        is_time = told is None or not 0 <= now - told < self._every_seconds
        self._told[kind] = now if told is None or is_time else told
        while len(self._told) > KINDS:
            self._told.pop(next(iter(self._told)), None)
        return is_time
