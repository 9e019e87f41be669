"""When to try again: pure, without a clock."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Schedule"]

JITTER = 0.1  # a tenth up or down, so that what failed together does not return together


class Schedule:
    """The times of the attempts.  `retry_seconds` are the pauses after the first, second, ... attempt; the last one repeats.

    `expire_seconds` and `warn_seconds` count from the acceptance of the message: when it is given up, and when its sender is told
    of the delay (None: never).
    """

    __slots__ = ("_expire", "_retry", "_warn")

    def __init__(
        self, *, retry_seconds: Sequence[float], expire_seconds: float, warn_seconds: float | None = None
    ) -> None:
        if not retry_seconds or min(retry_seconds) <= 0 or expire_seconds <= 0:
            raise ValueError("the queue needs at least one pause, and all its times above zero")
        self._retry = tuple(retry_seconds)
        self._expire = expire_seconds
        self._warn = warn_seconds

    def next_due(self, *, attempts: int, received_at: float, now: float, chance: float) -> float | None:
        """When the next attempt is due, None when the time is over.

        `attempts` have been made, at least one.  `chance` is a random number from 0 to 1.  The last attempt is made at the
        end of the time: a long pause does not take days from a message.
        """
        end = received_at + self._expire
        if now >= end:
            return None
        pause = self._retry[min(attempts, len(self._retry)) - 1]
        return min(now + pause * (1 - JITTER + 2 * JITTER * chance), end)

    def end(self, received_at: float) -> float:
        """When it is given up."""
        return received_at + self._expire

    def warning(self, received_at: float) -> float | None:
        """When the sender is told of the delay, None where a failure would come as soon."""
        return received_at + self._warn if self._warn is not None and self._warn < self._expire else None
