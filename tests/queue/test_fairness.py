"""Turns and shares: nothing is lost, the order within a key is kept, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.queue.fairness import FairQueue, Share

keys = st.sampled_from("abcd")


class TurnsTests(SynchronousTestCase):
    def turns(self, text: str) -> FairQueue[str]:
        """Each word is an item, its first letter the key."""
        turns: FairQueue[str] = FairQueue()
        for word in text.split():
            turns.add(word[0], word)
        return turns

    def all_of(self, turns: FairQueue[str]) -> str:
        found = []
        while (next := turns.take()) is not None:
            found.append(next[1])
        return " ".join(found)

    def test_keys_have_one_item_in_turn_and_keep_their_order(self) -> None:
        self.assertEqual(self.all_of(self.turns("a1 a2 a3 a4 b1 b2 c1")), "a1 b1 c1 a2 b2 a3 a4")

    def test_a_key_that_may_not_is_passed_over_and_keeps_its_turn(self) -> None:
        turns = self.turns("a1 a2 b1 b2")
        self.assertEqual(turns.take(lambda key: key == "b"), ("b", "b1"))
        self.assertEqual(turns.take(), ("a", "a1"))
        self.assertIsNone(turns.take(lambda key: False))
        self.assertEqual(len(turns), 2)

    def test_what_is_given_back_comes_first_among_its_own(self) -> None:
        turns = self.turns("a1 a2")
        key, item = turns.take() or ("", "")
        turns.give_back(key, item)
        turns.give_back("b", "b0")
        self.assertEqual(self.all_of(turns), "a1 b0 a2")

    def test_the_unwanted_are_withdrawn_and_the_others_stay(self) -> None:
        turns = self.turns("a1 a2 b1 c1")
        self.assertEqual(turns.withdraw(lambda item: item in ("a1", "b1")), ["a1", "b1"])
        self.assertEqual((len(turns), turns.waiting("b"), turns.peek()), (2, 0, "a2"))
        self.assertEqual(self.all_of(turns), "a2 c1")
        self.assertRaises(IndexError, turns.peek)

    @given(st.lists(st.one_of(keys, st.just("take"))))
    def test_nothing_is_lost_and_each_key_keeps_its_order(self, steps: list[str]) -> None:
        turns: FairQueue[tuple[str, int]] = FairQueue()
        put, got = [], []
        for number, step in enumerate(steps):
            if step == "take":
                next = turns.take()
                if next is not None:
                    self.assertEqual(next[0], next[1][0])
                    got.append(next[1])
            else:
                put.append((step, number))
                turns.add(step, (step, number))
            self.assertEqual(len(turns), len(put) - len(got))
        self.assertEqual(sorted([*got, *turns]), sorted(put))
        for key in "abcd":
            mine = [item for item in put if item[0] == key]
            self.assertEqual([item for item in got if item[0] == key], mine[: len([i for i in got if i[0] == key])])

    @given(st.lists(keys, min_size=1), st.integers(0, 30))
    def test_nobody_waits_longer_than_a_turn_of_all_others_for_each_item_before_his(self, items: list[str], more: int) -> None:
        turns: FairQueue[str] = FairQueue()
        for key in items:
            turns.add(key, key)
        turns.add("z", "z")
        for _ in range(more):
            turns.add("a", "a")
        order = self.all_of(turns).split()
        self.assertLessEqual(order.index("z"), len(set(items) | {"a"}))


class ShareTests(SynchronousTestCase):
    def test_one_key_gets_three_quarters_and_the_rest_stays_free(self) -> None:
        share = Share(2000)
        while share.allows("slow"):
            share.take("slow", 1)
        self.assertEqual(share.taken, 1500)
        self.assertEqual(share.room("slow"), 0)
        self.assertTrue(share.allows("quick"))

    def test_the_smallest_share_lets_one_through(self) -> None:
        share = Share(1)
        self.assertTrue(share.allows("a"))
        share.take("a", 1)
        self.assertFalse(share.allows("b"))
        share.give_back("a", 1)
        self.assertTrue(share.allows("b"))

    @given(st.integers(50, 500), st.integers(1, 10))
    def test_however_many_take_all_they_may_a_newcomer_finds_a_place(self, most: int, hogs: int) -> None:
        share = Share(most)
        names = [f"slow{n}" for n in range(hogs)]
        while any(map(share.allows, names)):
            for name in filter(share.allows, names):
                if share.allows(name):
                    share.take(name, 1)
        self.assertTrue(share.allows("newcomer"))
        self.assertGreaterEqual(most - share.taken, most // (1 + 3 * hogs) - 1)

    @given(st.lists(st.tuples(keys, st.integers(1, 5))))
    def test_what_is_given_back_is_free_again(self, takes: list[tuple[str, int]]) -> None:
        share = Share(100)
        for key, amount in takes:
            share.take(key, amount)
        taken: Counter[str] = Counter()
        for key, amount in takes:
            taken[key] += amount
        self.assertEqual({key: share.taken_by(key) for key in taken}, dict(taken))
        for key, amount in reversed(takes):
            share.give_back(key, amount)
        self.assertEqual((share.taken, [share.taken_by(key) for key in "abcd"]), (0, [0, 0, 0, 0]))
