"""Durable records: what was said to be done is there."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from unittest import mock

import apsw
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailserver.interfaces import IRecords
from mailserver.mail.faults import StorageBroken, StorageDamaged, StorageFull
from mailserver.plugins.threads import AllHang, Threads
from mailserver.state_store import RecordStore
from mailserver.testing.records import MemoryRecords
from tests.state_store.threads import new_threads

SURE = "sure "
WRITER = f"""
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from mailserver.state_store import RecordStore
from tests.state_store.threads import new_threads

async def work():
    store = RecordStore(path=sys.argv[1], clock=reactor, new_threads=new_threads)
    await store.start()
    space = store.space("lists/people")

    async def put(n):
        await space.put(f"{{n:06}}", b"%d" % n)
        print("{SURE}%d" % n, flush=True)

    for start in range(0, 1_000_000, 20):
        await gatherResults([Deferred.fromCoroutine(put(n)) for n in range(start, start + 20)])

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()))
reactor.run()
"""


def said(told):
    return "".join(formatEvent(event) for event in told if event["log_level"].name == "error")


def later(awaitable):
    return Deferred.fromCoroutine(awaitable)


class RecordsCase(TestCase):
    timeout = 60

    def setUp(self):
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        self.path = os.path.join(folder, "records.db")
        self.clock = Clock()

    async def started(self, **changes):
        store = RecordStore(path=self.path, clock=self.clock, **{"new_threads": new_threads, **changes})
        await store.start()
        self.addCleanup(store.stop)
        return store

    def octets(self):
        with open(self.path, "rb") as file:
            return file.read()

    def damage(self):
        """Octets in the middle of the file, that no page has."""
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (os.path.getsize(self.path) - 4096))


class Records(RecordsCase):
    async def test_verbs_do_what_they_say_in_the_file_and_in_tests(self):
        store = await self.started()
        for records in (store.space("lists/people"), MemoryRecords()):
            verifyObject(IRecords, records)
            self.assertIsNone(await records.get("a"))
            await records.put("a", b"1")
            self.assertEqual([await records.put_if_absent(key, b"2") for key in "ab"], [False, True])
            self.assertFalse(await records.compare_and_put("a", b"2", b"3"))
            self.assertTrue(await records.compare_and_put("a", b"1", b"3"))
            self.assertTrue(await records.compare_and_put("c", None, b"4"))
            self.assertEqual(await records.items(), [("a", b"3"), ("b", b"2"), ("c", b"4")])
            self.assertEqual(await records.items("b", "c"), [("b", b"2")])
            self.assertEqual(await records.items("a\0", most=1), [("b", b"2")])
            self.assertTrue(await records.compare_and_put("c", b"4", None))
            await records.drop("a")
            await records.drop("a")
            self.assertEqual([await records.get(key) for key in "abc"], [None, b"2", None])
            for key, value in (("k", "text"), (b"k", b"v"), ("k" * 2049, b"v"), ("k", b"v" * 65_537), ("\udc80", b"v")):
                with self.assertRaises((TypeError, ValueError)):
                    await records.put(key, value)

    async def test_each_component_has_its_own(self):
        store = await self.started()
        await store.space("filter/one").put("k", b"1")
        self.assertIsNone(await store.space("filter/other").get("k"))
        self.assertEqual(await store.space("filter/other").items(), [])

    async def test_they_are_there_again_and_the_file_is_the_owners_alone(self):
        store = await self.started()
        self.assertFalse(os.path.exists(self.path), "nothing is kept yet")
        await store.space("s").put("k", b"v")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        await store.stop()
        await self.assertFailure(later(store.space("s").get("k")), StorageBroken)
        self.assertEqual(await (await self.started()).space("s").get("k"), b"v")

    async def test_many_at_once_are_atomic_and_share_syncs(self):
        store = await self.started()
        space, commits = store.space("s"), []
        await space.put("n", b"0")
        await store.call(lambda connection: connection.set_commit_hook(lambda: bool(commits.append(1))), writes=False)

        async def add():
            while not await space.compare_and_put("n", before := await space.get("n"), b"%d" % (int(before) + 1)):
                pass

        await gatherResults([later(add()) for _ in range(30)])
        self.assertEqual(await space.get("n"), b"30")
        commits.clear()
        firsts = await gatherResults([later(space.put_if_absent("first", b"%d" % n)) for n in range(200)])
        self.assertEqual((firsts.count(True), firsts[0]), (1, True))
        self.assertLess(len(commits), 20)

    async def test_one_whose_work_raises_takes_nothing_of_the_others_back(self):
        store = await self.started()
        space = store.space("s")

        def wrong(connection):
            raise ZeroDivisionError

        puts = [later(space.put("a", b"1"))]
        fault = later(store.call(wrong, writes=True))
        puts.append(later(space.put("b", b"2")))
        await gatherResults(puts)
        await self.assertFailure(fault, ZeroDivisionError)
        self.assertEqual(await space.items(), [("a", b"1"), ("b", b"2")])

    async def test_who_waits_no_longer_harms_nobody(self):
        store = await self.started()
        calls = [later(store.space("s").put(f"{n}", b"v")) for n in range(6)]
        for call in calls[::2]:
            call.cancel()
            await self.assertFailure(call, CancelledError)
        await gatherResults(calls[1::2])
        self.assertLessEqual({"1", "3", "5"}, {key for key, _ in await store.space("s").items()})


class Killed(RecordsCase):
    async def test_what_was_said_to_be_done_is_there_after_kill_9(self):
        for lines in (1, 57, 400):
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, self.path], stdout=subprocess.PIPE, cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
            )
            said = [writer.stdout.readline() for _ in range(lines)]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()
            writer.stdout.close()
            writer.wait()
            sure = {int(line.removeprefix(SURE.encode())) for line in said if line.endswith(b"\n")}
            self.assertGreaterEqual(len(sure), lines)
            store = await self.started()
            for n in sure:
                self.assertEqual(await store.space("lists/people").get(f"{n:06}"), b"%d" % n)
            await store.space("lists/people").put("after", b"all of it can be written again")
            await store.stop()


class Faults(RecordsCase):
    async def filled(self):
        store = await self.started()
        await gatherResults([later(store.space("s").put(f"{n}", b"v" * 3000)) for n in range(50)])
        await store.stop()

    async def test_a_damaged_file_is_told_of_takes_nothing_and_stays_as_it_is(self):
        await self.filled()
        self.damage()
        before = self.octets()
        with capturedLogs() as told:
            store = await self.started()
        self.assertIn("is damaged", said(told))
        await self.assertFailure(later(store.space("s").put("k", b"v")), StorageDamaged)
        await store.stop()
        self.assertEqual(self.octets(), before)

    async def test_what_is_no_database_is_not_overwritten(self):
        for octets in (b"not a database " * 500, b"SQLite format 3\0" + b"x" * 5000):
            with open(self.path, "wb") as file:
                file.write(octets)
            with capturedLogs():
                store = await self.started()
            await self.assertFailure(later(store.space("s").put("k", b"v")), StorageBroken)
            await self.assertFailure(later(store.space("s").get("k")), StorageBroken)
            await store.stop()
            self.assertEqual(self.octets(), octets)

    async def test_damage_that_is_met_later_ends_all_writing(self):
        store = await self.started()
        space = store.space("s")
        await space.put("k", b"v")
        with (
            mock.patch("mailserver.state_store.records.record_of", side_effect=apsw.CorruptError("malformed")),
            capturedLogs() as told,
        ):
            await self.assertFailure(later(space.get("k")), StorageDamaged)
            for _ in range(2):
                await self.assertFailure(later(space.put("k", b"new")), StorageDamaged)
        self.assertEqual(said(told).count("malformed"), 1, "it is told of once")
        self.assertEqual(await space.get("k"), b"v", "what can be read is read")

    async def test_a_file_that_is_taken_away_takes_nothing_more(self):
        store = await self.started()
        await store.space("s").put("k", b"v")
        os.rename(self.path, f"{self.path}.away")
        with capturedLogs():
            await self.assertFailure(later(store.space("s").put("k", b"new")), StorageDamaged)
        self.assertFalse(os.path.exists(self.path))

    async def test_after_the_end_it_takes_nothing(self):
        made = []

        def noted(name, most):
            made.append(new_threads(name, most))
            return made[-1]

        store = await self.started(new_threads=noted)
        await store.space("s").put("k", b"v")
        await store.stop()
        self.failureResultOf(made[0].run(int), AllHang)
        for call in (store.space("s").put("k", b"new"), store.space("s").get("k")):
            self.assertIn("is closed", str(self.failureResultOf(later(call), StorageBroken).value))
        with capturedLogs() as told:
            await store.stop()
            await RecordStore(path=self.path, clock=self.clock, new_threads=new_threads).stop()
        self.assertEqual(told, [], "there is nothing to end")
        store = await self.started()
        self.assertEqual(await store.space("s").get("k"), b"v")

    async def test_a_full_disk_is_said_and_nothing_of_the_batch_is_done(self):
        store = await self.started(room_for=lambda octets: octets < 100)
        space = store.space("s")
        await space.put("k", b"v")
        await self.assertFailure(later(space.put("large", b"v" * 100)), StorageFull)
        with mock.patch("mailserver.state_store.records.write_record", side_effect=apsw.FullError("no room")):
            for call in [later(space.put(f"{n}", b"v")) for n in range(3)]:
                await self.assertFailure(call, StorageFull)
        self.assertEqual(await space.items(), [("k", b"v")])
        await space.put("k", b"later")
        self.assertEqual(await space.get("k"), b"later")

    async def test_where_sqlite_itself_finds_no_room_it_is_a_full_disk_too(self):
        """It takes back the whole transaction then, so that what is taken back after that fails by itself."""
        store = await self.started()
        space = store.space("s")
        await space.put("k", b"v")
        store._connection.pragma("max_page_count", 4)
        await self.assertFailure(later(space.put("large", b"v" * 60_000)), StorageFull)
        store._connection.pragma("max_page_count", 1000)
        await space.put("large", b"v" * 60_000)
        self.assertEqual(await space.get("k"), b"v")

    async def test_on_a_full_disk_a_record_can_still_be_dropped(self):
        is_full = False
        store = await self.started(room_for=lambda octets: not is_full)
        space = store.space("s")
        await space.put("k", b"v")
        is_full = True
        await self.assertFailure(later(space.put("k", b"")), StorageFull)
        await space.drop("k")
        self.assertEqual(await space.items(), [])

    async def test_a_commit_that_fails_is_said_to_all_who_wait_for_it(self):
        store = await self.started()
        await store.space("s").put("k", b"v")
        await store.call(lambda connection: connection.set_commit_hook(lambda: True), writes=False)
        for call in [later(store.space("s").put(f"{n}", b"v")) for n in range(3)]:
            await self.assertFailure(call, StorageBroken)
        await store.call(lambda connection: connection.set_commit_hook(None), writes=False)
        self.assertEqual(await store.space("s").items(), [("k", b"v")])

    async def test_a_disk_that_hangs_fails_calls_after_their_time_and_holds_up_no_end(self):
        import threading

        from twisted.internet import reactor

        gate = threading.Event()
        self.addCleanup(gate.set)

        def held(name, most):
            threads = Threads(name, most, call_from_thread=reactor.callFromThread)
            run = threads.run
            threads.run = lambda function, *arguments: run(lambda: (gate.wait(30), function(*arguments))[1])
            return threads

        store = await self.started(new_threads=held)
        first, second = later(store.space("s").put("a", b"v")), later(store.space("s").put("b", b"v"))
        self.clock.advance(30)
        for call in (first, second):
            self.assertIn("no answer", str(await self.assertFailure(call, StorageBroken)))
        with mock.patch("mailserver.state_store.records.WAITING_MOST", 0):
            await self.assertFailure(later(store.space("s").get("a")), StorageBroken)
        waiting = later(store.space("s").get("a"))
        with capturedLogs() as told:
            stopped = later(store.stop())
            self.clock.advance(20)
            await stopped
        self.assertIn("could not be closed", said(told))
        self.assertIn("is closed", str(self.failureResultOf(waiting, StorageBroken).value), "at once, not after its time")
