"""State and records of a server, read by whoever must change nothing."""

from __future__ import annotations

import os

import apsw
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailserver.interfaces import IRecords, IStateStore
from mailserver.mail.faults import StorageBroken
from mailserver.state_store import RecordStore, StateStore
from mailserver.state_store.read_only import ReadOnlyRecords, ReadOnlyState
from tests.at_once import at_once
from tests.state_store.threads import new_threads

START = 1_800_000_000.0


class ReadOnlyCase(TestCase):
    timeout = 30

    def setUp(self):
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.clock = Clock()
        self.clock.rightNow = START

    def path(self, name):
        return os.path.join(self.folder, name)

    def files(self):
        found = {}
        for name in sorted(os.listdir(self.folder)):
            with open(self.path(name), "rb") as file:
                found[name] = file.read()
        return found

    def closed_at_the_end(self, one):
        self.addCleanup(one.close)
        return one


class State(ReadOnlyCase):
    async def written(self, ahead=0.0):
        """What a server has left that knew the time to be so much ahead of the wall's."""
        store = StateStore(path=self.path("state.db"), clock=self.clock, new_threads=new_threads)
        await store.start()
        space = store.space("s")
        at_once(space.put("short", b"1", 10))
        at_once(space.put("long", b"2", 1000))
        at_once(space.put("gone", b"3", 1000))
        await store.stop()
        if ahead:
            connection = apsw.Connection(self.path("state.db"))
            connection.execute("UPDATE clock SET own = own + ?", (ahead,))
            connection.execute("UPDATE fact SET expires = expires + ?", (ahead,))
            connection.close()

    def read(self):
        return self.closed_at_the_end(ReadOnlyState(self.path("state.db"), wall_seconds=self.clock.seconds))

    async def test_changes_are_seen_by_whoever_makes_them_and_reach_no_file(self):
        await self.written()
        before = self.files()
        space = self.read().space("s")
        verifyObject(IStateStore, space)
        self.clock.advance(20)
        self.assertEqual([await space.get(key) for key in ("short", "long", "missing")], [None, b"2", None])
        await space.put("new", b"4", 60)
        self.assertEqual(await space.take("gone"), b"3")
        self.assertEqual(await space.add("n", 5, 60), 5)
        found = [("long", b"2", START + 1000), ("n", b"5", START + 80), ("new", b"4", START + 80)]
        self.assertEqual(await space.items(), found)
        former = space.former()
        self.assertEqual((former.get("s", "long"), former.items("s")), (b"2", found))
        self.assertEqual(self.files(), before)

    async def test_ends_go_by_the_stores_own_time_and_are_shown_by_the_walls(self):
        await self.written(ahead=5000.0)
        state = self.read()
        space = state.space("s")
        self.assertEqual(state.seconds(), START + 5000)
        self.assertEqual([key for key, _, _ in await space.items()], ["gone", "long", "short"])
        self.assertEqual((await space.items("long", "m"))[0][2], START + 1000)
        self.clock.advance(10)
        self.assertEqual((await space.get("short"), await space.get("long")), (None, b"2"))

    async def test_without_a_file_there_is_nothing_and_none_is_made(self):
        space = self.read().space("s")
        self.assertEqual((await space.get("k"), await space.items()), (None, []))
        await space.put("k", b"v", 60)
        self.assertEqual(await space.get("k"), b"v")
        self.assertEqual(os.listdir(self.folder), [])

    async def test_a_file_that_cannot_be_read_is_told(self):
        with open(self.path("state.db"), "wb") as file:
            file.write(b"not a database " * 500)
        state = self.read()
        space = state.space("s")
        for asked in (space.get("k"), space.items()):
            with self.assertRaises(StorageBroken):
                await asked
        for ask in (lambda: state.read_now("s", "k"), lambda: state.read_range_now("s", "", 5)):
            self.assertRaises(StorageBroken, ask)


class Records(ReadOnlyCase):
    async def running(self):
        store = RecordStore(path=self.path("records.db"), clock=self.clock, new_threads=new_threads)
        await store.start()
        self.addCleanup(store.stop)
        for n in range(5):
            await store.space("s").put(f"{n}", b"%d" % n)
        return store

    def read(self):
        return self.closed_at_the_end(ReadOnlyRecords(self.path("records.db")))

    async def test_beside_a_server_that_runs_changes_are_seen_by_whoever_makes_them_alone(self):
        store = await self.running()
        before = {name: octets for name, octets in self.files().items() if not name.endswith("-shm")}
        space = self.read().space("s")
        verifyObject(IRecords, space)
        self.assertEqual((await space.get("1"), await space.get("9")), (b"1", None))
        await space.put("1", b"changed")
        await space.drop("2")
        self.assertEqual([await space.put_if_absent(key, b"new") for key in ("0", "2", "5")], [False, True, True])
        self.assertEqual([await space.compare_and_put("3", old, None) for old in (b"x", b"3")], [False, True])
        self.assertEqual(await space.items(), [("0", b"0"), ("1", b"changed"), ("2", b"new"), ("4", b"4"), ("5", b"new")])
        self.assertEqual(await space.items("1", "5", most=2), [("1", b"changed"), ("2", b"new")])
        self.assertEqual(await space.items("3", most=1), [("4", b"4")])
        self.assertEqual(await self.read().space("s").get("1"), b"1")
        self.assertEqual(len(await store.space("s").items()), 5)
        self.assertEqual({name: octets for name, octets in self.files().items() if not name.endswith("-shm")}, before)

    async def test_of_a_server_that_has_stopped_no_file_is_made(self):
        store = await self.running()
        await store.stop()
        before = self.files()
        self.assertEqual(list(before), ["records.db"])
        self.assertEqual(len(await self.read().space("s").items()), 5)
        self.assertEqual(self.files(), before)

    async def test_without_a_file_there_is_nothing(self):
        space = self.read().space("s")
        self.assertEqual((await space.get("k"), await space.items()), (None, []))
        self.assertEqual(os.listdir(self.folder), [])

    async def test_a_file_that_cannot_be_read_is_told(self):
        with open(self.path("records.db"), "wb") as file:
            file.write(b"not a database " * 500)
        space = self.read().space("s")
        for asked in (space.get("k"), space.items(), space.compare_and_put("k", None, b"v")):
            with self.assertRaises(StorageBroken):
                await asked
