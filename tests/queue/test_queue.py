import contextlib
import os
import stat
from unittest import mock

from twisted.internet.defer import AlreadyCalledError, Deferred, gatherResults
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from mailserver.interfaces import IConcurrentDelivery
from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.content import Content
from mailserver.mail.faults import StorageBroken
from mailserver.mail.reply import Reply
from mailserver.queue.lock import QueueInUse, lock_directory
from mailserver.queue.reader import list_entries, show_entry
from mailserver.queue.store import SqliteStore
from tests.queue.doubles import IDS, Plain, QueueCase, envelope, local, remote, stubborn

BUSY = Reply.of(451, "4.2.1", "The mailbox is busy")
FULL = Reply.of(552, "5.2.2", "The mailbox is full")


class Commit(QueueCase):
    async def test_a_committed_message_stands_in_the_store_before_the_answer(self):
        self.delivery.hold = True
        queue = await self.started()
        id = await self.commit(queue)
        found = show_entry(self.directory, id)
        self.assertEqual((found.id, found.sender, found.state), (id, "bob@example.com", "queued"))
        self.assertEqual(queue.depth, 1)

    async def test_a_delivered_message_is_settled_within_a_second(self):
        queue = await self.started()
        done = self.steps.wait(id := IDS.next(), "delivered")
        await self.commit(queue, id=id)
        fields = await done
        self.assertEqual(
            fields, {"recipient": "alice@example.org", "destination": "alice@example.org", "attempt": 1, "ms": 0, "note": "kept"}
        )
        self.assertEqual(len(list_entries(self.directory)), 1)
        self.assertEqual(self.delivery.flushes, 0)
        settled = self.steps.wait(id, "settled")
        self.clock.advance(1)
        await settled
        self.assertEqual(self.delivery.flushes, 1)
        self.assertEqual(list_entries(self.directory), [])
        self.assertEqual((queue.depth, queue.counts.settled), (0, 1))

    async def test_content_and_prefix_reach_the_delivery_as_they_were(self):
        queue = await self.started()
        id = IDS.next()
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, data=b"\x00\xff\r\n.\r\n", prefix=b"Received: x\r\n", id=id)
        await delivered
        self.assertEqual(self.delivery.parcels, [(id, b"Received: x\r\n\x00\xff\r\n.\r\n", (0,), False)])

    async def test_messages_that_come_together_share_a_batch_and_keep_their_order(self):
        queue = await self.started()
        ids = [IDS.next() for _ in range(300)]
        last = self.steps.wait(ids[-1], "delivered")
        await gatherResults([self.committing(queue, id) for id in ids])
        await last
        self.assertEqual([parcel[0] for parcel in self.delivery.parcels], ids)
        self.assertLess(queue.counts.batches, 300)

    def committing(self, queue, id):
        sent = envelope(local(), id=id)
        return queue.commit(sent, Content.of(b"x"), (local(),))

    async def test_a_thousand_deliveries_are_flushed_without_waiting_for_the_second(self):
        queue = await self.started(flush_messages=10)
        ids = [IDS.next() for _ in range(10)]
        settled = gatherResults([self.steps.wait(id, "settled") for id in ids])
        await gatherResults([self.committing(queue, id) for id in ids])
        await settled
        self.assertEqual(self.delivery.flushes, 1)

    async def test_after_a_flush_for_their_number_the_next_second_begins_with_the_next_delivery(self):
        queue = await self.started(flush_messages=2)
        ids = [IDS.next() for _ in range(3)]
        await self.delivering(queue, ids[0])
        self.clock.advance(0.75)
        settled = self.steps.wait(ids[1], "settled")
        await self.delivering(queue, ids[1])
        await settled
        await self.delivering(queue, ids[2])
        self.clock.advance(0.75)
        self.assertEqual(self.delivery.flushes, 1)
        settled = self.steps.wait(ids[2], "settled")
        self.clock.advance(0.25)
        await settled
        self.assertEqual(self.delivery.flushes, 2)

    async def delivering(self, queue, id):
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, id=id)
        await delivered

    async def test_a_message_without_a_destination_or_with_a_foreign_id_is_an_error(self):
        queue = await self.started()
        sent = envelope(local())
        await self.assertFailure(queue.commit(sent, Content.of(b"x"), ()), ValueError)
        await self.assertFailure(queue.commit(envelope(local(), id="short"), Content.of(b"x"), (local(),)), ValueError)
        await self.assertFailure(queue.commit(sent, Content.at("/etc/passwd", 5), (local(),)), ValueError)

    async def test_nothing_is_taken_before_the_start_and_after_the_stop(self):
        queue = self.make()
        await self.assertFailure(queue.commit(envelope(local()), Content.of(b"x"), (local(),)), StorageBroken)
        self.assertFalse(queue.writable)
        await queue.start()
        self.assertTrue(queue.writable)
        await self.stop(queue)
        await self.assertFailure(queue.commit(envelope(local()), Content.of(b"x"), (local(),)), StorageBroken)

    async def test_files_are_for_the_owner_alone(self):
        self.delivery.hold = True
        queue = await self.started()
        await self.commit(queue)
        modes = {name: stat.S_IMODE(os.stat(os.path.join(self.directory, name)).st_mode) for name in os.listdir(self.directory)}
        self.assertEqual(modes.pop("spool"), 0o700)
        self.assertEqual(set(modes.values()), {0o600}, modes)
        self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o700)

    async def test_two_servers_on_one_data_directory_are_an_error(self):
        await self.started()
        starting = self.make().start()
        self.clock.pump([0.1] * 299)
        self.assertNoResult(starting)
        self.clock.pump([0.1] * 2)
        await self.assertFailure(starting, QueueInUse)

    async def test_a_server_waits_for_a_command_that_has_the_queue(self):
        os.makedirs(self.directory)
        lock = lock_directory(self.directory)
        queue = self.make()
        said = []
        globalLogPublisher.addObserver(said.append)
        self.addCleanup(globalLogPublisher.removeObserver, said.append)
        starting = queue.start()
        self.clock.pump([0.1] * 50)
        self.assertNoResult(starting)
        self.assertEqual(len([one for one in said if "the server waits for it" in (one["log_format"] or "")]), 1)
        os.close(lock)
        self.clock.pump([0.1])
        await starting
        await self.commit(queue)

    async def test_a_server_that_is_stopped_while_it_waits_takes_nothing(self):
        other = await self.started()
        queue = self.make()
        starting = queue.start()
        await queue.stop(1)
        await self.stop(other)
        self.clock.pump([0.1])
        await starting.addErrback(lambda failure: failure.trap(QueueInUse))
        self.assertFalse(queue.writable)

    async def test_a_message_that_nobody_keeps_is_not_written(self):
        self.delivery.stores = False
        queue = await self.started()
        id = await self.commit(queue)
        self.assertEqual(self.steps.of(id), ["delivered"])
        self.assertEqual(list_entries(self.directory), [])
        large = await self.commit_spooled(queue)
        self.assertFalse(os.path.exists(queue.spool_path(large)))

    async def test_a_file_that_cannot_be_removed_does_not_undo_what_was_delivered(self):
        self.delivery.stores = False
        queue = await self.started()
        with mock.patch.object(queue._spool, "remove", side_effect=OSError("read-only")):
            large = await self.commit_spooled(queue)
        self.assertEqual(self.steps.of(large), ["delivered"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    async def test_a_message_that_cannot_be_handed_on_keeps_no_other_from_it_and_is_read_again(self):
        queue = await self.started()
        ids = [IDS.next() for _ in range(3)]
        handed_on = queue._runner.committed

        def stumbling(number, envelope, content, destinations, held=()):
            if envelope.id == ids[1]:
                raise RuntimeError("a fault of ours")
            handed_on(number, envelope, content, destinations)

        delivered = [self.steps.wait(id, "delivered") for id in ids]
        self.patch(queue._runner, "committed", stumbling)
        await gatherResults([self.committing(queue, id) for id in ids])
        await gatherResults(delivered)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_what_is_refused_takes_no_answer_from_what_is_durable(self):
        queue = await self.started()
        with mock.patch.object(queue._health, "failed", side_effect=RuntimeError("a fault of ours")):
            good, twice = IDS.next(), IDS.next()
            await self.commit(queue, id=twice)
            refused = self.assertFailure(self.committing(queue, twice), StorageBroken)
            await gatherResults([refused, self.committing(queue, good)])
        self.assertEqual((queue.counts.committed, queue.counts.refused), (2, 1))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_message_that_nobody_keeps_and_that_is_not_delivered_is_not_accepted(self):
        self.delivery.stores = False
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started()
        await self.assertFailure(queue.commit(envelope(local()), Content.of(b"x"), (local(),)), StorageBroken)
        self.delivery.answers["alice"] = RuntimeError("broken")
        await self.assertFailure(queue.commit(envelope(local()), Content.of(b"x"), (local(),)), StorageBroken)

    async def test_a_delivery_that_keeps_nothing_and_does_not_let_itself_be_cancelled_is_not_waited_for(self):
        self.delivery.stores = False
        self.patch(self.delivery, "deliver", lambda *_: Deferred.fromCoroutine(stubborn()))
        queue = await self.started(local_deadline_seconds=5)
        committed = queue.commit(envelope(local()), Content.of(b"x"), (local(),))
        self.clock.advance(5)
        self.failureResultOf(committed, StorageBroken)

    async def test_a_message_for_a_keeper_and_for_nobody_is_written(self):
        self.relay.stores = False
        self.delivery.hold = True
        queue = await self.started()
        await self.commit(queue, local(0), remote(1))
        self.assertEqual(len(list_entries(self.directory)), 1)


class Outcomes(QueueCase):
    async def test_a_deferred_destination_is_tried_again_when_it_is_due(self):
        self.delivery.answers["alice"] = Delayed(BUSY, "locked")
        queue = await self.started()
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        fields = await deferred
        self.assertEqual((fields["attempt"], fields["note"], fields["reply"]), (1, "locked", str(BUSY)))
        await self.until_recorded(queue)
        entry = await queue.show(id)
        self.assertEqual(entry.state, "deferred")
        self.assertTrue(54 <= entry.destinations[0].due - self.clock.seconds() <= 66, entry)
        self.assertEqual((entry.destinations[0].attempts, entry.destinations[0].reply), (1, str(BUSY)))
        del self.delivery.answers["alice"]
        delivered, settled = self.steps.wait(id, "delivered"), self.steps.wait(id, "settled")
        self.clock.advance(67)
        fields = await delivered
        self.assertEqual(fields["attempt"], 2)
        self.assertTrue(self.delivery.parcels[-1][3], "a retry says that it comes again")
        self.clock.advance(1)
        await settled
        self.assertEqual(await queue.list(), [])

    async def until_recorded(self, queue):
        """The writer thread has taken what stood in its queue."""
        await queue._writer.do(lambda store: None)
        await queue._writer.do(lambda store: None)

    async def test_a_deferred_destination_waits_in_the_store_and_not_in_memory(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started()
        ids = [IDS.next() for _ in range(5)]
        for id in ids:
            deferred = self.steps.wait(id, "deferred")
            await self.commit(queue, id=id)
            await deferred
        await self.until_recorded(queue)
        self.assertEqual(queue._runner.live, {})
        self.assertEqual([active_queue.held_octets for active_queue in queue._runner.active_queues], [0, 0])
        self.assertEqual(queue.depth, 5)

    async def test_one_destinations_trouble_does_not_hold_up_another(self):
        self.delivery.answers["slow"] = Delayed(BUSY)
        queue = await self.started()
        id = IDS.next()
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, local(0, "slow"), local(1, "quick"), id=id)
        self.assertEqual((await delivered)["recipient"], "quick@example.org")
        self.clock.advance(1)
        await self.until_recorded(queue)
        await self.until_recorded(queue)
        states = [part.state for part in (await queue.show(id)).destinations]
        self.assertEqual(states, ["deferred", "delivered"])
        del self.delivery.answers["slow"]
        settled = self.steps.wait(id, "settled")
        delivered = self.steps.wait(id, "delivered")
        self.clock.advance(70)
        await delivered
        self.clock.advance(1)
        await settled
        self.assertEqual([parcel[2] for parcel in self.delivery.parcels], [(0, 1), (0,)])

    async def test_a_destination_that_failed_stays_visible(self):
        self.delivery.answers["alice"] = Failed(FULL, "over quota")
        queue = await self.started()
        id = IDS.next()
        failed = self.steps.wait(id, "failed")
        await self.commit(queue, id=id)
        await failed
        await self.until_recorded(queue)
        entry = await queue.show(id)
        self.assertEqual((entry.state, entry.destinations[0].reply), ("failed", str(FULL)))
        await self.stop(queue)
        queue = await self.started()
        await self.until_recorded(queue)
        self.assertEqual(len(self.delivery.parcels), 1, "it is not tried again after a restart")
        self.assertEqual((await queue.list())[0].state, "failed")
        self.assertEqual(queue.depth, 1)

    async def test_a_message_whose_time_is_over_fails(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started(expire_seconds=100)
        id = IDS.next()
        step = self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        await step
        for expected in ("deferred", "failed"):
            await self.until_recorded(queue)
            step = self.steps.wait(id, expected)
            self.clock.advance(70)
            await step
        self.assertEqual(self.steps.of(id), ["deferred", "deferred", "failed"])

    async def test_an_error_of_the_delivery_defers(self):
        self.delivery.answers["alice"] = RuntimeError("no such directory")
        queue = await self.started()
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        self.assertEqual((await deferred)["note"], "no such directory")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_destination_without_an_outcome_is_deferred(self):
        self.delivery.answers["alice"] = None
        queue = await self.started()
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        await deferred

    async def test_an_answer_for_too_few_messages_defers_them(self):
        self.delivery.deliver_batch = lambda parcels: self.delivery._later(list)
        queue = await self.started()
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        await deferred

    async def test_a_delivery_that_never_answers_is_given_up_and_the_next_goes_on(self):
        self.delivery.hold = True
        queue = await self.started(local_deadline_seconds=30)
        first, second = IDS.next(), IDS.next()
        deferred = self.steps.wait(first, "deferred")
        await self.commit(queue, id=first)
        await self.commit(queue, id=second)
        await self.a_turn()
        self.delivery.hold = False
        delivered = self.steps.wait(second, "delivered")
        self.clock.advance(30)
        await deferred
        await delivered
        self.assertEqual(self.delivery.cancelled, 1)
        self.assertEqual(self.steps.of(first), ["deferred"])

    async def a_turn(self):
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0)

    async def test_local_and_remote_destinations_of_one_message_go_their_own_ways(self):
        self.relay.hold = True
        queue = await self.started()
        id = IDS.next()
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, local(0), remote(1), id=id)
        await delivered
        self.clock.advance(1)
        await self.until_recorded(queue)
        entry = await queue.show(id)
        self.assertEqual([part.state for part in entry.destinations], ["delivered", "queued"])
        settled = self.steps.wait(id, "settled")
        self.relay.let_go()
        self.clock.advance(1)
        await settled
        self.assertEqual([parcel[2] for parcel in self.relay.parcels], [(1,)])
        self.assertEqual(await queue.list(), [])

    async def test_without_a_relay_remote_destinations_wait(self):
        queue = await self.started(remote=None)
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, remote(), id=id)
        self.assertEqual((await deferred)["reply"], "451 4.3.5 No relay is configured")


