"""Counting failed logins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.authentication.lockout.counting import DAY_SECONDS, NO_FAILURES, Guess, LockoutRules, Tally
from tests.any_octets import any_octets

RULES = LockoutRules()
T = 1_800_000_000.0


def guess(at: float, password: int = 0, source: int = 0) -> Guess:
    return Guess(at, source.to_bytes(8, "big"), password.to_bytes(8, "big"))


GUESSES = st.builds(guess, st.floats(0, 1e10), st.integers(0, 50), st.integers(0, 3))


def after(tally: Tally, *guesses: Guess, limit: int = 3) -> Tally:
    for one in guesses:
        tally = tally.after(one, limit=limit, rules=RULES)
    return tally


class Counting(SynchronousTestCase):
    def test_the_limits_failure_within_the_window_locks(self) -> None:
        two = after(NO_FAILURES, guess(T, 1), guess(T + 1, 2))
        self.assertFalse(two.is_locked(T + 1))
        three = after(two, guess(T + 2, 3))
        self.assertTrue(three.is_locked(T + 2))
        self.assertEqual((three.locked_until, three.lockouts), (T + 2 + 900, 1))
        self.assertFalse(three.is_locked(T + 902))

    def test_a_failure_counts_for_the_window_only(self) -> None:
        late = after(NO_FAILURES, guess(T, 1), guess(T + 1, 2), guess(T + 3600, 3))
        self.assertFalse(late.is_locked(T + 3600))
        self.assertEqual(late.counted(T + 3600, 3600), 2)

    def test_the_same_password_again_is_one_failure(self) -> None:
        same = after(NO_FAILURES, *[guess(T + n, 7) for n in range(100)])
        self.assertEqual((same.counted(T + 99, 3600), same.lockouts), (1, 0))

    def test_each_further_lockout_within_a_day_lasts_twice_as_long_up_to_a_day(self) -> None:
        tally, now, lasted = NO_FAILURES, T, []
        for _ in range(10):
            tally = after(tally, *[guess(now, n) for n in range(3)])
            lasted.append(tally.locked_until - now)
            now = tally.locked_until + 60
        self.assertEqual(lasted[:4], [900, 1800, 3600, 7200])
        self.assertEqual(lasted[5:8], [28800, 57600, 86400])

    def test_a_day_after_the_end_of_the_last_lockout_they_are_short_again(self) -> None:
        tally = after(NO_FAILURES, *[guess(T, n) for n in range(6)])
        self.assertEqual(tally.lockouts, 2)
        later = tally.locked_until + DAY_SECONDS
        self.assertEqual(after(tally, *[guess(later, n) for n in range(3)]).locked_until, later + 900)

    def test_guesses_that_were_under_way_when_it_locked_make_the_next_lockout(self) -> None:
        tally = after(NO_FAILURES, *[guess(T, n) for n in range(9)])
        self.assertEqual((tally.lockouts, tally.locked_until), (3, T + 3600))

    def test_a_source_is_taken_back_and_a_lockout_stays(self) -> None:
        tally = after(NO_FAILURES, *[guess(T, n, source=n % 2) for n in range(5)], limit=4)
        less = tally.without(lambda one: one.source == bytes(8))
        self.assertEqual((less.guesses, less.locked_until, less.lockouts), ((), T + 900, 1))
        self.assertIs(less.without(lambda one: True), less)

    def test_the_answer_waits_twice_as_long_with_each_further_failure_up_to_5_seconds(self) -> None:
        self.assertEqual([RULES.answer_seconds(n) for n in (1, 2, 3, 4, 5, 6, 1000)], [1, 2, 4, 5, 5, 5, 5])
        self.assertEqual([LockoutRules(delay_seconds=0).answer_seconds(n) for n in (1, 50)], [0, 0])
        self.assertEqual([LockoutRules(delay_seconds=20).answer_seconds(n) for n in (1, 50)], [5, 5])

    def test_it_is_remembered_as_long_as_it_can_matter(self) -> None:
        self.assertEqual(NO_FAILURES.lifetime_seconds(T, 3600), 0)
        self.assertEqual(after(NO_FAILURES, guess(T, 1)).lifetime_seconds(T + 100, 3600), 3500)
        locked = after(NO_FAILURES, *[guess(T, n) for n in range(3)])
        self.assertEqual(locked.lifetime_seconds(T, 3600), 900 + DAY_SECONDS)

    @given(st.builds(Tally, st.lists(GUESSES, max_size=100).map(tuple), st.floats(0, 1e10), st.integers(0, 255)))
    def test_what_is_encoded_is_decoded(self, tally: Tally) -> None:
        self.assertEqual(Tally.decode(tally.encode()), tally)

    @given(any_octets(max_size=100))
    def test_other_octets_are_a_tally_or_a_value_error(self, octets: bytes) -> None:
        try:
            self.assertIsInstance(Tally.decode(octets), Tally)
        except ValueError:
            pass

    @given(st.lists(GUESSES, max_size=200), st.integers(1, 20))
    def test_no_more_guesses_are_kept_than_lock(self, guesses: list[Guess], limit: int) -> None:
        tally = NO_FAILURES
        for one in guesses:
            tally = after(tally, one, limit=limit)
            self.assertLess(len(tally.guesses), limit)
