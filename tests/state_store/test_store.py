import os
import stat
import threading
from unittest import mock

import apsw
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailserver.interfaces import IStateStore
from mailserver.mail.faults import StorageBroken
from mailserver.plugins.awaiting import now_or_later
from mailserver.plugins.threads import Threads
from mailserver.state_store import StateStore, StoppedState
from mailserver.state_store.facts import Fact
from mailserver.state_store.space import Space
from mailserver.state_store.state_file import facts_of, open_writing
from mailserver.testing.state import MemoryState
from tests.at_once import at_once
from tests.state_store.threads import new_threads

START = 1_800_000_000.0


def later(awaitable):
    """A Deferred of what has begun."""
    return Deferred.fromCoroutine(awaitable)


class StoreCase(TestCase):
    timeout = 30

    def setUp(self):
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        self.path = os.path.join(directory, "state.db")
        self.clock = Clock()
        self.clock.rightNow = START
        self.stores = []
        self.addCleanup(self.stop_all)

    async def stop_all(self):
        for store in self.stores:
            await store.stop()

    def made(self, **changes):
        return StateStore(path=self.path, clock=self.clock, **{"new_threads": new_threads, **changes})

    async def started(self, **changes):
        store = self.made(**changes)
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

    async def flushed(self, store):
        self.clock.advance(3)
        await self.written(store)

    async def emptied(self, store, name="s"):
        """A space whose facts are on the disk and not in memory, as after a start with too many of them."""
        await self.flushed(store)
        space = store.space(name)
        space._memory.clear()
        space._octets = 0
        space.is_whole = False
        return space


