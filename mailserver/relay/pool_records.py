"""What the pool keeps: of connections, of destinations, and what its decision is made of."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from mailserver.mail.reply import Reply
from mailserver.relay.pace import DestinationPace

__all__ = ["ConnectionRecord", "DestinationQueue", "Key", "Plan", "PoolCounts", "PoolLimits", "RecordState"]

Job = TypeVar("Job")

FIRST_CONNECTIONS = 2.0  # to a destination that has not yet shown that it answers


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
    """Connections to one destination and in all; messages, age and idle time of one connection; pauses between probes.

    `per_destination` and `messages` are for a destination of which a table of paces says nothing else.
    """

    per_destination: int = 20
    in_all: int = 500
    messages: int = 100
    age_seconds: float = 300.0
    idle_seconds: float = 15.0
    probe_seconds: float = 30.0
    probe_seconds_most: float = 900.0
    probe_waiting: int = 100


class RecordState(enum.Enum):
    """The state of a connection.  CLOSING: no more commands can be sent on it, and its socket is still open."""

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

    __slots__ = (
        "allowed", "closing", "connections", "failures", "host", "idle", "key", "opening", "pace", "probe_at", "route",
        "step", "waiting", "why",
    )  # fmt: skip

    def __init__(self, key: Key, pace: DestinationPace, host: str = "", route: str = "") -> None:
        self.key = key
        self.host, self.route = host, route  # the names that led here first
        self.pace = pace
        self.waiting: deque[Job] = deque()
        self.idle: list[ConnectionRecord] = []  # the one used last stands at the end
        self.connections = 0  # all that are not gone, including those that are closing
        self.closing = 0
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
