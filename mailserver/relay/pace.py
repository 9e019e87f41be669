"""How fast mail goes to one destination: pure, without sockets and without a clock.

A `DestinationPace` is of one host, or of all hosts of one operator (`operators`).  It counts connections and keeps a token
bucket of messages a minute.  A peer that says "slower" (`rate_replies`) lowers it at once, by a factor; each message that is
taken raises it again, by a step, up to the configured limit.

How it finds a limit that nobody has told it:

- The first refusal shows what the peer took in the minute before, and at which pace it was asked.  The new pace is a little below
  the former, but not below half of the latter.
- Then nothing is sent for a few seconds; then one message, and no second one before its answer.  While these are refused the
  pauses double, up to a quarter of an hour: a peer that has had enough for an hour is asked seldom, and never by all that waits.
- What was begun before the pace was lowered, and is refused after it, says nothing new.
- From there it grows by a hundredth a minute at first and twice as fast every three minutes: it stays long where the limit was,
  and is soon far above it where the limit has gone.

Mail for which there is no room waits: that of the next minute in memory, the other in the queue, until its turn (`put_off`).
"""

from __future__ import annotations

import math
from typing import Any

from mailserver.mail.reply import Reply
from mailserver.relay.operators import PaceLimit, PaceTable
from mailserver.relay.rate_replies import SlowDown

__all__ = ["NO_LIMIT", "DestinationPace", "Paces"]

NO_LIMIT = 1 << 30
MINUTE = 60.0
PART_SECONDS = 5.0  # the last minute is counted in such parts
PARTS = 12
BURST_SECONDS = 0.1  # what was left over for so long may go at once
FIRST_PAUSE_SECONDS = 5.0
PAUSE_SECONDS_MOST = 900.0
LONG_AFTER = 5  # refusals in a row: the peer counts over more than a minute, and what it took in the last one says nothing
ROUNDING = 1e-6  # of a message: a clock that rings at the very moment may be found a little too early
CAUTION = 0.95
HALF = 0.5
TAKEN_PART = 0.98
FIRST_STEP = 0.01  # messages a minute for each message: a hundredth of the pace in a minute
STEP_DOUBLES_MINUTES = 3.0
SEARCH_DOUBLES_MINUTES = 1.0  # before the second refusal: the first one may have come of a few messages at once
STEP_MOST = 1.0
ASKED_LEAST = 12.0  # messages a minute: who has had less has shown nothing
SLOWEST = 0.1  # messages a minute
FASTEST = 6000.0  # above this there is no need for a pace
CONNECTIONS_STEP = 0.02
WAITING_LEAST = 10  # so many may wait in memory at any pace
WAITING_SECONDS = 60.0
PUT_OFF_LEAST = 5.0
PUT_OFF_MOST = 1800.0
PUT_OFF_MINUTES = 60
GOLDEN = 0.6180339887  # of whose multiples the fractions lie evenly, wherever one stops
PACES_KEPT = 10_000
WORDS_KEPT = 300


