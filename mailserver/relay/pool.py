"""Which transaction goes over which connection: pure, without sockets and without a clock.

`Pool` keeps records of connections (`ConnectionRecord`) and of what waits for them.  It is told what has happened
(`submit`, `opened`, `finished`, `failed`, `gone`).  `assign` then returns what the caller shall do: open these, close
those, begin this on that.  `assign` itself does no I/O and takes the time as a number, so that any history can be tested.

Rules:

- a waiting transaction takes an idle connection to its key, the one used last, before a new one is opened;
- a new destination begins with few connections and gets one more with each success; one that turns connections away while
  others work keeps as many as it let in;
- a destination whose last connection fails is out of reach: it is probed by one connection at a time, at growing intervals;
- at the cap for all, a destination with fewer connections takes one over from a destination with more;
- the last tenth below that cap is for destinations without a connection, so that slow destinations, which hold theirs for
  minutes, cannot keep a good one waiting.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from mailserver.mail.reply import Reply

__all__ = ["PoolCounts", "Key", "ConnectionRecord", "RecordState", "Plan", "Pool", "PoolLimits"]

Job = TypeVar("Job")

FIRST_CONNECTIONS = 2.0  # to a destination that has not yet shown that it answers
CAREFUL_STEP = 0.02  # what each success adds to the number of connections, after the peer has turned one away
NEWCOMERS_PART = 10  # one connection in so many is for destinations without one
KEYS_KEPT = 10_000  # destinations remembered although nothing waits for them


class Key(NamedTuple):
    """What makes two connections interchangeable.

    `address` is numeric.  `policy` is the value of the demand on TLS.  `source` is our own address or "".
    `identity` is who we are there: the log-in, the client certificate; None where we are nobody in particular.
    """

    address: str
    port: int
    policy: str
    source: str = ""
    identity: Hashable = None

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


class RecordState(enum.Enum):
    """The state of a connection."""

    OPENING = "opening"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"
    GONE = "gone"


class ConnectionRecord:
    """The pool's record of one connection."""

    __slots__ = ("key", "messages", "opened_at", "since", "state")

    def __init__(self, key: Key, now: float) -> None:
        self.key = key
        self.state = RecordState.OPENING
        self.opened_at = now
        self.since = now  # idle since
        self.messages = 0  # transactions begun on it

    def __repr__(self) -> str:
        return f"<ConnectionRecord {self.key} {self.state.value}, {self.messages} messages>"


class Plan(NamedTuple, Generic[Job]):
    """What the caller shall do, field by field, in this order."""

    close: list[ConnectionRecord]
    open: list[tuple[ConnectionRecord, Job]]  # with the transaction that wants it first
    begin: list[tuple[ConnectionRecord, Job]]


@dataclass(slots=True)
class PoolCounts:
    """Counts since the start.  `stale` counts connections that the peer had closed before they were used again."""

    opened: int = 0
    reused: int = 0
    failed: int = 0
    stale: int = 0

    @property
    def hit_rate(self) -> float:
        """The part of all transactions that used an open connection, from 0 to 1."""
        begun = self.opened + self.reused
        return self.reused / begun if begun else 0.0


class DestinationQueue(Generic[Job]):
    """One destination: what waits for it, its connections, and what is known of its health."""

    __slots__ = ("allowed", "failures", "idle", "key", "connections", "opening", "probe_at", "step", "waiting", "why")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.waiting: deque[Job] = deque()
        self.idle: list[ConnectionRecord] = []  # the one used last stands at the end
        self.connections = 0  # all that are not gone, including those that are closing
        # For so many of `waiting` a connection is being opened.  Without the count each `assign` between a connect and its
        # success would open another connection for the same transaction.  It is a number, not a pairing: whichever connection
        # is ready first takes the transaction that has waited longest.
        self.opening = 0
        # A fraction: after a host has turned a connection away it takes many successes until one more is tried.
        self.allowed = FIRST_CONNECTIONS
        self.step = 1.0
        # Failures in a row; above 0 the destination is out of reach.  Only the failure of the last connection counts: where
        # others work, a refusal is about their number.  The success of a probe sets it back to 0.
        self.failures = 0
        self.probe_at = 0.0
        self.why: Reply | None = None

    def __repr__(self) -> str:
        health = f", out of reach until {self.probe_at:.0f}: {self.why}" if self.failures else ""
        return f"<{self.key}: {len(self.waiting)} waiting, {self.connections} connections, {len(self.idle)} idle{health}>"


