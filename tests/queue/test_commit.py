import threading

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.queue.commit import CommitWriter, PendingCommit
from mailserver.queue.store import MessageRefused


class Store:
    """Keeps batches in memory, waits at the gate before each, and refuses what it is told to refuse."""

    def __init__(self):
        self.trusted = False
        self.log_octets = 0
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.refused = {}
        self.closed = False

    def open(self, must_exist, in_order):
        self.trusted = True

    def end(self):
        self.closed = True
        return 0

    def add(self, numbers, packed, attempts=()):
        self.gate.wait(30)
        for number in numbers:
            if number in self.refused:
                raise self.refused[number]
        self.batches.append(list(numbers))


class Group(TestCase):
    timeout = 30

    async def begin(self, **changes):
        self.store = Store()
        self.answers = {}
        self.waiting = {}
        self.writer = CommitWriter(store=self.store, call_from_thread=reactor.callFromThread, committed=self.committed, **changes)
        self.addCleanup(lambda: self.writer.stop())
        await self.writer.start()

    def committed(self, batch, faults):
        for waiting, fault in zip(batch, faults or [None] * len(batch)):
            self.answers[waiting.number] = fault

    def commit(self, *numbers, octets=10):
        for number in numbers:
            self.writer.commit(PendingCommit(number, b"x" * octets, None))

    async def all_done(self):
        self.store.gate.set()
        await self.writer.do(lambda store: None)

    async def occupied(self):
        """The thread stands at the gate with the message 0, so that what comes now gathers."""
        self.store.gate.clear()
        entered, reported = threading.Event(), Deferred()
        self.writer.do(lambda store: (reactor.callFromThread(reported.callback, None), entered.set(), self.store.gate.wait(30)))
        await reported

    async def test_what_arrives_during_a_sync_is_the_next_batch(self):
        await self.begin()
        await self.occupied()
        self.commit(1, 2, 3)
        await self.all_done()
        self.assertEqual(self.store.batches, [[1, 2, 3]])
        self.assertEqual(self.answers, {1: None, 2: None, 3: None})

    async def test_nobody_is_told_before_the_batch_is_durable(self):
        order = []
        await self.begin()
        self.store.add = lambda numbers, packed, attempts: order.append("durable")
        tell = self.writer._call_from_thread
        self.writer._call_from_thread = lambda *call: (order.append("told"), tell(*call))
        self.commit(1)
        await self.all_done()
        self.assertEqual(order[:2], ["durable", "told"])

    async def test_a_lone_message_waits_for_no_other(self):
        await self.begin()
        self.commit(1)
        await self.all_done()
        self.assertEqual(self.store.batches, [[1]])

    async def test_a_batch_has_a_ceiling_of_messages_and_the_order_stays(self):
        await self.begin(batch_messages=4)
        await self.occupied()
        self.commit(*range(10))
        await self.all_done()
        self.assertEqual(self.store.batches, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])

    async def test_a_batch_has_a_ceiling_of_octets_that_one_message_may_pass(self):
        await self.begin(batch_octets=100)
        await self.occupied()
        self.commit(1, octets=500)
        self.commit(2, 3, 4, octets=40)
        await self.all_done()
        self.assertEqual(self.store.batches, [[1], [2, 3], [4]])

    async def test_one_message_that_the_store_refuses_fails_alone(self):
        await self.begin()
        for fault in (StorageFull("no room for it"), MessageRefused("no such message")):
            self.store.batches.clear()
            self.store.refused = {2: fault}
            await self.occupied()
            self.commit(1, 2, 3)
            await self.all_done()
            self.assertEqual(self.store.batches, [[1], [3]])
            self.assertEqual(self.answers, {1: None, 2: fault, 3: None})

    async def test_a_broken_disk_fails_the_whole_batch_without_another_try(self):
        await self.begin()
        fault = StorageBroken("sync failed")
        self.store.refused = {2: fault}
        await self.occupied()
        self.commit(1, 2, 3)
        await self.all_done()
        self.assertEqual(self.answers, {1: fault, 2: fault, 3: fault})
        self.assertEqual(self.store.batches, [])

    async def test_an_error_of_another_kind_is_an_answer_too_and_distrusts_the_store(self):
        await self.begin()
        self.store.refused = {1: RuntimeError("a fault of ours")}
        self.commit(1)
        await self.all_done()
        self.assertIsInstance(self.answers[1], StorageBroken)
        self.assertFalse(self.store.trusted)
        self.commit(2)
        await self.all_done()
        self.assertIsInstance(self.answers[2], StorageBroken)
        self.assertEqual(self.store.batches, [])

    async def test_the_one_who_asks_for_a_task_is_told_its_result_or_its_error(self):
        await self.begin()
        self.assertEqual(await self.writer.do(lambda store: 7), 7)
        await self.assertFailure(self.writer.do(lambda store: 1 // 0), ZeroDivisionError)

    async def test_a_stop_finishes_what_was_asked_before(self):
        await self.begin()
        await self.occupied()
        self.commit(1, 2)
        stopped = self.writer.stop()
        self.store.gate.set()
        await stopped
        self.assertEqual(self.answers, {1: None, 2: None})
        self.assertTrue(self.store.closed)
        self.assertFalse(self.writer.is_running and self.writer._thread.join(5))