class State(StoreCase):
    async def test_it_provides_the_interface(self):
        store = await self.started()
        verifyObject(IStateStore, store.space("s"))
        self.assertIs(store.space("s"), store.space("s"))

    async def test_a_fact_is_there_at_once_and_on_the_disk_within_seconds(self):
        store = await self.started()
        at_once(store.space("greylist").put("k", b"v", 60))
        self.assertEqual(at_once(store.space("greylist").get("k")), b"v")
        self.assertIsNone(at_once(store.space("rates").get("k")), "another space")
        self.assertEqual(self.on_disk(), {})
        await self.flushed(store)
        self.assertEqual(self.on_disk(), {("greylist", "k"): b"v"})

    async def test_what_no_row_can_hold_is_refused_at_once_and_keeps_nothing_else_from_the_disk(self):
        store = await self.started()
        space = store.space("s")
        for key, value, lifetime in (
            ("\ud800", b"v", 60),
            ("k", "text", 60),
            ("k", None, 60),
            ("k", bytearray(b"v"), 60),
            (5, b"v", 60),
            (b"k", b"v", 60),
            ("k", b"v", float("nan")),
            ("k", b"v", "60"),
            ("k", b"v", None),
            ("k", b"v", True),
            ("k" * 2049, b"v", 60),
            ("k", b"v" * 65_537, 60),
        ):
            for verb in (space.put, space.put_if_absent):
                with self.assertRaises((TypeError, ValueError)):
                    at_once(verb(key, value, lifetime))
        for n in ("1", 1.5, None, True, 2**63):
            with self.assertRaises((TypeError, ValueError)):
                at_once(space.add("counter", n, 60))
        at_once(space.put("ü" * 1024, b"v" * 65_536, 60))
        at_once(space.put("word", b"no number", 60))
        at_once(space.put("long", b" " * 20 + b"1", 60))
        for key in ("word", "long"):
            with self.assertRaises(ValueError):
                at_once(space.add(key, 1, 60))
        await self.flushed(store)
        self.assertEqual(set(self.on_disk()), {("s", "ü" * 1024), ("s", "word"), ("s", "long")})

    async def test_a_thread_that_cannot_be_had_is_asked_for_again(self):
        store = await self.started()
        run = store._writers.run

        def none(*_):
            raise RuntimeError("no thread")

        store._writers.run = none
        at_once(store.space("s").put("k", b"v", 60))
        self.clock.advance(3)
        self.flushLoggedErrors(RuntimeError)
        store._writers.run = run
        await self.flushed(store)
        self.assertEqual(self.on_disk(), {("s", "k"): b"v"})

    async def test_facts_survive_a_restart(self):
        store = await self.started()
        space = store.space("s")
        at_once(space.put("k", b"v", 60))
        at_once(space.put("dropped", b"v", 60))
        at_once(space.drop("dropped"))
        await self.stop(store)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["state.db"], "a whole file, with no log beside it")
        store = self.made()
        before = store.space("s")  # as assembled before the start
        await store.start()
        self.stores.append(store)
        self.assertEqual(at_once(before.get("k")), b"v")
        self.assertIsNone(at_once(before.get("dropped")))
        await self.stop(store)
        store = await self.started()
        self.assertEqual(await store.space("s").get("k"), b"v", "a component that a reload brings")

    async def test_a_fact_ends_with_its_lifetime(self):
        space = (await self.started()).space("s")
        at_once(space.put("k", b"v", 60))
        self.clock.advance(59)
        self.assertEqual(at_once(space.get("k")), b"v")
        self.clock.advance(1)
        self.assertIsNone(at_once(space.get("k")))
        at_once(space.put("k", b"v", 60))
        at_once(space.put("k", b"v", 0))
        self.assertIsNone(at_once(space.get("k")))
        at_once(space.put("k", b"v", -(10**400)))
        self.assertIsNone(at_once(space.get("k")))
        at_once(space.put("k", b"v", 10**400))
        self.assertEqual(at_once(space.items())[0][2], self.clock.seconds() + 3650 * 86_400)

    async def test_what_has_expired_is_swept_from_the_disk(self):
        store = await self.started()
        space = store.space("s")
        at_once(space.put("short", b"v", 10))
        at_once(space.put("long", b"v", 1000))
        await self.flushed(store)
        self.clock.advance(400)
        at_once(space.put("other", b"v", 1000))
        await self.flushed(store)
        self.assertEqual(set(self.on_disk()), {("s", "long"), ("s", "other")})

    async def test_memory_is_bounded_and_what_left_it_is_read_back(self):
        store = await self.started(remembered=10)
        space = store.space("s")
        for n in range(50):
            at_once(space.put(str(n), b"%d" % n, 60))
        self.assertEqual(len(space._memory), 10)
        self.assertEqual(at_once(space.get("0")), b"0", "not on the disk yet")
        await self.flushed(store)
        self.assertEqual([await space.get(str(n)) for n in range(50)], [b"%d" % n for n in range(50)])
        self.assertIsNone(await space.get("50"))
        self.assertEqual(len(space._memory), 10)

    async def test_memory_is_bounded_in_octets_too(self):
        store = await self.started(octets_most=1_000_000)
        space = store.space("s")
        for n in range(50):
            at_once(space.put(str(n), b"v" * 65_536, 60))
        self.assertLess(len(space._memory), 16)
        self.assertLess(space._octets, 1_000_000)
        await self.written(store)

    async def test_a_fact_that_is_put_for_no_time_leaves_the_disk_with_the_next_write(self):
        store = await self.started()
        for key in ("dropped", "none"):
            at_once(store.space("s").put(key, b"v", 60))
        await self.flushed(store)
        at_once(store.space("s").drop("dropped"))
        at_once(store.space("s").put("none", b"v", 0))
        await self.flushed(store)
        self.assertEqual(self.on_disk(), {})

    async def test_a_dropped_fact_does_not_come_back_from_the_disk(self):
        store = await self.started(remembered=1)
        space = store.space("s")
        at_once(space.put("k", b"v", 60))
        await self.flushed(store)
        at_once(space.drop("k"))
        at_once(space.put("other", b"v", 60))
        self.assertIsNone(at_once(space.get("k")))

    async def test_the_items_of_a_space_come_from_disk_and_memory_as_one(self):
        store = await self.started(remembered=1)
        space = store.space("s")
        for key in ("a", "b", "short", "dropped"):
            at_once(space.put(key, b"old", 5 if key == "short" else 60))
        at_once(store.space("other").put("a", b"x", 60))
        await self.flushed(store)
        at_once(space.put("b", b"new", 60))
        at_once(space.put("c", b"unwritten", 60))
        at_once(space.drop("dropped"))
        self.clock.advance(2)
        found = await space.items()
        self.assertEqual([(key, value) for key, value, _ in found], [("a", b"old"), ("b", b"new"), ("c", b"unwritten")])
        self.assertEqual(found[0][2], START + 60)
        self.assertEqual(await store.space("nothing").items(), [])

    async def test_a_range_is_paged_and_no_page_is_short_before_the_end(self):
        for remembered in (1000, 1):
            store = await self.started(remembered=remembered)
            space = store.space(f"of {remembered}")
            for n in range(40):
                at_once(space.put(f"{n:02}", b"v", 60))
            await self.flushed(store)
            for n in range(30):
                if n % 3:
                    at_once(space.drop(f"{n:02}"))
            for n in range(40, 44):
                at_once(space.put(f"{n:02}", b"v", 60))
            expected = [f"{n:02}" for n in range(44) if n >= 30 or not n % 3]
            found, page = [], [("", b"", 0.0)]
            while page:
                page = await space.items(page[-1][0] + "\0" if found else "", most=5)
                found += [key for key, _, _ in page]
                if len(page) < 5:
                    break
            self.assertEqual(found, expected)
            self.assertEqual([key for key, _, _ in await space.items("05", "12")], ["06", "09"])
            self.assertEqual(await space.items("05", "05"), [])
            self.assertEqual(await space.items(most=0), [])
            with self.assertRaises(TypeError):
                await space.items(most="all")

    async def test_many_changes_are_written_before_the_time(self):
        store = await self.started(unwritten_most=5)
        for n in range(5):
            at_once(store.space("s").put(str(n), b"v", 60))
        await self.written(store)
        self.assertEqual(len(self.on_disk()), 5)

    async def test_a_write_that_fails_is_tried_again_and_newer_facts_win(self):
        store = await self.started()
        space = store.space("s")
        at_once(space.put("k", b"old", 60))
        at_once(space.put("other", b"kept", 60))
        with mock.patch("mailserver.state_store.store.write", side_effect=apsw.FullError("no room")):
            self.clock.advance(3)
            at_once(space.put("k", b"new", 60))
            await self.written(store)
        self.assertEqual(len(self.flushLoggedErrors(apsw.FullError)), 1)
        await self.flushed(store)
        self.assertEqual(self.on_disk(), {("s", "k"): b"new", ("s", "other"): b"kept"})

    async def test_the_file_is_for_the_owner_alone(self):
        await self.started()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    async def test_a_file_that_cannot_be_used_is_a_clear_error(self):
        with open(self.path, "wb") as file:
            file.write(b"not a database " * 500)
        store = self.made()
        fault = await self.assertFailure(later(store.start()), StorageBroken)
        self.assertIn("state.db", str(fault))
        await store.stop()

    async def test_the_file_of_an_earlier_release_is_read_and_one_of_a_later_refused(self):
        connection = apsw.Connection(self.path)
        connection.execute(
            "CREATE TABLE fact (space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires REAL NOT NULL,"
            " PRIMARY KEY (space, key)) WITHOUT ROWID; CREATE INDEX fact_expires ON fact (expires); PRAGMA user_version = 1"
        )
        connection.execute("INSERT INTO fact VALUES ('s', 'k', x'76', ?)", (START + 60,))
        connection.close()
        store = await self.started()
        self.assertEqual(await store.space("s").get("k"), b"v")
        self.clock.advance(60)
        self.assertIsNone(await store.space("s").get("k"))
        await self.stop(store)
        connection = apsw.Connection(self.path)
        connection.execute("PRAGMA user_version = 2")
        connection.close()
        await self.assertFailure(later(self.made().start()), StorageBroken)


