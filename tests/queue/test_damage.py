"""Files of the queue that are damaged, cut off, emptied or gone: nothing is served on in silence, and nobody is told 250 any more."""

import os
import random
import shutil
import threading
from pathlib import Path
from unittest import mock

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Delayed, Finding
from mailserver.mail.content import Content
from mailserver.mail.faults import StorageBroken, StorageDamaged, StorageFault
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Hold, HoldKind
from mailserver.queue import opening as opening_module
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order, StoppedQueue
from mailserver.queue.admin.salvage import salvage
from mailserver.queue.admin.selection import Selection
from mailserver.queue.checkup import fault_in
from mailserver.queue.entry import Attempt, EntryState, Trial, UnreadableEntry, number_of, pack, shown_id
from mailserver.queue.lock import QueueInUse
from mailserver.queue.mark import End, QueueGone, read_mark, write_mark
from mailserver.queue.reader import checked, list_entries, show_entry
from mailserver.queue.store import SqliteStore
from tests.queue.doubles import IDS, QueueCase, envelope, local, remote
from tests.queue.test_store import UNDO_3

BUSY = Delayed(Reply.of(451, "4.2.1", "Busy"))


class DamageCase(QueueCase):
    def setUp(self):
        super().setUp()
        self.db = Path(self.directory, "queue.db")

    async def filled(self, count=40, **changes):
        """A queue with mail of several pages in the file, and some in the log alone; nobody takes it."""
        self.delivery.hold = self.relay.hold = True
        queue = await self.started(**changes)
        ids = [await self.commit(queue, local(0), remote(1), data=random.randbytes(20_000)) for _ in range(count)]
        await queue._writer.do(lambda store: store.checkpoint())
        ids += [await self.commit(queue, data=b"small") for _ in range(5)]
        return queue, ids

    async def killed(self, **changes):
        """The data directory as a server that was killed leaves it: the ids that it had acknowledged."""
        queue, ids = await self.filled(**changes)
        left = self.directory + "-killed"
        shutil.copytree(self.directory, left)
        await self.crash(queue)
        self.delivery.held.clear()
        self.relay.held.clear()
        self.delivery.hold = self.relay.hold = False
        self.delivery.parcels.clear()
        self.relay.parcels.clear()
        self.directory, self.db = left, Path(left, "queue.db")
        return ids

    async def restarted(self, **changes):
        """Start; the critical lines of the log."""
        with capturedLogs() as events:
            queue = await self.started(**changes)
            for _ in range(5):
                await queue._writer.do(lambda store: None)
                await queue._runner.read(lambda: None)
        self.flushLoggedErrors(StorageFault)
        return queue, critical(events)

    def spoil(self, path, start=0.25, step=4096):
        """Turn bits around in every page behind the first quarter."""
        octets = bytearray(path.read_bytes())
        for place in range(int(len(octets) * start), len(octets), step):
            for n in range(place, min(place + 16, len(octets))):
                octets[n] ^= 0x55
        path.write_bytes(octets)

    def spoil_pages(self):
        """Spoil the beginnings of six pages in the middle of the file, which is returned."""
        octets = bytearray(self.db.read_bytes())
        middle = len(octets) // 32768 * 16384
        for place in range(middle, middle + 6 * 16384, 16384):
            octets[place : place + 100] = random.randbytes(100)
        self.db.write_bytes(octets)
        return octets

    async def assert_shut(self, queue):
        self.assertFalse(queue.writable)
        await self.assertFailure(self.fails(queue), StorageBroken)
        self.assertEqual(self.delivery.parcels, [])

    def fails(self, queue):
        return Deferred.fromCoroutine(self.commit(queue))


def critical(events):
    """The lines that a person has to read; a traceback is none."""
    return [event for event in events if event["log_level"] is LogLevel.critical and "log_failure" not in event]


