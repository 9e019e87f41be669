"""How long the last calls took: enough to say which filter is slow."""

from __future__ import annotations

from collections import deque

__all__ = ["Durations"]

KEPT = 500


class Durations:
    """Of the last `KEPT` calls, in milliseconds.  `count` is how many there were in all."""

    __slots__ = ("_last", "count")

    def __init__(self) -> None:
        self.count = 0
        self._last: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        """A call has ended."""
        self.count += 1
        self._last.append(seconds * 1000)

    def figures(self) -> dict[str, float]:
        """`count`, and where there was one, the `median` and what 95 of 100 did not exceed (`p95`)."""
        if not self._last:
            return {"count": self.count}
        by_length = sorted(self._last)
        last = len(by_length) - 1
        return {
            "count": self.count,
            "median": round(by_length[last // 2], 1),
            "p95": round(by_length[int(last * 0.95 + 0.5)], 1),
        }