class Verbs(StoreCase):
    """Of a running store, of the command line's and of the one for tests: all the same."""

    async def all_kinds(self):
        store = await self.started(remembered=2)
        open_writing(f"{self.path}.stopped").close()
        with StoppedState.opened(f"{self.path}.stopped", self.clock.seconds) as stopped:
            for each in (store.space("s"), stopped.space("s"), MemoryState(self.clock)):
                verifyObject(IStateStore, each)
                yield each

    async def test_a_counter_begins_with_nothing_and_ends_when_it_was_said_at_its_beginning(self):
        async for space in self.all_kinds():
            self.assertEqual([await space.add("n", by, 60) for by in (1, 1, 5, -10)], [1, 2, 7, -3])
            self.assertEqual(await space.get("n"), b"-3")
            self.clock.advance(59)
            self.assertEqual(await space.add("n", 1, 60), -2)
            self.clock.advance(1)
            self.assertEqual(await space.add("n", 1, 60), 1)

    async def test_one_of_several_is_the_first(self):
        async for space in self.all_kinds():
            self.assertEqual([await space.put_if_absent("k", b"%d" % n, 60) for n in range(3)], [True, False, False])
            self.assertEqual(await space.get("k"), b"0")
            self.clock.advance(60)
            self.assertTrue(await space.put_if_absent("k", b"3", 60))

    async def test_a_value_is_replaced_where_it_is_the_one_that_was_read(self):
        async for space in self.all_kinds():
            self.assertFalse(await space.compare_and_put("k", b"a", b"b", 60))
            self.assertTrue(await space.compare_and_put("k", None, b"a", 60))
            self.assertFalse(await space.compare_and_put("k", None, b"b", 60))
            self.assertTrue(await space.compare_and_put("k", b"a", b"b", 60))
            self.assertEqual(await space.get("k"), b"b")
            self.assertTrue(await space.compare_and_put("k", b"b", None, 60))
            self.assertIsNone(await space.get("k"))
            self.assertTrue(await space.compare_and_put("k", None, None, 60))

    async def test_what_is_taken_is_gone(self):
        async for space in self.all_kinds():
            await space.put("k", b"v", 60)
            self.assertEqual([await space.take("k"), await space.take("k")], [b"v", None])
            await space.put("k", b"v", 60)
            await space.drop("k")
            self.assertIsNone(await space.take("k"))

    async def test_they_are_atomic_while_a_read_is_under_way(self):
        store = await self.started()
        for n in range(10):
            at_once(store.space("s").add(f"n{n}", 1, 600))
        at_once(store.space("s").put("token", b"one", 600))
        space = await self.emptied(store)
        sums = [later(space.add(f"n{n % 10}", 1, 600)) for n in range(200)]
        takes = [later(space.take("token")) for _ in range(20)]
        firsts = [later(space.put_if_absent("new", b"%d" % n, 600)) for n in range(20)]
        self.assertFalse(sums[0].called, "it is read first")
        self.assertEqual(sorted(await gatherResults(sums)), sorted(n + 2 for n in range(20) for _ in range(10)))
        self.assertEqual((await gatherResults(takes)).count(b"one"), 1)
        self.assertEqual((await gatherResults(firsts)).count(True), 1)

    async def test_what_is_changed_while_it_is_read_is_not_overwritten_by_what_was_read(self):
        store = await self.started()
        at_once(store.space("s").put("k", b"old", 600))
        space = await self.emptied(store)
        read, added = later(space.get("k")), later(space.compare_and_put("k", b"new", b"newest", 600))
        at_once(space.put("k", b"new", 600))
        self.assertEqual(await read, b"new")
        self.assertTrue(await added)
        self.assertEqual(at_once(space.get("k")), b"newest")

    async def test_whoever_gives_up_waiting_stops_nobody_else(self):
        store = await self.started()
        at_once(store.space("s").put("k", b"v", 600))
        space = await self.emptied(store)
        first, second, third = (later(space.get("k")) for _ in range(3))
        listed = later(space.items())
        for one in (second, first, listed):
            one.cancel()
            await self.assertFailure(one, CancelledError)
        self.assertEqual(await third, b"v")
        self.assertEqual(len(await space.items()), 1)
        self.assertEqual(space._reads, {})


