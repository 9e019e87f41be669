"""The error budget: so many failures open the circuit, one trial that succeeds closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.budget import Budget


def budget(failures: int = 3) -> Budget:
    return Budget(failures=failures, window_seconds=60, pause_seconds=30)


def opened(at: float = 100.0) -> Budget:
    """One that three failures at this time have opened."""
    made = budget()
    made.failed(at)
    made.failed(at)
    made.failed(at)
    return made


class WhatOpensIt(SynchronousTestCase):
    def test_so_many_failures_within_the_window_open_it_and_only_the_last_one_says_so(self) -> None:
        made = budget()
        self.assertEqual([made.failed(at) for at in (0.0, 30.0, 59.0)], [False, False, True])
        self.assertTrue(made.is_open(59.0))

    def test_failures_that_are_further_apart_do_not(self) -> None:
        made = budget()
        self.assertEqual([made.failed(at * 30.0) for at in range(50)], [False] * 50)
        self.assertFalse(made.is_open(1500.0))

    def test_successes_between_them_change_nothing(self) -> None:
        made = budget()
        made.failed(0.0)
        made.failed(1.0)
        self.assertFalse(made.succeeded(2.0))
        self.assertTrue(made.failed(3.0))

    def test_a_single_failure_may_be_enough(self) -> None:
        self.assertTrue(budget(failures=1).failed(0.0))

    def test_a_budget_of_nothing_is_refused(self) -> None:
        for wrong in ({"failures": 0}, {"window_seconds": 0.0}, {"pause_seconds": -1.0}, {"pause_seconds": 0.0}):
            with self.assertRaises(ValueError):
                Budget(**{"failures": 1, "window_seconds": 1.0, "pause_seconds": 1.0, **wrong})  # type: ignore[arg-type]


class WhatClosesIt(SynchronousTestCase):
    def test_it_is_open_for_the_pause_and_then_for_all_but_one(self) -> None:
        made = opened(at=100.0)
        self.assertTrue(made.is_open(129.9))
        self.assertEqual([made.is_open(130.0) for _ in range(3)], [False, True, True])

    def test_a_trial_that_succeeds_closes_it_and_the_failures_before_it_are_forgotten(self) -> None:
        made = opened(at=100.0)
        made.is_open(130.0)
        self.assertTrue(made.succeeded(131.0))
        self.assertFalse(made.is_open(131.0))
        self.assertEqual([made.failed(132.0) for _ in range(3)], [False, False, True])

    def test_a_trial_that_fails_is_followed_by_another_pause(self) -> None:
        made = opened(at=100.0)
        made.is_open(130.0)
        self.assertFalse(made.failed(140.0))
        self.assertTrue(made.is_open(169.0))
        self.assertFalse(made.is_open(170.0))
        self.assertTrue(made.succeeded(171.0))

    def test_what_ended_after_the_trial_says_nothing_more(self) -> None:
        made = opened(at=100.0)
        self.assertFalse(made.is_closed)
        made.is_open(130.0)
        made.failed(140.0)
        self.assertFalse(made.succeeded(141.0))
        self.assertTrue(made.is_open(169.0))
        made.is_open(170.0)
        self.assertEqual([made.succeeded(171.0), made.succeeded(171.0)], [True, False])
        self.assertTrue(made.is_closed)
        self.assertTrue(budget().is_closed)

    def test_a_trial_that_is_never_heard_of_again_makes_room_for_another(self) -> None:
        made = opened(at=100.0)
        self.assertFalse(made.is_open(130.0))
        self.assertTrue(made.is_open(159.0))
        self.assertFalse(made.is_open(160.0))

    def test_what_began_before_it_opened_neither_closes_it_nor_prolongs_the_pause(self) -> None:
        made = opened(at=100.0)
        self.assertFalse(made.succeeded(101.0))
        self.assertFalse(made.failed(129.0))
        self.assertTrue(made.is_open(129.0))
        self.assertFalse(made.is_open(130.0))


class AClockThatIsSet(SynchronousTestCase):
    def test_set_back_the_pause_begins_anew_and_is_no_longer_than_before(self) -> None:
        made = opened(at=1_000_000.0)
        self.assertTrue(made.is_open(5.0))
        self.assertTrue(made.is_open(34.0))
        self.assertFalse(made.is_open(35.0))

    def test_set_back_between_failures_they_still_count_and_are_forgotten_after_the_window(self) -> None:
        made = budget()
        made.failed(1_000_000.0)
        made.failed(5.0)
        self.assertFalse(made.failed(70.0))
        self.assertTrue(made.failed(71.0) or made.failed(72.0))

    def test_set_forward_there_is_a_trial_at_once(self) -> None:
        made = opened(at=100.0)
        self.assertFalse(made.is_open(1_000_000.0))

    @given(some.lists(some.tuples(some.sampled_from(["open", "fail", "succeed"]), some.floats(-1e9, 1e9))))
    def test_whatever_the_clock_does_a_pause_and_a_second_later_somebody_is_asked(
        self, calls: list[tuple[str, float]]
    ) -> None:
        made = budget(failures=2)
        for what, now in calls:
            {"open": made.is_open, "fail": made.failed, "succeed": made.succeeded}[what](now)
        made.is_open(0.0)
        self.assertFalse(made.is_open(31.0) and made.is_open(62.0))


class WhatPeopleSee(SynchronousTestCase):
    def test_its_state_in_words_and_figures(self) -> None:
        made = budget()
        self.assertEqual(str(made.state(0.0)), "closed")
        made = opened(at=100.0)
        state = made.state(118.0)
        self.assertEqual((str(state), state.failures, state.opened), ("open for another 12 s", 3, 1))
        made.is_open(130.0)
        self.assertEqual(str(made.state(130.0)), "on trial")
        made.succeeded(131.0)
        self.assertEqual(str(made.state(131.0)), "closed")

    def test_to_look_at_it_takes_nobodys_trial_away(self) -> None:
        made = opened(at=100.0)
        made.state(130.0)
        self.assertFalse(made.is_open(130.0))
