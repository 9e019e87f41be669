"""When to try again: decided without a clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger

from mailserver.interfaces import IRetrySchedule, RetryTimes
from mailserver.mail.address import Address
from mailserver.mail.answers import Remote
from mailserver.mail.parcel import Destination
from mailserver.plugins.awaiting import FAULTS

__all__ = ["Schedule", "Schedules"]

SCHEDULES_KEPT = 1000
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

    def with_times(self, times: RetryTimes) -> Schedule:
        """This one, but for what these times say.  Raises ValueError for times that cannot be."""
        return Schedule(
            retry_seconds=self._retry if times.pauses is None else times.pauses,
            expire_seconds=self._expire if times.expire is None else times.expire,
            warn_seconds=self._warn if times.warn is None else times.warn,
        )

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

    def put_off(self, seconds: float, *, received_at: float, now: float) -> float | None:
        """When to come again after no attempt was made, None when the time is over; the last attempt is made at its end."""
        if received_at > now:  # the clock was wrong when it came
            return now + seconds
        end = received_at + self._expire
        return None if now >= end else min(now + seconds, end)

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

    def has_passed(self, since: float, now: float) -> bool:
        """As much time as a message has."""
        return now - since >= self._expire

    def warning(self, received_at: float) -> float | None:
        """When the sender is told of the delay, None where a failure would come as soon."""
        return received_at + self._warn if self._warn is not None and self._warn < self._expire else None


class Schedules:
    """Which schedule a destination has: the queue's, unless the relay (`IRetrySchedule`) names times of its own for it.

    It is asked after each attempt, so that a change of the configuration counts from then on, for what waits already, too.
    """

    log = Logger()

    def __init__(self, usual: Schedule, relay: Any = None) -> None:
        self.usual = usual
        self._relay = relay if IRetrySchedule.providedBy(relay) else None
        self._by_times: dict[RetryTimes, Schedule] = {}

    def of(self, sender: Address | None, destination: Destination) -> Schedule:
        """The destination's."""
        if self._relay is None or not isinstance(destination.route, Remote):
            return self.usual
        try:
            times = self._relay.retry_times(sender, destination.route.address)
            return self.usual if times is None else self._with(times)
        except FAULTS:  # an attempt has been made, and what came of it is kept in any case
            self.log.failure("the relay could not say when {address} is tried again", address=str(destination.route.address))
            return self.usual

    def _with(self, times: RetryTimes) -> Schedule:
        schedule = self._by_times.get(times)
        if schedule is None:
            if len(self._by_times) >= SCHEDULES_KEPT:
                self._by_times.clear()
            schedule = self._by_times[times] = self.usual.with_times(times)
        return schedule

    def _all(self) -> Sequence[Schedule]:
        if self._relay is None:
            return [self.usual]
        try:
            return [self.usual, *[self._with(times) for times in self._relay.longest_retry_times]]
        except FAULTS:
            self.log.failure("the relay could not say when it tries again")
            return [self.usual]

    @property
    def longest_pauses(self) -> tuple[float, ...]:
        """After the first, second, ... attempt: nothing is due later than so many seconds from now, whatever its schedule."""
        found = [schedule.longest_pauses for schedule in self._all()]
        length = max(map(len, found))
        return tuple([max([one[min(place, len(one) - 1)] for one in found]) for place in range(length)])

    @property
    def warn_seconds(self) -> float:
        """No warning is due later than so many seconds after the acceptance."""
        return max([schedule.warn_seconds for schedule in self._all()])
