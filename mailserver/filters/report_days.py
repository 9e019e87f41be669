"""The days that are over, and the reports that are due about them: each once, one after the other (DMARC's and TLS's).

A day is one of UTC.  A report leaves within a span of time after the end of its day, each domain's at a moment of its own, so
that not all hosts of the world send at midnight.  What cannot be sent now is tried again, until the day is too long ago.
"""

from __future__ import annotations

import calendar
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from mailserver.api import CannotTell, Clock, LookupFailed, StorageFault

__all__ = ["DAYS", "DAY_SECONDS", "FIRST_SECONDS", "ReportDays", "day_of", "start_of"]

DAY_SECONDS = 86_400
DAYS = 2  # after so many days a report is not sent any more
FIRST_SECONDS = 600  # after the end of the day: what was under way then has been counted
AT_ONCE_MOST = 50  # reports of one run
AGAIN_SECONDS = 900.0


class Group(Protocol):
    """What one report is about; it can be hashed and sorted.  `path` is its own in keys."""

    @property
    def day(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def path(self) -> str: ...


G = TypeVar("G", bound=Group)


class ReportDays(Generic[G]):
    """`groups(day)` says what there is to report of a day that is over, `report(group)` sends it, perhaps to nobody.

    `name` is the kind of report, for the log; `spread_seconds`: the reports of a day leave within so long after its end.
    """

    log = Logger()

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        hostname: str,
        spread_seconds: float,
        groups: Callable[[str], Awaitable[Iterable[G]]],
        report: Callable[[G], Awaitable[None]],
    ) -> None:
        self._name = name
        self._clock = clock
        self._hostname = hostname
        self._spread_seconds = spread_seconds
        self._groups = groups
        self._report = report
        self._waiting: dict[str, dict[G, float]] = {}  # by day
        self._again: dict[G, float] = {}
        self._told: set[G] = set()
        self._turn = DeferredLock()

    async def run(self) -> int:
        """Send what is due; how many reports that were.  One report's trouble is no other's.  Two runs go one after the other."""
        await self._turn.acquire()
        try:
            return await self._run()
        finally:
            self._turn.release()

    async def _run(self) -> int:
        now = self._clock.seconds()
        self._again = {one: until for one, until in self._again.items() if until > now}
        await self._look_at_days(now)
        due: list[Any] = [
            (at, group)
            for waiting in self._waiting.values()
            for group, at in waiting.items()
            if at <= now and group not in self._again
        ]
        done = 0
        for _, group in sorted(due)[:AT_ONCE_MOST]:
            try:
                await self._report(group)
                self._waiting[group.day].pop(group, None)
                self._told.discard(group)
                done += 1
            except (LookupFailed, CannotTell, StorageFault) as error:
                self._later(group, f"{type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001  of one report, whatever it is
                self.log.failure("the {name} report {group} cannot be sent yet", name=self._name, group=group.path)
                self._later(group, "")
        return done

    async def _look_at_days(self, now: float) -> None:
        """What waits of the days that are over.  A day that is over does not change: each is looked at once."""
        today = start_of(day_of(now))
        days = [day_of(today - n * DAY_SECONDS) for n in range(DAYS, 0, -1)]
        days = [day for day in days if start_of(day) + DAY_SECONDS + FIRST_SECONDS <= now]
        self._waiting = {day: groups for day, groups in self._waiting.items() if day in days}
        for day in days:
            if day not in self._waiting:
                self._waiting[day] = {group: self.due_at(group) for group in await self._groups(day)}

    def due_at(self, group: G) -> float:
        """When a report leaves."""
        digest = hashlib.sha256(f"{self._hostname}/{group.path}".encode()).digest()
        share = int.from_bytes(digest[:4], "big") / 2**32
        return start_of(group.day) + DAY_SECONDS + FIRST_SECONDS + share * self._spread_seconds

    def _later(self, group: G, why: str) -> None:
        self._again[group] = self._clock.seconds() + AGAIN_SECONDS
        if why and group not in self._told:
            self._told.add(group)
            self.log.warn(
                "the {name} report of {day} about {domain} is sent later: {why}",
                name=self._name, day=group.day, domain=group.domain, why=why,
            )  # fmt: skip


def day_of(seconds: float) -> str:
    """The UTC day: ``2026-11-30``."""
    return time.strftime("%Y-%m-%d", time.gmtime(max(0.0, seconds)))


def start_of(day: str) -> int:
    """When it begins, in seconds since the epoch.  Raises ValueError for what is no day."""
    return calendar.timegm(time.strptime(day, "%Y-%m-%d"))
