"""Whatever a delivery does in place of an answer: its messages come again, and nobody else's wait."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs
from zope.interface import implementer

from mailserver.interfaces import IDelivery
from mailserver.mail.answers import Delivered
from mailserver.queue.queue import Queue
from tests.plugins.misbehaviour import HANGS, NONSENSE, RAISES, Unprintable, returning
from tests.queue.doubles import IDS, Plain, QueueCase, local, remote

OUTCOMES = {
    "an outcome for another index": returning(lambda: {7: Delivered()}),
    "no outcome": returning(dict),
    "the class of an outcome": returning(lambda: {0: Delivered}),
    "an unprintable outcome": returning(lambda: {0: Unprintable()}),
    "a list of outcomes": returning(lambda: [Delivered()]),
}


@implementer(IDelivery)
class Misbehaving:
    """Each `deliver`, or `flush`, does what is set."""

    stores = True
    name = "relay broken"

    def __init__(self) -> None:
        self.does: Any = None
        self.flush_does: Any = None
        self.calls = 0

    def deliver(self, envelope: Any, content: Any, destinations: Any) -> Any:
        self.calls += 1
        return self.does() if self.does is not None else succeed({one.index: Delivered() for one in destinations})

    def flush(self) -> Any:
        return self.flush_does() if self.flush_does is not None else succeed(None)


class Misbehaviour(QueueCase):
    async def both(self, queue: Queue) -> tuple[str, str]:
        """Commit one message for each delivery; the local one is delivered and settled.  The ids of the remote and the local one."""
        ours, theirs = IDS.next(), IDS.next()
        settled = self.steps.wait(ours, "settled")
        await self.commit(queue, remote(), id=theirs)
        delivered = self.steps.wait(ours, "delivered")
        await self.commit(queue, local(), id=ours)
        await delivered
        self.clock.advance(1)
        await settled
        return theirs, ours

    async def test_whatever_deliver_does_its_messages_come_again_and_the_other_delivery_goes_on(self) -> None:
        broken = Misbehaving()
        queue = await self.started(remote=broken, remote_deadline_seconds=50)
        for what, method in (RAISES | HANGS | NONSENSE | OUTCOMES).items():
            broken.does = method
            with capturedLogs():
                theirs, _ = await self.both(queue)
                self.clock.advance(50)
                while "deferred" not in self.steps.of(theirs):
                    await self.steps.wait(theirs, "deferred")
            self.assertEqual(self.steps.of(theirs)[-1], "deferred", what)
            [why] = [fields["note"] for id, step, fields in self.steps.noted if (id, step) == (theirs, "deferred")]
            if not what.startswith(("an", "no ", "the ", "a list", "answers", "returns")):
                self.assertTrue(why.startswith("relay broken: "), (what, why))
            broken.does = None
            for _ in range(2):  # the store knows
                await queue._writer.do(lambda store: None)
            settled = self.steps.wait(theirs, "settled")
            delivered = self.steps.wait(theirs, "delivered")
            self.clock.advance(67)
            await delivered
            self.clock.advance(1)
            await settled
            self.steps.noted.clear()
        self.flushLoggedErrors()
        self.assertGreater(broken.calls, 60)

    async def test_whatever_flush_does_what_it_covers_is_delivered_again_and_the_other_delivery_goes_on(self) -> None:
        broken = Misbehaving()
        queue = await self.started(remote=broken)
        nonsense = {what: method for what, method in NONSENSE.items() if what.startswith("is ") or "Deferred" in what}
        for what, method in (RAISES | HANGS | nonsense).items():
            broken.flush_does = method
            before = broken.calls
            with capturedLogs():
                theirs, _ = await self.both(queue)
                if "delivered" not in self.steps.of(theirs):
                    await self.steps.wait(theirs, "delivered")
                self.clock.advance(1)  # the flush begins
                await self.both(queue)
                self.clock.advance(300)  # and its time is over
                self.assertNotIn("settled", self.steps.of(theirs), what)
                broken.flush_does = None
                settled = self.steps.wait(theirs, "settled")
                while not settled.called:
                    self.clock.advance(60)
                    await self.turn()
            self.assertGreaterEqual(broken.calls - before, 3, what)
            await self.emptied(queue)
            self.steps.noted.clear()
        self.flushLoggedErrors()

    async def emptied(self, queue: Queue) -> None:
        while queue.depth:
            self.clock.advance(60)
            await self.turn()

    async def turn(self) -> None:
        from twisted.internet import reactor

        turn: Deferred[None] = Deferred()
        reactor.callLater(0.001, turn.callback, None)  # type: ignore[attr-defined]
        await turn

    async def test_one_that_keeps_nothing_and_misbehaves_accepts_nothing(self) -> None:
        broken = Misbehaving()
        broken.stores = False  # type: ignore[misc]
        queue = await self.started(remote=broken, local_deadline_seconds=50)
        for what, method in (RAISES | HANGS | NONSENSE | OUTCOMES).items():
            broken.does = method
            with capturedLogs():
                committed = Deferred.fromCoroutine(self.commit(queue, remote()))
                self.clock.advance(50)
                failed: list[Any] = []
                await committed.addErrback(failed.append)
            self.assertEqual([type(one.value).__name__ for one in failed], ["StorageBroken"], what)
            str(failed[0].value).encode()
        self.flushLoggedErrors()

    async def test_a_plain_delivery_may_say_how_long_it_takes(self) -> None:
        class Slow(Plain):
            deadline_seconds = 4.0

        slow = Slow()
        slow.hold = True
        queue = await self.started(local=slow)
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, local(), id=id)
        while not slow.calls:
            await self.turn()
        with capturedLogs():
            self.clock.advance(3.9)
            self.assertEqual(slow.cancelled, 0)
            self.clock.advance(0.2)
            await deferred
        self.assertEqual(slow.cancelled, 1)
