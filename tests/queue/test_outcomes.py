"""What deliveries answer may be anything; what becomes of each message is written down all the same."""

import asyncio
from dataclasses import replace
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults

from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.reply import Reply
from mailserver.queue.entry import Attempt, EntryState, Settled, number_of
from mailserver.queue.outcome_writer import NOT_WRITTEN, remove_files, write_down
from mailserver.queue.reader import list_entries, show_entry
from mailserver.queue.store import MessageRefused, SqliteStore
from tests.queue.doubles import IDS, Plain, QueueCase, local, remote

BUSY = Reply.of(451, "4.2.1", "Busy")
NO = Reply.of(550, "5.1.1", "No")


class Strange(Plain):
    """Answers a message to alice with `strange`, whatever that is."""

    strange = None

    def _outcomes(self, envelope, content, destinations, again):
        answers = super()._outcomes(envelope, content, destinations, again)
        return self.strange if destinations[0].recipient.address.local == "alice" else answers


class Answers(QueueCase):
    async def both(self, answer, active_queue=local):
        """Deliver to alice, whose delivery answers so, and to bob: alice's entry, when bob's message is settled."""
        self.relay = self.delivery = Strange()
        self.delivery.strange = answer
        queue = await self.started(flush_seconds=1.0, remote_flush_seconds=1.0)
        alice, bob = IDS.next(), IDS.next()
        steps = [self.steps.wait(alice, "deferred"), self.steps.wait(bob, "delivered")]
        await gatherResults([self.commit_to(queue, alice, active_queue(0, "alice")), self.commit_to(queue, bob, active_queue(0, "bob"))])
        await gatherResults(steps)
        settled = self.steps.wait(bob, "settled")
        self.clock.advance(1)
        await settled
        (entry,) = list_entries(self.directory)
        self.assertEqual(entry.id, alice)
        return entry.destinations[0]

    def commit_to(self, queue, id, destination):
        return Deferred.fromCoroutine(self.commit(queue, destination, id=id))

    async def test_a_step_says_which_host_has_said_so_and_to_what(self):
        await self.both({0: Delayed(BUSY, "", "mx.example", "RCPT")})
        (fields,) = [fields for _, step, fields in self.steps.noted if step == "deferred"]
        self.assertEqual((fields["peer"], fields["phase"]), ("mx.example", "RCPT"))

    async def test_a_step_with_our_own_words_names_no_host(self):
        await self.both({0: Delayed(BUSY, "not tried", "", "MAIL")})
        (fields,) = [fields for _, step, fields in self.steps.noted if step == "deferred"]
        self.assertFalse({"peer", "phase"} & set(fields))

    async def test_a_surrogate_in_a_note_is_kept_in_words_and_holds_up_nobody(self):
        found = await self.both({0: Delayed(BUSY, "caf\udce9", "p\udce9er", "RC\udcffPT", ("<< \udcff",))})
        self.assertEqual((found.state, found.reply, found.note), ("deferred", str(BUSY), "caf\\udce9"))

    async def test_a_note_that_is_none_defers_that_message_alone(self):
        found = await self.both({0: Failed(NO, None)})
        self.assertEqual(found.state, "deferred")
        self.assertIn("the note of the delivery's outcome is a NoneType", found.note)

    async def test_a_reply_that_is_no_reply_defers_that_message_alone(self):
        found = await self.both({0: Failed("550 No")}, remote)
        self.assertIn("the reply of the delivery's outcome is a str", found.note)

    async def test_what_is_no_outcome_defers_that_message_alone(self):
        found = await self.both({0: "delivered"}, remote)
        self.assertIn("is a str, no outcome", found.note)

    async def test_what_is_no_mapping_defers_that_message_alone(self):
        found = await self.both([Delivered()])
        self.assertIn("a list in place of a mapping", found.note)

    async def test_an_outcome_for_another_index_defers_that_message_alone(self):
        found = await self.both({5: Delivered()})
        self.assertIn("gave no outcome", found.note)

    async def test_a_sequence_that_is_none_defers_its_batch_and_no_other(self):
        class NoSequence(list):
            def __iter__(self):
                raise RuntimeError("no")

        queue = await self.started()
        with mock.patch.object(self.delivery, "deliver_batch", lambda parcels: self.answer(NoSequence([1] * len(parcels)))):
            deferred = self.steps.wait(id := IDS.next(), "deferred")
            await self.commit(queue, id=id)
            await deferred
        delivered = self.steps.wait(other := IDS.next(), "delivered")
        await self.commit(queue, id=other)
        await delivered

    async def test_one_that_would_end_the_program_or_was_cancelled_elsewhere_has_failed_like_any_other(self):
        queue = await self.started()
        for error in (SystemExit(1), asyncio.CancelledError(), RecursionError()):
            for raises in (mock.Mock(side_effect=error), lambda parcels, error=error: self.raising(error)):
                with mock.patch.object(self.delivery, "deliver_batch", raises):
                    deferred = self.steps.wait(id := IDS.next(), "deferred")
                    await self.commit(queue, id=id)
                    await deferred
                self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)
        delivered = self.steps.wait(other := IDS.next(), "delivered")
        await self.commit(queue, id=other)
        await delivered

    async def raising(self, error):
        raise error

    async def answer(self, value):
        return value

    async def test_a_delivery_that_cannot_be_cancelled_is_given_up_all_the_same(self):
        def canceller(_):
            raise RuntimeError("no")

        queue = await self.started(local_deadline_seconds=10.0)
        with mock.patch.object(self.delivery, "deliver_batch", lambda parcels: Deferred(canceller)):
            await self.commit(queue, id=(id := IDS.next()))
            await queue._writer.do(lambda store: None)
            deferred = self.steps.wait(id, "deferred")
            self.clock.advance(10)
        await deferred
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        delivered = self.steps.wait(other := IDS.next(), "delivered")
        await self.commit(queue, id=other)
        await delivered

    async def test_a_road_that_stumbles_over_one_message_leaves_the_others_theirs(self):
        queue = await self.started()
        first, second, third = [IDS.next() for _ in range(3)]
        note = queue._runner._note

        def stumbling(id, step, **fields):
            if (id, step) == (second, "delivered"):
                raise RuntimeError("no")
            note(id, step, **fields)

        queue._runner._note = stumbling
        self.delivery.hold = True
        delivered = gatherResults([self.steps.wait(first, "delivered"), self.steps.wait(third, "delivered")])
        await gatherResults([self.commit_to(queue, id, local()) for id in (first, second, third)])
        self.delivery.hold = False
        while self.delivery.held:
            self.delivery.let_go()
        await delivered
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_one_outcome_that_the_store_refuses_keeps_no_other_from_being_written(self):
        queue = await self.started(remote_flush_seconds=1.0)
        self.relay.answers = {"alice": Delayed(BUSY), "bob": Delayed(BUSY), "carol": Delayed(BUSY)}
        ids = [IDS.next() for _ in range(3)]
        self.relay.hold = True
        for user, id in zip(("alice", "bob", "carol"), ids, strict=True):
            await self.commit(queue, remote(0, user), id=id)
        await queue._writer.do(lambda store: None)
        queue._runner._settlement = Spoiling(queue._runner._settlement, number=number_of(ids[1]))
        self.relay.let_go()
        await self.written(queue)
        notes = [show_entry(self.directory, id).destinations[0] for id in ids]
        self.assertEqual([(one.state, one.note) for one in notes], [("deferred", ""), ("deferred", NOT_WRITTEN), ("deferred", "")])
        self.assertTrue(queue.writable)
        self.assertTrue(queue._outcome_writer.is_empty)
        self.assertEqual(queue._runner.live, {})

    async def written(self, queue):
        while not queue._outcome_writer.is_empty:
            await queue._writer.do(lambda store: None)

    async def test_a_message_that_nobody_keeps_and_a_strange_answer_is_not_accepted(self):
        self.delivery = Strange()
        self.delivery.stores = False
        queue = await self.started()
        for strange in ({0: "delivered"}, [Delivered()], {0: Failed(None)}, 7, {0: Delayed(BUSY)}, {}):
            self.delivery.strange = strange
            await self.assertFailure(Deferred.fromCoroutine(self.commit(queue)), StorageBroken)
        self.assertEqual(list_entries(self.directory), [])

