"""What a thread has read of the store may be old when its answer comes: meanwhile messages are delivered, deferred, retried by hand."""

import time
from dataclasses import replace
from unittest import mock

from twisted.internet import reactor, threads
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mailserver.mail.answers import Delayed
from mailserver.mail.envelope import Recipient, RecipientParameters
from mailserver.mail.faults import StorageBroken
from mailserver.mail.ids import IdSource
from mailserver.mail.reply import Reply
from mailserver.queue import active as active_module
from mailserver.queue import reading_back, recovery
from mailserver.queue.active_message import WaitingEntry
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order
from mailserver.queue.admin.selection import Selection
from mailserver.queue.entry import number_of
from tests.queue.doubles import IDS, QueueCase, local, remote

BUSY = Delayed(Reply.of(451, "4.2.1", "The mailbox is busy"))


async def route(address):
    return [local().route]


class Held:
    """Calls the function and keeps its answer until `let_go`; `made` fires, in a turn of its own, when the answer is there."""

    def __init__(self, function):
        self._function = function
        self.made = Deferred()
        self._end = Deferred()

    def __call__(self, *arguments):
        return self._function(*arguments).addCallback(self._keep)

    def _keep(self, answer):
        reactor.callLater(0, self.made.callback, None)
        return self._end.addCallback(lambda _: answer)

    def let_go(self):
        self._end.callback(None)


class Gate:
    """Calls the function when it is opened; `knocked` says that somebody waits."""

    def __init__(self, function):
        self._function = function
        self._opened = Deferred()
        self.knocked = False

    def __call__(self, *arguments):
        self.knocked = True
        return self._opened.addCallback(lambda _: self._function(*arguments))

    def open(self):
        self._opened.callback(None)


class ReadingCase(QueueCase):
    timeout = 15

    async def turn(self):
        self.clock.advance(0.01)
        await deferLater(reactor, 0.002, lambda: None)

    async def deferred(self, queue, *destinations):
        """A message that waits for its next attempt, in the store alone."""
        for one in destinations:
            (self.delivery, self.relay)[one.route.address.domain != "example.org"].answers[one.recipient.address.local] = BUSY
        id = IDS.next()
        steps = gatherResults([self.steps.wait(id, "deferred") for _ in destinations])
        await self.commit(queue, *destinations, id=id)
        await steps
        while queue._runner.live:
            await self.turn()
        return id

    def hold_next_read(self, queue, active_queue):
        """Of that active queue.  All other reads wait behind it."""
        runner, held = queue._runner, Held(threads.deferToThread)

        def run_in_thread(function, *arguments):
            if function != runner._reader.read or not active_queue.reading:
                return threads.deferToThread(function, *arguments)
            runner._run_in_thread = threads.deferToThread
            return held(function, *arguments)

        runner._run_in_thread = run_in_thread
        return held

    async def delivering(self, queue):
        """A message that was deferred before and is on its way now."""
        id = await self.deferred(queue, remote())
        self.relay.answers.clear()
        self.relay.hold = True
        self.clock.advance(70)
        while not self.relay.held:
            await self.turn()
        self.relay.hold = False
        return id

    def find_once_more(self, queue, id):
        """As when a place behind what was taken is looked at again."""
        queue._runner.active_queues[1].retries.add("", WaitingEntry(number_of(id), True))
        queue._runner.changed()

    async def reading_once_more(self, queue, id):
        """The same, and the read of it is under way."""
        held = self.hold_next_read(queue, queue._runner.active_queues[1])
        self.find_once_more(queue, id)
        await held.made
        return held

    def deliver(self):
        self.relay.let_go()
        self.clock.advance(1)  # flushed

    async def all_is_read(self, queue):
        active_queue = queue._runner.active_queues[1]
        while active_queue.reading or active_queue.backlog or active_queue.retries:
            await self.turn()