class SlowDisk:
    """Its answers come when the test says so."""

    def __init__(self):
        self.asked = []

    def seconds(self):
        return START

    def on_the_wall(self, moment):
        return moment

    def changed(self, space):
        pass

    def read(self, space, key):
        self.asked.append(Deferred())
        return self.asked[-1]


class Overtaken(TestCase):
    def test_what_was_read_before_a_change_that_is_written_and_out_of_memory_again_does_not_count(self):
        disk = SlowDisk()
        space = Space("s", disk, facts_most=10, remembered=1, octets_most=1000, unwritten_most=10)
        space.load(None)
        sums = [later(space.add("n", 1, 60)) for _ in range(2)]
        at_once(space.put("n", b"10", 60))
        space.begin_write()
        space.written()
        at_once(space.put("other", b"v", 60))  # there is room for one
        disk.asked[0].callback(Fact(b"1", START + 60))
        self.assertNoResult(sums[0])
        disk.asked[1].callback(Fact(b"10", START + 60))
        self.assertEqual([self.successResultOf(one) for one in sums], [11, 12])
        self.assertEqual(len(disk.asked), 2)


class Hanging(StoreCase):
    """A disk that does not answer."""

    def held_threads(self):
        self.let_go = {}

        def make(name, most):
            threads = Threads(name, most, call_from_thread=reactor.callFromThread)
            gate = self.let_go[name] = threading.Event()
            gate.set()
            run = threads.run

            def held(function, *arguments):
                def call():
                    gate.wait(20)
                    return function(*arguments)

                return run(call)

            threads.run = held
            return threads

        self.addCleanup(lambda: [gate.set() for gate in self.let_go.values()])
        return make

    async def test_a_read_that_hangs_fails_after_its_time_and_what_is_in_memory_is_answered(self):
        store = await self.started(new_threads=self.held_threads())
        at_once(store.space("s").put("old", b"v", 600))
        space = await self.emptied(store)
        self.let_go["state.read"].clear()
        read = later(space.get("old"))
        at_once(space.put("new", b"v", 600))
        self.assertEqual(at_once(space.get("new")), b"v")
        self.assertNoResult(read)
        self.clock.advance(10)
        fault = await self.assertFailure(read, StorageBroken)
        self.assertIn("no answer within 10 seconds", str(fault))
        await self.assertFailure(later(space.get("another")), StorageBroken)
        await self.written(store)
        self.assertIn(("s", "new"), self.on_disk(), "a read holds up no write")
        self.let_go["state.read"].set()

    async def test_reads_that_wait_are_bounded(self):
        store = await self.started(new_threads=self.held_threads())
        at_once(store.space("s").put("old", b"v", 600))
        space = await self.emptied(store)
        self.let_go["state.read"].clear()
        reads = [later(space.get(f"{n}")) for n in range(1000)]
        await self.assertFailure(later(space.get("one more")), StorageBroken)
        self.let_go["state.read"].set()
        self.assertEqual(await gatherResults(reads), [None] * 1000)
        self.assertIsNone(await space.get("one more"), "they have ended, and count no longer")

    async def test_while_a_write_hangs_a_space_that_floods_loses_its_own_facts_and_no_other_does(self):
        store = await self.started(new_threads=self.held_threads(), unwritten_most=10, remembered=20)
        lockout, greylist = store.space("lockout"), store.space("greylist")
        at_once(lockout.put("guesser", b"locked", 600))
        self.let_go["state.write"].clear()
        self.clock.advance(3)
        at_once(lockout.put("another", b"locked", 600))
        with capturedLogs() as told:
            for n in range(1000):
                at_once(greylist.put(str(n), b"v", 600))
        (line,) = [formatEvent(event) for event in told]
        self.assertIn("the oldest of greylist are lost", line)
        self.assertEqual((at_once(lockout.get("guesser")), at_once(lockout.get("another"))), (b"locked", b"locked"))
        self.assertEqual((greylist.unwritten, greylist.lost), (40, 960))
        self.let_go["state.write"].set()
        await self.written(store)
        await self.flushed(store)
        kept = self.on_disk()
        self.assertEqual(len(kept), 42)
        self.assertIn(("greylist", "999"), kept)

    async def test_a_disk_that_hangs_does_not_hold_up_the_end(self):
        store = await self.started(new_threads=self.held_threads())
        at_once(store.space("s").put("k", b"v", 600))
        self.let_go["state.write"].clear()
        stopped = later(store.stop())
        self.assertNoResult(stopped)
        self.clock.advance(20)
        await stopped
        self.stores.remove(store)
        self.let_go["state.write"].set()


