"""The shipped scorer: sums of scores, thresholds, weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mailserver.config import ConfigurationError
from mailserver.filters.scores import factory
from mailserver.mail.answers import Defer, Finding, Pass, Quarantine, Refuse
from mailserver.testing import FilterCase


class ScoresTest(FilterCase):
    def weigh(self, *scores: tuple[str, float], **options: Any) -> Any:
        findings = tuple([Finding(name, score, source="some") for name, score in scores])
        scorer = self.build(factory, **options)
        return self.answer(scorer.weigh(replace(self.envelope(), findings=findings), self.recipient()))

    def test_each_threshold_has_its_verdict(self) -> None:
        options = {"junk": 5, "defer": 8, "refuse": 10}
        for score, verdict in ((4.9, Pass), (5, Quarantine), (7.9, Quarantine), (8, Defer), (10, Refuse), (1000, Refuse)):
            self.assertIs(type(self.weigh(("a", score), **options)), verdict, score)

    def test_scores_of_all_findings_add_up_and_what_speaks_for_it_counts_too(self) -> None:
        self.assertIs(type(self.weigh(("a", 4), ("b", 3))), Quarantine)
        self.assertIs(type(self.weigh(("a", 4), ("b", 3), ("c", -2))), Pass)

    def test_the_verdict_says_the_sum_and_what_made_it(self) -> None:
        verdict = self.weigh(("a", 1), ("b", 6), ("c", 0))
        self.assertEqual(verdict.why, "score 7: some/b 6, some/a 1")
        self.assertEqual(verdict.findings, (Finding("score", 7.0, "some/b 6, some/a 1"),))

    def test_where_nothing_was_found_nothing_is_said(self) -> None:
        self.assertEqual(self.weigh(), Pass())

    def test_weights_are_by_name_or_by_filter_and_name(self) -> None:
        self.assertIs(type(self.weigh(("a", 20), weights={"a": 0.1})), Pass)
        self.assertIs(type(self.weigh(("a", 20), weights={"a": 0.1, "some/a": 1})), Refuse)
        self.assertIs(type(self.weigh(("a", 20), weights={"other/a": 0})), Refuse)

    def test_an_accept_before_it_means_that_nothing_is_weighed(self) -> None:
        self.assertEqual(self.weigh(("a", 100), ("accepted", 0)), Pass())

    def test_scores_beyond_all_measure_are_weighed_too(self) -> None:
        huge = [("a", 1e308), ("b", -1e308)] * 30
        self.assertIs(type(self.weigh(*huge, ("c", 1.0))), Pass)
        self.assertIs(type(self.weigh(*huge, ("c", 1e308), weights={"c": 1e308})), Refuse)

    def test_a_threshold_that_is_taken_away_has_no_verdict(self) -> None:
        self.assertIs(type(self.weigh(("a", 100), junk=5, refuse=1000)), Quarantine)

    def test_thresholds_that_make_no_sense_are_refused(self) -> None:
        for options in ({"junk": 20, "refuse": 10}, {"junk": float("inf")}, {"junk": 5, "defer": 3}, {"weights": {"a": "x"}}):
            with self.assertRaises(ConfigurationError):
                self.build(factory, **options)