class Marked(DamageCase):
    async def test_a_mark_says_how_it_ended(self):
        self.assertIsNone(read_mark(self.directory))
        queue = await self.started()
        self.assertEqual(read_mark(self.directory), End.RUNNING)
        await self.stop(queue)
        self.assertEqual(read_mark(self.directory), End.CLOSED)
        Path(self.directory, "queue.mark").write_bytes(b"\xffnonsense")
        self.assertEqual(read_mark(self.directory), End.RUNNING)

    async def test_a_first_start_that_was_cut_off_before_anything_was_in_the_file_is_begun_again(self):
        os.makedirs(self.directory, exist_ok=True)
        connection = apsw.Connection(str(self.db))
        connection.pragma("page_size", 16384)
        connection.pragma("journal_mode", "wal")  # the file has its first page now, and nothing in it
        connection.close()
        self.assertGreater(self.db.stat().st_size, 0)
        queue = await self.started()
        await self.commit(queue)
        await self.stop(queue)
        self.db.write_bytes(self.db.read_bytes()[:60] + bytes(4) + self.db.read_bytes()[64:])  # user_version
        self.assertEqual(read_mark(self.directory), End.CLOSED)
        await self.assertFailure(Deferred.fromCoroutine(self.started()), StorageDamaged)  # there has been a queue

    async def test_a_kill_while_it_is_closed_is_no_log_that_a_person_has_removed(self):
        queue = await self.started()
        await self.commit(queue)
        with mock.patch.object(opening_module.Opening, "closed", return_value=succeed(None)):  # killed just before
            await self.stop(queue)
        self.assertEqual((read_mark(self.directory), Path(f"{self.db}-wal").exists()), (End.CLOSING, False))
        with mock.patch.object(opening_module, "fault_in", return_value="") as check:
            queue, said = await self.restarted()
        self.assertEqual((check.call_count, said, queue.writable), (1, [], True))
        self.delivery.hold = True
        ids = [await self.commit(queue) for _ in range(3)]
        write_mark(self.directory, End.CLOSING)  # and now before it was closed
        await self.crash(queue)
        _, said = await self.restarted()
        self.assertEqual(said, [])
        self.assertEqual([entry.id for entry in list_entries(self.directory)], ids)

    async def test_a_file_that_is_gone_or_empty_stops_the_start_with_what_to_do(self):
        await self.stop(await self.started())
        for spoil in (self.db.unlink, self.db.touch):
            spoil()
            fault = await self.assertFailure(self.make().start(), QueueGone)
            self.assertIn("there has been a queue here", str(fault))
            self.assertIn(f"remove {self.directory}/queue.mark", str(fault))
            self.assertRaises(QueueGone, list_entries, self.directory)
        self.assertEqual(self.db.stat().st_size, 0, "nothing was written over it")

    async def test_a_log_without_its_file_stops_the_start(self):
        await self.killed()
        self.db.unlink()
        Path(self.directory, "queue.mark").unlink()
        fault = await self.assertFailure(self.make(data_directory=self.directory).start(), QueueGone)
        self.assertIn("move the log away", str(fault))

    async def test_without_the_mark_a_new_queue_begins_and_keeps_the_files_of_the_old_one(self):
        self.delivery.hold = True
        queue = await self.started()
        id = await self.commit_spooled(queue)
        os.utime(queue.spool_path(id), (1, 1))
        await self.crash(queue)
        self.db.unlink()
        Path(self.directory, "queue.mark").unlink()
        queue = await self.started()
        (aside,) = Path(self.directory).glob("spool.*")
        self.assertEqual([file.name for file in aside.iterdir()], [id])
        self.assertTrue(queue.writable)

    async def test_a_data_directory_of_a_release_without_marks_opens(self):
        ids = await self.killed()
        Path(self.directory, "queue.mark").unlink()
        queue, said = await self.restarted()
        self.assertEqual((said, queue.writable), ([], True))
        await self.until(lambda: len({parcel[0] for parcel in self.delivery.parcels}) == len(ids))
        self.assertEqual(read_mark(self.directory), End.RUNNING)

    async def until(self, done):
        while not done():
            self.clock.advance(0.1)
            await deferLater(reactor, 0.002, lambda: None)

    async def test_a_command_on_a_queue_that_was_killed_leaves_the_check_to_the_next_start(self):
        await self.killed()
        with StoppedQueue.opened(self.directory) as queue:
            self.assertIsNotNone(queue)
        self.assertEqual(read_mark(self.directory), End.CHANGED)
        with mock.patch.object(opening_module, "fault_in", return_value="") as check:
            _, said = await self.restarted()
        self.assertEqual((check.call_count, said), (1, []))

    async def test_a_stop_amid_a_check_and_a_start_that_fails_leave_it_to_the_next_start(self):
        await self.killed()
        self.never = threading.Event()
        self.addCleanup(self.never.set)
        self.patch(opening_module, "SHORT_OCTETS", 0)
        with mock.patch("mailserver.queue.checkup.fault_in", lambda path, is_stopped: self.never.wait()):
            queue, _ = await self.restarted()
            await self.stop(queue, 0)
        self.assertEqual(read_mark(self.directory), End.CHANGED)
        with mock.patch("mailserver.queue.queue.find_leftovers", side_effect=RuntimeError("no")):
            await self.assertFailure(self.make(data_directory=self.directory).start(), RuntimeError)
        _, said = await self.restarted()
        self.assertEqual(said, [])

    async def test_the_file_of_a_first_start_that_came_to_no_end_is_begun_anew(self):
        """It was killed, or the disk was full: a page in which nothing stands."""
        store = SqliteStore(str(self.db))
        os.makedirs(self.directory)
        with mock.patch("mailserver.queue.store.upgrade", side_effect=apsw.FullError("no room")):
            self.assertRaises(StorageFault, store.open)
        store.close()
        self.assertEqual(self.db.stat().st_size, 16384)
        stray = Path(self.directory, "spool", IDS.next())
        stray.parent.mkdir()
        stray.touch()
        queue, said = await self.restarted()
        self.assertEqual((said, queue.writable), ([], True))
        (aside,) = Path(self.directory).glob("spool.*")
        self.assertEqual([file.name for file in aside.iterdir()], [stray.name], "whatever stood there is kept")
        id = await self.commit(queue)
        await self.until(lambda: self.delivery.parcels)
        self.assertEqual(self.delivery.parcels[0][0], id)

    async def test_a_queue_of_a_release_without_marks_that_stands_in_its_log_alone_is_no_new_one(self):
        self.delivery.hold = self.relay.hold = True
        queue = await self.started()
        id = await self.commit_spooled(queue)
        left = self.directory + "-killed"
        shutil.copytree(self.directory, left)
        await self.crash(queue)
        self.directory, self.db = left, Path(left, "queue.db")
        Path(left, "queue.mark").unlink()
        self.assertEqual(self.db.stat().st_size, 16384)
        self.delivery.hold = self.relay.hold = False
        self.delivery.parcels.clear()
        queue, said = await self.restarted()
        await self.until(lambda: self.delivery.parcels)
        self.assertEqual((self.delivery.parcels[0][0], said), (id, []))
        self.assertEqual(list(Path(left).glob("spool.*")), [])

    async def test_a_command_that_is_killed_leaves_no_mark_of_a_good_end(self):
        await self.stop(await self.started())
        with StoppedQueue.opened(self.directory):
            self.assertEqual(read_mark(self.directory), End.CHANGED)
        self.assertEqual(read_mark(self.directory), End.CLOSED)

    async def test_a_good_end_needs_no_check(self):
        await self.stop(await self.started())
        with mock.patch.object(opening_module, "fault_in") as check:
            await self.restarted()
        self.assertEqual(check.call_count, 0)