class Flush(QueueCase):
    async def test_what_was_not_made_durable_is_delivered_again(self):
        self.delivery.flush_answers = [OSError("I/O error")]
        queue = await self.started()
        id = IDS.next()
        delivered, deferred = self.steps.wait(id, "delivered"), self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        await delivered
        self.clock.advance(1)
        await deferred
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(await queue.list()), 1)
        delivered, settled = self.steps.wait(id, "delivered"), self.steps.wait(id, "settled")
        self.clock.advance(10)
        await delivered
        self.clock.advance(1)
        await settled
        self.assertEqual([parcel[3] for parcel in self.delivery.parcels], [False, True])

    async def test_a_flush_that_never_ends_counts_as_failed(self):
        self.delivery.flush_answers = [Deferred()]
        queue = await self.started()
        id = IDS.next()
        delivered, deferred = self.steps.wait(id, "delivered"), self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        await delivered
        self.clock.advance(1)
        self.clock.advance(300)
        await deferred
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    async def test_what_is_delivered_during_a_flush_waits_for_the_next(self):
        flushing = Deferred()
        self.delivery.flush_answers = [flushing]
        queue = await self.started()
        first, second = IDS.next(), IDS.next()
        delivered = self.steps.wait(first, "delivered")
        await self.commit(queue, id=first)
        await delivered
        self.clock.advance(1)
        delivered = self.steps.wait(second, "delivered")
        await self.commit(queue, id=second)
        await delivered
        settled = self.steps.wait(first, "settled")
        flushing.callback(None)
        await settled
        self.assertEqual([entry.id for entry in await queue.list()], [second])
        settled = self.steps.wait(second, "settled")
        self.clock.advance(1)
        await settled
        self.assertEqual(self.delivery.flushed_at_parcels, [1, 2])


