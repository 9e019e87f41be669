"""What becomes of entries on its way into the store: nothing is left out, nothing comes twice, and what cannot be written waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.queue import outcome_writer
from mailserver.queue.entry import Attempt, EntryState, Settled
from mailserver.queue.outcome_writer import (
    AGAIN_SECONDS,
    NOT_WRITTEN,
    UNSOUND_AGAIN_SECONDS,
    OutcomeWriter,
    WrittenOutcomes,
    remove_files,
    write_down,
)
from mailserver.queue.store import MessageRefused


def entry(number: int, *, has_attempts: bool = False, spooled: bool = True) -> Settled:
    return Settled(number, f"ID{number}", has_attempts, spooled)


def attempt(number: int, note: str = "busy") -> Attempt:
    return Attempt(number, 0, False, EntryState.DEFERRED, 1, 50.0, None, note)


class Store:
    """Keeps what it is given.  `refuses(numbers)` may raise; `finishes` are entries that end with their attempts."""

    def __init__(self) -> None:
        self.trusted = True
        self.settled: list[list[int]] = []
        self.recorded: list[list[int]] = []
        self.attempts: list[Attempt] = []
        self.tries = 0
        self.refuses: Callable[[list[int]], None] = lambda numbers: None
        self.finishes: list[Settled] = []

    def settle(self, numbers: list[int], recorded: list[int], attempts: list[Attempt]) -> list[Settled]:
        self.tries += 1
        self.refuses([*numbers, *[one.number for one in attempts]])
        self.settled.append(numbers)
        self.recorded.append(recorded)
        self.attempts += attempts
        return self.finishes


class OutcomeWriterCase(SynchronousTestCase):
    """`work` is what waits for the writer thread; `do_all` does it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = Store()
        self.spool = mock.Mock()
        self.work: list[tuple[Deferred[WrittenOutcomes], Callable[[Any], WrittenOutcomes]]] = []
        self.gone: list[list[int]] = []
        self.kept: list[list[Attempt]] = []
        self.faults: list[type[Exception]] = []
        self.outcome_writer = OutcomeWriter(
            clock=self.clock,
            do=self.do,
            spool=self.spool,
            settled=lambda entries: self.gone.append([one.number for one in entries]),
            recorded=self.kept.append,
            failed=lambda failure: self.faults.append(failure.type),  # type: ignore[arg-type]
        )

    def do(self, work: Callable[[Any], WrittenOutcomes]) -> Deferred[WrittenOutcomes]:
        self.work.append((Deferred(), work))
        return self.work[-1][0]

    def do_one(self) -> None:
        later, work = self.work.pop(0)
        try:
            written = work(self.store)
        except Exception as error:
            later.errback(error)
        else:
            later.callback(written)

    def removed(self) -> list[str]:
        return [call.args[0] for call in self.spool.remove.mock_calls]

    def refusing(self, *numbers: int, error: Exception) -> Callable[[list[int]], None]:
        def refuses(rows: list[int]) -> None:
            if not {*numbers}.isdisjoint(rows):
                raise error

        return refuses


