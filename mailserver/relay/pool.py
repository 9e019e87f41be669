"""Which transaction goes over which connection: pure, without sockets and without a clock.

`Pool` keeps records of connections (`ConnectionRecord`) and of what waits for them.  It is told what has happened
(`submit`, `opened`, `finished`, `failed`, `gone`).  `assign` then returns what the caller shall do: open these, close
those, begin this on that.  `assign` itself does no I/O and takes the time as a number, so that any history can be tested.

Rules:

- a waiting transaction takes an idle connection to its key, the one used last, before a new one is opened;
- a new destination begins with few connections and gets one more with each success; one that turns connections away while
  others work keeps as many as it let in;
- a destination whose last connection fails is out of reach: it is probed by one connection at a time, at growing intervals;
- the destinations of one host or operator share a pace (`pace`): connections at once, and messages a minute; a connection counts
  until its socket is closed;
- at the cap for all, a destination with fewer connections takes one over from a destination with more;
- the last tenth below that cap is for destinations without a connection, so that slow destinations, which hold theirs for
  minutes, cannot keep a good one waiting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mailserver.mail.reply import Reply
from mailserver.relay.operators import PaceLimit, PaceTable
from mailserver.relay.pace import DestinationPace, Paces
from mailserver.relay.pool_records import (
    FIRST_CONNECTIONS,
    ConnectionRecord,
    DestinationQueue,
    Key,
    Plan,
    PoolCounts,
    PoolLimits,
    RecordState,
)
from mailserver.relay.rate_replies import SlowDown

__all__ = ["PoolCounts", "Key", "ConnectionRecord", "RecordState", "Plan", "Pool", "PoolLimits"]

Job = TypeVar("Job")

CAREFUL_STEP = 0.02  # what each success adds to the number of connections, after the peer has turned one away
NEWCOMERS_PART = 10  # one connection in so many is for destinations without one
PACE_AGAIN_SECONDS = 60.0
PACE_STEP_SECONDS = 0.05  # between two looks at what waits for its turn
KEYS_KEPT = 10_000  # destinations remembered although nothing waits for them


class Pool(Generic[Job]):
    """The records of all destinations, and the decision what to do next."""

    def __init__(self, limits: PoolLimits, table: PaceTable | None = None) -> None:
        self.limits = limits
        self.paces = Paces(table or PaceTable(PaceLimit(limits.per_destination, limits.messages), known=()))
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
        # Paces for which something waits until there is room, and when the first of them has some.  Nothing else would bring
        # them to mind again: no connection ends and nothing is submitted meanwhile.
        self._paced: dict[str, DestinationPace] = {}
        self.paced_until = math.inf

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
        if destination.connections > destination.closing:
            return destination.why if len(destination.waiting) >= self.limits.probe_waiting else None
        return destination.why if now < destination.probe_at else None

    def put_off(self, key: Key, host: str, now: float, *, route: str = "") -> float | None:
        """In how many seconds a transaction for `key` shall come again, because too many wait; None where it may wait here."""
        pace = self._destination(key, host, route).pace
        if not pace.is_limited:
            return None
        return pace.put_off(sum([len(one.waiting) for one in pace.queues.values()]), now)

    def is_paused(self, key: Key, host: str, now: float) -> bool:
        """The destination has asked for less a moment ago, at this address or at another."""
        return now < self._destination(key, host).pace.paused_until

    def pace_of(self, key: Key) -> DestinationPace:
        """The pace of a destination that is known."""
        return self._destinations[key].pace

    @property
    def destinations(self) -> Sequence[DestinationQueue[Job]]:
        """All known destinations, for reading."""
        return tuple(self._destinations.values())

    # --- what happens ---

    def submit(self, key: Key, job: Job, *, host: str = "", first: bool = False) -> None:
        """A transaction waits for a connection.  `host` is the name that led to the address.

        `first`: before all others, because its connection was stale.
        """
        destination = self._destinations.get(key) or self._destination(key, host)
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
        destination.pace.opening -= 1
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
        destination = self._destinations[record.key]
        destination.pace.not_begun()
        self._idle_again(destination, record, now)

    def failed(
        self,
        record: ConnectionRecord,
        now: float,
        why: Reply,
        *,
        slow_down: SlowDown | None = None,
        begun_at: float | None = None,
        is_open: bool = False,
    ) -> list[Job]:
        """A connection could not be opened or used.  Return the transactions that have to go to another host.

        `slow_down`: what `why` says of our pace, and `begun_at` when the transaction began that heard it, None where the
        connection itself was turned away.  `is_open`: its socket is; `gone` follows.
        """
        destination = self._destinations[record.key]
        self.counts.failed += 1
        destination.pace.heard(why, now)
        if slow_down is not None:
            destination.pace.refused(slow_down, record.opened_at if begun_at is None else begun_at, now, why)
        self._retire(destination, record) if is_open else self._remove(destination, record)
        usable = destination.connections - destination.closing
        if usable:  # others work, or are being opened: the destination only limits their number
            destination.allowed = max(1.0, min(destination.allowed, float(usable)))
            destination.step = CAREFUL_STEP
            return []
        if slow_down is not None and destination.pace.is_limited:  # it is in reach, and pauses; the one that asked has its answer
            destination.allowed, destination.step = FIRST_CONNECTIONS, 1.0
            return [destination.waiting.popleft()] if destination.waiting and begun_at is None else []
        pause = self.limits.probe_seconds * 2.0 ** min(destination.failures, 20)
        destination.failures += 1
        destination.probe_at = now + min(pause, self.limits.probe_seconds_most)
        destination.why = why
        destination.allowed, destination.step = FIRST_CONNECTIONS, 1.0
        evicted = list(destination.waiting)
        destination.waiting.clear()
        self._starved.pop(record.key, None)
        return evicted

    def slowed(self, record: ConnectionRecord, what: SlowDown, begun_at: float, now: float, why: Reply) -> None:
        """A transaction that was begun then was refused with a reply about our pace."""
        self._destinations[record.key].pace.refused(what, begun_at, now, why)

    def heard(self, record: ConnectionRecord, why: Reply, now: float) -> None:
        """The peer has said so, and it was no success."""
        self._destinations[record.key].pace.heard(why, now)

    def taken(self, record: ConnectionRecord, begun_at: float, now: float) -> None:
        """A transaction that was begun then has had an answer that is not about our pace."""
        self._destinations[record.key].pace.taken(begun_at, now)

    def ending(self, record: ConnectionRecord) -> None:
        """No more commands can be sent on the connection.  It takes its place until it is `gone`."""
        if record.state not in (RecordState.CLOSING, RecordState.GONE):
            self._retire(self._destinations[record.key], record)

    def gone(self, record: ConnectionRecord) -> None:
        """The connection's socket is closed, whoever closed it.  May be called twice."""
        if record.state is not RecordState.GONE:
            self._remove(self._destinations[record.key], record)

    def forgive(self) -> None:
        """Forget all failures: no destination counts as out of reach any more, and all go as fast as they are configured."""
        self.paces.forgive()
        for pace in self.paces:
            self._touch(pace)
            pace.starved = {}
        self._paced, self.paced_until = {}, math.inf
        for destination in self._destinations.values():
            if destination.failures:
                destination.failures = 0
                destination.why = None
                self._touched[destination.key] = destination

    def change(self, limits: PoolLimits, table: PaceTable) -> None:
        """Go on with these limits.  Each destination has its pace by the new table; what is known of one stays with its name."""
        self.limits = limits
        self.paces = Paces(table)
        for key, destination in self._destinations.items():
            host = "" if destination.pace.name == key.address else destination.host  # several names have led there
            self.paces.find(host, key.address, key.port)
        for destination in self._destinations.values():
            former, key = destination.pace, destination.key
            pace = self.paces.known(key.address, key.port) or self.paces.find(destination.host, key.address, key.port)
            if not pace.queues and pace.name == former.name:
                pace.follow(former)
            pace.take_over(key, destination)
            destination.pace = pace
            if destination.waiting:
                self._touched[key] = destination
        self._paced, self.paced_until = {}, math.inf

    # --- the decision ---

    def assign(self, now: float) -> Plan[Job]:
        """What to close, to open and to begin.  The records count it as done."""
        plan: Plan[Job] = Plan([], [], [])
        if now >= self.paced_until:
            self._wake(now)
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
            if now - record.since >= self.limits.idle_seconds or self._is_worn(self._destinations[record.key], record, now):
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

    def surplus(self, now: float) -> list[tuple[Job, float]]:
        """Take out what waits for paces that have become too slow for so many, the last first; and when each shall come again."""
        found: list[tuple[Job, float]] = []
        for pace in self._paced.values():
            left = sum([len(one.waiting) for one in pace.queues.values()])
            most = pace.waiting_most(now)
            for destination in reversed(pace.queues.values()) if left > most else ():
                while destination.waiting and left > most:
                    left -= 1
                    seconds = pace.put_off(left, now)
                    found.append((destination.waiting.pop(), PACE_AGAIN_SECONDS if seconds is None else seconds))
        return found

    def close_idle(self) -> list[ConnectionRecord]:
        """Take out all idle connections, because the server stops.  The caller sends QUIT on them."""
        idle = list(self._idle)
        for record in idle:
            self._close(record)
        return idle

    # --- inside ---

    def _destination(self, key: Key, host: str, route: str = "") -> DestinationQueue[Job]:
        destination = self._destinations.get(key)
        if destination is None:
            pace = self._pace(key, host)
            destination = self._destinations[key] = pace.queues[key] = DestinationQueue(key, pace, host, route)
            if len(self._destinations) > KEYS_KEPT:
                self._forget(key)
        elif host != destination.host and not destination.pace.is_shared:
            self._pace(key, host)
        return destination

    def _pace(self, key: Key, host: str) -> DestinationPace:
        """The pace of an address.  Where this name changes which it is, all that goes to the address has it."""
        former = self.paces.known(key.address, key.port)
        pace = self.paces.find(host, key.address, key.port)
        if former is not None and former is not pace:
            for other in [one for one in former.queues if (one.address, one.port) == (key.address, key.port)]:
                queue = former.give_up(other)
                pace.take_over(other, queue)
                queue.pace = pace
                self._touched[other] = queue
            self._changed(former)
        return pace

    def _serve(self, destination: DestinationQueue[Job], plan: Plan[Job], now: float) -> None:
        """Give a destination's idle connections to waiting transactions, and open more where there is room."""
        waiting, idle, pace = destination.waiting, destination.idle, destination.pace
        while waiting and idle:
            record = idle[-1]
            if self._is_worn(destination, record, now):
                self._close(record)
                plan.close.append(record)
                continue
            if pace.per_minute is not None and not pace.room(now):
                break
            idle.pop()
            del self._idle[record]
            record.state = RecordState.BUSY
            if record.messages:
                self.counts.reused += 1
            record.messages += 1
            pace.begin(now)
            plan.begin.append((record, waiting.popleft()))
        while self._wants(destination, now):
            if pace.connections >= pace.connections_most:
                self._starve(destination, plan)
                break
            if self.connections >= self._places(destination):
                self._starved[destination.key] = destination
                return
            self._open(destination, plan, now)
        self._starved.pop(destination.key, None)
        if waiting and pace.per_minute is not None:
            self._await_turn(destination, now)

    def _await_turn(self, destination: DestinationQueue[Job], now: float) -> None:
        """Come back when its pace has room.  The others of the same pace have their turns before it does again."""
        pace = destination.pace
        if len(pace.queues) > 1:
            pace.queues[destination.key] = pace.queues.pop(destination.key)
        if not pace.room(now):
            self._paced[pace.name] = pace
            self.paced_until = min(self.paced_until, max(pace.ready_at(now), now + PACE_STEP_SECONDS))

    def _wake(self, now: float) -> None:
        """Look again at those whose pace has room by now."""
        paced, self._paced, self.paced_until = self._paced, {}, math.inf
        for pace in paced.values():
            if now < pace.ready_at(now):
                self._paced[pace.name] = pace
                self.paced_until = min(self.paced_until, pace.ready_at(now))
            else:
                self._touch(pace)

    def _touch(self, pace: DestinationPace) -> None:
        for destination in pace.queues.values():
            if destination.waiting:
                self._touched[destination.key] = destination

    def _starve(self, poor: DestinationQueue[Job], plan: Plan[Job]) -> None:
        """All connections of its pace are taken.  Where others of the pace have more than it, one of theirs is given up."""
        pace = poor.pace
        if pace.connections == poor.connections:
            return  # what ends is its own
        pace.starved[poor.key] = poor
        if any(one.closing for one in pace.queues.values()):
            return
        for rich in pace.queues.values():
            if rich.idle and (not rich.waiting or rich.connections > poor.connections + 1):
                victim = rich.idle[0]
                self._close(victim)
                plan.close.append(victim)
                return

    def _relieve(self, plan: Plan[Job], now: float) -> None:
        """Give the free room to the starved destinations, one connection each in turn.  Make room where that is fair."""
        rounds = len(self._starved)
        while self._starved and rounds:
            rounds -= 1
            key, destination = next(iter(self._starved.items()))
            del self._starved[key]
            if not self._wants(destination, now):
                continue
            if destination.pace.connections >= destination.pace.connections_most:
                self._starve(destination, plan)
                continue
            if self.connections < self._places(destination):
                self._open(destination, plan, now)
                rounds = len(self._starved) + 1
            elif self._closing <= len(self._starved):  # for each of the others a connection is closing already
                victim = self._victim(destination)
                if victim is not None:
                    self._close(victim)
                    plan.close.append(victim)
            if self._wants(destination, now):
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

    def _wants(self, destination: DestinationQueue[Job], now: float) -> bool:
        """Whether it would open one connection more, if its pace and the pool have a place."""
        if len(destination.waiting) <= destination.opening:
            return False
        pace = destination.pace
        allowed = 1 if destination.failures else min(int(destination.allowed), pace.connections_most)
        if destination.connections >= allowed:
            return False
        return pace.per_minute is None or pace.room(now) > pace.opening

    def _open(self, destination: DestinationQueue[Job], plan: Plan[Job], now: float) -> None:
        record = ConnectionRecord(destination.key, now)
        plan.open.append((record, destination.waiting[destination.opening]))
        destination.connections += 1
        destination.opening += 1
        destination.pace.connections += 1
        destination.pace.opening += 1
        self.connections += 1

    def _rest(self, destination: DestinationQueue[Job], record: ConnectionRecord, now: float) -> None:
        if destination.allowed < destination.pace.limit.connections:
            destination.allowed += destination.step
        if record.state is RecordState.BUSY:
            destination.pace.busy -= 1
        self._idle_again(destination, record, now)

    def _idle_again(self, destination: DestinationQueue[Job], record: ConnectionRecord, now: float) -> None:
        record.state = RecordState.IDLE
        record.since = now
        destination.idle.append(record)
        self._idle[record] = None
        self._touched[record.key] = destination
        if destination.pace.per_minute is not None or destination.pace.starved:
            self._changed(destination.pace)

    def _close(self, record: ConnectionRecord) -> None:
        """Begin to close an idle connection.  It counts until it is gone."""
        self._retire(self._destinations[record.key], record)

    def _retire(self, destination: DestinationQueue[Job], record: ConnectionRecord) -> None:
        """It is of no use any more, and counts until it is gone."""
        self._put_down(destination, record)
        record.state = RecordState.CLOSING
        destination.closing += 1
        self._closing += 1
        self._touched[record.key] = destination
        if destination.pace.per_minute is not None:
            self._touch(destination.pace)

    def _remove(self, destination: DestinationQueue[Job], record: ConnectionRecord) -> None:
        self._put_down(destination, record)
        record.state = RecordState.GONE
        destination.connections -= 1
        destination.pace.connections -= 1
        self.connections -= 1
        self._touched[record.key] = destination
        if destination.pace.per_minute is not None or destination.pace.starved:
            self._changed(destination.pace)

    def _put_down(self, destination: DestinationQueue[Job], record: ConnectionRecord) -> None:
        """Undo what its state has counted."""
        if record.state is RecordState.OPENING:
            destination.opening -= 1
            destination.pace.opening -= 1
        elif record.state is RecordState.IDLE:
            destination.idle.remove(record)
            del self._idle[record]
        elif record.state is RecordState.BUSY:
            destination.pace.busy -= 1
        elif record.state is RecordState.CLOSING:
            destination.closing -= 1
            self._closing -= 1

    def _changed(self, pace: DestinationPace) -> None:
        """A message or a connection of the pace has ended: others of its destinations may have waited for that."""
        if pace.starved:  # before the one whose connection it was, which would only take it again
            self._touched = {**pace.starved, **self._touched}
            pace.starved = {}
        if pace.per_minute is not None:
            self._touch(pace)

    def _is_worn(self, destination: DestinationQueue[Job], record: ConnectionRecord, now: float) -> bool:
        return record.messages >= destination.pace.limit.messages or now - record.opened_at >= self.limits.age_seconds

    def _forget(self, kept: Key) -> None:
        """Drop destinations with nothing to do, the oldest first."""
        for key, destination in list(self._destinations.items()):
            if len(self._destinations) <= KEYS_KEPT // 2:
                return
            if not (destination.connections or destination.waiting) and key != kept:
                del self._destinations[key]
                self._touched.pop(key, None)
                del destination.pace.queues[key]
                self.paces.released(destination.pace, key.address, key.port)
