"""Which transaction goes over which connection: pure, without sockets and without a clock.

`Pool` keeps records of connections (`Link`) and of what waits for them.  It is told what has happened (`submit`, `opened`,
`finished`, `failed`, `gone`), and `assign` then returns what the caller shall do: open these, close those, begin this on that.
`assign` does nothing itself and takes the time as a number, so that any history can be tested.

Rules:

- a waiting transaction takes an idle connection to its key, the one used last, before a new one is opened;
- a new destination begins with few connections and gets one more with each success; one that turns connections away while
  others work keeps as many as it let in;
- a destination whose last connection fails is out of reach: it is probed by one connection at a time, at growing intervals;
- at the cap for all, a destination that has fewer connections takes one over from a destination that has more;
- the last tenth below that cap is for destinations that have none: those that hold their connections for minutes cannot
  keep a good one waiting.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from mailserver.mail.reply import Reply

__all__ = ["Counts", "Key", "Link", "LinkState", "Plan", "Pool", "PoolLimits"]

Job = TypeVar("Job")

FIRST_LINKS = 2.0  # to a destination that has not yet shown that it answers
CAREFUL_STEP = 0.02  # connections more for each success, after the other side has turned one away
NEWCOMERS_PART = 10  # one connection in so many is for destinations that have none
KEYS_KEPT = 10_000  # destinations remembered without anything to do for them


class Key(NamedTuple):
    """What makes two connections interchangeable.

    `address` is numeric, `policy` the TLS policy's value with the name that it checks, `source` our own address or "".
    """

    address: str
    port: int
    policy: str
    source: str = ""

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Connections to one destination and in all; messages, age and idle time of one connection; pauses between probes."""

    per_destination: int = 20
    in_all: int = 500
    messages: int = 100
    age_seconds: float = 300.0
    idle_seconds: float = 15.0
    probe_seconds: float = 30.0
    probe_seconds_most: float = 900.0
    probe_waiting: int = 100


class LinkState(enum.Enum):
    """Where a connection is in its life."""

    OPENING = "opening"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"
    GONE = "gone"


class Link:
    """The pool's record of one connection."""

    __slots__ = ("key", "messages", "opened_at", "since", "state")

    def __init__(self, key: Key, now: float) -> None:
        self.key = key
        self.state = LinkState.OPENING
        self.opened_at = now
        self.since = now  # idle since
        self.messages = 0  # transactions begun on it

    def __repr__(self) -> str:
        return f"<Link {self.key} {self.state.value}, {self.messages} messages>"


class Plan(NamedTuple, Generic[Job]):
    """What the caller shall do, in this order."""

    close: list[Link]
    open: list[tuple[Link, Job]]  # with the transaction that wants it first
    begin: list[tuple[Link, Job]]


@dataclass(slots=True)
class Counts:
    """Since the start.  `stale`: connections that the peer had closed when they were wanted again."""

    opened: int = 0
    reused: int = 0
    failed: int = 0
    stale: int = 0

    @property
    def hit_rate(self) -> float:
        """The part of all transactions that found a connection open, from 0 to 1."""
        begun = self.opened + self.reused
        return self.reused / begun if begun else 0.0


class Line(Generic[Job]):
    """One destination: what waits for it, its connections, what is known of its health."""

    __slots__ = ("allowed", "failures", "idle", "key", "links", "opening", "probe_at", "step", "waiting", "why")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.waiting: deque[Job] = deque()
        self.idle: list[Link] = []  # used last at the end
        self.links = 0  # all that are not gone
        self.opening = 0
        self.allowed = FIRST_LINKS
        self.step = 1.0
        self.failures = 0  # in a row; any means: out of reach
        self.probe_at = 0.0
        self.why: Reply | None = None

    def __repr__(self) -> str:
        health = f", out of reach until {self.probe_at:.0f}: {self.why}" if self.failures else ""
        return f"<{self.key}: {len(self.waiting)} waiting, {self.links} connections, {len(self.idle)} idle{health}>"


