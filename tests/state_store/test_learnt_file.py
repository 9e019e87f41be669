"""What was learnt, in its file: once for each message, apart for each owner, bounded, and never believed blindly."""

from __future__ import annotations

import os
from random import Random

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.faults import StorageBroken, StorageDamaged, StorageFault, StorageFull
from mailserver.state_store.learnt_file import Kind, LearntFile, Lesson, Swept, storage_fault

NOW = 1_700_000_000.0
DAY = 86_400


def lesson(kind: Kind, name: str, *hashes: int, id: str = "") -> Lesson:
    return Lesson(kind, name.encode().ljust(16, b"."), hashes, id)


class LearntCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.file = self.opened()

    def opened(self) -> LearntFile:
        file = LearntFile.open(self.path)
        self.addCleanup(file.close)
        return file

    def learn(self, owner: str, *lessons: Lesson, now: float = NOW, most: int = 1_000_000) -> list[str]:
        return self.file.learn(owner, lessons, now=now, vocabulary_most=most)

    def older(self, days: int) -> None:
        for _ in range(24 * days):
            self.file.grow_older()

    def totals(self, owner: str = "") -> tuple[int, int] | None:
        rows = self.file.owners([owner])
        return (rows[0].spam, rows[0].ham) if rows else None

    def counts(self, owner: str, *hashes: int) -> dict[int, tuple[int, int]]:
        rows = self.file.owners([owner])
        return self.file.counts(rows[0].number, hashes) if rows else {}


class About(LearntCase):
    def test_what_stands_there_are_octets_or_nothing(self) -> None:
        connection = apsw.Connection(self.path)
        self.addCleanup(connection.close)
        connection.execute("INSERT INTO about VALUES ('octets', x'00ff'), ('text', 'x'), ('number', 5)")
        self.assertEqual([self.file.mark(name) for name in ("octets", "text", "number", "missing")], [b"\x00\xff", None, None, None])


class Learning(LearntCase):
    def test_a_message_that_is_learnt_twice_counts_once(self) -> None:
        self.assertEqual(self.learn("", lesson("spam", "a", 1, 2), lesson("spam", "a", 1, 2)), ["new", "known"])
        self.assertEqual(self.totals(), (1, 0))
        self.assertEqual(self.counts("", 1, 2, 3), {1: (1, 0), 2: (1, 0)})

    def test_one_that_is_learnt_as_the_other_kind_moves(self) -> None:
        self.learn("", lesson("spam", "a", 1, 2), lesson("spam", "b", 2))
        self.assertEqual(self.learn("", lesson("ham", "a", 1, 2)), ["moved"])
        self.assertEqual((self.totals(), self.counts("", 1, 2)), ((1, 1), {1: (0, 1), 2: (1, 1)}))

    def test_what_is_forgotten_leaves_nothing(self) -> None:
        self.learn("", lesson("spam", "a", 1, 2), lesson("ham", "b", 2))
        self.assertEqual(self.learn("", lesson("forget", "a", 1, 2), lesson("forget", "c", 9)), ["forgotten", "unknown"])
        self.assertEqual((self.totals(), self.counts("", 1, 2)), ((0, 1), {2: (0, 1)}))
        self.assertEqual(self.learn("", lesson("spam", "a", 1, 2)), ["new"])

    def test_what_one_learns_nobody_else_knows(self) -> None:
        self.learn("alice@example.org", lesson("spam", "a", 1))
        self.learn("bob@example.org", lesson("ham", "a", 1))
        self.assertEqual(self.counts("alice@example.org", 1), {1: (1, 0)})
        self.assertEqual(self.counts("bob@example.org", 1), {1: (0, 1)})
        self.assertEqual(self.counts("", 1), {})
        self.assertTrue(self.file.drop_owner("alice@example.org"))
        self.assertFalse(self.file.drop_owner("alice@example.org"))
        self.assertEqual((self.totals("alice@example.org"), self.totals("bob@example.org")), (None, (0, 1)))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["spam", "ham", "forget"]), st.integers(0, 4)), max_size=20))
    def test_whatever_is_learnt_in_whichever_order_the_counts_are_those_of_what_holds_last(
        self, steps: list[tuple[Kind, int]]
    ) -> None:
        hashes = {n: tuple(range(n, n + 3)) for n in range(5)}
        holds: dict[int, str] = {}
        self.file.drop_owner("")
        for kind, n in steps:
            self.learn("", lesson(kind, str(n), *hashes[n]))
            if kind == "forget":
                holds.pop(n, None)
            else:
                holds[n] = kind
        wanted = {}
        for token in range(7):
            by = [kind for n, kind in holds.items() if token in hashes[n]]
            if by:
                wanted[token] = by.count("spam"), by.count("ham")
        self.assertEqual({token: found for token, found in self.counts("", *range(7)).items() if any(found)}, wanted)
        if steps:
            kinds = list(holds.values())
            self.assertEqual(self.totals(), (kinds.count("spam"), kinds.count("ham")))

    def test_it_outlives_its_closing(self) -> None:
        self.learn("", lesson("spam", "a", -(1 << 63), (1 << 63) - 1))
        self.file.close()
        self.file = self.opened()
        self.assertEqual(self.counts("", -(1 << 63), (1 << 63) - 1), {-(1 << 63): (1, 0), (1 << 63) - 1: (1, 0)})
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)