class Floods(StoreCase):
    async def test_a_full_space_loses_what_expires_first_and_another_nothing(self):
        store = await self.started()
        lockout, greylist = store.space("lockout"), store.space("greylist", facts_most=100)
        for n in range(50):
            at_once(lockout.put(str(n), b"v", 10))
        for n in range(250):
            at_once(greylist.put(f"{n:03}", b"v", 60 + n))
            if n % 20 == 19:
                await self.flushed(store)
                self.assertLessEqual(sum(space == "greylist" for space, _ in self.on_disk()), 100)
        await self.flushed(store)
        kept = [key for space, key in self.on_disk() if space == "greylist"]
        self.assertEqual(kept, [f"{n:03}" for n in range(250 - len(kept), 250)])
        self.assertEqual(sum(space == "lockout" for space, _ in self.on_disk()), 50)

    async def test_a_space_whose_facts_change_often_is_not_full(self):
        store = await self.started()
        space = store.space("s", facts_most=100)
        for _ in range(30):
            for n in range(90):
                at_once(space.put(f"{n}", b"v", 600))
            await self.flushed(store)
        self.assertEqual(len(self.on_disk()), 90)

    async def test_a_space_with_many_facts_is_not_read_at_the_start_and_another_is(self):
        store = await self.started()
        for n in range(50):
            at_once(store.space("large").put(f"{n}", b"v", 600))
        at_once(store.space("small").put("k", b"v", 600))
        await self.stop(store)
        store = self.made()
        large, small = store.space("large"), store.space("small")
        with mock.patch("mailserver.state_store.state_file.LOADED_MOST", 10):
            await store.start()
        self.stores.append(store)
        self.assertEqual(at_once(small.get("k")), b"v")
        self.assertIsNone(at_once(small.get("unknown")))
        self.assertIsInstance(waiting := now_or_later(large.get("7")), Deferred)
        self.assertEqual(await waiting, b"v")
        self.assertEqual(at_once(large.get("7")), b"v")


