"""Mail that is put off: nobody was asked, so no attempt is counted, and it comes again when it is told to, no sooner."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from mailserver.mail.answers import Delayed, Delivered
from mailserver.mail.reply import Reply
from mailserver.queue.reader import list_entries
from tests.queue.doubles import IDS, Plain, QueueCase, remote

LATER = Reply.of(451, "4.4.5", "More mail waits for this destination than goes there in a minute")
MESSAGES = 12


class Paced(Plain):
    """Takes one message a minute for one destination, and all others at once."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.free_at = 0.0
        self.promised = 0.0
        self.asked = 0

    def _outcomes(self, envelope, content, destinations, again):
        (destination,) = destinations
        if destination.recipient.address.local != "slow":
            return super()._outcomes(envelope, content, destinations, again)
        self.asked += 1
        now = self.clock.seconds()
        if now >= self.free_at:
            self.free_at = now + 60
            self.promised = max(self.promised, self.free_at)
            return {destination.index: Delivered("kept")}
        seconds, self.promised = self.promised - now, self.promised + 60
        return {destination.index: Delayed(LATER, "not tried", put_off_seconds=max(1.0, seconds))}


class PutOff(QueueCase):
    async def test_it_is_asked_about_once_a_turn_counts_no_attempt_and_holds_up_nobody_else(self):
        self.relay = Paced(self.clock)
        queue = await self.started(remote_flush_seconds=0.1)
        ids = [IDS.next() for _ in range(MESSAGES)]
        said = [self.steps.wait(id, "deferred") for id in ids[1:]]
        for id in ids:
            await self.commit(queue, remote(0, "slow"), id=id)
        await gatherResults(said)
        quick = IDS.next()
        delivered = self.steps.wait(quick, "delivered")
        await self.commit(queue, remote(0, "quick"), id=quick)
        await delivered
        self.assertEqual(self.relay.asked, MESSAGES)
        for minute in range(1, 4):
            done = self.steps.wait(ids[minute], "delivered")
            self.clock.advance(61)
            await done
            self.assertEqual(self.relay.asked, MESSAGES + minute)  # none but the one whose turn it was
        settled = self.steps.wait(ids[3], "settled")
        self.clock.advance(0.2)
        await settled
        waiting = [entry for entry in list_entries(self.directory) if entry.id in ids[4:]]
        self.assertEqual(len(waiting), MESSAGES - 4)
        for entry in waiting:
            (one,) = entry.destinations
            self.assertEqual((one.state, one.attempts, one.note, one.history), ("deferred", 0, "not tried", ()))
        self.assertEqual(len({entry.destinations[0].due for entry in waiting}), len(waiting))