class Window(QueueCase):
    async def test_what_does_not_fit_in_the_window_is_read_back_in_order(self):
        self.delivery.hold = True
        queue = await self.started(memory_window_octets=20_000, batch_messages=3)
        ids = [IDS.next() for _ in range(30)]
        for number, id in enumerate(ids):
            await self.commit(queue, id=id, data=b"%04d" % number * 250)
        active_queue = queue._runner.active_queues[0]
        self.assertLess(active_queue.held_octets, 25_000)
        self.assertGreater(len(active_queue.backlog), 10)
        self.assertLess(len(queue._runner.live), 15)
        self.delivery.hold = False
        last = self.steps.wait(ids[-1], "delivered")
        self.delivery.let_go()
        await last
        self.assertEqual([parcel[0] for parcel in self.delivery.parcels], ids)
        self.assertEqual([parcel[1] for parcel in self.delivery.parcels], [b"%04d" % n * 250 for n in range(30)])
        self.assertFalse(any(parcel[3] for parcel in self.delivery.parcels))
        self.assertEqual(active_queue.held_octets, 0)

    async def test_one_call_takes_no_more_octets_than_a_batch_has(self):
        self.delivery.hold = True
        queue = await self.started(batch_octets=10_000)
        ids = [await self.commit(queue, data=b"x" * 2500) for _ in range(9)]
        self.delivery.hold = False
        last = self.steps.wait(ids[-1], "delivered")
        self.delivery.let_go()
        await last
        self.assertEqual(sum(self.delivery.batches), 9)
        self.assertEqual(max(self.delivery.batches), 2, "with what an entry weighs each has some 4,500 octets")

    async def test_a_message_larger_than_the_window_is_delivered(self):
        queue = await self.started(memory_window_octets=1000)
        id = IDS.next()
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, id=id, data=b"x" * 5000)
        await delivered

    async def test_a_full_remote_active_queue_does_not_hold_up_local_mail(self):
        self.relay.hold = True
        queue = await self.started(memory_window_octets=10_000, remote_deliveries=1)
        for _ in range(20):
            await self.commit(queue, remote(), data=b"x" * 1000)
        self.assertTrue(queue._runner.active_queues[1].backlog)
        id = IDS.next()
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, local(0), remote(1), id=id)
        await delivered
        self.clock.advance(1)
        self.relay.hold = False
        settled = self.steps.wait(id, "settled")
        delivered = gatherResults([self.steps.wait(id, "delivered")])
        self.relay.let_go()
        await delivered
        self.clock.advance(1)
        await settled

    async def test_any_number_of_due_messages_leaves_the_way_open_for_new_ones(self):
        self.relay.answers["dead"] = Delayed(BUSY)
        queue = await self.started(remote_deliveries=1)
        ids = [IDS.next() for _ in range(300)]
        deferred = gatherResults([self.steps.wait(id, "deferred") for id in ids])
        await gatherResults([queue.commit(envelope(remote(0, "dead"), id=id), Content.of(b"x"), (remote(0, "dead"),)) for id in ids])
        await deferred
        await queue._writer.do(lambda store: None)
        await queue._writer.do(lambda store: None)
        self.relay.hold = True
        active_queue = queue._runner.active_queues[1]
        self.clock.advance(70)
        while not (len(active_queue.ready) + len(active_queue.retries) == 299 and not active_queue.reading):
            await queue._runner.read(lambda: None)
        self.assertLessEqual(len(active_queue.ready), 100, "the others wait in the store")
        id = IDS.next()
        await self.commit(queue, remote(0, "living"), id=id)
        await queue._runner.read(lambda: None)
        self.assertEqual(list(active_queue.ready)[-1].entry.envelope.id, id)
        delivered = self.steps.wait(id, "delivered")
        self.relay.hold = False
        self.relay.let_go()
        await delivered
        self.assertLess(self.steps.count("deferred"), 300 + 250)