class Spoiling:
    """A settlement whose attempts for one entry no column holds."""

    def __init__(self, settlement, *, number):
        self.settlement = settlement
        self.number = number

    def __getattr__(self, name):
        return getattr(self.settlement, name)

    def not_delivered(self, entry, destination, *arguments, **named):
        attempt = self.settlement.not_delivered(entry, destination, *arguments, **named)
        return replace(attempt, note="caf\udce9") if entry.number == self.number else attempt


class WriteDown(QueueCase):
    def store(self, fault_at=()):
        store = mock.Mock(trusted=True)
        self.seen = []

        def settle(numbers, recorded, attempts):
            rows = [*numbers, *[attempt.number for attempt in attempts]]
            self.seen.append(rows)
            for attempt in attempts:
                if attempt.note == "bad":
                    raise MessageRefused("no")
                if attempt.note == "full":
                    raise StorageFull("no")
            if 13 in numbers:
                raise OverflowError("no")
            return [Settled(number, "ID", True, False) for number in numbers if number == 99]

        store.settle = settle
        return store

    def attempt(self, number, note="good"):
        return Attempt(number, 0, False, EntryState.FAILED, 1, None, NO, note, 5.0, ())

    def test_a_good_batch_is_one_transaction(self):
        attempts = [self.attempt(n) for n in range(5)]
        written = write_down(self.store(), [Settled(7, "ID", False, False)], attempts, 100.0)
        self.assertEqual((written.attempts_written, written.refused, len(self.seen)), (attempts, [], 1))

    def test_the_bad_one_is_kept_bare_and_all_others_as_they_are(self):
        attempts = [self.attempt(n, "bad" if n == 40 else "good") for n in range(50)]
        written = write_down(self.store(), [Settled(70, "ID", False, False)], attempts, 100.0)
        self.assertEqual(written.attempts_written[:40] + written.attempts_written[41:], attempts[:40] + attempts[41:])
        self.assertEqual(written.attempts_written[40], Attempt(40, 0, False, EntryState.DEFERRED, 1, 100.0, None, NOT_WRITTEN))
        self.assertEqual((written.refused, written.fault), ([], None))
        self.assertLess(len(self.seen), 20, "in halves, not row by row")

    def test_what_was_done_stays_done_without_its_words(self):
        done = Attempt(3, 0, False, EntryState.DELIVERED, 1, None, None, "bad")
        (kept,) = write_down(self.store(), [], [done], 100.0).attempts_written
        self.assertEqual((kept.state, kept.note), (EntryState.DELIVERED, NOT_WRITTEN))

    def test_an_entry_that_cannot_be_forgotten_is_named_and_keeps_its_file(self):
        entries = [Settled(n, f"ID{n}", False, True) for n in range(10, 16)]
        written = write_down(self.store(), entries, [], 100.0)
        self.assertEqual([number for number, _ in written.refused], [13])
        self.assertEqual(written.unsettled, {13})

    def test_a_disk_that_fills_up_in_between_leaves_the_rest_for_later(self):
        attempts = [self.attempt(0, "bad"), self.attempt(1, "full"), self.attempt(2)]
        written = write_down(self.store(), [], attempts, 100.0)
        self.assertIsInstance(written.fault, StorageFull)
        self.assertEqual([attempt.number for attempt in written.attempts_written], [0])
        self.assertEqual(written.attempts, attempts[1:])

    def test_a_full_disk_writes_nothing_in_parts(self):
        self.assertRaises(StorageFull, write_down, self.store(), [], [self.attempt(1, "full")], 100.0)

    def test_a_file_that_cannot_be_removed_is_no_error(self):
        spool = mock.Mock(remove=mock.Mock(side_effect=[OSError("no"), None]))
        remove_files(spool, [Settled(1, "A", False, True), Settled(2, "B", False, True)])
        self.assertEqual([call.args for call in spool.remove.mock_calls], [("A",), ("B",)])


