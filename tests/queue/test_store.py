import errno
import os
import shutil
from dataclasses import replace
from unittest import mock

import apsw
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.added_header import AddHeader
from mailserver.mail.answers import Finding
from mailserver.mail.content import Content
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.set_apart import HoldKind
from mailserver.queue import reader
from mailserver.queue import store as store_module
from mailserver.queue.entry import (
    Attempt,
    DuePlace,
    EntryState,
    Mark,
    Settled,
    Trial,
    decode_history,
    encode_history,
    number_of,
    pack,
)
from mailserver.queue.reader import ReadMessage, SqliteReader, Unreadable
from mailserver.queue.spool import Spool
from mailserver.queue.store import SCHEMA_VERSION, MessageRefused, SqliteStore
from tests.queue.doubles import envelope, local, remote

UNDO_3 = (
    "DROP INDEX attempt_until",
    "ALTER TABLE attempt DROP COLUMN until",
    "ALTER TABLE attempt DROP COLUMN hold",
    "ALTER TABLE attempt DROP COLUMN findings",
)


class StoreCase(SynchronousTestCase):
    def setUp(self):
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, "queue.db")
        self.store = SqliteStore(self.path)
        self.store.open()
        self.addCleanup(self.store.close)
        self.reader = SqliteReader(path=self.path, spool=Spool(self.directory))
        self.addCleanup(self.reader.close)

    def add(self, *sizes, store=None):
        numbers, packed = [], []
        for size in sizes:
            sent = envelope(local(0), remote(1))
            numbers.append(number_of(sent.id))
            packed.append(pack(numbers[-1], sent, Content.of(b"x" * size), (local(0), remote(1))))
        (store or self.store).add(numbers, packed)
        return numbers

    def stored(self):
        return [number for number, in self.store._connection.execute("SELECT number FROM entry")]

    def attempt(self, number, destination, state=EntryState.DEFERRED, due=None, remote=False):
        return Attempt(number, destination, remote, state, 1, due, None, "")


