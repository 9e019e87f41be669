"""What may be told once in a while."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.rarely import KINDS, Rarely


class Once(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.rarely = Rarely(60.0, seconds=lambda: self.now)

    def test_each_kind_is_told_once_in_its_time_with_how_often_it_was_not(self) -> None:
        self.assertEqual([self.rarely.held_back("a") for _ in range(3)], [0, None, None])
        self.assertTrue(self.rarely.may("b"))
        self.now += 59
        self.assertFalse(self.rarely.may("a"))
        self.now += 1
        self.assertEqual([self.rarely.held_back("a") for _ in range(2)], [3, None])
        self.now += 60
        self.assertEqual(self.rarely.held_back("a"), 1)

    def test_a_clock_that_was_set_back_silences_nobody(self) -> None:
        self.rarely.may("a")
        self.now -= 500
        self.assertTrue(self.rarely.may("a"))

    def test_what_is_remembered_is_bounded_and_what_was_asked_last_stays(self) -> None:
        self.rarely.may("often")
        for n in range(2 * KINDS):
            self.rarely.may(n)
            self.assertFalse(self.rarely.may("often"))
        self.assertLessEqual(len(self.rarely._told), KINDS)