class NotTrusted(QueueCase):
    async def test_nothing_is_written_to_a_store_that_has_failed(self):
        queue = await self.started()
        store = queue._writer._store
        await queue._writer.do(lambda store: setattr(store, "trusted", False))
        try:
            for work in (
                lambda store: store.settle([1], [], []),
                lambda store: store.settle([], [], [Attempt(1, 0, False, EntryState.DEFERRED, 1, 1.0, None, "")]),
                lambda store: store.report([b"x"], []),
                lambda store: store.alter([1], [], []),
                lambda store: store.drop_failed(1, 1),
                lambda store: store.add([1], [b"x"]),
                lambda store: store.forget_damage(),
            ):
                with mock.patch.object(store, "_connection", mock.Mock(side_effect=AssertionError)):
                    await self.assertFailure(queue._writer.do(work), StorageBroken)
        finally:
            store.trusted = True

    async def test_while_outcomes_cannot_be_written_little_more_is_delivered(self):
        queue = await self.started(flush_messages=10, batch_messages=10)
        full = mock.patch.object(SqliteStore, "settle", side_effect=StorageFull("no"))
        with mock.patch("mailserver.queue.outcome_writer.UNWRITTEN_MOST", 20), full:
            ids = [IDS.next() for _ in range(100)]
            for id in ids:
                await self.commit(queue, id=id)
            for _ in range(20):
                await queue._writer.do(lambda store: None)
            self.assertLess(len(self.delivery.parcels), 60)
            begun = len(self.delivery.parcels)
            self.assertTrue(queue._outcome_writer.is_behind)
            more = await self.commit(queue)
            await queue._writer.do(lambda store: None)
            self.assertEqual(len(self.delivery.parcels), begun)
        settled = gatherResults([self.steps.wait(id, "settled") for id in (*ids, more)])
        self.clock.advance(5)
        for _ in range(50):
            await queue._writer.do(lambda store: None)
            self.clock.advance(0.1)
        self.clock.advance(5)
        await settled
        self.assertEqual(list_entries(self.directory), [])
        self.assertEqual(len(self.delivery.parcels), 101, "nothing was delivered twice")