class Pool(Generic[Job]):
    """The records, and the decision."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.counts = Counts()
        self.links = 0
        self._closing = 0
        self._lines: dict[Key, Line[Job]] = {}
        self._touched: dict[Key, Line[Job]] = {}
        self._starved: dict[Key, Line[Job]] = {}  # want a connection and the pool is full; who waits longest is first
        self._idle: dict[Link, None] = {}  # all idle ones, idle longest first

    def __repr__(self) -> str:
        waiting = sum(len(line.waiting) for line in self._lines.values())
        return (
            f"<Pool: {waiting} waiting, {self.links} connections ({len(self._idle)} idle) to {len(self._lines)} destinations, "
            f"{self.counts.opened} opened, {self.counts.hit_rate:.0%} hits>"
        )

    # --- what is known ---

    def refusal(self, key: Key, now: float) -> Reply | None:
        """Why nothing may wait for `key` now: it is out of reach and its next probe is not due.  None: something may.

        While the probe is under way some may wait for its end, a bounded number.
        """
        line = self._lines.get(key)
        if line is None or not line.failures:
            return None
        if line.links:
            return line.why if len(line.waiting) >= self.limits.probe_waiting else None
        return line.why if now < line.probe_at else None

    @property
    def lines(self) -> Sequence[Line[Job]]:
        """The destinations that are known, for whoever wants to look."""
        return tuple(self._lines.values())

    # --- what happens ---

    def submit(self, key: Key, job: Job, *, first: bool = False) -> None:
        """A transaction waits for a connection; `first`: before all others, because it had one that was stale."""
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key)
            if len(self._lines) > KEYS_KEPT:
                self._forget()
        if first:
            line.waiting.appendleft(job)
        else:
            line.waiting.append(job)
        self._touched[key] = line

    def withdraw(self, key: Key, job: Job) -> bool:
        """The transaction is not wanted any more.  False where it does not wait."""
        line = self._lines.get(key)
        if line is None or job not in line.waiting:
            return False
        line.waiting.remove(job)
        self._touched[key] = line
        return True

    def opened(self, link: Link, now: float) -> None:
        """The connection is ready for its first transaction."""
        line = self._lines[link.key]
        line.opening -= 1
        line.failures = 0
        line.why = None
        self.counts.opened += 1
        self._rest(line, link, now)

    def finished(self, link: Link, now: float) -> None:
        """A transaction is over, and the connection can take another."""
        self._rest(self._lines[link.key], link, now)

    def unused(self, link: Link, now: float) -> None:
        """The transaction that was to begin has not: it comes again later."""
        link.messages -= 1
        if link.messages:
            self.counts.reused -= 1
        self._idle_again(self._lines[link.key], link, now)

    def failed(self, link: Link, now: float, why: Reply) -> list[Job]:
        """A connection could not be opened, or was of no use.  Return what waited for it and has to go elsewhere."""
        line = self._lines[link.key]
        self.counts.failed += 1
        self._remove(line, link)
        if line.links:  # others work, or are still trying: the destination has enough of us
            line.allowed = max(1.0, min(line.allowed, float(line.links)))
            line.step = CAREFUL_STEP
            return []
        pause = self.limits.probe_seconds * 2.0 ** min(line.failures, 20)
        line.failures += 1
        line.probe_at = now + min(pause, self.limits.probe_seconds_most)
        line.why = why
        line.allowed, line.step = FIRST_LINKS, 1.0
        evicted = list(line.waiting)
        line.waiting.clear()
        self._starved.pop(link.key, None)
        return evicted

    def gone(self, link: Link) -> None:
        """The connection has ended, whoever ended it."""
        if link.state is not LinkState.GONE:
            self._remove(self._lines[link.key], link)

    def forgive(self) -> None:
        """Nothing counts as out of reach any more: the next transaction finds things as at the start."""
        for line in self._lines.values():
            if line.failures:
                line.failures = 0
                line.why = None
                self._touched[line.key] = line

    # --- the decision ---

    def assign(self, now: float) -> Plan[Job]:
        """What to close, to open and to begin.  The records take it for done."""
        plan: Plan[Job] = Plan([], [], [])
        if self._starved:
            self._relieve(plan, now)
        touched, self._touched = self._touched, {}
        for line in touched.values():
            self._serve(line, plan, now)
        if self._starved:
            self._relieve(plan, now)
        return plan

    def reap(self, now: float) -> list[Link]:
        """Connections that were idle for too long, or are too old: the caller says QUIT on them."""
        worn = []
        for link in list(self._idle):
            if now - link.since >= self.limits.idle_seconds or self._is_worn(link, now):
                worn.append(link)
                self._close(link)
        return worn

    def overdue(self, is_overdue: Callable[[Job], bool]) -> list[Job]:
        """Take away what has waited too long: of each destination the first ones, as they came in that order."""
        late: list[Job] = []
        for line in self._lines.values():
            while line.waiting and is_overdue(line.waiting[0]):
                late.append(line.waiting.popleft())
        return late

    def close_idle(self) -> list[Link]:
        """All idle ones: the server stops."""
        idle = list(self._idle)
        for link in idle:
            self._close(link)
        return idle

    # --- inside ---

    def _serve(self, line: Line[Job], plan: Plan[Job], now: float) -> None:
        """Give a destination's idle connections to what waits, and open more where there is room."""
        waiting, idle = line.waiting, line.idle
        while waiting and idle:
            link = idle[-1]
            if self._is_worn(link, now):
                self._close(link)
                plan.close.append(link)
                continue
            idle.pop()
            del self._idle[link]
            link.state = LinkState.BUSY
            if link.messages:
                self.counts.reused += 1
            link.messages += 1
            plan.begin.append((link, waiting.popleft()))
        while self._wants(line):
            if self.links >= self._places(line):
                self._starved[line.key] = line
                return
            self._open(line, plan, now)
        self._starved.pop(line.key, None)

    def _relieve(self, plan: Plan[Job], now: float) -> None:
        """Share out what room there is, one connection to each starved destination in turn; make room where it is fair."""
        rounds = len(self._starved)
        while self._starved and rounds:
            rounds -= 1
            key, line = next(iter(self._starved.items()))
            del self._starved[key]
            if not self._wants(line):
                continue
            if self.links < self._places(line):
                self._open(line, plan, now)
                rounds = len(self._starved) + 1
            elif self._closing <= len(self._starved):  # one is closing for each of the others already
                victim = self._victim(line)
                if victim is not None:
                    self._close(victim)
                    plan.close.append(victim)
            if self._wants(line):
                self._starved[key] = line

    def _victim(self, poor: Line[Job]) -> Link | None:
        """An idle connection that `poor` may have the room of: nobody wants it, or its destination has more than its part."""
        for link in self._idle:
            rich = self._lines[link.key]
            if not rich.waiting or rich.links > poor.links + 1:
                return link
        return None

    def _places(self, line: Line[Job]) -> int:
        """How many connections there may be, in all, for this destination to open one more."""
        in_all = self.limits.in_all
        if line.links in (0, self.links):  # it has none, or nobody else has any
            return in_all
        return in_all - in_all // NEWCOMERS_PART

    def _wants(self, line: Line[Job]) -> bool:
        if len(line.waiting) <= line.opening:
            return False
        allowed = 1 if line.failures else min(int(line.allowed), self.limits.per_destination)
        return line.links < allowed

    def _open(self, line: Line[Job], plan: Plan[Job], now: float) -> None:
        link = Link(line.key, now)
        plan.open.append((link, line.waiting[line.opening]))
        line.links += 1
        line.opening += 1
        self.links += 1

    def _rest(self, line: Line[Job], link: Link, now: float) -> None:
        if line.allowed < self.limits.per_destination:
            line.allowed += line.step
        self._idle_again(line, link, now)

    def _idle_again(self, line: Line[Job], link: Link, now: float) -> None:
        link.state = LinkState.IDLE
        link.since = now
        line.idle.append(link)
        self._idle[link] = None
        self._touched[link.key] = line

    def _close(self, link: Link) -> None:
        """An idle connection begins to close; it counts until it is gone."""
        self._lines[link.key].idle.remove(link)
        del self._idle[link]
        link.state = LinkState.CLOSING
        self._closing += 1

    def _remove(self, line: Line[Job], link: Link) -> None:
        if link.state is LinkState.OPENING:
            line.opening -= 1
        elif link.state is LinkState.IDLE:
            line.idle.remove(link)
            del self._idle[link]
        elif link.state is LinkState.CLOSING:
            self._closing -= 1
        link.state = LinkState.GONE
        line.links -= 1
        self.links -= 1
        self._touched[link.key] = line

    def _is_worn(self, link: Link, now: float) -> bool:
        return link.messages >= self.limits.messages or now - link.opened_at >= self.limits.age_seconds

    def _forget(self) -> None:
        """Drop destinations with nothing to do, the oldest first."""
        for key, line in list(self._lines.items()):
            if len(self._lines) <= KEYS_KEPT // 2:
                return
            if not (line.links or line.waiting):
                del self._lines[key]
                self._touched.pop(key, None)
