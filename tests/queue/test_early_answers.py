"""What has become of some of a message's recipients is known, and kept, while a host takes its time for the others."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.reply import Reply
from mailserver.queue.reader import list_entries
from tests.queue.doubles import Plain, QueueCase, remote

NO_USER = Reply.of(550, "5.1.1", "No such user here")
BUSY = Reply.of(450, "4.2.1", "Busy")
TIMES = {"retry_seconds": (7200,), "expire_seconds": 86_400}  # nobody is tried again before the deadline of the call


class Slow(Plain):
    """Tells of all but of the user `slow`, for whom it takes its time."""

    tells_early = True

    def deliver(self, envelope, content, destinations, told=None):
        self.calls += 1
        found = self._outcomes(envelope, content, destinations, False)
        late = {one.index for one in destinations if one.recipient.address.local == "slow"}
        self.told, self.slow = told, Deferred(lambda _: None)
        told({index: outcome for index, outcome in found.items() if index not in late})
        return self.slow


class Through:
    """Calls the delivery as whoever is asked before does."""

    def deliver(self, delivery, envelope, content, destinations, told=None):
        return delivery.deliver(envelope, content, destinations, *(() if told is None else (told,)))


class EarlyAnswers(QueueCase):
    async def under_way(self):
        """A message for four, of whom one is under way."""
        self.relay = Slow()
        self.relay.answers = {"nobody": Failed(NO_USER), "busy": Delayed(BUSY)}
        queue = await self.started(
            remote_flush_seconds=0.1, calls_delivery=Through(), **TIMES
        )
        recipients = [remote(n, user, f"d{n}.example") for n, user in enumerate(("quick", "nobody", "busy", "slow"))]
        id = await self.commit(queue, *recipients)
        await self.steps.wait(id, "failed")
        self.clock.advance(0.2)
        await self.until("delivered", "failed", "deferred", "queued")
        return queue, id

    async def until(self, *states):
        for _ in range(500):
            if [one.state for one in self.states()] == [*states]:
                return
            await self.a_moment()
        self.assertEqual([one.state for one in self.states()], [*states])

    def states(self):
        return next(iter(list_entries(self.directory))).destinations

    async def a_moment(self):
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0.01)

    async def test_after_a_crash_none_of_them_is_asked_about_again_but_the_one_who_was_under_way(self):
        queue, _ = await self.under_way()
        await self.crash(queue)
        self.relay = Plain()
        again = await self.started(**TIMES)
        while not self.relay.parcels:
            await self.a_moment()
        self.assertEqual([indexes for _, _, indexes, _ in self.relay.parcels], [(3,)])
        await self.stop(again)

    async def test_at_the_deadline_he_alone_is_deferred_and_what_is_told_then_counts_no_more(self):
        _, id = await self.under_way()
        deferred = self.steps.wait(id, "deferred")
        self.relay.answers = {}
        self.clock.advance(3600)
        await deferred
        self.relay.told({0: Delivered("late"), 3: Delivered("late")})
        await self.until("delivered", "failed", "deferred", "deferred")
        self.flushLoggedErrors()

    async def test_the_answer_for_the_last_settles_the_message(self):
        _, id = await self.under_way()
        retried = self.steps.wait(id, "deferred")
        self.relay.slow.callback(dict.fromkeys(range(4), Delayed(BUSY)))
        await retried
        await self.until("delivered", "failed", "deferred", "deferred")
        self.assertEqual([(one.state, one.attempts) for one in self.states()], [("delivered", 1), ("failed", 1), ("deferred", 1), ("deferred", 1)])