class Life(StoreCase):
    def test_the_log_is_synced_at_each_commit_and_checkpointed_by_us_alone(self):
        pragmas = [self.store._connection.pragma(name) for name in ("journal_mode", "synchronous", "wal_autocheckpoint")]
        self.assertEqual(pragmas, ["wal", 2, 0])

    def test_what_a_killed_process_left_in_the_log_is_synced_before_anything_is_believed(self):
        """Its commit stands there and may not be on the disk: a file that it speaks of would be removed, and the power could go."""
        self.add(1)
        left = os.path.abspath(self.mktemp())
        shutil.copytree(self.directory, left)
        synced = []
        sync = os.fsync

        def fsync(fd):
            synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            sync(fd)

        store = SqliteStore(os.path.join(left, "queue.db"))
        self.addCleanup(store.close)
        self.patch(os, "fsync", fsync)
        connect = store_module.open_connection
        self.patch(store_module, "open_connection", lambda path: synced.append("opened") or connect(path))
        store.open(must_exist=True, in_order=False)
        self.assertEqual(synced[:2], ["queue.db-wal", "opened"])

    def test_an_sqlite_that_can_lose_commits_is_refused(self):
        with mock.patch.object(apsw, "sqlite_lib_version", return_value="3.51.2"):
            with self.assertRaisesRegex(StorageBroken, "3.51.3 or later"):
                SqliteStore(self.path).open()

    def test_a_file_of_a_later_release_is_refused_and_left_as_it_is(self):
        self.store._connection.pragma("user_version", 99)
        with self.assertRaisesRegex(StorageBroken, "later release"):
            SqliteStore(self.path).open()
        self.assertEqual(self.store._connection.pragma("user_version"), 99)

    def test_the_first_schema_is_led_to_the_present_one(self):
        (number,) = self.add(5)
        self.store.settle([], [], [self.attempt(number, 0, due=7.0)])
        for statement in (
            "DROP INDEX attempt_report",
            "DROP INDEX attempt_failed",
            "ALTER TABLE attempt DROP COLUMN report",
            "ALTER TABLE attempt DROP COLUMN history",
            *UNDO_3,
            "PRAGMA user_version = 1",
        ):
            self.store._connection.execute(statement)
        self.store.close()
        self.store.open()
        self.assertEqual(self.store._connection.pragma("user_version"), SCHEMA_VERSION)
        ((message,), _) = self.reader.read([number], 100)
        self.assertEqual(message.attempts, (self.attempt(number, 0, due=7.0),))
        trial = Trial(1.0, "mx.example.com", "RCPT", "450 Later", "")
        kept = replace(self.attempt(number, 0, due=9.0), history=(trial,))
        self.store.settle([], [], [kept])
        ((message,), _) = self.reader.read([number], 100)
        self.assertEqual(message.attempts, (kept,))

    def test_the_second_schema_is_led_to_the_present_one(self):
        (number,) = self.add(5)
        self.store.settle([], [], [self.attempt(number, 0, due=7.0)])
        for statement in (*UNDO_3, "PRAGMA user_version = 2"):
            self.store._connection.execute(statement)
        self.store.close()
        self.store.open()
        ((message,), _) = self.reader.read([number], 100)
        self.assertEqual(message.attempts, (self.attempt(number, 0, due=7.0),))
        kept = replace(self.attempt(number, 0, due=None), state=EntryState.HELD, until=9.0, hold=HoldKind.REFUSED)
        kept = replace(kept, findings=(Finding("spf", 2.5, "no \udcff", {"a": 1, "b": None}, "spf", (AddHeader("A", "b"),)),))
        self.store.settle([], [], [kept])
        ((message,), _) = self.reader.read([number], 100)
        self.assertEqual(message.attempts, (kept,))
        self.assertEqual(self.reader.until_now(DuePlace(0.0, 0, False), 9.0, 10), ([DuePlace(9.0, number, False)], None))

    def test_a_history_of_an_earlier_release_has_no_dialogue(self):
        old = '[[1.0, "mx.example.com", "RCPT", "450 Later", "grey"]]'
        self.assertEqual(decode_history(old), (Trial(1.0, "mx.example.com", "RCPT", "450 Later", "grey"),))

    def test_a_dialogue_is_kept_and_bounded(self):
        trial = Trial(1.0, "mx.example.com", "RCPT", "450 Later", "", ("C: MAIL", "S: 450 Later"))
        self.assertEqual(decode_history(encode_history((trial,))), (trial,))
        long = replace(trial, dialogue=("x" * 9999,) * 9999)
        self.assertLess(len(encode_history((long,))), 20_000)

    def test_only_the_newest_attempts_keep_their_dialogue(self):
        attempt = self.attempt(1, 0, due=9.0)
        for n in range(12):
            attempt = replace(attempt, history=attempt.tried(Trial(float(n), "", "", "", "", ("C: MAIL",))))
        self.assertEqual([len(trial.dialogue) for trial in attempt.history], [0] * 7 + [1] * 3)
        self.assertEqual([trial.made_at for trial in attempt.history], [float(n) for n in range(2, 12)])

    def test_a_directory_that_is_not_there_is_a_broken_store(self):
        with self.assertRaises(StorageBroken):
            SqliteStore(os.path.join(self.directory, "missing", "queue.db")).open()

    def test_what_is_no_database_is_a_broken_store(self):
        path = os.path.join(self.directory, "other.db")
        with open(path, "wb") as file:
            file.write(b"not a database at all " * 1000)
        store = SqliteStore(path)
        with self.assertRaises(StorageBroken):
            store.open()
        self.assertFalse(store.trusted)

    def test_messages_survive_a_close_and_an_open(self):
        numbers = self.add(10, 50_000, 1_000_000)
        self.store.close()
        self.store.open()
        messages, taken = self.reader.read(numbers, 1 << 30)
        self.assertEqual([message.content.size for message in messages], [10, 50_000, 1_000_000])
        self.assertEqual(taken, 3)