class Pool(Generic[Job]):
    """The records of all destinations, and the decision what to do next."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.counts = PoolCounts()
        self.connections = 0
        # Connections after QUIT whose socket is still open: each takes room until it is `gone`.  Without the count each `assign`
        # between the two would give up one more idle connection for the same starved destination.
        self._closing = 0
        self._destinations: dict[Key, DestinationQueue[Job]] = {}
        # The destinations that have changed since the last `assign`, so that a decision need not look at ten thousand.
        self._touched: dict[Key, DestinationQueue[Job]] = {}
        # Destinations that want a connection while the pool is full, the longest waiting first.  A connection that ends marks
        # only its own destination as changed.  Without this record nobody would use the room that it leaves.
        self._starved: dict[Key, DestinationQueue[Job]] = {}
        self._idle: dict[ConnectionRecord, None] = {}  # all idle connections, the longest idle first

    def __repr__(self) -> str:
        waiting = sum(len(destination.waiting) for destination in self._destinations.values())
        return (
            f"<Pool: {waiting} waiting, {self.connections} connections ({len(self._idle)} idle) "
            f"to {len(self._destinations)} destinations, {self.counts.opened} opened, {self.counts.hit_rate:.0%} hits>"
        )

    # --- what is known ---

    def refusal(self, key: Key, now: float) -> Reply | None:
        """Why nothing may wait for `key` now: it is out of reach and its next probe is not due.  None where something may.

        While a probe is under way a bounded number may wait for its end.
        """
        destination = self._destinations.get(key)
        if destination is None or not destination.failures:
            return None
        if destination.connections:
            return destination.why if len(destination.waiting) >= self.limits.probe_waiting else None
        return destination.why if now < destination.probe_at else None

    @property
    def destinations(self) -> Sequence[DestinationQueue[Job]]:
        """All known destinations, for reading."""
        return tuple(self._destinations.values())

    # --- what happens ---

    def submit(self, key: Key, job: Job, *, first: bool = False) -> None:
        """A transaction waits for a connection.  `first`: before all others, because its connection was stale."""
        destination = self._destinations.get(key)
        if destination is None:
            destination = self._destinations[key] = DestinationQueue(key)
            if len(self._destinations) > KEYS_KEPT:
                self._forget()
        if first:
            destination.waiting.appendleft(job)
        else:
            destination.waiting.append(job)
        self._touched[key] = destination

    def withdraw(self, key: Key, job: Job) -> bool:
        """The transaction is not wanted any more.  Return False where it was not waiting."""
        destination = self._destinations.get(key)
        if destination is None or job not in destination.waiting:
            return False
        destination.waiting.remove(job)
        self._touched[key] = destination
        return True

    def opened(self, record: ConnectionRecord, now: float) -> None:
        """The connection is ready for its first transaction."""
        destination = self._destinations[record.key]
        destination.opening -= 1
        destination.failures = 0
        destination.why = None
        self.counts.opened += 1
        self._rest(destination, record, now)

    def finished(self, record: ConnectionRecord, now: float) -> None:
        """A transaction is over, and the connection can take another."""
        self._rest(self._destinations[record.key], record, now)

    def unused(self, record: ConnectionRecord, now: float) -> None:
        """The transaction that was assigned has not begun; the caller submits it again later."""
        record.messages -= 1
        if record.messages:
            self.counts.reused -= 1
        self._idle_again(self._destinations[record.key], record, now)

    def failed(self, record: ConnectionRecord, now: float, why: Reply) -> list[Job]:
        """A connection could not be opened or used.  Return the transactions that have to go to another host."""
        destination = self._destinations[record.key]
        self.counts.failed += 1
        self._remove(destination, record)
        if destination.connections:  # others work, or are being opened: the destination only limits their number
            destination.allowed = max(1.0, min(destination.allowed, float(destination.connections)))
            destination.step = CAREFUL_STEP
            return []
        pause = self.limits.probe_seconds * 2.0 ** min(destination.failures, 20)
        destination.failures += 1
        destination.probe_at = now + min(pause, self.limits.probe_seconds_most)
        destination.why = why
        destination.allowed, destination.step = FIRST_CONNECTIONS, 1.0
        evicted = list(destination.waiting)
        destination.waiting.clear()
        self._starved.pop(record.key, None)
        return evicted

    def gone(self, record: ConnectionRecord) -> None:
        """The connection has ended, whoever ended it.

        May be called twice: when no more commands can be sent, and when the socket is closed.
        """
        if record.state is not RecordState.GONE:
            self._remove(self._destinations[record.key], record)

    def forgive(self) -> None:
        """Forget all failures: no destination counts as out of reach any more."""
        for destination in self._destinations.values():
            if destination.failures:
                destination.failures = 0
                destination.why = None
                self._touched[destination.key] = destination

    # --- the decision ---

    def assign(self, now: float) -> Plan[Job]:
        """What to close, to open and to begin.  The records count it as done."""
        plan: Plan[Job] = Plan([], [], [])
        if self._starved:
            self._relieve(plan, now)
        touched, self._touched = self._touched, {}
        for destination in touched.values():
            self._serve(destination, plan, now)
        if self._starved:
            self._relieve(plan, now)
        return plan

    def reap(self, now: float) -> list[ConnectionRecord]:
        """Take out connections that were idle for too long or are too old.  The caller sends QUIT on them."""
        worn = []
        for record in list(self._idle):
            if now - record.since >= self.limits.idle_seconds or self._is_worn(record, now):
                worn.append(record)
                self._close(record)
        return worn

    def overdue(self, is_overdue: Callable[[Job], bool]) -> list[Job]:
        """Take out transactions that have waited too long.  Each destination's are in order: only the first are looked at."""
        late: list[Job] = []
        for destination in self._destinations.values():
            while destination.waiting and is_overdue(destination.waiting[0]):
                late.append(destination.waiting.popleft())
        return late

    def close_idle(self) -> list[ConnectionRecord]:
        """Take out all idle connections, because the server stops.  The caller sends QUIT on them."""
        idle = list(self._idle)
        for record in idle:
            self._close(record)
        return idle

    # --- inside ---

    def _serve(self, destination: DestinationQueue[Job], plan: Plan[Job], now: float) -> None:
        """Give a destination's idle connections to waiting transactions, and open more where there is room."""
        waiting, idle = destination.waiting, destination.idle
        while waiting and idle:
            record = idle[-1]
            if self._is_worn(record, now):
                self._close(record)
                plan.close.append(record)
                continue
            idle.pop()
            del self._idle[record]
            record.state = RecordState.BUSY
            if record.messages:
                self.counts.reused += 1
            record.messages += 1
            plan.begin.append((record, waiting.popleft()))
        while self._wants(destination):
            if self.connections >= self._places(destination):
                self._starved[destination.key] = destination
                return
            self._open(destination, plan, now)
        self._starved.pop(destination.key, None)

    def _relieve(self, plan: Plan[Job], now: float) -> None:
        """Give the free room to the starved destinations, one connection each in turn.  Make room where that is fair."""
        rounds = len(self._starved)
        while self._starved and rounds:
            rounds -= 1
            key, destination = next(iter(self._starved.items()))
            del self._starved[key]
            if not self._wants(destination):
                continue
            if self.connections < self._places(destination):
                self._open(destination, plan, now)
                rounds = len(self._starved) + 1
            elif self._closing <= len(self._starved):  # for each of the others a connection is closing already
                victim = self._victim(destination)
                if victim is not None:
                    self._close(victim)
                    plan.close.append(victim)
            if self._wants(destination):
                self._starved[key] = destination

    def _victim(self, poor: DestinationQueue[Job]) -> ConnectionRecord | None:
        """An idle connection to close for `poor`: one that nobody wants, or one of a destination with more than its share."""
        for record in self._idle:
            rich = self._destinations[record.key]
            if not rich.waiting or rich.connections > poor.connections + 1:
                return record
        return None

    def _places(self, destination: DestinationQueue[Job]) -> int:
        """How many connections there may be in all when this destination opens one more."""
        in_all = self.limits.in_all
        if destination.connections in (0, self.connections):  # it has none, or all of them
            return in_all
        return in_all - in_all // NEWCOMERS_PART

    def _wants(self, destination: DestinationQueue[Job]) -> bool:
        if len(destination.waiting) <= destination.opening:
            return False
        allowed = 1 if destination.failures else min(int(destination.allowed), self.limits.per_destination)
        return destination.connections < allowed

    def _open(self, destination: DestinationQueue[Job], plan: Plan[Job], now: float) -> None:
        record = ConnectionRecord(destination.key, now)
        plan.open.append((record, destination.waiting[destination.opening]))
        destination.connections += 1
        destination.opening += 1
        self.connections += 1

    def _rest(self, destination: DestinationQueue[Job], record: ConnectionRecord, now: float) -> None:
        if destination.allowed < self.limits.per_destination:
            destination.allowed += destination.step
        self._idle_again(destination, record, now)

    def _idle_again(self, destination: DestinationQueue[Job], record: ConnectionRecord, now: float) -> None:
        record.state = RecordState.IDLE
        record.since = now
        destination.idle.append(record)
        self._idle[record] = None
        self._touched[record.key] = destination

    def _close(self, record: ConnectionRecord) -> None:
        """Begin to close an idle connection.  It counts until it is gone."""
        self._destinations[record.key].idle.remove(record)
        del self._idle[record]
        record.state = RecordState.CLOSING
        self._closing += 1

    def _remove(self, destination: DestinationQueue[Job], record: ConnectionRecord) -> None:
        if record.state is RecordState.OPENING:
            destination.opening -= 1
        elif record.state is RecordState.IDLE:
            destination.idle.remove(record)
            del self._idle[record]
        elif record.state is RecordState.CLOSING:
            self._closing -= 1
        record.state = RecordState.GONE
        destination.connections -= 1
        self.connections -= 1
        self._touched[record.key] = destination

    def _is_worn(self, record: ConnectionRecord, now: float) -> bool:
        return record.messages >= self.limits.messages or now - record.opened_at >= self.limits.age_seconds

    def _forget(self) -> None:
        """Drop destinations with nothing to do, the oldest first."""
        for key, destination in list(self._destinations.items()):
            if len(self._destinations) <= KEYS_KEPT // 2:
                return
            if not (destination.connections or destination.waiting):
                del self._destinations[key]
                self._touched.pop(key, None)
