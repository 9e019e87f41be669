"""What a component does from time to time (`mailserver.interfaces.IPeriodic`)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.plugins.awaiting import FAULTS, later, within
from mailserver.plugins.failure_log import FailureLog, place_of, words_of
from mailserver.plugins.rarely import Rarely

__all__ = ["Periodic", "PeriodicState", "interval_fault"]

FIRST_SECONDS = 60.0
JITTER = 0.1  # of the interval: components of one interval, and servers that were started together, do not all run at once
INTERVAL_LEAST, INTERVAL_MOST = 0.1, 400 * 86_400.0


@dataclass(frozen=True, slots=True)
class PeriodicState:
    """For people.  `seconds_left` is None while a run is under way; `last_error` is "" where the last run went well."""

    runs: int
    failures: int
    skipped: int
    seconds_left: float | None
    last_error: str


class Periodic:
    """Runs `component.run_periodically()`: never twice at once.

    The first run comes within a minute, or the interval where that is shorter; each other one an interval, a tenth more or less,
    after the end of the one before.  A run that takes longer than its deadline is cancelled and has failed.  One that goes on all
    the same keeps the next ones from beginning until it has ended: they are skipped, counted and told.  `given_up` is told of it.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        component: Any,
        *,
        clock: Clock,
        random_share: Callable[[], float] = random.random,
        given_up: Callable[[Deferred[Any]], object] | None = None,
    ) -> None:
        self._name = name
        self._component = component
        self._interval = float(component.interval_seconds)
        self._deadline = float(component.deadline_seconds)
        self._clock = clock
        self._share = random_share
        self._given_up = given_up
        self._rarely = Rarely(seconds=clock.seconds)
        self._failure_log = FailureLog(clock.seconds)
        self._timer: Any = None
        self._waited_for: Deferred[Any] | None = None
        self._is_under_way = False
        self._has_stopped = False
        self._runs = self._failures = self._skipped = 0
        self._last_error = ""

    def start(self) -> None:
        """The first run comes in a moment."""
        self._again(min(FIRST_SECONDS, self._interval) * self._share())

    def stop(self) -> None:
        """Begin no run any more; one that is under way is cancelled."""
        self._has_stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._waited_for is not None:
            self._waited_for.cancel()

    def state(self) -> PeriodicState:
        """How it stands."""
        left = None
        if self._timer is not None and self._timer.active():
            left = max(0.0, self._timer.getTime() - self._clock.seconds())
        return PeriodicState(self._runs, self._failures, self._skipped, left, self._last_error)

    def _again(self, seconds: float) -> None:
        if not self._has_stopped:
            self._timer = self._clock.callLater(seconds, self._run)

    def _run(self) -> None:
        pause = self._interval * (1 - JITTER + 2 * JITTER * self._share())
        if self._is_under_way:
            self._skipped += 1
            if self._rarely.may("skipped"):
                self.log.error("{name}: a periodic run goes on after it was cancelled; the next one waits", name=self._name)
            self._again(pause)
            return
        self._runs += 1
        self._is_under_way = True
        try:
            self._waited_for = within(self._deadline, later(self._watched()), self._clock, self._given_up)
        except FAULTS:
            self._ended(Failure(), pause)
        else:
            self._waited_for.addBoth(self._ended, pause)

    async def _watched(self) -> None:
        try:
            await self._component.run_periodically()
        finally:
            self._is_under_way = False

    def _ended(self, result: Any, pause: float) -> None:
        self._waited_for = None
        if not isinstance(result, Failure):
            self._last_error = ""
        elif not self._has_stopped:
            self._failed(result)
        self._again(pause)

    def _failed(self, failure: Failure) -> None:
        self._failures += 1
        is_late = failure.check(Late) is not None
        error: Failure | str = f"it took longer than {self._deadline:g} s and was cancelled" if is_late else failure
        self._last_error = words_of(error)
        self._failure_log.tell(f"{self._name}: a periodic run", error, place_of(error, self._component))


def interval_fault(component: Any) -> str:
    """What is wrong with the component's times, "" where nothing is."""
    for name in ("interval_seconds", "deadline_seconds"):
        value = getattr(component, name, None)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return f"{name} is no number of seconds"
        if not INTERVAL_LEAST <= value <= INTERVAL_MOST:
            return f"{name} is not between {INTERVAL_LEAST:g} and {INTERVAL_MOST:g} seconds"
    return ""