class TimesThatAreSet(StoreCase):
    """The wall's clock is set; the machine's steady one is not."""

    def setUp(self):
        super().setUp()
        self.ahead = 0.0
        self.boot = "first boot"
        self.booted = START - 1000

    async def started(self, **changes):
        clock = mock.Mock(callLater=self.clock.callLater, seconds=lambda: self.clock.seconds() + self.ahead)
        store = StateStore(
            path=self.path, clock=clock, new_threads=new_threads, boot=self.boot, steady=lambda: self.clock.seconds() - self.booted
        )
        await store.start()
        self.stores.append(store)
        return store

    async def test_a_clock_that_is_set_neither_ends_a_fact_nor_keeps_it(self):
        store = await self.started()
        at_once(store.space("s").put("k", b"v", 60))
        for self.ahead in (365 * 86_400.0, -365 * 86_400.0):
            self.assertEqual(at_once(store.space("s").get("k")), b"v")
            ((_, _, end),) = at_once(store.space("s").items())
            self.assertEqual(end, START + 60 + self.ahead, "what people are told goes by their clock")
        self.clock.advance(60)
        self.assertIsNone(at_once(store.space("s").get("k")))

    async def test_over_a_restart_of_the_server_it_is_the_same(self):
        for ahead in (365 * 86_400.0, -365 * 86_400.0):
            self.ahead = 0.0
            store = await self.started()
            at_once(store.space("s").put("k", b"v", 60))
            await self.stop(store)
            self.ahead = ahead
            self.clock.advance(30)
            store = await self.started()
            self.assertEqual(await store.space("s").get("k"), b"v")
            self.clock.advance(30)
            self.assertIsNone(await store.space("s").get("k"))
            await self.stop(store)

    async def test_after_a_restart_of_the_machine_the_wall_is_believed_but_time_never_goes_back(self):
        store = await self.started()
        at_once(store.space("s").put("k", b"v", 3600))
        await self.stop(store)
        self.boot, self.booted, self.ahead = "second boot", START, -365 * 86_400.0
        store = await self.started()
        self.assertEqual(await store.space("s").get("k"), b"v")
        self.clock.advance(3600)
        self.assertIsNone(await store.space("s").get("k"), "it is not kept for a year")
        at_once(store.space("s").put("k", b"v", 3600))
        await self.stop(store)
        self.boot = "third boot"
        self.clock.advance(3600)
        store = await self.started()
        self.assertIsNone(await store.space("s").get("k"), "the hour that the machine was off counts")