class ReadingBack(ReadingCase):
    async def test_what_is_settled_meanwhile_is_not_delivered_again(self):
        queue = await self.started()
        id = await self.delivering(queue)
        held = await self.reading_once_more(queue, id)
        settled = self.steps.wait(id, "settled")
        self.deliver()
        await settled
        held.let_go()
        await self.all_is_read(queue)
        self.assertEqual(self.steps.of(id), ["deferred", "delivered", "settled"])
        self.assertEqual(queue._runner.live, {})

    async def test_what_is_on_its_way_out_of_the_store_is_not_delivered_again(self):
        queue = await self.started()
        id = await self.delivering(queue)
        settling = queue._runner.outcome_writer._do = Gate(queue._runner.outcome_writer._do)
        self.deliver()
        self.find_once_more(queue, id)
        await self.all_is_read(queue)
        self.assertTrue(settling.knocked)
        self.assertEqual(self.steps.of(id), ["deferred", "delivered"])
        settled = self.steps.wait(id, "settled")
        settling.open()
        await settled

    async def test_what_was_read_on_its_way_out_of_the_store_is_not_delivered_again(self):
        queue = await self.started()
        id = await self.delivering(queue)
        settling = queue._runner.outcome_writer._do = Gate(queue._runner.outcome_writer._do)
        self.deliver()
        held = await self.reading_once_more(queue, id)
        settled = self.steps.wait(id, "settled")
        settling.open()
        await settled
        held.let_go()
        await self.all_is_read(queue)
        self.assertEqual(self.steps.of(id), ["deferred", "delivered", "settled"])

    async def test_a_clock_that_goes_back_meanwhile_only_delays(self):
        queue = await self.started()
        id = await self.deferred(queue, remote())
        self.relay.answers.clear()
        held = self.hold_next_read(queue, queue._runner.active_queues[1])
        self.clock.advance(3000)
        await held.made
        self.clock.rightNow -= 3000
        held.let_go()
        await self.all_is_read(queue)
        self.assertEqual(self.steps.of(id), ["deferred"])
        delivered = self.steps.wait(id, "delivered")
        self.clock.advance(70)
        await delivered

    async def test_what_left_memory_meanwhile_is_read_again_for_the_other_active_queue(self):
        queue = await self.started()
        id = await self.deferred(queue, local(0), remote(1))
        del self.relay.answers["carol"]
        held = self.hold_next_read(queue, queue._runner.active_queues[1])
        delivered = self.steps.wait(id, "delivered")
        self.clock.advance(70)
        await held.made
        while self.steps.of(id).count("deferred") < 3 or queue._runner.live:
            await self.turn()
        held.let_go()
        await delivered

    async def half_deferred(self, queue):
        """A message whose local destination is deferred, in the store, while its remote one is under way."""
        self.delivery.answers["alice"] = self.relay.answers["carol"] = BUSY
        self.relay.hold = True
        id = await self.commit(queue, local(0), remote(1))
        while not self.steps.of(id) or not self.relay.held or not queue._runner.outcome_writer.is_empty:
            await self.turn()
        return id

    async def read_by(self, active_queue):
        while active_queue.reading or active_queue.backlog or active_queue.retries:
            await self.turn()

    async def test_what_is_due_while_an_attempt_for_another_destination_is_written_is_not_passed_over(self):
        queue = await self.started()
        id = await self.half_deferred(queue)
        self.delivery.answers.clear()
        self.clock.advance(30)
        writing = queue._runner.outcome_writer._do = Gate(queue._runner.outcome_writer._do)
        self.relay.let_go()
        self.assertEqual((self.steps.of(id), writing.knocked), (["deferred", "deferred"], True))
        delivered = self.steps.wait(id, "delivered")
        self.clock.advance(40)  # the local one is due, the remote one is not
        await self.turn()
        await self.read_by(queue._runner.active_queues[0])
        writing.open()
        await delivered

    async def test_what_was_read_before_its_attempt_was_written_is_not_tried_again_at_once(self):
        queue = await self.started()
        id = await self.half_deferred(queue)
        here = queue._runner.active_queues[0]
        self.delivery.hold = True
        self.clock.advance(70)
        while not self.delivery.held:
            await self.turn()
        self.delivery.hold = False
        held = self.hold_next_read(queue, here)
        here.retries.add("", WaitingEntry(number_of(id), True))
        queue._runner.changed()
        await held.made
        self.delivery.let_go()
        while not queue._runner.outcome_writer.is_empty:
            await self.turn()
        held.let_go()
        await self.read_by(here)
        self.assertEqual(self.steps.of(id), ["deferred", "deferred"])

    async def test_what_owes_a_report_of_its_success_is_not_delivered_again_before_that_is_written(self):
        queue = await self.started(route=route)
        asking = replace(local(), recipient=Recipient(local().recipient.address, RecipientParameters(notify=frozenset({"SUCCESS"}))))
        writing = queue._runner.outcome_writer._do = Gate(queue._runner.outcome_writer._do)
        here = queue._runner.active_queues[0]
        id = await self.commit(queue, asking)
        while not writing.knocked:
            await self.turn()
            self.clock.advance(1)  # flushed
        here.backlog.add("", WaitingEntry(number_of(id), True))
        queue._runner.changed()
        await self.read_by(here)
        self.assertEqual(self.steps.of(id), ["delivered"])
        settled = self.steps.wait(id, "settled")
        writing.open()
        while not settled.called:
            await self.turn()

    async def test_what_was_tried_while_the_recovery_read_it_is_not_tried_again_at_once(self):
        self.patch(recovery, "PAGE", 1)
        first = await self.started()
        self.relay.hold = True
        await self.commit(first, remote())
        id = await self.half_deferred(first)
        await self.crash(first)
        self.delivery.hold = True
        self.clock.advance(70)
        queue, held, pages = self.make(), Held(threads.deferToThread), []

        def run_in_thread(function, *arguments):
            if getattr(function, "__name__", "") == "_page":
                pages.append(arguments)
                if len(pages) == 2:  # the first has the other message
                    return held(function, *arguments)
            return threads.deferToThread(function, *arguments)

        queue._runner._run_in_thread = run_in_thread
        await queue.start()
        await held.made
        self.assertEqual([len(self.delivery.held), self.steps.of(id)], [1, ["deferred"]])
        self.delivery.hold = False
        self.delivery.let_go()
        while not queue._runner.outcome_writer.is_empty:
            await self.turn()
        held.let_go()
        await self.turn()
        await self.read_by(queue._runner.active_queues[0])
        self.assertEqual(self.steps.of(id), ["deferred", "deferred"])

    async def test_where_the_clock_went_back_a_message_of_this_run_is_none_that_an_earlier_one_left(self):
        first = await self.started()
        self.relay.hold = True
        old = await self.commit(first, remote(), id=IdSource(lambda: time.time() + 1000).next())
        await self.crash(first)
        self.relay.held.clear()
        queue, gate = self.make(), Gate(threads.deferToThread)

        def run_in_thread(function, *arguments):
            is_page = getattr(function, "__name__", "") == "_page" and not gate.knocked
            return (gate if is_page else threads.deferToThread)(function, *arguments)

        queue._runner._run_in_thread = run_in_thread
        await queue.start()
        while not gate.knocked:
            await self.turn()
        new = await self.commit(queue, remote())
        self.assertLess(new, old)
        gate.open()
        while self.steps.count("settled") < 2:
            self.relay.let_go()
            await self.turn()
            self.clock.advance(1)
        self.assertEqual((sorted([parcel[0] for parcel in self.relay.parcels]), queue.depth), ([new, old], 0))

    async def test_one_that_cannot_be_put_into_the_backlog_keeps_no_other_out_of_it(self):
        self.patch(active_module, "BACKLOG_MOST", 2)
        queue = await self.started(memory_window_octets=5000, remote_deliveries=1)
        there = queue._runner.active_queues[1]
        self.relay.hold = True
        ids = [await self.commit(queue, remote()) for _ in range(10)]
        bad, wait = [], queue._runner._reading_back._wait

        def stumbling(one, active_queue):
            if not bad:
                bad.append(one.number)
                raise ZeroDivisionError
            wait(one, active_queue)

        self.patch(queue._runner._reading_back, "_wait", stumbling)
        self.relay.hold = False
        while len([id for id in ids if "settled" in self.steps.of(id)]) < 9:
            self.relay.let_go()
            await self.turn()
            self.clock.advance(1)
        self.assertTrue(there.store_window.is_empty)
        self.assertEqual([number_of(id) for id in ids if "settled" not in self.steps.of(id)], bad)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_what_is_retried_while_others_fall_due_is_not_passed_over(self):
        queue = await self.started()
        due, verbs = queue._runner.due, queue.verbs
        other = await self.deferred(queue, remote())
        self.clock.advance(30)
        id = await self.deferred(queue, remote())
        writing = verbs._do = Gate(verbs._do)
        order = Order(Verb.RETRY, Selection(id=id), "root")
        retried = Deferred.fromCoroutine(verbs.carry_out(order, after=0))  # decided now, written when the other is due
        while not writing.knocked:
            await self.turn()
        ask = due._ask
        held = due._ask = Held(ask)
        self.relay.answers.clear()
        delivered = [self.steps.wait(one, "delivered") for one in (id, other)]
        self.clock.advance(40)
        await held.made
        due._ask = ask
        writing.open()
        await retried
        held.let_go()
        while not delivered[0].called or not delivered[1].called:
            await self.turn()