class DestinationPace:
    """One destination's.  Times are seconds of any clock that nobody sets, paces are messages a minute.

    `connections` counts until the socket is closed; `opening` and `busy` are those of them that are being opened and that carry
    a message.  `queues` are the pool's, one for each address and policy.  `per_minute` is None while messages go as fast as they
    can.
    """

    __slots__ = (
        "_begun", "_connections_most", "_late", "_lowered_at", "_next_turn", "_part", "_put_off", "_searches", "_taken",
        "_tokens", "_tokens_at", "busy",
        "connections", "is_shared", "last_at", "last_reply", "limit", "lowered", "name", "opening", "paused_until",
        "per_minute", "queues", "refusals", "starved", "why",
    )  # fmt: skip

    def __init__(self, name: str, limit: PaceLimit, *, is_shared: bool = False) -> None:
        self.name = name
        self.limit = limit
        self.is_shared = is_shared  # an operator's
        self.connections = 0
        self.opening = 0
        self.busy = 0
        self.queues: dict[Any, Any] = {}
        self.starved: dict[Any, Any] = {}  # those of `queues` that want a connection while all are taken
        self.lowered = 0  # how often
        self.last_reply = ""  # that was no success
        self.why = ""  # what it has meant for the pace
        self._put_off: dict[int, int] = {}  # how many come again in which minute
        self._late = 0
        self.last_at: float | None = None
        self.forgive()
        self._part = 0
        self._begun = [0] * PARTS
        self._taken = [0] * PARTS

    def __repr__(self) -> str:
        pace = "as it goes" if self.per_minute is None else f"{self.per_minute:.3g} a minute"
        return f"<DestinationPace of {self.name}: {self.connections} connections, {pace}>"

    def forgive(self) -> None:
        """Back to the configured limits."""
        self.per_minute: float | None = self.limit.per_minute or None
        self.paused_until = 0.0
        self.refusals = 0  # in a row
        self._connections_most = float(self.limit.connections)
        self._lowered_at: float | None = None
        self._searches = False
        self._next_turn = 0.0
        self._tokens = 1.0
        self._tokens_at = 0.0

    def follow(self, former: DestinationPace) -> None:
        """It is the pace of the same destination, whose limits may have changed."""
        if former.is_lowered and former.per_minute is not None:
            self.per_minute = min(former.per_minute, self.limit.per_minute or FASTEST)
        self.paused_until, self.refusals, self._lowered_at = former.paused_until, former.refusals, former._lowered_at
        self.last_reply, self.last_at, self.why = former.last_reply, former.last_at, former.why
        self.lowered, self._put_off = former.lowered, former._put_off
        if former._connections_most < former.limit.connections:
            self._connections_most = min(former._connections_most, float(self.limit.connections))

    def give_up(self, key: Any) -> Any:
        """A queue that has another pace from now on."""
        queue = self.queues.pop(key)
        self.starved.pop(key, None)
        self.connections -= queue.connections
        self.opening -= queue.opening
        self.busy -= queue.connections - queue.opening - queue.closing - len(queue.idle)
        return queue

    def take_over(self, key: Any, queue: Any) -> None:
        """A queue that had another pace has this one."""
        self.queues[key] = queue
        self.connections += queue.connections
        self.opening += queue.opening
        self.busy += queue.connections - queue.opening - queue.closing - len(queue.idle)

    # --- what may be done ---

    @property
    def is_limited(self) -> bool:
        """Messages may have to wait for their turn."""
        return self.per_minute is not None

    @property
    def is_lowered(self) -> bool:
        """It is below the configured limit."""
        return self.per_minute is not None and self.per_minute != self.limit.per_minute

    @property
    def connections_most(self) -> int:
        """So many connections at once."""
        return int(self._connections_most)

    def room(self, now: float) -> int:
        """How many messages may begin now."""
        if self.per_minute is None:
            return NO_LIMIT
        if now < self.paused_until:
            return 0
        self._fill(now)
        if self.refusals:
            return max(0, min(1, int(self._tokens + ROUNDING)) - self.busy)
        return int(self._tokens + ROUNDING)

    def ready_at(self, now: float) -> float:
        """When there is room for one, if nothing else happens; infinity where something has to end first."""
        if self.per_minute is None:
            return now
        if self.refusals and self.busy:
            return math.inf
        self._fill(now)
        missing = max(0.0, 1.0 - self._tokens)
        return max(self.paused_until, now + missing * MINUTE / self.per_minute)

    def begin(self, now: float) -> None:
        """A message begins."""
        self.busy += 1
        self._turn(now)
        self._begun[self._part % PARTS] += 1
        if self.per_minute is not None:
            self._tokens -= 1.0

    def not_begun(self) -> None:
        """It has not, after all."""
        self.busy -= 1
        if self.per_minute is not None:
            self._tokens += 1.0

    def put_off(self, waiting: int, now: float) -> float | None:
        """In how many seconds one more may come again, where `waiting` wait in memory; None where it may wait there, too."""
        if self.per_minute is None:
            return None
        seconds = max(0.0, self.paused_until - now) + waiting * MINUTE / self.per_minute
        if waiting < WAITING_LEAST or seconds <= WAITING_SECONDS:
            return None
        turn = max(self._next_turn, now + min(seconds, PUT_OFF_MOST / 2))
        if turn > now + PUT_OFF_MOST:  # not all of them at once, however many there are
            self._late += 1
            turn = now + PUT_OFF_MOST * (HALF + HALF * (self._late * GOLDEN % 1.0))
        else:
            self._next_turn = turn + MINUTE / self.per_minute
        seconds = max(PUT_OFF_LEAST, turn - now)
        minute = int((now + seconds) / MINUTE)
        self._put_off[minute] = self._put_off.get(minute, 0) + 1
        if len(self._put_off) > PUT_OFF_MINUTES:
            self.put_off_now(now)
        return seconds

    def put_off_now(self, now: float) -> int:
        """How many wait in the queue for their turn."""
        minute = int(now / MINUTE)
        for past in [one for one in self._put_off if one < minute]:
            del self._put_off[past]
        return sum(self._put_off.values())

    def begun_in_last_minute(self, now: float) -> int:
        """Messages."""
        self._turn(now)
        return sum(self._begun)

    def waiting_most(self, now: float) -> int:
        """How many may wait in memory."""
        if self.per_minute is None:
            return NO_LIMIT
        seconds = WAITING_SECONDS - max(0.0, self.paused_until - now)
        return max(WAITING_LEAST, int(max(0.0, seconds) * self.per_minute / MINUTE) + 1)

    # --- what has happened ---

    def taken(self, begun_at: float, now: float) -> None:
        """The peer has answered a message, and not that it was too many."""
        self._turn(now)
        self._taken[self._part % PARTS] += 1
        if self._connections_most < self.limit.connections:
            self._connections_most = min(self._connections_most + CONNECTIONS_STEP, float(self.limit.connections))
        if self.per_minute is None or self._lowered_at is None or begun_at < self._lowered_at:
            return
        self.refusals = 0
        minutes = (now - self._lowered_at) / MINUTE
        doubles = SEARCH_DOUBLES_MINUTES if self._searches else STEP_DOUBLES_MINUTES
        self.per_minute += min(STEP_MOST, FIRST_STEP * 2.0 ** min(minutes / doubles, 20.0))
        most = self.limit.per_minute or FASTEST
        if self.per_minute >= most:
            self.per_minute = self.limit.per_minute or None
            self._lowered_at = None

    def refused(self, what: SlowDown, begun_at: float, now: float, reply: Reply) -> None:
        """The peer wants less; `begun_at` is when the message or the connection was begun that heard it."""
        self.heard(reply, now)
        self.why = f"it was asked for fewer {what.value}"
        if what is SlowDown.CONNECTIONS and self.connections > 1:
            # The one that was turned away is still counted.
            self._connections_most = max(1.0, min(self._connections_most, float(self.connections - 1)))
            return
        if self._lowered_at is not None and begun_at < self._lowered_at:
            return
        self.refusals += 1
        if self.refusals == 1 or self.refusals >= LONG_AFTER:
            self._lower(now)
        pause = FIRST_PAUSE_SECONDS * 2.0 ** min(self.refusals - 1, 20)
        self.paused_until = now + min(pause, PAUSE_SECONDS_MOST)
        self._lowered_at = now
        self._tokens, self._tokens_at = 1.0, self.paused_until

    def heard(self, reply: Reply, now: float) -> None:
        """The peer has said so, and it was no success."""
        self.last_reply, self.last_at, self.why = str(reply)[:WORDS_KEPT], now, ""

    def _lower(self, now: float) -> None:
        self._turn(now)
        self._searches = self.per_minute is None
        asked = self.per_minute if self.per_minute is not None else max(ASKED_LEAST, float(sum(self._begun)))
        lowered = min(CAUTION * asked, max(HALF * asked, TAKEN_PART * sum(self._taken)))
        self.per_minute = max(SLOWEST, lowered)
        self.lowered += 1

    # --- inside ---

    def _fill(self, now: float) -> None:
        passed = now - self._tokens_at
        if passed > 0 and self.per_minute is not None:
            most = max(1.0, self.per_minute * BURST_SECONDS / MINUTE)
            self._tokens = min(most, self._tokens + passed * self.per_minute / MINUTE)
            self._tokens_at = now

    def _turn(self, now: float) -> None:
        """Forget what is older than a minute."""
        part = int(now / PART_SECONDS)
        if part == self._part:
            return
        for old in range(max(self._part + 1, part - PARTS + 1), part + 1):
            self._begun[old % PARTS] = self._taken[old % PARTS] = 0
        self._part = part