class HandingOver(OutcomeWriterCase):
    def test_it_is_empty_and_nothing_is_handed_over_until_something_comes(self) -> None:
        self.assertTrue(self.outcome_writer.is_empty)
        self.outcome_writer.add([], [])
        self.assertEqual((self.work, self.outcome_writer.is_empty), ([], True))
        for entries, attempts in (([entry(1)], []), ([], [attempt(2)])):
            self.outcome_writer.add(entries, attempts)
            self.assertFalse(self.outcome_writer.is_empty)
            self.do_one()
            self.assertTrue(self.outcome_writer.is_empty)

    def test_one_hand_over_at_a_time_and_then_all_that_came_meanwhile(self) -> None:
        self.outcome_writer.add([entry(1)], [])
        self.outcome_writer.add([entry(2)], [])
        self.outcome_writer.add([], [attempt(3)])
        self.assertEqual((len(self.work), self.outcome_writer.settling), (1, {1, 2}))
        self.do_one()
        self.assertEqual((len(self.work), self.outcome_writer.settling, self.outcome_writer.is_empty), (1, {2}, False))
        self.do_one()
        self.assertEqual((self.store.settled, self.gone, self.kept), ([[1], [2]], [[1], [2]], [[attempt(3)]]))
        self.assertEqual((self.work, self.outcome_writer.settling, self.outcome_writer.is_empty), ([], set(), True))

    def test_an_entry_that_is_settled_needs_no_attempts(self) -> None:
        self.outcome_writer.add([entry(1, has_attempts=True), entry(2)], [attempt(1), attempt(3)])
        self.do_one()
        self.assertEqual((self.store.settled, self.store.recorded), ([[1, 2]], [[1]]))
        self.assertEqual(self.store.attempts, [attempt(3)])

    def test_files_go_with_their_entries_and_with_those_that_their_attempts_have_ended(self) -> None:
        self.store.finishes = [entry(8)]
        self.outcome_writer.add([entry(1), entry(2, spooled=False)], [attempt(8)])
        self.do_one()
        self.assertEqual((self.removed(), self.gone), (["ID1", "ID8"], [[1, 2, 8]]))

    def test_of_no_attempts_nobody_is_told(self) -> None:
        self.outcome_writer.add([entry(1)], [])
        self.do_one()
        self.assertEqual(self.kept, [])

    def test_the_time_at_which_what_was_not_written_is_tried_again(self) -> None:
        self.outcome_writer.add([], [attempt(1, "bad")])
        later, work = self.work.pop()
        with mock.patch.object(self.store, "settle", side_effect=[MessageRefused("no"), MessageRefused("no"), []]):
            later.callback(work(self.store))
        ((kept,),) = self.kept
        self.assertEqual((kept.due, kept.note), (1000 + UNSOUND_AGAIN_SECONDS, NOT_WRITTEN))


class Refusals(OutcomeWriterCase):
    def test_what_cannot_be_written_now_is_tried_again_with_what_came_meanwhile(self) -> None:
        self.store.refuses = self.refusing(1, error=StorageFull("no"))
        self.outcome_writer.add([entry(1)], [attempt(2)])
        self.do_one()
        self.assertEqual((self.faults, self.gone, self.outcome_writer.is_empty), ([StorageFull], [], False))
        self.outcome_writer.add([entry(3)], [attempt(4)])
        self.clock.advance(AGAIN_SECONDS - 0.1)
        self.assertEqual(self.work, [])
        self.store.refuses = lambda numbers: None
        self.clock.advance(0.1)
        self.do_one()
        self.assertEqual((self.gone, self.store.attempts), ([[1, 3]], [attempt(2), attempt(4)]))
        self.assertEqual((self.work, self.outcome_writer.is_empty, self.outcome_writer.settling), ([], True, set()))

    def test_a_fault_in_the_middle_leaves_the_rest_for_later(self) -> None:
        def refuses(rows: list[int]) -> None:
            if len(rows) > 1:
                raise MessageRefused("no")
            if rows[0] >= 2:
                raise StorageFull("no")

        self.store.refuses = refuses
        self.outcome_writer.add([entry(n) for n in range(4)], [attempt(9)])
        self.do_one()
        self.assertEqual((self.gone, self.outcome_writer.settling, self.faults), ([[0, 1]], {2, 3}, [StorageFull]))
        self.assertEqual(self.removed(), ["ID0", "ID1"])
        self.assertEqual(self.store.tries, 7, "nothing more was tried after the fault")
        self.store.refuses = lambda numbers: None
        self.clock.advance(AGAIN_SECONDS)
        self.do_one()
        self.assertEqual((self.gone[1:], self.store.attempts, self.outcome_writer.settling), ([[2, 3]], [attempt(9)], set()))

    def test_an_entry_that_the_store_never_forgets_is_no_longer_waited_for_but_keeps_its_file(self) -> None:
        self.store.refuses = self.refusing(2, error=OverflowError("too large"))
        self.outcome_writer.add([entry(1), entry(2), entry(3)], [])
        self.do_one()
        self.assertEqual((self.removed(), self.gone, self.outcome_writer.settling), (["ID1", "ID3"], [[1, 3]], {2}))
        self.assertTrue(self.outcome_writer.is_empty)

    def test_it_is_behind_while_the_store_takes_nothing_and_much_waits(self) -> None:
        self.patch(outcome_writer, "UNWRITTEN_MOST", 4)
        self.outcome_writer.add([entry(1)], [])
        self.outcome_writer.add([entry(n) for n in range(2, 9)], [])
        self.assertFalse(self.outcome_writer.is_behind, "it writes")
        self.store.refuses = self.refusing(1, error=StorageFull("no"))
        self.do_one()
        self.assertTrue(self.outcome_writer.is_behind)
        self.store.refuses = self.refusing(10, error=StorageFull("no"))
        self.clock.advance(AGAIN_SECONDS)
        self.do_one()
        self.outcome_writer.add([entry(10), entry(11)], [attempt(12)])
        self.do_one()
        self.assertFalse(self.outcome_writer.is_behind)
        self.outcome_writer.add([], [attempt(13)])
        self.assertTrue(self.outcome_writer.is_behind)

    def test_stopped_it_tries_nothing_again(self) -> None:
        self.outcome_writer.stop()
        self.store.refuses = self.refusing(1, error=StorageFull("no"))
        self.outcome_writer.add([entry(1)], [])
        self.do_one()
        self.outcome_writer.stop()
        self.clock.advance(10 * AGAIN_SECONDS)
        self.assertEqual((self.work, self.outcome_writer.is_empty), ([], False))