class Bounds(LearntCase):
    def test_a_full_vocabulary_loses_first_what_was_seen_once_and_then_what_is_old(self) -> None:
        self.learn("", lesson("spam", "old", *range(10)))
        self.learn("", lesson("spam", "old2", *range(10)))
        self.learn("bob", lesson("spam", "x", *range(2000)))
        for n in range(5):
            self.older(1)
            self.learn("", lesson("spam", str(n), *range(1000 + 200 * n, 1200 + 200 * n)), most=1000)
        number = self.file.owners([""])[0].number
        self.assertEqual(self.file.vocabulary(number), 900)
        found = self.counts("", *range(2000))
        self.assertEqual(set(range(10)) - set(found), set())
        self.assertEqual(set(range(1800, 2000)) - set(found), set())
        self.assertEqual(len(self.counts("bob", *range(2000))), 2000)

    def test_what_nobody_has_learnt_for_long_is_dropped_a_part_at_a_time(self) -> None:
        self.learn("", lesson("spam", "a", 1, 2, 3))
        self.older(10)
        self.learn("", lesson("spam", "b", 3, 4))
        self.assertEqual(self.file.expire(days=11, most=100), 0)
        self.older(2)
        self.assertEqual(self.file.expire(days=11, most=1), 2)
        self.assertEqual(self.file.expire(days=11, most=100), 1)
        self.assertEqual(self.file.expire(days=11, most=100), 0)
        self.assertEqual(self.counts("", 1, 2, 3, 4), {3: (2, 0), 4: (1, 0)})
        self.assertEqual(self.learn("", lesson("spam", "a", 1)), ["new"])

    def test_a_clock_that_is_set_makes_nobody_forget(self) -> None:
        for now in (NOW, NOW + 3650 * DAY, 0.0):
            self.learn("", lesson("spam", str(now), 1), now=now)
            self.assertEqual(self.file.expire(days=1, most=100), 0)
        self.assertEqual(self.counts("", 1), {1: (3, 0)})