class Overflowing(ReadingCase):
    """The backlog of an active queue has a place for some numbers only; the others are found in the store when there is room again."""

    def setUp(self):
        super().setUp()
        self.patch(active_module, "BACKLOG_MOST", 20)
        self.patch(reading_back, "REFILL", 7)

    async def send_while_blocked(self, queue, delivery, make, count=100):
        delivery.hold = True
        ids = []
        for n in range(count):
            ids.append(await self.commit(queue, make(n)))
        return ids

    async def drain(self, queue, delivery, ids, *dropped):
        delivery.hold = False
        while queue.depth:
            delivery.let_go()
            await self.turn()
            self.clock.advance(1)
        self.assertEqual(sorted([id for id, step, _ in self.steps.noted if step == "settled"]), sorted([*ids, *dropped]))
        self.assertEqual(sorted(parcel[0] for parcel in delivery.parcels), sorted(ids), "each once")

    async def test_a_blocked_active_queue_keeps_some_numbers_and_delivers_all_in_their_order(self):
        queue = await self.started(memory_window_octets=10_000, batch_messages=5)
        ids = await self.send_while_blocked(queue, self.delivery, lambda n: local())
        (active_queue, _) = queue._runner.active_queues
        self.assertLessEqual(len(active_queue.backlog), 20)
        self.assertFalse(active_queue.store_window.is_empty)
        await self.drain(queue, self.delivery, ids)
        self.assertEqual([parcel[0] for parcel in self.delivery.parcels], ids)
        self.assertTrue(active_queue.store_window.is_empty)

    async def test_no_domain_takes_all_places_of_the_backlog(self):
        queue = await self.started(memory_window_octets=10_000, remote_deliveries=2)
        ids = await self.send_while_blocked(queue, self.relay, lambda n: remote(domain=f"d{n % 3}.example"))
        (_, active_queue) = queue._runner.active_queues
        self.assertLessEqual(len(active_queue.backlog), 20)
        self.assertGreater(sum(active_queue.backlog.waiting(f"d{n}.example") > 0 for n in range(3)), 1)
        await self.drain(queue, self.relay, ids)

    async def test_what_comes_while_the_store_is_asked_is_delivered_too(self):
        queue = await self.started(memory_window_octets=10_000, batch_messages=5)
        ids = await self.send_while_blocked(queue, self.delivery, lambda n: local(), 60)
        self.delivery.hold = False
        more = []
        while len(more) < 100:
            self.delivery.let_go()
            more.append(await self.commit(queue))
            self.clock.advance(0.3)
        await self.drain(queue, self.delivery, ids + more)

    async def test_after_a_restart_the_rest_is_delivered_again_from_the_store(self):
        queue = await self.started(memory_window_octets=10_000, batch_messages=5)
        ids = await self.send_while_blocked(queue, self.delivery, lambda n: local())
        await self.crash(queue)
        self.delivery.held.clear()
        self.delivery.hold = True
        queue = await self.started(memory_window_octets=10_000, batch_messages=5)
        for _ in range(30):
            await self.turn()
        await self.drain(queue, self.delivery, ids)

    async def test_new_mail_and_what_comes_again_are_read_back_in_turns(self):
        queue = await self.started()
        (_, active_queue) = queue._runner.active_queues
        for number in range(3):
            active_queue.backlog.add("", WaitingEntry(number, False))
            active_queue.retries.add("", WaitingEntry(10 + number, True))
        turns = []
        for _ in range(6):
            turns += [one.entry.again for one in active_queue.next_to_read(1, 1)]
            active_queue.read_ended([])
        self.assertEqual(turns, [True, False] * 3)

    async def test_a_store_that_cannot_be_read_is_asked_again(self):
        queue = await self.started(memory_window_octets=10_000, batch_messages=5)
        ids = await self.send_while_blocked(queue, self.delivery, lambda n: local())
        self.delivery.hold = False
        with mock.patch.object(queue._reader, "open_entries", side_effect=StorageBroken("no")):
            while not self.flushLoggedErrors(StorageBroken):
                self.delivery.let_go()
                await self.turn()
        self.clock.advance(5)
        await self.drain(queue, self.delivery, ids)

    async def test_where_the_last_of_a_range_has_been_dropped_the_others_are_delivered_and_no_more_is_asked_for(self):
        queue = await self.started(memory_window_octets=10_000, remote_deliveries=1)
        ids = await self.send_while_blocked(queue, self.relay, lambda n: remote(), 40)
        dropped = ids.pop()
        await queue.verbs.carry_out(Order(Verb.DROP, Selection(id=dropped), "root"), after=0)
        await self.drain(queue, self.relay, ids, dropped)

    async def test_a_message_for_both_active_queues_waits_for_the_blocked_one_alone(self):
        queue = await self.started(memory_window_octets=10_000, batch_messages=5)
        self.relay.hold = True
        ids = []
        for _ in range(60):
            ids.append(await self.commit(queue, local(0), remote(1)))
        for _ in range(5):
            await self.turn()
            self.clock.advance(1)
        self.assertEqual(len(self.delivery.parcels), 60)
        await self.drain(queue, self.relay, ids)
        self.assertEqual(len(self.delivery.parcels), 60)