class ReadingMeanwhile(StoreCase):
    """The reader works in a thread while the writer settles."""

    def settling(self, number):
        other = SqliteStore(self.path)
        other.open()
        other.settle([number], [number], [])
        other.close()

    def during(self, module, name, number):
        """Settle the entry right before this function runs."""
        function = getattr(module, name)

        def settle_first(*arguments, **named):
            if number in self.stored():
                self.settling(number)
            return function(*arguments, **named)

        self.patch(module, name, settle_first)

    def test_a_page_is_of_one_moment(self):
        numbers = self.add(1, 2, 3)
        self.during(reader, "summary", numbers[1])
        self.assertEqual([number for number, _ in self.reader.page(0, numbers[-1], 10)], numbers)
        self.assertEqual([number for number, _ in self.reader.page(0, numbers[-1], 10)], [numbers[0], numbers[2]])

    def test_an_entry_is_read_with_the_attempts_of_its_moment(self):
        (number,) = self.add(1)
        attempt = self.attempt(number, 0, due=7.0)
        self.store.settle([], [], [attempt])
        self.during(reader, "attempts_of", number)
        ((message,), _) = self.reader.read([number], 100)
        self.assertEqual(message.attempts, (attempt,))

    def test_a_file_that_went_with_its_entry_is_no_damage(self):
        sent = envelope(local())
        number = number_of(sent.id)
        path = os.path.join(self.directory, sent.id)
        self.store.add([number], [pack(number, sent, Content.at(path, 5), (local(),))])
        ((message,), _) = self.reader.read([number], 100)
        self.assertIsInstance(message, Unreadable)  # the entry is there, its file is not
        self.during(Spool, "fault", number)
        self.assertEqual(self.reader.read([number], 100), ([], 1))


class CommitsAndFails:
    """A connection whose sync fails when what it wrote stands in the log."""

    def __init__(self, connection, error=None):
        self.connection = connection
        self.error = error or apsw.IOError("sync failed")

    def execute(self, *arguments):
        self.connection.execute(*arguments)
        raise self.error


