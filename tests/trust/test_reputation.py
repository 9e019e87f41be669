"""What is thought of an origin: sums that fade."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust.reputation import NOTHING_KNOWN, Repute, read_repute
from tests.any_octets import any_octets

DAY = 86_400.0
sums = st.floats(0, 1e7)
times = st.floats(0, 4e9)


class Reputes(SynchronousTestCase):
    def test_after_each_half_life_half_is_left_and_in_the_end_nothing(self) -> None:
        standing = Repute(8.0, 4.0, 0.0)
        self.assertEqual([standing.now(n * DAY, DAY).bad for n in range(4)], [8.0, 4.0, 2.0, 1.0])
        self.assertEqual(standing.now(100 * DAY, DAY).seen, 0.0)
        self.assertAlmostEqual(standing.now(3 * DAY, DAY).badness, (1.0 + 0.5) / (1.5 + 1))

    def test_what_comes_later_weighs_more(self) -> None:
        standing = NOTHING_KNOWN
        for n in range(10):
            standing = standing.after(n * DAY, DAY, bad=1.0)
        for n in range(10, 20):
            standing = standing.after(n * DAY, DAY, good=1.0)
        self.assertLess(standing.badness, 0.2)

    def test_little_that_is_known_says_little(self) -> None:
        found = [Repute(n, 0, 0).badness for n in (0, 1, 10, 100)]
        self.assertEqual(found[0], 0.5)
        self.assertEqual(found, sorted(found))
        self.assertLess(found[-1], 1.0)

    @given(sums, sums, times, times, st.floats(-10, 10), st.floats(-10, 10))
    def test_sums_stay_sums_whatever_the_clock_does(
        self, bad: float, good: float, at: float, later: float, more: float, less: float
    ) -> None:
        found = read_repute(Repute(bad, good, at).octets(), later).after(later, DAY, bad=more, good=less)
        self.assertTrue(0 <= found.bad <= 1e6 and 0 <= found.good <= 1e6)
        self.assertTrue(0 <= found.badness <= 1)
        self.assertEqual(found.at, later)

    @given(any_octets(max_size=30) | st.sampled_from([b"[1]", b"[NaN, 1, 2]", b"[-1, 0, 0]", b"[1e400, 0, 0]", b'["a", 1, 2]', b"{}", b"null"]))
    def test_what_is_no_standing_says_nothing(self, octets: bytes) -> None:
        found = read_repute(octets, 5.0)
        self.assertTrue(found == NOTHING_KNOWN or found.seen >= 0)
        self.assertEqual(read_repute(None, 5.0), NOTHING_KNOWN)
