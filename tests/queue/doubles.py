"""What the tests of the queue stand on: a clock, a delivery that does as it is told, and steps that can be waited for."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import fields
from typing import Any

from twisted.internet import reactor, threads
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.interfaces import IBatchDelivery, IDelivery
from mailserver.mail.address import Address
from mailserver.mail.answers import Delivered, Local, Mailbox, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.ids import IdSource
from mailserver.mail.parcel import Destination
from mailserver.queue.limits import QueueLimits
from mailserver.queue.queue import Queue

PEER = Peer("192.0.2.1", 2525, "mx", "client.example", "EHLO")
SENDER = Address("bob", "example.com")
IDS = IdSource(time.time)
EPOCH = 1_800_000_000.0


def local(index=0, user="alice"):
    recipient = Recipient(Address(user, "example.org"))
    return Destination(index, recipient, Local(recipient.address, Mailbox(user, "example.org")))


def remote(index=0, user="carol", domain="elsewhere.example"):
    recipient = Recipient(Address(user, domain))
    return Destination(index, recipient, Remote(recipient.address))


def envelope(*destinations, id=None, received_at=EPOCH):
    return Envelope(id or IDS.next(), PEER, SENDER, tuple(d.recipient for d in destinations), received_at)


@implementer(IDelivery)
class Plain:
    """Answers each destination with what `answers` has for its user name (an outcome, or an error), else Delivered.

    With `hold` an answer waits until `let_go`.
    """

    stores = True

    def __init__(self):
        self.parcels = []  # (id, octets, indexes, again)
        self.calls = 0
        self.flushes = 0
        self.answers: dict[str, Any] = {}
        self.hold = False
        self.held = []
        self.cancelled = 0
        self.flush_answers = []  # an error, or a Deferred to wait for; empty: done at once
        self.flushed_at_parcels = []

    def deliver(self, envelope, content, destinations):
        self.calls += 1
        return self._later(lambda: self._outcomes(envelope, content, destinations, False))

    def _outcomes(self, envelope, content, destinations, again):
        self.parcels.append((envelope.id, b"".join(content.chunks()), tuple(d.index for d in destinations), again))
        outcomes = {}
        for destination in destinations:
            answer = self.answers.get(destination.recipient.address.local, Delivered("kept"))
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                outcomes[destination.index] = answer
        return outcomes

    def _later(self, work):
        done = Deferred(self._cancel)
        if self.hold:
            self.held.append((done, work))
        else:
            self._finish(done, work)
        return done

    def _cancel(self, _):
        self.cancelled += 1

    def _finish(self, done, work):
        try:
            result = work()
        except Exception as error:
            done.errback(error)
        else:
            done.callback(result)

    def let_go(self):
        held, self.held = self.held, []
        for done, work in held:
            self._finish(done, work)

    def flush(self):
        self.flushes += 1
        self.flushed_at_parcels.append(len(self.parcels))
        answer = self.flush_answers.pop(0) if self.flush_answers else None
        if isinstance(answer, Deferred):
            return answer
        done = Deferred()
        if answer is None:
            done.callback(None)
        else:
            done.errback(answer)
        return done


@implementer(IBatchDelivery)
class Batching(Plain):
    def __init__(self):
        super().__init__()
        self.batches = []

    def deliver_batch(self, parcels):
        self.calls += 1
        self.batches.append(len(parcels))
        return self._later(lambda: [self._outcomes(p.envelope, p.content, p.destinations, p.again) for p in parcels])


async def stubborn():
    """Never answers, and catches whatever is thrown into it."""
    while True:
        with contextlib.suppress(CancelledError):
            await Deferred()


class Steps:
    """Records the steps; `wait` fires in a reactor turn of its own after the step."""

    def __init__(self):
        self.noted = []
        self.waiting = []

    def note(self, id, step, **fields):
        self.noted.append((id, step, fields))
        for item in [item for item in self.waiting if item[:2] == (id, step)]:
            self.waiting.remove(item)
            reactor.callLater(0, item[2].callback, fields)

    def wait(self, id, step):
        """The fields of the next such step."""
        done = Deferred()
        self.waiting.append((id, step, done))
        return done

    def of(self, id):
        return [step for i, step, _ in self.noted if i == id]

    def count(self, step):
        return sum(1 for _, s, _ in self.noted if s == step)


def with_limits(options):
    """The arguments of `Queue`: those of `QueueLimits` gathered in one."""
    names = {field.name for field in fields(QueueLimits)}
    limits = QueueLimits(**{name: value for name, value in options.items() if name in names})
    return {**{name: value for name, value in options.items() if name not in names}, "limits": limits}


class QueueCase(TestCase):
    """A queue in a directory of its own, with real threads and a clock that the test moves."""

    timeout = 60

    def setUp(self):
        self.directory = os.path.abspath(self.mktemp())
        self.clock = Clock()
        self.clock.rightNow = EPOCH
        self.steps = Steps()
        self.delivery = Batching()
        self.relay = Plain()
        self.queues = []
        self.addCleanup(self.stop_all)

    def make(self, **changes):
        options = {
            "data_directory": self.directory,
            "clock": self.clock,
            "local": self.delivery,
            "remote": self.relay,
            "note": self.steps.note,
            "run_in_thread": threads.deferToThread,
            "call_from_thread": reactor.callFromThread,
            "retry_seconds": [60, 300],
            "expire_seconds": 3600,
            "minimum_free_bytes": 0,
            "undeliverable_seconds": 1e9,  # the ids tell the time of day, the clock another
        }
        queue = Queue(**with_limits({**options, **changes}))
        self.queues.append(queue)
        return queue

    async def started(self, **changes):
        queue = self.make(**changes)
        await queue.start()
        return queue

    async def stop(self, queue, within=30):
        """Stop; the clock's own bounds do not pass."""
        await queue.stop(within)
        if queue in self.queues:
            self.queues.remove(queue)

    async def crash(self, queue):
        """End a queue as nearly as a crash as one process can: nothing in memory reaches the store any more."""
        stopped = queue.stop(0)
        self.clock.advance(0)
        await stopped
        self.queues.remove(queue)

    async def stop_all(self):
        for queue in list(self.queues):
            self.delivery.hold = self.relay.hold = False
            stopped = queue.stop(0)
            self.clock.advance(0)
            await stopped

    async def commit(self, queue, *destinations, data=b"Subject: x\r\n\r\nbody\r\n", prefix=b"", id=None):
        destinations = destinations or (local(),)
        sent = envelope(*destinations, id=id, received_at=self.clock.seconds())
        await queue.commit(sent, Content.of(data, prefix=prefix), destinations)
        return sent.id

    async def commit_spooled(self, queue, *destinations, data=b"large"):
        destinations = destinations or (local(),)
        sent = envelope(*destinations, received_at=self.clock.seconds())
        path = queue.spool_path(sent.id)
        with open(path, "wb") as file:
            file.write(data)
        await queue.commit(sent, Content.at(path, len(data)), destinations)
        return sent.id