class Fairness(QueueCase):
    """A destination that is slow, and has more messages than there are calls, or than fit in memory."""

    def make(self, **more):
        self.relay = Slow()
        return super().make(**more)

    async def send(self, queue, count, domain, data=b"x"):
        ids = [IDS.next() for _ in range(count)]
        to = remote(0, domain=domain)
        await gatherResults([queue.commit(envelope(to, id=id), Content.of(data), (to,)) for id in ids])
        await queue._writer.do(lambda store: None)  # a batch's messages are acknowledged before they are handed on
        return ids

    async def test_others_pass_a_slow_destination_with_more_messages_than_calls(self):
        queue = await self.started(remote_deliveries=100)
        await self.send(queue, 3000, "slow.example")
        self.assertEqual(len(self.relay.held), 75, "three quarters of the calls")
        ids = await self.send(queue, 300, "quick.example")
        await queue._runner.read(lambda: None)
        self.assertEqual([id for id, *_ in self.relay.parcels], ids)
        self.relay.let_go()
        self.assertGreaterEqual(len(self.relay.held), 75)

    async def test_others_pass_a_user_here_whose_command_hangs(self):
        self.delivery = Hanging()
        queue = await self.started()
        for _ in range(30):
            await self.commit(queue, local(user="mallory"))
        await queue._writer.do(lambda store: None)
        self.assertEqual(len(self.delivery.held), 8, "not all of the ten calls")
        for _ in range(5):
            await self.commit(queue, local(user="alice"))
        await queue._writer.do(lambda store: None)
        self.assertEqual(len(self.delivery.parcels), 5)
        self.delivery.let_go()
        self.assertEqual((len(self.delivery.parcels), len(self.delivery.held)), (13, 8))

    async def test_others_pass_a_slow_destination_with_more_mail_than_fits_in_memory(self):
        queue = await self.started(remote_deliveries=100, memory_window_octets=200_000)
        await self.send(queue, 300, "slow.example", b"x" * 1000)
        active_queue = queue._runner.active_queues[1]
        self.assertGreater(active_queue.backlog.waiting("slow.example"), 100)
        quick = await self.send(queue, 300, "quick.example", b"x" * 1000)
        last = self.steps.wait(quick[-1], "delivered")
        await last
        self.assertEqual([id for id, *_ in self.relay.parcels], quick)
        self.assertLessEqual(active_queue.held_octets, 200_000)
        while len(self.relay.parcels) < 600:
            self.relay.let_go()
            await queue._runner.read(lambda: None)
        self.assertEqual(len({id for id, *_ in self.relay.parcels}), 600)

    async def test_what_comes_again_for_a_slow_destination_holds_up_nothing_else_that_comes_again(self):
        queue = await self.started(remote_deliveries=20)
        self.relay.answers["carol"] = Delayed(BUSY)
        slow = await self.send(queue, 200, "slow.example")
        while self.relay.held or len(self.relay.parcels) < 200:
            self.relay.let_go()
            await queue._runner.read(lambda: None)
        quick = await self.send(queue, 200, "quick.example")
        await queue._writer.do(lambda store: None)
        await queue._writer.do(lambda store: None)
        self.relay.parcels.clear()
        del self.relay.answers["carol"]
        delivered = gatherResults([self.steps.wait(id, "delivered") for id in quick])
        self.clock.advance(70)
        await delivered
        self.assertTrue(set(quick).isdisjoint(slow))
        self.assertEqual({id for id, *_ in self.relay.parcels}, set(quick))
        self.assertEqual(len(self.relay.held), 15)

    async def test_a_message_for_several_domains_has_turns_of_its_own(self):
        queue = await self.started(remote_deliveries=100)
        active_queue = queue._runner.active_queues[1]
        both = (remote(0, domain="B.example"), remote(1, domain="a.example"))
        self.assertEqual(active_queue.key_of(both), "a.example b.example")
        self.assertEqual(active_queue.key_of(both[:1]), "b.example")
        self.assertEqual(queue._runner.active_queues[0].key_of((local(),)), "")

    async def test_a_thousand_destinations_of_which_a_tenth_never_answers(self):
        queue = await self.started(remote_deliveries=500)
        names = [("slow" if n % 10 == 0 else "quick") + f"{n}.example" for n in range(1000)]
        sent = {}
        for _ in range(3):
            for name in names:
                to = remote(0, domain=name)
                sent[id := IDS.next()] = name
                await queue.commit(envelope(to, id=id), Content.of(b"x"), (to,))
        await queue._runner.read(lambda: None)
        living = {id for id, name in sent.items() if name.startswith("quick")}
        self.assertEqual({id for id, *_ in self.relay.parcels}, living)