class Mailboxes(LearntCase):
    def test_a_mailbox_stands_as_it_was_seen_together_with_what_was_learnt_of_it(self) -> None:
        self.assertIsNone(self.file.mailbox("alice"))
        for junk in ({"a": (1, 2, 3), "b": (4, 5, 6)}, {"b": (4, 5, 7), "c": (8, 9, 10)}, {}):
            swept = Swept(NOW, junk)
            self.file.learn("alice", [], now=NOW, vocabulary_most=1000, swept=swept)
            self.assertEqual(self.file.mailbox("alice"), swept)
        self.assertIsNone(self.totals("alice"))
        self.file.put_mailboxes({"alice": NOW + 5, "nobody": NOW})
        self.assertEqual(self.file.mailbox("alice"), Swept(NOW + 5, {}))
        self.assertIsNone(self.file.mailbox("nobody"))

    def test_where_the_learning_fails_the_mailbox_stands_as_before(self) -> None:
        wrong = Lesson("spam", b"x", ("no number",))  # type: ignore[arg-type]
        self.file._connection.execute("DROP TABLE told")
        with self.assertRaises(StorageFault):
            self.file.learn("a", [lesson("spam", "b", 1), wrong], now=NOW, vocabulary_most=1000, swept=Swept(NOW, {"x": (1, 2, 3)}))
        self.assertIsNone(self.file.mailbox("a"))
        self.assertIsNone(self.totals("a"))

    def test_what_was_learnt_of_messages_that_came_here_can_be_read_in_its_order(self) -> None:
        self.learn("", lesson("spam", "a", 1, id="ID1"), lesson("spam", "b", 2), lesson("ham", "a", 1, id="ID1"))
        self.learn("", lesson("forget", "a", 1, id="ID1"))
        found = self.file.told_after(0, 10)
        self.assertEqual(
            [(one.message, one.was, one.kind) for one in found],
            [("ID1", "", "spam"), ("ID1", "spam", "ham"), ("ID1", "ham", "forget")],
        )
        self.assertEqual(self.file.told_after(found[1].number, 10), found[2:])


class Damage(LearntCase):
    def filled(self) -> bytes:
        for n in range(60):
            self.learn("" if n % 2 else "alice", lesson("spam" if n % 3 else "ham", str(n), *range(n * 50, n * 50 + 200)))
        self.file.close()
        with open(self.path, "rb") as file:
            return file.read()

    def test_a_file_that_is_no_database_is_said_and_left_as_it_is(self) -> None:
        whole = self.filled()
        for octets in (b"not a database at all" * 300, whole[: len(whole) // 2], b"\0" * 4096 + whole[4096:]):
            with open(self.path, "wb") as file:
                file.write(octets)
            self.assertRaises(StorageBroken, LearntFile.open, self.path)
            with open(self.path, "rb") as file:
                self.assertEqual(file.read(), octets)

    def test_flipped_bits_are_told_or_give_counts_that_are_counts(self) -> None:
        whole, random, told = self.filled(), Random(5), 0
        for _ in range(60):
            octets = bytearray(whole)
            for _ in range(random.choice((1, 8, 200))):
                octets[random.randrange(len(octets))] ^= 1 << random.randrange(8)
            with open(self.path, "wb") as file:
                file.write(octets)
            try:
                self.file = LearntFile.open(self.path)
            except StorageFault:
                told += 1
                continue
            try:
                for row in self.file.owners():
                    for found in self.file.counts(row.number, range(3000)).values():
                        self.assertTrue(all(type(one) is int and one >= 0 for one in found))
                self.learn("", lesson("spam", "more", *range(100)))
            except StorageFault:
                told += 1
            finally:
                self.file.close()
        self.assertGreater(told, 10)

    def test_a_later_release_s_file_is_not_touched(self) -> None:
        self.file.close()
        connection = apsw.Connection(self.path)
        connection.pragma("user_version", 99)
        connection.close()
        with self.assertRaisesRegex(StorageBroken, "later release"):
            LearntFile.open(self.path)

    def test_a_full_disk_is_named(self) -> None:
        self.file._connection.pragma("max_page_count", 20)
        with self.assertRaises(StorageFull):
            for n in range(100):
                self.learn("", lesson("spam", str(n), *range(n * 100, n * 100 + 100)))
        self.assertEqual(len(self.file.owners()), 1)
        self.assertIsInstance(storage_fault("x", apsw.CorruptError("")), StorageDamaged)
