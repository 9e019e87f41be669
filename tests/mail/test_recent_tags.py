"""Who was met lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.recent_tags import day_of, is_recent, with_recent
from tests.any_octets import any_octets

TAGS = any_octets(min_size=6, max_size=6) | st.sampled_from([bytes(6), b"\0" * 5 + b"\1", b"\1" + b"\0" * 5, b"\0\1" * 3])


class Recent(SynchronousTestCase):
    @given(st.lists(st.tuples(TAGS, st.integers(0, 20)), max_size=60), st.integers(1, 20))
    def test_it_knows_what_a_list_of_the_latest_would_know(self, met: list[tuple[bytes, int]], most: int) -> None:
        entries, model = b"", dict[bytes, int]()
        today = 20_000
        for tag, later in met:
            today += later
            entries = with_recent(entries, tag, today, days=30, most=most)
            if model.get(tag) != today:
                model.pop(tag, None)
                model[tag] = today
            model = dict(list(model.items())[-most:])
            self.assertLessEqual(len(entries), 8 * most)
            for each in {tag for tag, _ in met}:
                self.assertEqual(is_recent(entries, each, today, 30), each in model and model[each] > today - 30)

    def test_the_same_day_again_changes_nothing(self) -> None:
        entries = with_recent(b"", b"abcdef", 1, days=30, most=5)
        self.assertIs(with_recent(entries, b"abcdef", 1, days=30, most=5), entries)

    def test_what_is_too_old_leaves_with_the_next_one(self) -> None:
        entries = with_recent(b"", b"abcdef", 100, days=30, most=5)
        self.assertEqual(len(with_recent(entries, b"ghijkl", 129, days=30, most=5)), 16)
        self.assertEqual(len(with_recent(entries, b"ghijkl", 130, days=30, most=5)), 8)

    def test_a_day_fits_for_every_clock(self) -> None:
        self.assertEqual([day_of(n) for n in (-5.0, 0, 86400, 1e15)], [0, 0, 1, 65535])
