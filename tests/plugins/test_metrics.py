"""What components count: bounded in names and labels."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mailserver.plugins.metrics import NAMES_MOST, SERIES_MOST, Metrics


class Counting(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def test_counters_grow_gauges_are_set_histograms_have_count_and_mean(self) -> None:
        self.metrics.count("lookups", result="hit")
        self.metrics.count("lookups", 2, result="hit")
        self.metrics.count("lookups", result="miss")
        self.metrics.gauge("entries", 7)
        self.metrics.gauge("entries", 5)
        for seconds in (0.002, 0.004, 60.0):
            self.metrics.observe("took", seconds)
        self.assertEqual(
            {name: round(value, 3) for name, value in self.metrics.figures().items()},
            {'lookups{result="hit"}': 3, 'lookups{result="miss"}': 1, "entries": 5, "took.count": 3, "took.mean": 20.002},
        )
        buckets = next(one.buckets for one in self.metrics.series() if one.name == "took")
        self.assertEqual((buckets[1], buckets[-1], sum(buckets)), (2, 1, 3))

    def test_sums_stay_numbers_that_json_holds(self) -> None:
        for by in (1e308, 1e308):
            self.metrics.count("counted", by)
            self.metrics.observe("high", by)
            self.metrics.observe("low", -by)
        json.dumps(dict(self.metrics.figures()), allow_nan=False)

    def test_labels_from_outside_come_to_an_end(self) -> None:
        for n in range(10_000):
            self.metrics.count("mail", domain=f"d{n}.example")
        figures = self.metrics.figures()
        self.assertEqual(len(figures), SERIES_MOST + 1)
        self.assertEqual(figures['mail{domain="other"}'], 10_000 - SERIES_MOST)
        self.assertEqual(self.metrics.folded, 10_000 - SERIES_MOST)

    def test_so_do_names(self) -> None:
        for n in range(NAMES_MOST):
            self.metrics.count(f"n{n}")
        with self.assertRaisesRegex(ValueError, "at most"):
            self.metrics.count("one_more")

    def test_what_is_wrong_is_said_to_who_counts(self) -> None:
        self.metrics.count("lookups")
        for wrong in ("", "Upper", "with space", "x" * 65, "ünicode", "9"):
            with self.assertRaises(ValueError):
                self.metrics.count(wrong)
        for value in (float("nan"), float("inf"), -1):
            with self.assertRaises(ValueError):
                self.metrics.count("lookups", value)
            if value != -1:
                with self.assertRaises(ValueError):
                    self.metrics.gauge("entries", value)
                with self.assertRaises(ValueError):
                    self.metrics.observe("took", value)
        with self.assertRaises(ValueError):
            self.metrics.count("lookups", **{"Label!": "x"})
        with self.assertRaisesRegex(TypeError, "lookups is a counter"):
            self.metrics.gauge("lookups", 1)
        self.assertEqual(self.metrics.figures(), {"lookups": 1})

    def test_a_label_value_is_cut(self) -> None:
        self.metrics.count("lookups", kind="x" * 1000)
        self.assertEqual(list(self.metrics.figures()), ['lookups{kind="' + "x" * 64 + '"}'])

    def test_a_label_may_be_called_name_or_by(self) -> None:
        self.metrics.count("lookups", name="x")
        self.metrics.gauge("entries", 1, value="x")
        self.assertEqual(len(self.metrics.figures()), 2)
