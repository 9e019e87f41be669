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
        if received_at > now:  # the clock was wrong when it came, and only the attempts tell how old it is
            received_at = now - self._pauses(attempts)
        end = received_at + self._expire
        if now >= end:
            return None
        return min(self.after_pause(attempts=attempts, now=now, chance=chance), end)

    def after_pause(self, *, attempts: int, now: float, chance: float) -> float:
        """When the next attempt is due, whatever the age of the message."""
        pause = self._retry[min(attempts, len(self._retry)) - 1]
        return now + pause * (1 - JITTER + 2 * JITTER * chance)

    def _pauses(self, attempts: int) -> float:
        """What lies at least between the first and the last of so many attempts."""
        known = self._retry[: attempts - 1]
        return (sum(known) + (attempts - 1 - len(known)) * self._retry[-1]) * (1 - JITTER)

    @property
    def longest_pauses(self) -> tuple[float, ...]:
        """After the first, second, ... attempt: nothing is due later than so many seconds from now."""
        return tuple([pause * (1 + JITTER) for pause in self._retry])

    @property
    def warn_seconds(self) -> float:
        """From the acceptance to the warning; what is never told may be told at any time."""
        return self._warn or 0.0

    def end(self, received_at: float) -> float:
        """When it is given up."""
        return received_at + self._expire

    def warning(self, received_at: float) -> float | None:
        """When the sender is told of the delay, None where a failure would come as soon."""
        return received_at + self._warn if self._warn is not None and self._warn < self._expire else None
