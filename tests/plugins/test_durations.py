"""How long the last calls took."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.durations import KEPT, Durations


class OfTheLast(SynchronousTestCase):
    def test_without_a_call_there_is_only_their_number(self) -> None:
        self.assertEqual(Durations().figures(), {"count": 0})

    def test_median_and_what_few_exceed(self) -> None:
        durations = Durations()
        for n in range(1, 101):
            durations.add(n / 1000)
        self.assertEqual(durations.figures(), {"count": 100, "median": 50.0, "p95": 95.0})

    def test_what_was_long_ago_is_forgotten_and_counted(self) -> None:
        durations = Durations()
        durations.add(3600.0)
        for _ in range(KEPT):
            durations.add(0.001)
        self.assertEqual(durations.figures(), {"count": KEPT + 1, "median": 1.0, "p95": 1.0})