class Slow(Plain):
    """Answers for domains whose name begins with "slow" wait until `let_go`."""

    def deliver(self, envelope, content, destinations):
        self.hold = destinations[0].route.address.domain.startswith("slow")
        return super().deliver(envelope, content, destinations)


@implementer(IConcurrentDelivery)
class Hanging(Plain):
    """A command for each message, ten at once; mallory's waits until `let_go`."""

    calls_at_once = 10
    deadline_seconds = 1000.0

    def deliver(self, envelope, content, destinations):
        self.hold = destinations[0].recipient.address.local == "mallory"
        return super().deliver(envelope, content, destinations)


class Batches(QueueCase):
    async def test_local_batches_go_one_at_a_time(self):
        self.delivery.hold = True
        queue = await self.started()
        for _ in range(5):
            await self.commit(queue)
        self.assertEqual(self.delivery.calls, 1)
        self.delivery.let_go()
        self.assertEqual(self.delivery.batches[0], 1)
        self.assertEqual(self.delivery.calls, 2)

    async def test_a_plain_delivery_is_called_for_each_message(self):
        self.delivery = Plain()
        queue = await self.started(local_batches=3)
        self.delivery.hold = True
        for _ in range(5):
            await self.commit(queue)
        self.assertEqual(self.delivery.calls, 3)

    async def test_a_delivery_that_waits_for_others_says_how_many_calls_and_how_long(self):
        @implementer(IConcurrentDelivery)
        class Waiting(Plain):
            calls_at_once = 2
            deadline_seconds = 1000.0

        self.delivery = Waiting()
        queue = await self.started()
        self.delivery.hold = True
        for _ in range(3):
            await self.commit(queue)
        self.assertEqual(self.delivery.calls, 2)
        self.clock.advance(999)
        self.assertEqual(self.delivery.cancelled, 0)
        self.clock.advance(1)
        self.assertEqual(self.delivery.cancelled, 2)

    async def test_a_store_that_cannot_be_read_is_read_later(self):
        self.delivery.hold = True
        queue = await self.started(memory_window_octets=5000)
        ids = [await self.commit(queue, data=b"x" * 2000) for _ in range(6)]
        with mock.patch.object(queue._reader, "read", side_effect=StorageBroken("I/O error")):
            self.delivery.hold = False
            self.delivery.let_go()
            await queue._runner.read(lambda: None)
        self.assertEqual(len(self.flushLoggedErrors(StorageBroken)), 1)
        last = self.steps.wait(ids[-1], "delivered")
        self.clock.advance(5)
        await last
        self.assertEqual([parcel[0] for parcel in self.delivery.parcels], ids)