class Stumbling(OutcomeWriterCase):
    def test_who_is_told_and_fails_keeps_nothing_from_being_written(self) -> None:
        self.outcome_writer._settled = mock.Mock(side_effect=ValueError)
        self.outcome_writer.add([entry(1)], [])
        self.outcome_writer.add([entry(2)], [])
        self.do_one()
        self.assertEqual((len(self.flushLoggedErrors(ValueError)), len(self.work)), (1, 1))
        self.do_one()
        self.assertEqual((len(self.flushLoggedErrors(ValueError)), self.store.settled), (1, [[1], [2]]))

    def test_nor_does_it_make_the_next_try_come_sooner(self) -> None:
        self.outcome_writer._settled = mock.Mock(side_effect=ValueError)
        self.store.refuses = lambda rows: self.fails(MessageRefused("no") if len(rows) > 1 else StorageFull("no"))
        self.outcome_writer.add([entry(1), entry(2)], [])
        self.do_one()
        self.assertEqual((len(self.flushLoggedErrors(ValueError)), self.work), (1, []))
        self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(len(self.work), 1)

    def fails(self, error: Exception) -> None:
        raise error

    def test_what_is_no_answer_of_the_writer_keeps_what_came_meanwhile_from_nothing(self) -> None:
        self.outcome_writer.add([entry(1)], [])
        self.outcome_writer.add([entry(2)], [])
        self.work.pop()[0].callback(None)  # type: ignore[arg-type]
        self.assertEqual((len(self.flushLoggedErrors(AttributeError)), len(self.work)), (1, 1))
        self.do_one()
        self.assertEqual(self.gone, [[2]])


class InParts(OutcomeWriterCase):
    def test_a_store_that_is_not_trusted_any_more_writes_nothing_in_parts(self) -> None:
        self.store.trusted = False
        self.store.refuses = self.refusing(1, error=OverflowError("no"))
        self.assertRaises(OverflowError, write_down, self.store, [entry(1), entry(2)], [], 5.0)
        self.assertEqual(self.store.tries, 1)
        self.store.refuses = self.refusing(1, error=StorageBroken("no"))
        self.assertRaises(StorageBroken, write_down, self.store, [entry(1), entry(2)], [], 5.0)

    def test_an_attempt_that_is_not_even_taken_bare_is_refused_with_the_reason_and_waited_for_no_more(self) -> None:
        self.store.refuses = self.refusing(3, error=OverflowError("too large"))
        written = write_down(self.store, [], [attempt(2), attempt(3), attempt(4)], 5.0)
        self.assertEqual(written.refused, [(3, "OverflowError: too large")])
        self.assertEqual([(one.number, one.note) for one in written.attempts_written], [(2, "busy"), (3, NOT_WRITTEN), (4, "busy")])
        self.assertEqual((written.unsettled, self.store.attempts), (set(), [attempt(2), attempt(4)]))

    def test_an_entry_that_is_refused_has_the_stores_words(self) -> None:
        self.store.refuses = self.refusing(3, error=MessageRefused("not that one"))
        written = write_down(self.store, [entry(3)], [attempt(4)], 5.0)
        self.assertEqual((written.refused, written.unsettled, written.attempts_written), ([(3, "not that one")], {3}, [attempt(4)]))

    def test_a_file_that_was_never_written_is_not_removed(self) -> None:
        remove_files(self.spool, [entry(1, spooled=False), entry(2)])
        self.assertEqual(self.removed(), ["ID2"])