class Writing(StoreCase):
    def test_a_batch_is_there_whole_or_not_at_all(self):
        (number,) = self.add(5)
        sent = envelope(local())
        good = pack(number_of(sent.id), sent, Content.of(b"x"), (local(),))
        with self.assertRaises(MessageRefused):  # the second has a number that is taken
            self.store.add([0, number], [good, pack(number, sent, Content.of(b"x"), (local(),))])
        self.assertEqual(self.stored(), [number])
        self.assertTrue(self.store.trusted)

    def test_nothing_to_alter_is_no_error(self):
        # An empty array of Python lies at an address that SQLite does not take.
        self.assertEqual(self.store.alter([], [], []), (set(), []))

    def test_a_full_disk_refuses_and_leaves_what_was_there(self):
        numbers = self.add(1000)
        self.store._connection.pragma("max_page_count", self.store._connection.pragma("page_count") + 2)
        with self.assertRaises(StorageFull):
            self.add(100_000)
        self.assertEqual(self.stored(), numbers)
        self.assertTrue(self.store.trusted)
        self.store._connection.pragma("max_page_count", 1 << 30)
        self.add(100_000)

    def test_after_an_error_of_the_disk_nothing_is_trusted_until_it_was_proved(self):
        with mock.patch.object(self.store, "_open_connection", return_value=Breaking(apsw.IOError("sync failed"))):
            with self.assertRaises(StorageBroken):
                self.add(1)
        self.assertFalse(self.store.trusted)
        self.store.reopen()
        self.assertTrue(self.store.trusted)
        self.add(1)

    def test_what_a_failed_sync_left_in_the_log_is_gone_when_the_store_is_used_again(self):
        self.committed_and_failed()
        self.store.reopen()
        self.assertEqual(self.stored(), [])

    def committed_and_failed(self, *, spooled=False, error=None, fault=StorageBroken):
        sent = envelope(local())
        number = number_of(sent.id)
        content = Content.at(os.path.join(self.directory, sent.id), 5) if spooled else Content.of(b"x")
        with mock.patch.object(self.store, "_open_connection", return_value=CommitsAndFails(self.store._connection, error)):
            with self.assertRaises(fault) as raised:
                self.store.add([number], [pack(number, sent, content, (local(),))])
        self.assertTrue(raised.exception.may_come_back)
        self.assertFalse(self.store.trusted)
        self.assertEqual(self.stored(), [number])
        return number, sent.id

    def test_what_was_deleted_is_told_once_with_whether_it_has_a_file(self):
        for spooled in (True, False):
            number, id = self.committed_and_failed(spooled=spooled)
            self.assertEqual(self.store.reopen(), [Settled(number, id, True, spooled)])
            self.assertEqual(self.store.reopen(), [])

    def test_an_error_of_another_kind_after_the_write_is_one_of_the_disk(self):
        for error in (RuntimeError("a fault of ours"), MemoryError()):
            self.committed_and_failed(error=error)
            self.store.reopen()
            self.assertEqual(self.stored(), [])

    def test_a_quota_that_is_met_by_the_sync_leaves_it_open_what_is_on_the_disk(self):
        self.committed_and_failed(error=OSError(errno.EDQUOT, "quota"), fault=StorageFull)
        self.store.reopen()
        self.assertEqual(self.stored(), [])

    def test_what_never_reached_the_disk_does_not_come_back(self):
        (number,) = self.add(5)
        sent = envelope(local())
        with self.assertRaises(MessageRefused) as refused:  # the number is taken
            self.store.add([number], [pack(number, sent, Content.of(b"x"), (local(),))])
        self.store._connection.pragma("max_page_count", self.store._connection.pragma("page_count"))
        with self.assertRaises(StorageFull) as full:
            self.add(100_000)
        self.store.trusted = False
        with self.assertRaises(StorageBroken) as untrusted:
            self.add(1)
        self.assertEqual([one.exception.may_come_back for one in (refused, full, untrusted)], [False] * 3)
        self.assertEqual(self.store.reopen(), [])
        self.assertEqual(self.stored(), [number])

    def test_what_a_failed_sync_left_in_the_log_is_gone_after_a_stop_too(self):
        self.committed_and_failed()
        self.assertEqual(self.store.end(), 0)
        self.store.open()
        self.assertEqual(self.stored(), [])

    def test_a_disk_that_fails_until_the_stop_leaves_a_count_of_what_may_come_back(self):
        self.committed_and_failed()
        with mock.patch.object(self.store, "_open_connection", return_value=Breaking(apsw.IOError("it still fails"))):
            self.assertEqual(self.store.end(), 1)
        self.assertIsNone(self.store._connection)

    def test_settled_entries_are_gone_with_their_attempts(self):
        one, two, three = self.add(1, 1, 1)
        self.store.settle([], [], [self.attempt(one, 0), self.attempt(two, 0)])
        self.store.settle([one, three], [one], [])
        self.assertEqual(self.stored(), [two])
        self.assertEqual(self.reader.attempted(), 1)

    def test_a_checkpoint_empties_the_log_so_that_it_does_not_grow(self):
        self.add(*[10_000] * 20)
        self.assertGreater(self.store.log_octets, 200_000)
        self.store.checkpoint()
        self.assertEqual(self.store.log_octets, 0)
        size = os.path.getsize(self.path + "-wal")
        for _ in range(5):
            self.store.settle(self.stored(), [], [])
            self.store.checkpoint()
            self.add(*[10_000] * 10)
            self.store.checkpoint()
        self.assertLessEqual(os.path.getsize(self.path + "-wal"), size)
        self.assertEqual(len(self.stored()), 10)