class Stopped(StoreCase):
    async def test_a_stopped_store_is_read_and_changed_from_outside(self):
        store = await self.started()
        space = store.space("s")
        at_once(space.put("a", b"1", 60))
        at_once(space.put("b", b"2", 60))
        at_once(space.put("short", b"3", 5))
        await self.stop(store)
        self.clock.advance(10)
        with StoppedState.opened(self.path, self.clock.seconds) as stopped:
            space = stopped.space("s")
            self.assertEqual([key for key, _, _ in at_once(space.items())], ["a", "b"])
            self.assertEqual([at_once(space.get(key)) for key in ("a", "short", "no")], [b"1", None, None])
            at_once(space.drop("a"))
            at_once(space.put("c", b"4", 60))
        self.assertRaises(apsw.ConnectionClosedError, stopped.connection.execute, "SELECT 1")
        store = await self.started()
        self.assertEqual([(key, value) for key, value, _ in await store.space("s").items()], [("b", b"2"), ("c", b"4")])

    async def test_a_stopped_store_that_is_not_there_or_damaged_says_so(self):
        with StoppedState.opened(self.path) as stopped:
            self.assertIsNone(stopped)
        self.assertFalse(os.path.exists(self.path))
        with open(self.path, "wb") as file:
            file.write(b"not a database" * 1000)
        with self.assertRaises(StorageBroken), StoppedState.opened(self.path):
            pass


class Damage(StoreCase):
    async def test_a_file_that_is_taken_away_while_it_is_used_is_told_of_once(self):
        store = await self.started()
        at_once(store.space("s").put("k", b"v", 600))
        await self.flushed(store)
        os.rename(self.path, f"{self.path}.away")
        with capturedLogs() as told:
            for _ in range(3):
                at_once(store.space("s").put("k", b"v", 600))
                self.clock.advance(400)
                await self.flushed(store)
        self.assertEqual([formatEvent(event).count("was taken away") for event in told], [1])

    async def test_a_file_that_is_damaged_while_it_is_used_costs_what_is_not_in_memory(self):
        store = await self.started()
        at_once(store.space("s").put("old", b"v", 600))
        space = await self.emptied(store)
        broken = apsw.CorruptError("malformed")
        with mock.patch("mailserver.state_store.store.fact_of", side_effect=broken):
            await self.assertFailure(later(space.get("old")), StorageBroken)
            at_once(space.put("new", b"v", 600))
            self.assertEqual(at_once(space.get("new")), b"v")
        with mock.patch("mailserver.state_store.store.facts_of", side_effect=broken):
            await self.assertFailure(later(space.items()), StorageBroken)
        self.assertEqual(await space.get("old"), b"v")
        self.assertEqual(facts_of(store._reading, "s", START, "", None, 5)["old"].value, b"v")
