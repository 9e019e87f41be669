"""Peers that take so many messages and no more, and a pool that sends to them, in virtual time."""

from __future__ import annotations

import heapq
from collections import deque

from mailserver.mail.reply import Reply
from mailserver.relay.pool import Key, Pool, PoolLimits, RecordState
from mailserver.relay.rate_replies import slow_down

SLOWER = Reply.heard(421, "4.7.28", ("Our system has detected an unusual rate of mail",))


class FixedWindow:
    """So many in each window of so many seconds."""

    def __init__(self, most, seconds=60.0):
        self.most, self.seconds = most, seconds
        self.window, self.count = -1, 0

    def takes(self, now):
        if int(now / self.seconds) != self.window:
            self.window, self.count = int(now / self.seconds), 0
        self.count += 1
        return self.count <= self.most


class SlidingWindow:
    """So many in any so many seconds."""

    def __init__(self, most, seconds=60.0):
        self.most, self.seconds = most, seconds
        self.times = deque()

    def takes(self, now):
        while self.times and self.times[0] <= now - self.seconds:
            self.times.popleft()
        if len(self.times) >= self.most:
            return False
        self.times.append(now)
        return True


class Bucket:
    """So many a minute, and so many at once after a pause."""

    def __init__(self, most, burst):
        self.most, self.burst = most, burst
        self.tokens, self.at = burst, 0.0

    def takes(self, now):
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.most / 60)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Sending:
    """A pool that always has something to send, to one peer with one or more addresses.

    `closing_seconds` is how long a socket takes to close.  `open_now` and `open_most` count sockets as the peer does.
    """

    def __init__(self, sink, *, table=None, keys=1, answer_seconds=0.05, closing_seconds=0.0, hosts="mx.example", **limits):
        self.sink = sink
        self.pool = Pool(PoolLimits(**limits), table)
        self.keys = [Key(f"192.0.2.{n}", 25, "opportunistic") for n in range(1, keys + 1)]
        self.hosts = hosts
        self.answer_seconds, self.closing_seconds = answer_seconds, closing_seconds
        self.now = 0.0
        self.taken, self.refused = [], []
        self.open_now = self.open_most = 0
        self.events, self.number = [], 0

    def later(self, seconds, work, *arguments):
        self.number += 1
        heapq.heappush(self.events, (self.now + seconds, self.number, work, arguments))

    def feed(self):
        for key in self.keys:
            while self.waiting(key) < 5:
                self.number += 1
                self.pool.submit(key, self.number, host=self.hosts)

    def waiting(self, key):
        return sum(len(one.waiting) for one in self.pool.destinations if one.key == key)

    def run(self, until):
        while self.now < until:
            self.feed()
            plan = self.pool.assign(self.now)
            for record in plan.close:
                self.later(self.closing_seconds, self.close, record)
            for record, _ in plan.open:
                self.open_now += 1
                self.open_most = max(self.open_most, self.open_now)
                self.later(self.answer_seconds, self.opened, record)
            for record, _ in plan.begin:
                self.later(self.answer_seconds, self.answered, record, self.now)
            at = min(self.events[0][0] if self.events else until, max(self.pool.paced_until, self.now), until)
            if at >= until:
                self.now = until
                return
            self.now = at
            while self.events and self.events[0][0] <= self.now:
                _, _, work, arguments = heapq.heappop(self.events)
                work(*arguments)

    def close(self, record):
        self.open_now -= 1
        self.pool.gone(record)

    def opened(self, record):
        if record.state is RecordState.OPENING:
            self.pool.opened(record, self.now)

    def answered(self, record, begun_at):
        if self.sink.takes(self.now):
            self.taken.append(self.now)
            self.pool.taken(record, begun_at, self.now)
            self.pool.finished(record, self.now)
        else:
            self.refused.append(self.now)
            self.pool.slowed(record, slow_down(SLOWER), begun_at, self.now, SLOWER)
            self.pool.ending(record)  # as after 421
            self.later(self.closing_seconds, self.close, record)

    def rate(self, since):
        """Messages a minute that were taken since then."""
        return sum(at >= since for at in self.taken) * 60 / (self.now - since)

    def pace(self):
        return self.pool.pace_of(self.keys[0])