class Spoilt(DamageCase):
    async def test_after_a_kill_all_is_there(self):
        ids = await self.killed()
        queue, said = await self.restarted()
        self.assertEqual(said, [])
        self.assertEqual(queue.depth + queue.counts.settled, len(ids))

    async def test_turned_bits_shut_the_door_with_a_critical_line_and_deliver_nothing(self):
        await self.killed()
        self.spoil(self.db)
        queue, said = await self.restarted()
        self.assertEqual(len(said), 1)
        self.assertIn("damaged", said[0]["log_format"])
        await self.assert_shut(queue)
        before = self.db.read_bytes()
        self.clock.advance(10)
        await queue._writer.do(lambda store: None)
        self.assertFalse(queue.writable, "no proof opens it again")
        await self.stop(queue, 0)
        self.assertTrue(self.db.read_bytes() == before, "the file stays as it was found")
        self.assertEqual(read_mark(self.directory), End.CHANGED)
        _, said = await self.restarted()
        self.assertEqual(len(said), 1, "the next start finds out again")

    async def test_a_check_beside_the_mail_delays_no_start_and_shuts_the_door(self):
        await self.killed()
        self.spoil(self.db)
        self.patch(opening_module, "SHORT_OCTETS", 0)
        with mock.patch("mailserver.queue.checkup.fault_in", side_effect=fault_in) as check:  # recovery may meet the damage first
            queue, said = await self.restarted()
            with capturedLogs() as events:
                while queue.writable:
                    await deferLater(reactor, 0.005, lambda: None)
        self.flushLoggedErrors(StorageFault)
        self.assertEqual(check.call_count, 1)
        self.assertEqual(len(said + critical(events)), 1)
        await self.assertFailure(self.fails(queue), StorageBroken)

    async def test_a_check_that_finds_nothing_tidies_the_spool_at_its_end(self):
        await self.killed()
        orphan = Path(self.directory, "spool", IDS.next())
        orphan.touch()
        os.utime(orphan, (1, 1))
        self.patch(opening_module, "SHORT_OCTETS", 0)
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)
        with mock.patch("mailserver.queue.checkup.fault_in", lambda path, is_stopped: self.go_on.wait() and ""):
            queue, said = await self.restarted()
            self.assertTrue(orphan.exists(), "nobody knows yet what belongs to a message")
            self.go_on.set()
            while orphan.exists():
                await deferLater(reactor, 0.005, lambda: None)
        self.assertEqual((said, queue.writable), ([], True))

    async def test_a_file_that_comes_amid_a_check_stays_though_the_clock_is_set_back(self):
        await self.killed()
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)
        self.patch(opening_module, "SHORT_OCTETS", 0)
        with mock.patch("mailserver.queue.checkup.fault_in", lambda path, is_stopped: self.go_on.wait() and ""):
            queue, _ = await self.restarted()
            sent = envelope(local())
            path = Path(queue.spool_path(sent.id))
            path.write_bytes(b"large")
            os.utime(path, (1, 1))  # the clock is wrong now; the file is not committed yet
            with capturedLogs() as events:
                self.go_on.set()
                while not any("looked through; nothing" in event["log_format"] for event in events):
                    await deferLater(reactor, 0.005, lambda: None)
                await queue._runner.read(lambda: None)
        self.assertTrue(path.exists())

    async def test_no_file_of_the_spool_is_removed_while_the_store_is_damaged(self):
        await self.killed()
        self.spoil(self.db)
        orphan = Path(self.directory, "spool", IDS.next())
        orphan.touch()
        os.utime(orphan, (1, 1))
        await self.restarted()
        self.assertTrue(orphan.exists())

    async def test_a_list_goes_as_far_as_it_can_and_says_what_bars_the_way(self):
        ids = await self.killed()
        self.spoil_pages()
        damaged = []
        *read, last = list_entries(self.directory, damaged=damaged.append)
        self.assertEqual([entry.id for entry in read], ids[: len(read)])
        self.assertGreater(len(read), 5)
        self.assertEqual(last.state, "damaged")
        self.assertIn("cannot be read further", last.note)
        self.assertIn("Corrupt", damaged[0])

    async def test_a_file_that_is_cut_off_is_no_new_queue(self):
        await self.killed()
        whole = self.db.read_bytes()
        for octets in (100, 512, 16_384, len(whole) // 2, len(whole) - 1000):
            with self.subTest(octets=octets):
                for name in ("queue.db-wal", "queue.db-shm"):
                    Path(self.directory, name).unlink(missing_ok=True)
                self.db.write_bytes(whole[:octets])
                try:
                    queue, _ = await self.restarted()
                except StorageDamaged:
                    continue
                await self.assert_shut(queue)
                await self.stop(queue, 0)

    async def test_a_file_that_has_lost_no_more_than_the_end_of_a_long_message_is_damaged(self):
        """SQLite's check takes what should stand behind the end of the file for zeros, where the log says that the file is longer."""
        self.delivery.hold = True
        queue = await self.started()
        for _ in range(2):
            await self.commit(queue, data=random.randbytes(40_000))
        await queue._writer.do(lambda store: store.checkpoint())
        await self.commit(queue, data=b"small")  # in the log, with how many pages there are
        left = shutil.copytree(self.directory, self.directory + "-killed")
        await self.crash(queue)
        self.delivery.held.clear()
        self.delivery.parcels.clear()
        self.directory, self.db = left, Path(left, "queue.db")
        os.truncate(self.db, self.db.stat().st_size - 16_384)
        connection = apsw.Connection(str(self.db), flags=apsw.SQLITE_OPEN_READONLY)
        self.assertEqual(connection.execute("PRAGMA quick_check").fetchall(), [("ok",)])
        connection.close(True)
        queue, [line] = await self.restarted()
        self.assertIn("cut off", line["why"])
        await self.assert_shut(queue)
        await self.stop(queue, 0)
        found = salvage(self.directory, now=self.clock.seconds())
        self.assertEqual((found.kept, len(found.lost)), (2, 1))

    async def test_a_file_full_of_zeros_or_of_something_else_stops_the_start(self):
        await self.killed()
        size = self.db.stat().st_size
        for octets in (bytes(size), random.randbytes(size), b"SQLite format 3\0" + random.randbytes(size)):
            for name in ("queue.db-wal", "queue.db-shm"):
                Path(self.directory, name).unlink(missing_ok=True)
            self.db.write_bytes(octets)
            await self.assertFailure(self.make(data_directory=self.directory).start(), StorageDamaged)

    async def test_without_the_shared_memory_nothing_is_lost(self):
        ids = await self.killed()
        whole = self.directory
        for n, octets in enumerate((None, b"", random.randbytes(32768))):
            self.directory = f"{whole}-{n}"
            shutil.copytree(whole, self.directory)
            shm = Path(self.directory, "queue.db-shm")
            shm.unlink() if octets is None else shm.write_bytes(octets)
            queue, said = await self.restarted()
            self.assertEqual((said, queue.depth + queue.counts.settled), ([], len(ids)))
            await self.stop(queue, 0)

    async def test_a_log_that_was_removed_is_told(self):
        ids = await self.killed()
        Path(self.directory, "queue.db-wal").unlink()
        queue, said = await self.restarted()
        self.assertEqual(len(said), 1)
        self.assertIn("has been removed", said[0]["log_format"])
        self.assertEqual((queue.depth + queue.counts.settled, queue.writable), (len(ids) - 5, True))

    async def test_a_log_that_is_cut_off_or_turned_loses_no_more_than_stands_behind(self):
        ids = await self.killed()
        whole = self.directory
        log = Path(whole, "queue.db-wal").read_bytes()
        for n, (octets, behind) in enumerate(((log[: len(log) - 10_000], 1), (b"", 5), (log[:-9000] + bytes(9000), 1))):
            self.directory = f"{whole}-{n}"
            shutil.copytree(whole, self.directory)
            Path(self.directory, "queue.db-wal").write_bytes(octets)
            queue, _ = await self.restarted()
            self.assertGreaterEqual(queue.depth + queue.counts.settled, len(ids) - behind)
            await self.stop(queue, 0)


class AtAnyTime(DamageCase):
    async def test_damage_that_a_commit_meets_shuts_the_door_for_good(self):
        queue = await self.started()
        with mock.patch("mailserver.queue.store.INSERT", "SELECT damage(?)"), capturedLogs() as events:
            await queue._writer.do(lambda store: store._connection.create_scalar_function("damage", raising))
            await self.assertFailure(self.fails(queue), StorageDamaged)
        self.assertEqual(len(critical(events)), 1)
        self.clock.advance(10)
        await queue._writer.do(lambda store: None)
        await self.assert_shut(queue)

    async def test_damage_that_a_look_into_the_queue_meets_shuts_the_door(self):
        queue, _ = await self.filled()
        self.spoil(self.db)
        await queue._writer.do(lambda store: store._connection.cache_flush())
        entries = await queue.list()
        self.flushLoggedErrors(StorageFault)
        self.assertIn("damaged", {entry.state for entry in entries})
        await deferLater(reactor, 0, lambda: None)
        self.assertFalse(queue.writable)


def raising(*_):
    raise apsw.CorruptError("database disk image is malformed")


class Rows(DamageCase):
    async def rows(self, *statements):
        """Three entries; the second one's rows are changed by these statements."""
        self.delivery.hold = self.relay.hold = True
        self.relay.answers["carol"] = BUSY
        queue = await self.started()
        ids = [await self.commit(queue, local(0), data=b"body") for _ in range(3)]
        await self.crash(queue)
        connection = apsw.Connection(str(self.db))
        for statement in statements:
            connection.execute(statement, {"n": number_of(ids[1])})
        connection.close()
        self.delivery.hold = False
        self.delivery.held.clear()
        self.delivery.parcels.clear()
        return ids

    async def assert_shown_and_others_served(self, ids, state="damaged"):
        entries = list_entries(self.directory)
        self.assertEqual([entry.id[:12] for entry in entries], [id[:12] for id in ids])
        self.assertEqual([entry.state for entry in entries], ["queued", state, "queued"])
        self.assertTrue(entries[1].note)
        self.assertEqual(show_entry(self.directory, entries[1].id), entries[1])
        for after, rest in ((entries[0].id, 2), (entries[1].id, 1)):
            self.assertEqual(len(list_entries(self.directory, after, 10)), rest, "it can be gone on from each")
        queue, _ = await self.restarted()
        await self.settled_two(queue)
        (left,) = await queue.list()
        self.assertEqual((left.id, left.state), (entries[1].id, "damaged"))
        self.assertTrue(queue.writable)
        return queue

    async def settled_two(self, queue):
        while queue.counts.settled < 2:
            self.clock.advance(1)
            await deferLater(reactor, 0.002, lambda: None)

    async def test_a_message_of_zeros(self):
        ids = await self.rows("UPDATE entry SET message = zeroblob(length(message)) WHERE number = :n")
        await self.assert_shown_and_others_served(ids)

    async def test_a_message_that_is_none(self):
        ids = await self.rows("UPDATE entry SET message = '' WHERE number = :n")
        await self.assert_shown_and_others_served(ids)

    async def test_a_message_that_is_cut_off(self):
        ids = await self.rows("UPDATE entry SET message = substr(message, 1, 60) WHERE number = :n")
        await self.assert_shown_and_others_served(ids)

    async def test_a_message_of_a_number(self):
        ids = await self.rows("UPDATE entry SET message = 7 WHERE number = :n")
        await self.assert_shown_and_others_served(ids)

    async def test_a_state_that_there_is_not(self):
        ids = await self.rows(
            "INSERT INTO attempt VALUES (:n, 0, 0, 'defexred', 1, 5.0, NULL, 'x', NULL, '[]', NULL, NULL, NULL)",
        )
        await self.assert_shown_and_others_served(ids)

    async def test_a_history_that_is_none(self):
        ids = await self.rows(
            "INSERT INTO attempt VALUES (:n, 0, 0, 'deferred', 1, 5.0, '[451]', 'x', NULL, '[7]', NULL, NULL, NULL)",
        )
        await self.assert_shown_and_others_served(ids)

    async def test_a_hold_that_there_is_not(self):
        ids = await self.rows(
            "INSERT INTO attempt VALUES (:n, 0, 0, 'held', 1, NULL, NULL, 'x', NULL, '[]', 5.0, 'hexd', NULL)",
        )
        await self.assert_shown_and_others_served(ids)

    async def test_a_damaged_one_can_be_dropped(self):
        ids = await self.rows("UPDATE entry SET message = zeroblob(500) WHERE number = :n")
        queue = await self.assert_shown_and_others_served(ids)
        (left,) = await queue.list()
        page = await queue.verbs.carry_out(Order(Verb.DROP, Selection(id=left.id), "test"), after=0)
        self.assertEqual([id for id, _ in page.done], [left.id])
        self.assertEqual(await queue.list(), [])

    def test_an_entry_without_destinations_or_with_one_of_them_twice_is_damaged(self):
        sent = envelope(local())
        for destinations in ((), (local(0), local(0)), (local(0), remote(1), remote(-1)), (local(0), remote(1 << 40))):
            self.assertRaises(UnreadableEntry, checked, number_of(sent.id), sent.id, sent, destinations)
        self.assertEqual(checked(number_of(sent.id), sent.id, sent, (local(0), remote(1))), (sent, (local(0), remote(1))))

    def test_an_entry_without_its_id_has_one_that_finds_it(self):
        id = IDS.next()
        self.assertEqual(shown_id(number_of(id), id), id)
        for lost in ("", "\ufffd" * 16, IDS.next(), id[:15] + "?"):
            made = shown_id(number_of(id), lost)
            self.assertEqual((number_of(made), made[:12]), (number_of(id), id[:12]))


class Salvaging(DamageCase):
    async def test_what_can_be_read_of_a_damaged_queue_goes_on_in_a_new_one(self):
        ids = await self.killed()
        Path(self.directory, "spool", IDS.next()).touch()
        octets = self.spoil_pages()
        found = salvage(self.directory, 1.0)
        self.assertTrue(20 <= found.kept < len(ids), found)
        self.assertTrue(found.gaps or found.lost)
        self.assertEqual((found.files, len(os.listdir(found.files_at))), (1, 1))
        self.assertEqual(Path(found.place).read_bytes()[:8192], bytes(octets[:8192]))
        queue, said = await self.restarted()
        self.assertEqual((said, queue.writable), ([], True))
        self.assertEqual(queue.depth + queue.counts.settled, found.kept)
        delivered = {parcel[0] for parcel in self.delivery.parcels}
        self.assertLessEqual(delivered, set(ids))

    async def test_what_verdicts_hold_is_salvaged_also_from_the_file_of_an_earlier_release(self):
        queue = await self.started()
        kept = []
        for number, hold in enumerate((Hold(HoldKind.REFUSED, "a virus"), Hold(HoldKind.UNDECIDED, "not yet", (Finding("spf"),)))):
            sent = envelope(local(), received_at=self.clock.seconds())
            await queue.commit(sent, Content.of(b"Subject: x\r\n\r\n"), (local(),), {0: hold})
            kept.append(sent.id)
        await self.stop(queue)
        before = [show_entry(self.directory, id) for id in kept]
        found = salvage(self.directory, 1.0)
        self.assertEqual((found.kept, found.lost, found.repeated), (2, [], []))
        self.assertEqual([show_entry(self.directory, id) for id in kept], before)
        connection = apsw.Connection(str(self.db))
        for statement in (*UNDO_3, "PRAGMA user_version = 2"):
            connection.execute(statement)
        connection.close()
        found = salvage(self.directory, 2.0)
        self.assertEqual((found.kept, found.lost, found.repeated), (2, [], []))
        self.assertEqual([entry.state for entry in list_entries(self.directory)], ["held", "undecided"])

    async def test_a_message_that_cannot_be_read_is_named_and_the_others_go_on(self):
        queue = await self.started()
        self.delivery.hold = True
        ids = [await self.commit(queue) for _ in range(3)]
        await self.crash(queue)
        self.delivery.held.clear()
        connection = apsw.Connection(str(self.db))
        connection.execute("UPDATE entry SET message = 'text' WHERE number = ?", (number_of(ids[1]),))
        connection.close()
        found = salvage(self.directory, 1.0)
        self.assertEqual((found.kept, [id[:12] for id in found.lost], found.gaps), (2, [ids[1][:12]], 0))
        self.assertEqual([entry.id for entry in list_entries(self.directory)], [ids[0], ids[2]])

    async def test_a_sound_queue_is_salvaged_whole_with_what_is_known_of_its_deliveries(self):
        self.relay.answers["carol"] = BUSY
        queue = await self.started()
        id = IDS.next()
        deferred = self.steps.wait(id, "deferred")
        await self.commit(queue, local(0), remote(1), id=id)
        await deferred
        await self.stop(queue)
        before = show_entry(self.directory, id)
        found = salvage(self.directory, 1.0)
        self.assertEqual((found.kept, found.lost, found.repeated, found.gaps, found.files), (1, [], [], 0, 0))
        self.assertEqual(show_entry(self.directory, id), before)
        self.assertEqual(found.place, f"{self.db}.damaged-1")
        Path(f"{self.db}.new").write_bytes(b"what an earlier try left")
        self.assertEqual(salvage(self.directory, 1.0).place, f"{self.db}.damaged-2", "an earlier one is not overwritten")

    async def test_nothing_is_touched_while_a_server_has_it_or_where_nothing_can_be_read(self):
        queue = await self.started()
        self.assertRaises(QueueInUse, salvage, self.directory, 1.0)
        await self.stop(queue)
        self.db.write_bytes(b"no database" * 1000)
        self.assertRaises(StorageDamaged, salvage, self.directory, 1.0)
        self.assertEqual(sorted(os.listdir(self.directory)), ["queue.db", "queue.lock", "queue.mark", "spool"])


class AnyBit(SynchronousTestCase):
    """Whatever octets of the file are turned: a list comes, or a fault of the storage, and nothing else."""

    @classmethod
    def image(cls):
        if not hasattr(cls, "octets"):
            path = os.path.abspath("any-bit.db")
            store = SqliteStore(path, page_octets=4096)
            store.open()
            for _ in range(20):
                destinations = (local(0), remote(1))
                sent = envelope(*destinations)
                number = number_of(sent.id)
                attempt = Attempt(number, 1, True, EntryState.DEFERRED, 1, 5.0, BUSY.reply, "x", None, (Trial(1.0, "p", "RCPT", "451", ""),))
                packed = pack(number, sent, Content.of(random.randbytes(3000)), destinations)
                store.add([number], [packed], [attempt])
            store.close()
            cls.octets = Path(path).read_bytes()
        return cls.octets

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 255)), min_size=1, max_size=20))
    def test_a_list_comes_or_a_fault_of_the_storage(self, turns):
        octets = bytearray(self.image())
        for place, by in turns:
            octets[place % len(octets)] ^= by
        directory = os.path.abspath("any-bit")
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(os.path.join(directory, "spool"))
        Path(directory, "queue.db").write_bytes(octets)
        try:
            entries = list_entries(directory)
            for entry in entries:
                show_entry(directory, entry.id)
        except StorageFault:
            pass
        try:
            fault_in(os.path.join(directory, "queue.db"))
        except apsw.Error:
            pass
        write_mark(directory, End.RUNNING)