class Reports(StoreCase):
    def packed(self):
        sent = envelope(local())
        number = number_of(sent.id)
        return number, pack(number, sent, Content.of(b"report"), (local(),))

    def states(self, number):
        ((message,), _) = self.reader.read([number], 1000)
        return [(attempt.destination, attempt.state, attempt.report) for attempt in message.attempts]

    def owed(self, number, destination, state, report=5.0):
        return replace(self.attempt(number, destination, state), report=report)

    def test_a_report_and_what_it_means_are_written_together_or_not_at_all(self):
        (number,) = self.add(1)
        self.store.settle([], [], [self.owed(number, 0, EntryState.FAILED)])
        marks = [Mark(number, 0, EntryState.FAILED, EntryState.RETURNED)]
        report, packed = self.packed()
        with self.assertRaises(MessageRefused):
            self.store.report([packed, packed], marks)
        self.assertEqual(self.states(number), [(0, EntryState.FAILED, 5.0)])
        self.assertEqual(self.store.report([packed], marks), [])
        self.assertEqual(self.states(number), [(0, EntryState.RETURNED, None)])
        self.assertEqual(self.stored(), [number, report])

    def test_an_entry_that_waited_for_its_last_report_is_gone_with_it(self):
        (number,) = self.add(1)
        self.store.settle([], [], [self.owed(number, 0, EntryState.FAILED), self.attempt(number, 1, EntryState.DELIVERED)])
        (finished,) = self.store.report([], [Mark(number, 0, EntryState.FAILED, EntryState.RETURNED)])
        self.assertEqual((finished[0], finished[2:]), (number, (True, False)))
        self.assertEqual((self.stored(), self.reader.attempted()), ([], 0))

    def test_an_entry_that_waited_for_its_last_delivery_is_gone_with_it(self):
        (number,) = self.add(1)
        self.store.settle([], [], [self.attempt(number, 0, EntryState.RETURNED)])
        (finished,) = self.store.settle([], [], [self.attempt(number, 1, EntryState.DELIVERED)])
        self.assertEqual((finished[0], self.stored()), (number, []))

    def test_an_entry_that_owes_a_report_of_success_stays(self):
        (number,) = self.add(1)
        both = [self.owed(number, 0, EntryState.DELIVERED), self.attempt(number, 1, EntryState.DELIVERED)]
        self.assertEqual(self.store.settle([], [], both), [])
        self.assertEqual(len(self.store.report([], [Mark(number, 0, EntryState.DELIVERED, EntryState.DELIVERED)])), 1)

    def test_a_destination_whose_state_has_changed_meanwhile_is_not_marked(self):
        (number,) = self.add(1)
        self.store.settle([], [], [self.owed(number, 0, EntryState.FAILED)])
        self.store.report([], [Mark(number, 0, EntryState.DEFERRED, EntryState.DEFERRED)])
        self.assertEqual(self.states(number), [(0, EntryState.FAILED, 5.0)])

    def test_a_delay_that_was_told_stays_told(self):
        (number,) = self.add(1)
        self.store.settle([], [], [self.owed(number, 0, EntryState.DEFERRED)])
        self.store.report([], [Mark(number, 0, EntryState.DEFERRED, EntryState.DEFERRED)])
        self.store.settle([], [], [self.owed(number, 0, EntryState.DEFERRED)])
        self.assertEqual(self.states(number), [(0, EntryState.DEFERRED, None)])
        self.store.settle([], [], [self.owed(number, 0, EntryState.FAILED)])
        self.assertEqual(self.states(number), [(0, EntryState.FAILED, 5.0)])

    def test_what_owes_a_report_comes_in_the_order_of_time(self):
        one, two, three = self.add(1, 1, 1)
        owed = [(one, 0, 30.0), (two, 0, 10.0), (two, 1, 10.0), (three, 0, 99.0)]
        self.store.settle([], [], [self.owed(n, d, EntryState.FAILED, at) for n, d, at in owed])
        everything = [DuePlace(10.0, two, False), DuePlace(30.0, one, False)]
        self.assertEqual(self.reader.reports_due(DuePlace(0.0, 0, False), 50.0, 10), (everything, 99.0))
        self.assertEqual(self.reader.reports_due(everything[0], 50.0, 10), (everything[1:], 99.0))
        self.assertEqual(self.reader.reports_due(DuePlace(0.0, 0, False), 50.0, 1), (everything[:1], None))

    def test_of_the_failures_that_cannot_be_told_the_oldest_are_dropped(self):
        numbers = self.add(1, 1, 1, 1, 1)
        waiting, owing, *kept = numbers
        failed = [self.attempt(n, d, EntryState.FAILED) for n in kept for d in (0, 1)]
        others = [self.attempt(waiting, 0, EntryState.FAILED), self.owed(owing, 0, EntryState.FAILED), self.attempt(owing, 1, EntryState.FAILED)]
        self.store.settle([], [], failed + others)
        self.assertEqual([entry[0] for entry in self.store.drop_failed(2, 0)], kept[:1])
        self.assertEqual([entry[0] for entry in self.store.drop_failed(2, kept[2])], kept[1:2])
        self.assertEqual(self.stored(), [waiting, owing, kept[2]])

    def test_and_those_with_which_they_would_take_too_much_room_but_for_the_newest(self):
        kept = self.add(10, 100, 50, 40)
        self.store.settle([], [], [self.attempt(n, d, EntryState.FAILED) for n in kept for d in (0, 1)])
        self.assertEqual(self.store.drop_failed(9, 0, octets_most=200), [])
        self.assertEqual([entry[0] for entry in self.store.drop_failed(9, 0, octets_most=150)], kept[:2])
        self.assertEqual([entry[0] for entry in self.store.drop_failed(9, 0, octets_most=0)], kept[2:3])
        self.assertEqual(self.stored(), kept[3:])


