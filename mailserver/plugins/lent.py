"""What one component was lent: its threads, its processes, its figures."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from mailserver.interfaces import ComponentCommand, RunInProcess
from mailserver.plugins.budget import Budget
from mailserver.plugins.durations import Durations
from mailserver.plugins.left_behind import LeftBehind
from mailserver.plugins.metrics import Metrics
from mailserver.plugins.observing import Observing
from mailserver.plugins.periodic import Periodic
from mailserver.plugins.threads import ThreadCounts, Threads

__all__ = ["Hanging", "Jobs", "Lent"]


class Hanging(Protocol):
    """Something with threads."""

    @property
    def hanging(self) -> int: ...


class Jobs(Protocol):
    """A component's processes (`mailserver.processes.jobs`)."""

    @property
    def run(self) -> RunInProcess: ...

    @property
    def hanging(self) -> int: ...

    @property
    def counts(self) -> ThreadCounts: ...

    def stop(self) -> Deferred[None]: ...


class Lent:
    """What one component was lent, and what is known of it.

    `budgets` are its error budgets, by the stage or the call that they are for; who asks the component puts them there.
    """

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.component: Any = None
        self.metrics = Metrics()
        self.pools: dict[str, Threads] = {}
        self.processes: Jobs | None = None
        self.observing: Observing | None = None
        self.periodic: Periodic | None = None
        self.budgets: dict[str, Budget] = {}
        self.commands: dict[str, ComponentCommand] = {}
        self.durations: Durations | None = None
        """A filter's, which whoever asks it puts there."""
        self.left = LeftBehind()
        """Calls that were given up at their deadline and run on."""
        self.is_running = False
        self.blocks = 0
        """How often it held the reactor too long."""
        self.longest_block = 0.0

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}"

    @property
    def threads(self) -> ThreadCounts:
        """Of all its pools and of its observer."""
        counts = [pool.counts for pool in self.pools.values()]
        hanging = sum([one.hanging for one in counts]) + (self.observing.hanging if self.observing else 0)
        return ThreadCounts(sum([one.running for one in counts]), sum([one.waiting for one in counts]), hanging)