class Recovery(QueueCase):
    async def test_a_store_that_cannot_be_read_at_the_start_is_read_later(self):
        self.delivery.hold = True
        queue = await self.started()
        id = await self.commit(queue)
        await self.crash(queue)
        self.delivery.hold = False
        queue = self.make()
        with mock.patch.object(queue._reader, "unattempted", side_effect=StorageBroken("I/O error")):
            await queue.start()
            await queue._runner.read(lambda: None)
        self.assertEqual(len(self.flushLoggedErrors(StorageBroken)), 1)
        delivered = self.steps.wait(id, "delivered")
        self.clock.advance(5)
        await delivered

    async def test_what_was_not_settled_is_delivered_again_in_the_order_of_the_ids(self):
        queue = await self.started()
        ids = [IDS.next() for _ in range(450)]
        delivered = self.steps.wait(ids[0], "delivered")
        await gatherResults([queue.commit(envelope(local(), id=id), Content.of(b"x"), (local(),)) for id in ids])
        await delivered
        await self.crash(queue)
        self.delivery.parcels.clear()
        last, settled = self.steps.wait(ids[-1], "delivered"), self.steps.wait(ids[-1], "settled")
        queue = await self.started()
        await last
        self.assertEqual([(parcel[0], parcel[3]) for parcel in self.delivery.parcels], [(id, True) for id in ids])
        self.assertEqual(queue.depth, 450)
        self.clock.advance(1)
        await settled
        self.assertEqual(queue.depth, 0)
        self.assertEqual(list_entries(self.directory), [])

    async def test_a_deferred_message_keeps_its_time_over_a_restart(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started()
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, id=id)
        await deferred
        await self.stop(queue)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        del self.delivery.answers["alice"]
        queue = await self.started()
        await queue._writer.do(lambda store: None)
        self.assertEqual(queue.depth, 1)
        await queue._runner.read(lambda: None)
        await queue._runner.read(lambda: None)
        self.assertEqual(len(self.delivery.parcels), 1, "not before its time")
        delivered = self.steps.wait(id, "delivered")
        self.clock.advance(70)
        await delivered

    async def test_a_destination_that_had_no_outcome_is_found_beside_one_that_had(self):
        self.relay.hold = True
        queue = await self.started()
        id = IDS.next()
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, local(0), remote(1), id=id)
        await delivered
        self.clock.advance(1)
        await queue._writer.do(lambda store: None)
        await self.crash(queue)
        self.relay.hold = False
        delivered = self.steps.wait(id, "delivered")
        queue = await self.started()
        self.assertEqual((await delivered)["recipient"], "carol@elsewhere.example")
        settled = self.steps.wait(id, "settled")
        self.clock.advance(1)
        await settled
        self.assertEqual(len(self.delivery.parcels), 1, "the local one was done")

    async def test_a_file_without_an_entry_is_removed_and_one_with_an_entry_is_kept(self):
        self.delivery.hold = True
        queue = await self.started()
        id = await self.commit_spooled(queue)
        await self.crash(queue)
        for name in (IDS.next(), "stray.tmp"):
            with open(os.path.join(self.directory, "spool", name), "w") as file:
                file.write("x")
        self.assertEqual(len(os.listdir(os.path.join(self.directory, "spool"))), 3)
        queue = await self.started()
        self.assertEqual(os.listdir(os.path.join(self.directory, "spool")), [id])

    async def test_no_clock_keeps_a_file_without_an_entry(self):
        """It was written while the clock was ahead, or the clock has been set back since."""
        await self.stop(await self.started())
        name = os.path.join(self.directory, "spool", IDS.next())
        with open(name, "w"):
            pass
        os.utime(name, (self.clock.seconds() + 10**7, self.clock.seconds() + 10**7))
        await self.started()
        self.assertFalse(os.path.exists(name))

    async def test_an_entry_without_its_file_is_kept_and_reported(self):
        self.delivery.hold = True
        queue = await self.started()
        id = await self.commit_spooled(queue)
        await self.crash(queue)
        path = queue.spool_path(id)
        away = os.path.join(self.directory, "away")
        os.rename(path, away)
        self.delivery.hold = False
        self.delivery.parcels.clear()
        damaged = self.steps.wait(id, "damaged")
        queue = self.make()
        await queue.start()
        await damaged
        await queue._writer.do(lambda store: None)
        entry = await queue.show(id)
        self.assertEqual((entry.state, entry.note), ("damaged", "its file is missing in the spool"))
        self.assertEqual(self.delivery.parcels, [])
        await self.stop(queue)
        os.rename(away, path)
        delivered, settled = self.steps.wait(id, "delivered"), self.steps.wait(id, "settled")
        await self.started()
        await delivered
        self.clock.advance(1)
        await settled
        self.assertEqual(self.delivery.parcels[-1][:2], (id, b"large"))
        self.assertFalse(os.path.exists(path))

    async def test_an_entry_that_cannot_be_read_is_kept_and_reported(self):
        self.delivery.hold = True
        queue = await self.started()
        good, bad = await self.commit(queue), await self.commit(queue)
        await queue._writer.do(
            lambda store: store._connection.execute("UPDATE entry SET message = x'746f726e' WHERE number = (SELECT max(number) FROM entry)")
        )
        await self.crash(queue)
        self.delivery.hold = False
        delivered = self.steps.wait(good, "delivered")
        queue = await self.started()
        await delivered
        await queue._writer.do(lambda store: None)
        states = [entry.state for entry in await queue.list()]
        self.assertEqual(states, ["queued", "damaged"])
        self.assertNotIn("delivered", self.steps.of(bad))