class Breaking:
    def __init__(self, error):
        self.error = error

    def execute(self, *arguments):
        raise self.error


class Reading(StoreCase):
    def test_reading_stops_at_the_octets_and_says_how_far_it_came(self):
        numbers = self.add(1000, 1000, 1000)
        messages, taken = self.reader.read(numbers, 1500)
        self.assertEqual((len(messages), taken), (2, 2))
        messages, taken = self.reader.read([1, 2, *numbers[2:]], 1)
        self.assertEqual((len(messages), taken), (1, 3), "what is gone is passed over")

    def test_an_entry_comes_back_with_its_attempts(self):
        (number,) = self.add(10)
        self.store.settle([], [], [self.attempt(number, 1, due=5.0, remote=True)])
        ((message,), _) = self.reader.read([number], 100)
        self.assertIsInstance(message, ReadMessage)
        self.assertEqual(message.attempts, (self.attempt(number, 1, due=5.0, remote=True),))

    def test_entries_with_an_untried_destination_are_found_in_order(self):
        one, two, three, four = self.add(1, 1, 1, 1)
        self.store.settle([], [], [self.attempt(two, 0)])
        self.store.settle([], [], [self.attempt(three, 0), self.attempt(three, 1)])
        self.assertEqual(self.reader.unattempted(0, four, 10), [one, two, four])
        self.assertEqual(self.reader.unattempted(0, four, 2), [one, two])
        self.assertEqual(self.reader.unattempted(one, two, 10), [two])

    def test_what_is_due_comes_in_the_order_of_time_and_once_for_each_active_queue(self):
        one, two, three = self.add(1, 1, 1)
        self.store.settle(
            [],
            [],
            [
                self.attempt(one, 0, due=30.0),
                self.attempt(two, 0, due=10.0),
                self.attempt(two, 1, due=10.0, remote=True),
                self.attempt(three, 0, due=99.0),
                self.attempt(three, 1, EntryState.FAILED),
            ],
        )
        everything = [DuePlace(10.0, two, False), DuePlace(10.0, two, True), DuePlace(30.0, one, False)]
        self.assertEqual(self.reader.due(DuePlace(0.0, 0, False), 50.0, 10), everything)
        self.assertEqual(self.reader.due(everything[0], 50.0, 10), everything[1:])
        self.assertEqual(self.reader.due(everything[2], 50.0, 10), [])
        self.assertEqual(self.reader.next_due(50.0), 99.0)
        self.assertIsNone(self.reader.next_due(99.0))

    def test_the_due_are_found_by_the_index_and_not_by_a_scan(self):
        query = "EXPLAIN QUERY PLAN SELECT DISTINCT due, number, remote FROM attempt WHERE due IS NOT NULL AND due >= 1 AND due <= 2"
        plan = " ".join(str(row) for row in self.store._connection.execute(query))
        self.assertIn("USING INDEX attempt_due (due>? AND due<?)", plan)
