"""The disk fills up, or stops working, and works again."""

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from unittest import mock

import apsw
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import FailTest, SkipTest, SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.queue.reader import list_entries
from mailserver.queue.shared_memory import SharedMemory
from mailserver.queue.store import SqliteStore
from tests.queue.doubles import IDS, QueueCase, envelope, local
from tests.queue.test_kill import Program, delivered
from tests.requires import require_tool


class SmallDisk(QueueCase):
    """A queue on a file system of 8 MiB of its own."""

    def setUp(self):
        super().setUp()
        mount, self.umount = require_tool("mount"), require_tool("umount")
        os.mkdir(self.directory)
        made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.directory], capture_output=True, check=False)
        if made.returncode != 0:
            raise FailTest(f"cannot mount a small file system: {made.stderr.decode()}")

    async def stop_all(self):
        try:
            await super().stop_all()
        finally:
            subprocess.run([self.umount, "-l", self.directory], check=True)

    async def fill(self, queue):
        """Commit until there is no room: the ids that were acknowledged."""
        acknowledged = []
        while True:
            try:
                acknowledged.append(await self.commit(queue, data=b"x" * 100_000))
            except StorageFull:
                return acknowledged

    async def test_a_full_disk_refuses_and_everything_acknowledged_stays(self):
        self.delivery.hold = True
        queue = await self.started()
        acknowledged = await self.fill(queue)
        self.assertGreater(len(acknowledged), 10)
        self.assertFalse(queue.room_for(1), "no mail is taken for a while")
        self.assertEqual([entry.id for entry in list_entries(self.directory)], acknowledged)
        await self.crash(queue)
        self.assertEqual([entry.id for entry in list_entries(self.directory)], acknowledged)

    async def test_the_reserve_is_enough_to_settle_what_fills_the_disk(self):
        self.delivery.hold = True
        queue = await self.started(minimum_free_bytes=2 << 20)
        ids = []
        while queue.room_for(100_000):
            ids.append(await self.commit(queue, data=b"x" * 100_000))
            self.clock.advance(1)
        self.assertGreater(len(ids), 10)
        settled = gatherResults([self.steps.wait(id, "settled") for id in ids])
        self.delivery.hold = False
        last = self.steps.wait(ids[-1], "delivered")
        self.delivery.let_go()
        await last
        self.clock.advance(1)
        await settled
        self.assertEqual(list_entries(self.directory), [])

    async def test_what_cannot_be_settled_on_a_full_disk_is_settled_when_there_is_room(self):
        ballast = os.path.join(self.directory, "ballast")
        queue = await self.started()
        id = IDS.next()
        delivered = self.steps.wait(id, "delivered")
        await self.commit(queue, id=id)
        await delivered
        with open(ballast, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        self.clock.advance(1)
        await queue._writer.do(lambda store: None)
        self.assertEqual(len(list_entries(self.directory)), 1)
        self.assertFalse(queue.room_for(1))
        os.unlink(ballast)
        settled = self.steps.wait(id, "settled")
        self.clock.advance(5)
        await settled
        self.assertEqual(list_entries(self.directory), [])

    async def test_a_read_only_file_system_stops_the_start_with_a_clear_error(self):
        subprocess.run(["mount", "-o", "remount,ro", self.directory], check=True)
        fault = await self.assertFailure(self.make().start(), OSError, StorageBroken)
        self.assertIn("Read-only", str(fault))


class BrokenDisk(QueueCase):
    async def test_a_broken_store_shuts_the_door_and_opens_it_when_it_works_again(self):
        queue = await self.started()
        with mock.patch("mailserver.queue.store.SqliteStore._open_connection", side_effect=apsw.IOError("sync failed")):
            await self.assertFailure(queue.commit(envelope(local()), Content.of(b"x"), (local(),)), StorageBroken)
            self.assertFalse(queue.writable)
            self.flushLoggedErrors(StorageBroken)
            self.clock.advance(3)
            await self.proved(queue)
            self.assertFalse(queue.writable, "it does not work yet")
        late = queue.commit(envelope(local()), Content.of(b"x"), (local(),))
        await self.assertFailure(late, StorageBroken)  # until it has been proved, whatever it would do now
        self.clock.advance(3)
        await self.proved(queue)
        self.assertTrue(queue.writable)
        await self.commit(queue)

    async def test_while_it_stops_it_takes_no_more(self):
        self.delivery.hold = True
        queue = await self.started()
        await self.commit(queue)
        self.queues.remove(queue)
        stopped = queue.stop(30)
        await self.assertFailure(queue.commit(envelope(local()), Content.of(b"x"), (local(),)), StorageBroken)
        self.delivery.hold = False
        self.delivery.let_go()
        self.clock.advance(31)
        await stopped

    async def test_what_was_refused_after_a_failed_sync_does_not_come_with_the_next_start(self):
        queue = await self.started()
        with self.failing_sync(queue):
            await self.assertFailure(queue.commit(envelope(local()), Content.of(b"x"), (local(),)), StorageBroken)
        self.assertEqual(len(list_entries(queue.data_directory)), 1)
        await queue.stop(0)
        again = await self.started()
        self.assertEqual(list_entries(again.data_directory), [])
        self.assertEqual(self.delivery.parcels, [])

    @contextlib.contextmanager
    def failing_sync(self, queue):
        """What is written meanwhile stands in the log, and its sync fails."""
        connection = queue._writer._store._connection
        broken = mock.Mock(execute=lambda *words: (connection.execute(*words), self.fail_sync()))
        with mock.patch("mailserver.queue.store.SqliteStore._open_connection", return_value=broken):
            yield
        self.flushLoggedErrors(StorageBroken)

    async def in_doubt(self, queue):
        """Commit a large message beside a small one; the sync fails.  Returns the large one's id."""
        with self.failing_sync(queue):
            hold = threading.Event()
            held = queue._writer.do(lambda store: hold.wait(30))
            large, small = self.commit_spooled(queue), self.commit(queue)
            waiting = [Deferred.fromCoroutine(one) for one in (large, small)]
            hold.set()
            await held
            for one in waiting:
                fault = await self.assertFailure(one, StorageBroken)
                self.assertTrue(fault.may_come_back)
        large, _ = [entry.id for entry in list_entries(queue.data_directory)]
        self.assertEqual(self.spooled(queue), [large])
        return large

    def spooled(self, queue):
        return os.listdir(queue._spool.directory)

    async def test_the_file_of_what_may_come_back_stays_until_its_row_is_gone_for_good(self):
        queue = await self.started()
        large = await self.in_doubt(queue)
        with self.failing_sync(queue):
            self.clock.advance(3)
            await self.proved(queue)
        self.assertEqual(self.spooled(queue), [large], "the disk still fails")
        self.clock.advance(3)
        await self.proved(queue)
        self.assertEqual(self.spooled(queue), [])
        self.assertTrue(queue.writable)
        self.assertEqual((list_entries(queue.data_directory), self.delivery.parcels), ([], []))
        delivered = self.steps.wait(large, "delivered")
        await self.commit(queue, id=large)  # the pickup folder hands it over once more, under its own id
        await delivered

    async def test_a_file_that_cannot_be_removed_keeps_the_store_from_nothing(self):
        queue = await self.started()
        large = await self.in_doubt(queue)
        os.unlink(queue._spool.path(large))
        os.mkdir(queue._spool.path(large))
        self.clock.advance(3)
        await self.proved(queue)
        self.assertTrue(queue.writable)

    async def test_a_power_cut_after_a_failed_sync_leaves_nothing_that_a_person_has_to_look_at(self):
        queue = await self.started()
        large = await self.in_doubt(queue)
        left = os.path.abspath(self.mktemp())
        shutil.copytree(self.directory, left)
        delivered = self.steps.wait(large, "delivered")
        again = await self.started(data_directory=left)
        await delivered  # a second copy of what the peer sends again, at worst
        await self.stop(again)
        self.assertEqual(self.steps.count("damaged"), 0)
        self.assertEqual((list_entries(left), self.spooled(again)), ([], []))

    async def test_the_next_start_removes_the_file_of_what_was_refused_before_a_stop(self):
        queue = await self.started()
        await self.in_doubt(queue)
        await self.stop(queue)
        again = await self.started()
        self.assertEqual((list_entries(again.data_directory), self.spooled(again)), ([], []))

    def fail_sync(self):
        raise apsw.IOError("sync failed")

    async def proved(self, queue):
        """The proof that is under way has been answered."""
        await queue._writer.do(lambda store: None)


class Journal(SynchronousTestCase):
    def test_a_file_system_without_a_write_ahead_log_is_told(self):
        store = SqliteStore(":memory:")  # its journal stays in memory, whatever is asked for
        self.addCleanup(os.unlink, ":memory:")
        self.assertIn("write-ahead log", str(self.assertRaises(StorageBroken, store.open)))
        store.close()


class SharedMemoryFile(SynchronousTestCase):
    def test_its_descriptor_is_kept_as_long_as_the_file_is_there_and_no_longer(self):
        path = os.path.abspath(self.mktemp())
        memory = SharedMemory(path)
        Path(f"{path}-shm").touch()
        with mock.patch("os.statvfs", return_value=mock.Mock(f_bsize=1024)):
            memory.fill()
        [kept] = {one for one in os.listdir("/proc/self/fd") if points_to(one, f"{path}-shm")}
        memory.gone()
        self.assertTrue(points_to(kept, f"{path}-shm"), "SQLite's locks would go with it")
        os.unlink(f"{path}-shm")
        memory.gone()
        self.assertFalse(points_to(kept, f"{path}-shm (deleted)"))


def points_to(descriptor, path):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == path
    except FileNotFoundError:
        return False


class FileSizeLimit(SynchronousTestCase):
    """A real error of a real write, from the kernel: a file may not grow."""

    def test_the_store_is_proved_again_and_nothing_acknowledged_is_lost(self):
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        program = Program(directory, "limit")
        lines = program.rest()
        self.assertEqual(program.process.returncode, 0)
        (fault,) = [line for line in lines if line[0] == "fault"]
        self.assertEqual(fault[1:3], ["StorageBroken", "False"])
        self.assertIn(["again", "True"], lines)
        acknowledged = {line[1] for line in lines if line[0] == "ok"}
        self.assertGreater(len(acknowledged), 5)
        self.assertEqual({id for id, _, _ in delivered(directory)}, acknowledged, "what was refused did not come back")
        self.assertEqual(list_entries(str(Path(directory, "data"))), [])


class SmallBlocks(SynchronousTestCase):
    """A file system with blocks below SQLite's page: what it has not written of its shared memory are holes there."""

    def setUp(self):
        self.directory = os.path.abspath(self.mktemp())
        self.data = os.path.join(self.directory, "data")
        image = os.path.join(self.directory, "image")
        os.makedirs(self.data)
        with open(image, "wb") as file:
            file.truncate(32 << 20)
        subprocess.run([require_tool("mkfs.ext4"), "-q", "-b", "1024", "-m", "0", image], check=True)
        mounted = subprocess.run([require_tool("mount"), "-o", "loop", image, self.data], capture_output=True, check=False)
        if mounted.returncode != 0:
            raise SkipTest(f"no loop device here: {mounted.stderr.decode()}")
        self.addCleanup(subprocess.run, ["umount", "-l", self.data], check=True)

    def fill(self):
        """Leave room for what SQLite itself allocates of its shared memory, and no more."""
        ballast = Path(self.data, "ballast")
        with open(ballast, "wb", buffering=0) as file:
            try:
                while file.write(bytes(1024)):
                    pass
            except OSError:
                pass
            os.fsync(file.fileno())
        os.truncate(ballast, ballast.stat().st_size - 9 * 1024)
        os.sync()
        return ballast

    def test_a_full_disk_ends_no_start_by_a_signal_and_loses_nothing(self):
        program = Program(self.directory, "commit")
        acknowledged = set()
        while len(acknowledged) < 100:
            line = program.line()
            if line[0] == "ok":
                acknowledged.add(line[1])
        program.process.kill()
        acknowledged |= {line[1] for line in program.rest() if line[0] == "ok" and len(line) == 3}
        Path(self.data, "queue.db-shm").unlink()  # as after a power failure, which leaves any part of it
        ballast = self.fill()
        program = Program(self.directory, "drain")
        said = program.process.communicate()[1].decode()
        self.assertEqual(program.process.returncode, 1, said)
        self.assertIn("has no room for SQLite's shared memory", said)
        ballast.unlink()
        program = Program(self.directory, "drain")
        self.assertEqual((program.rest()[-1], program.process.returncode), (["stopped", "0"], 0))
        self.assertEqual(acknowledged - {id for id, _, _ in delivered(self.directory)}, set())

    def test_an_open_store_has_no_holes_in_its_shared_memory(self):
        store = SqliteStore(os.path.join(self.data, "queue.db"))
        store.open()
        found = os.stat(store.path + "-shm")
        self.assertGreaterEqual(found.st_blocks * 512, 1 << 20)
        store.reopen()
        store.close()
        self.assertFalse(os.path.exists(store.path + "-shm"))