class Paces:
    """All paces, by name.  An address belongs to one of them, however many hosts' names lead to it: it is one peer.

    So what is shared is an operator's where one of its names leads there.  Else an address to which several names lead has a pace
    of its own: anybody may name a host of his so that it leads to an address of others, beside one that asks for less and less.
    """

    def __init__(self, table: PaceTable) -> None:
        self.table = table
        self._by_name: dict[str, DestinationPace] = {}
        self._by_address: dict[tuple[str, int], DestinationPace] = {}

    def __iter__(self) -> Any:
        return iter(self._by_name.values())

    def find(self, host: str, address: str, port: int) -> DestinationPace:
        """The pace of this address; `host` is the name that led there, "" where there is none."""
        place = address, port
        known = self._by_address.get(place)
        if known is not None and known.is_shared:
            return known
        name, limit, is_shared = self.table.of(host or address)
        if known is not None and not is_shared:
            if not host or known.name in (name, address):
                return known
            name = address
        pace = self._by_name.get(name)
        if pace is None:
            if len(self._by_name) >= PACES_KEPT:
                self._forget()
            pace = self._by_name[name] = DestinationPace(name, limit, is_shared=is_shared)
        self._by_address[place] = pace
        return pace

    def known(self, address: str, port: int) -> DestinationPace | None:
        """The pace that this address has by now."""
        return self._by_address.get((address, port))

    def forgive(self) -> None:
        """All go as fast as they are configured."""
        for pace in self._by_name.values():
            pace.forgive()

    def released(self, pace: DestinationPace, address: str, port: int) -> None:
        """The pool has no queue for this address any more."""
        if not any((key.address, key.port) == (address, port) for key in pace.queues):
            self._by_address.pop((address, port), None)

    def _forget(self) -> None:
        """Those without a queue go."""
        gone = {name for name, pace in self._by_name.items() if not pace.queues}
        self._by_name = {name: pace for name, pace in self._by_name.items() if name not in gone}
        self._by_address = {place: pace for place, pace in self._by_address.items() if pace.name not in gone}
