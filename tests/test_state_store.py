import os
import stat
from unittest import mock

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailserver.interfaces import IStateStore
from mailserver.mail.faults import StorageBroken
from mailserver.state_store import StateStore, StoppedState


class State(TestCase):
    timeout = 30

    def setUp(self):
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        self.path = os.path.join(directory, "state.db")
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0
        self.stores = []
        self.addCleanup(self.stop_all)

    async def stop_all(self):
        for store in self.stores:
            await store.stop()

    async def started(self, **changes):
        store = StateStore(path=self.path, clock=self.clock, run_in_thread=deferToThread, **changes)
        await store.start()
        self.stores.append(store)
        return store

    async def stop(self, store):
        self.stores.remove(store)
        await store.stop()

    def on_disk(self):
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return {(space, key): value for space, key, value in connection.execute("SELECT space, key, value FROM fact")}
        finally:
            connection.close()

    async def written(self, store):
        """The write under way, if any, has ended."""
        await store._one_write.run(lambda: None)

    async def test_it_provides_the_interface(self):
        verifyObject(IStateStore, await self.started())

    async def test_a_fact_is_there_at_once_and_on_the_disk_within_seconds(self):
        store = await self.started()
        store.put("greylist", "k", b"v", 60)
        self.assertEqual(store.get("greylist", "k"), b"v")
        self.assertIsNone(store.get("rates", "k"), "another space")
        self.assertEqual(self.on_disk(), {})
        self.clock.advance(3)
        await self.written(store)
        self.assertEqual(self.on_disk(), {("greylist", "k"): b"v"})

    async def test_what_no_row_can_hold_is_refused_at_once_and_keeps_nothing_else_from_the_disk(self):
        store = await self.started()
        for space, key, value, lifetime in (
            ("s", "\ud800", b"v", 60),
            ("s", "k", "text", 60),
            ("s", "k", None, 60),
            ("s", 5, b"v", 60),
            ("s", "k", b"v", float("nan")),
            ("s", "k", b"v", "60"),
        ):
            with self.assertRaises((TypeError, ValueError, AttributeError)):
                store.put(space, key, value, lifetime)
        store.put("s", "other", b"v", 60)
        self.clock.advance(3)
        await self.written(store)
        self.assertEqual(self.on_disk(), {("s", "other"): b"v"})

    async def test_a_thread_that_cannot_be_had_is_asked_for_again(self):
        store = await self.started()
        in_thread = store._run_in_thread

        def none(*_):
            raise RuntimeError("no thread")

        store._run_in_thread = none
        store.put("s", "k", b"v", 60)
        self.clock.advance(3)
        self.flushLoggedErrors(RuntimeError)
        store._run_in_thread = in_thread
        self.clock.advance(3)
        await self.written(store)
        self.assertEqual(self.on_disk(), {("s", "k"): b"v"})

    async def test_facts_survive_a_restart(self):
        store = await self.started()
        store.put("s", "k", b"v", 60)
        store.put("s", "dropped", b"v", 60)
        store.drop("s", "dropped")
        await self.stop(store)
        store = await self.started()
        self.assertEqual(store.get("s", "k"), b"v")
        self.assertIsNone(store.get("s", "dropped"))

    async def test_a_fact_ends_with_its_lifetime(self):
        store = await self.started()
        store.put("s", "k", b"v", 60)
        self.clock.advance(59)
        self.assertEqual(store.get("s", "k"), b"v")
        self.clock.advance(1)
        self.assertIsNone(store.get("s", "k"))

    async def test_what_has_expired_is_swept_from_the_disk(self):
        store = await self.started()
        store.put("s", "short", b"v", 10)
        store.put("s", "long", b"v", 1000)
        self.clock.advance(3)
        await self.written(store)
        self.clock.advance(400)
        store.put("s", "other", b"v", 1000)
        self.clock.advance(3)
        await self.written(store)
        self.assertEqual(set(self.on_disk()), {("s", "long"), ("s", "other")})

    async def test_memory_is_bounded_and_what_left_it_is_read_back(self):
        store = await self.started(remembered=10)
        for n in range(50):
            store.put("s", str(n), b"%d" % n, 60)
        self.assertEqual(len(store._memory), 10)
        self.assertEqual(store.get("s", "0"), b"0", "not on the disk yet")
        self.clock.advance(3)
        await self.written(store)
        self.assertEqual([store.get("s", str(n)) for n in range(50)], [b"%d" % n for n in range(50)])
        self.assertEqual(len(store._memory), 10)

    async def test_a_dropped_fact_does_not_come_back_from_the_disk(self):
        store = await self.started(remembered=1)
        store.put("s", "k", b"v", 60)
        self.clock.advance(3)
        await self.written(store)
        store.drop("s", "k")
        store.put("s", "other", b"v", 60)
        self.assertIsNone(store.get("s", "k"))

    async def test_the_items_of_a_space_come_from_disk_and_memory_as_one(self):
        store = await self.started(remembered=1)
        for key in ("a", "b", "short", "dropped"):
            store.put("s", key, b"old", 5 if key == "short" else 60)
        store.put("other", "a", b"x", 60)
        self.clock.advance(3)
        await self.written(store)
        store.put("s", "b", b"new", 60)
        store.put("s", "c", b"unwritten", 60)
        store.drop("s", "dropped")
        self.clock.advance(2)
        self.assertEqual([(key, value) for key, value, _ in store.items("s")], [("a", b"old"), ("b", b"new"), ("c", b"unwritten")])
        self.assertEqual(store.items("s")[0][2], 1_800_000_060.0)
        self.assertEqual(store.items("nothing"), [])

    async def test_a_stopped_store_is_read_and_changed_from_outside(self):
        store = await self.started()
        store.put("s", "a", b"1", 60)
        store.put("s", "b", b"2", 60)
        store.put("s", "short", b"3", 5)
        await self.stop(store)
        self.clock.advance(10)
        with StoppedState.opened(self.path, self.clock.seconds) as stopped:
            verifyObject(IStateStore, stopped)
            self.assertEqual([key for key, _, _ in stopped.items("s")], ["a", "b"])
            self.assertEqual((stopped.get("s", "a"), stopped.get("s", "short"), stopped.get("s", "no")), (b"1", None, None))
            stopped.drop("s", "a")
            stopped.put("s", "c", b"4", 60)
        store = await self.started()
        self.assertEqual([(key, value) for key, value, _ in store.items("s")], [("b", b"2"), ("c", b"4")])

    async def test_a_stopped_store_that_is_not_there_or_damaged_says_so(self):
        with StoppedState.opened(self.path) as stopped:
            self.assertIsNone(stopped)
        self.assertFalse(os.path.exists(self.path))
        with open(self.path, "wb") as file:
            file.write(b"not a database" * 1000)
        with self.assertRaises(StorageBroken), StoppedState.opened(self.path):
            pass

    async def test_many_changes_are_written_before_the_time(self):
        store = await self.started(unwritten_most=5)
        for n in range(5):
            store.put("s", str(n), b"v", 60)
        await self.written(store)
        self.assertEqual(len(self.on_disk()), 5)

    async def test_a_write_that_fails_is_tried_again_and_newer_facts_win(self):
        store = await self.started()
        store.put("s", "k", b"old", 60)
        store.put("s", "other", b"kept", 60)
        with mock.patch("mailserver.state_store.write", side_effect=apsw.FullError("no room")):
            self.clock.advance(3)
            store.put("s", "k", b"new", 60)
            await self.written(store)
        self.assertEqual(len(self.flushLoggedErrors(apsw.FullError)), 1)
        self.clock.advance(3)
        await self.written(store)
        self.assertEqual(self.on_disk(), {("s", "k"): b"new", ("s", "other"): b"kept"})

    async def test_the_file_is_for_the_owner_alone(self):
        await self.started()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    async def test_a_file_that_cannot_be_used_is_a_clear_error(self):
        with open(self.path, "wb") as file:
            file.write(b"not a database " * 500)
        store = StateStore(path=self.path, clock=self.clock, run_in_thread=deferToThread)
        fault = await self.assertFailure(Deferred.fromCoroutine(store.start()), StorageBroken)
        self.assertIn("state.db", str(fault))