class Spooled(QueueCase):
    async def test_a_large_content_stays_a_file_until_it_is_settled(self):
        queue = await self.started()
        delivered = Deferred()
        self.delivery.hold = True
        id = await self.commit_spooled(queue, data=b"x" * 100_000)
        self.assertTrue(os.path.exists(queue.spool_path(id)))
        self.assertEqual((await queue.show(id)).size, 100_000)
        delivered, settled = self.steps.wait(id, "delivered"), self.steps.wait(id, "settled")
        self.delivery.let_go()
        await delivered
        self.clock.advance(1)
        await settled
        self.assertFalse(os.path.exists(queue.spool_path(id)))
        self.assertEqual(len(self.delivery.parcels[0][1]), 100_000)


class Stop(QueueCase):
    async def test_a_stop_delivers_what_is_in_memory_and_settles_it(self):
        self.delivery.hold = True
        queue = await self.started()
        for _ in range(5):
            await self.commit(queue)
        stopped = queue.stop(30)
        self.queues.remove(queue)
        await queue._writer.do(lambda store: None)
        self.delivery.hold = False
        self.delivery.let_go()
        await stopped
        self.assertEqual(len(self.delivery.parcels), 5)
        self.assertEqual(list_entries(self.directory), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_stop_leaves_in_the_store_what_takes_too_long(self):
        self.delivery.hold = True
        queue = await self.started()
        id = await self.commit(queue)
        stopped = queue.stop(30)
        self.queues.remove(queue)
        self.clock.advance(30)
        await stopped
        self.assertEqual([entry.id for entry in list_entries(self.directory)], [id])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_commits_under_way_are_answered_before_the_end(self):
        queue = await self.started()
        committing = [queue.commit(envelope(local()), Content.of(b"x"), (local(),)) for _ in range(20)]
        stopped = queue.stop(30)
        self.queues.remove(queue)
        await gatherResults(committing)
        await stopped
        self.assertEqual(queue.counts.settled, 20)

    async def test_a_stop_without_a_start_is_no_error(self):
        await self.stop(self.make())


class People(QueueCase):
    async def test_the_list_is_in_order_and_comes_in_pages(self):
        self.delivery.hold = True
        queue = await self.started()
        ids = [await self.commit(queue, data=b"x" * n) for n in range(5)]
        found = await queue.list(limit=3)
        self.assertEqual([entry.id for entry in found], ids[:3])
        self.assertEqual([entry.size for entry in found], [0, 1, 2])
        self.assertEqual([entry.id for entry in await queue.list(after=found[-1].id)], ids[3:])

    async def test_an_unknown_id_shows_nothing(self):
        queue = await self.started()
        self.assertIsNone(await queue.show(IDS.next()))
        self.assertIsNone(await queue.show("../../etc"))

    def test_where_there_has_never_been_a_queue_the_list_is_empty(self):
        self.assertEqual(list_entries(self.directory), [])
        self.assertIsNone(show_entry(self.directory, IDS.next()))
        self.assertFalse(os.path.exists(self.directory))


class OneBadElement(QueueCase):
    """What one element of a batch raises stops no other."""

    async def test_one_whose_answer_comes_to_nobody_keeps_no_other_from_its_250(self):
        self.delivery.hold = True
        queue = await self.started()
        ids = [IDS.next() for _ in range(3)]
        deferreds = [queue.commit(envelope(local(), id=id), Content.of(b"x"), (local(),)) for id in ids]
        deferreds[1].callback(None)  # somebody else has answered: AlreadyCalledError
        await deferreds[0]
        await deferreds[2]
        await queue._writer.do(lambda store: None)
        self.assertEqual({entry.id for entry in list_entries(self.directory)}, set(ids))
        self.assertEqual(len(self.flushLoggedErrors(AlreadyCalledError)), 1)

    async def test_one_that_the_active_queues_cannot_take_keeps_no_other_from_its_delivery(self):
        queue = await self.started()
        ids = [IDS.next() for _ in range(3)]
        committed = queue._runner.committed

        def picky(number, envelope, content, destinations, held=()):
            if envelope.id == ids[1]:
                raise RuntimeError("no")
            committed(number, envelope, content, destinations)

        queue._runner.committed = picky
        delivered = gatherResults([self.steps.wait(id, "delivered") for id in (ids[0], ids[2])])
        await gatherResults([queue.commit(envelope(local(), id=id), Content.of(b"x"), (local(),)) for id in ids])
        await delivered
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_one_entry_of_an_earlier_run_that_cannot_be_taken_up_keeps_no_other(self):
        self.delivery.hold = True
        queue = await self.started()
        ids = [await self.commit(queue) for _ in range(3)]
        await self.crash(queue)
        self.delivery.hold = False
        self.delivery.held.clear()
        queue = self.make()
        adopt = queue._runner.adopt

        def picky(message, *arguments, **named):
            if message.envelope.id == ids[1]:
                raise RuntimeError("no")
            adopt(message, *arguments, **named)

        queue._runner.adopt = picky
        delivered = gatherResults([self.steps.wait(id, "delivered") for id in (ids[0], ids[2])])
        await queue.start()
        await delivered
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsNone(queue._runner._recovery, "the recovery has come to its end")

    async def test_a_checkpoint_that_raises_anything_does_not_end_the_writer(self):
        queue = await self.started()
        self.patch(queue._writer, "_log_octets", 0)
        with mock.patch.object(SqliteStore, "checkpoint", side_effect=RuntimeError("no")):
            while queue.writable:  # the commit whose checkpoint it was has its 250
                with contextlib.suppress(StorageBroken):
                    await self.commit(queue)
        self.flushLoggedErrors(StorageBroken)
        self.clock.advance(3)
        await queue._writer.do(lambda store: None)
        await self.commit(queue)
