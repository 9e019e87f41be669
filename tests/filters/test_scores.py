"""The shipped scorer: sums of scores, thresholds, weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zope.interface import implementer

from mailserver.api import CannotDo, IComponentFactory, IContentFilter, Options
from mailserver.config import ConfigurationError
from mailserver.filters.scores import factory, read_thresholds
from mailserver.mail.answers import Defer, Finding, Pass, Quarantine, Refuse
from mailserver.testing import FilterCase, MailCase


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
        (found,) = verdict.findings
        self.assertEqual((found.name, found.score, found.evidence), ("score", 7.0, "some/b 6, some/a 1"))
        self.assertEqual(found.properties, {"outcome": "junk", "of": "site", "junk": 6.0, "refuse": 15.0})

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


class OfUsers(FilterCase):
    def scorer(self, **options: Any) -> Any:
        return self.build(factory, **options)

    def order(self, scorer: Any, name: str, **arguments: Any) -> Any:
        (command,) = [one for one in scorer.commands() if one.name == name]
        return self.answer(command.run(**arguments))

    def verdict(self, scorer: Any, to: str, score: float) -> Any:
        envelope = replace(self.envelope(), findings=(Finding("a", score, source="some"),))
        return self.answer(scorer.weigh(envelope, self.recipient(to)))

    def test_the_user_comes_before_the_domain_and_the_domain_before_the_site_threshold_by_threshold(self) -> None:
        scorer = self.scorer()
        self.order(scorer, "set", scope="@example.org", junk="4", refuse="off")
        self.order(scorer, "set", scope="Alice@Example.org", junk="2")
        for to, score, kind in (
            ("alice@example.org", 2, Quarantine), ("alice+shop@example.org", 2, Quarantine), ("bob@example.org", 3.9, Pass),
            ("bob@example.org", 4, Quarantine), ("alice@example.org", 99, Quarantine), ("carol@example.net", 4, Pass),
            ("carol@example.net", 15, Refuse),
        ):  # fmt: skip
            self.assertIs(type(self.verdict(scorer, to, score)), kind, (to, score))
        self.assertEqual(self.verdict(scorer, "alice@example.org", 3).findings[0].properties["of"], "alice@example.org")
        rows = {row["scope"]: (row["junk"], row["refuse"]) for row in self.order(scorer, "show")}
        self.assertEqual(rows, {"site": (6, 15), "@example.org": (4, None), "alice@example.org": (2, None)})

    def test_they_outlive_the_component_and_are_taken_away_again(self) -> None:
        self.order(self.scorer(), "set", scope="alice@example.org", junk="1")
        again = self.scorer()
        self.answer(again.start())
        self.assertIs(type(self.verdict(again, "alice@example.org", 1)), Quarantine)
        self.order(again, "set", scope="alice@example.org", junk="usual")
        self.assertIs(type(self.verdict(again, "alice@example.org", 1)), Pass)
        self.order(again, "set", scope="alice@example.org", junk="1")
        self.assertIn("cleared", self.order(again, "clear", scope="alice@example.org"))
        self.assertIn("nothing was set", self.order(again, "clear", scope="alice@example.org"))
        third = self.scorer()
        self.answer(third.start())
        self.assertEqual([row["scope"] for row in self.order(third, "show")], ["site"])

    def test_an_order_that_makes_no_sense_changes_nothing(self) -> None:
        scorer = self.scorer()
        for arguments in (
            {"scope": "alice@example.org"}, {"scope": "alice@example.org", "junk": "much"}, {"scope": "site", "junk": "3"},
            {"scope": "@", "junk": "3"}, {"scope": "alice@example.org", "junk": "nan"}, {"scope": "alice@example.org", "junk": "1e999"},
            {"scope": "alice@example.org", "junk": "16"}, {"scope": "alice@example.org", "tag": "7"},
        ):  # fmt: skip
            with self.assertRaises(CannotDo):
                self.order(scorer, "set", **arguments)
        self.assertEqual(len(self.order(scorer, "show")), 1)

    def test_a_record_that_is_none_is_told_of_and_does_nothing(self) -> None:
        for value in (b"x", b"[]", b'{"junk": "3"}', b'{"other": 3}', b'{"junk": true}', b"[" * 60_000):
            with self.assertRaises(ValueError):
                read_thresholds(value)
            self.answer(self.services.records.put("alice@example.org", value))
            scorer = self.scorer()
            self.answer(scorer.start())
            self.assertIs(type(self.verdict(scorer, "alice@example.org", 5)), Pass)

    def test_a_copy_is_tagged_from_the_lowest_threshold_on(self) -> None:
        scorer = self.scorer(tag=4)
        self.assertEqual(self.verdict(scorer, "alice@example.org", 3.9).findings[0].tags, ())
        for score, kind in ((4, Pass), (7, Quarantine)):
            verdict = self.verdict(scorer, "alice@example.org", score)
            self.assertIs(type(verdict), kind)
            fields = {one.name: one.value for one in verdict.findings[0].tags}
            self.assertEqual(fields["X-Spam-Status"], f"Yes, score={score} required=4 tests=some/a={score}")
            self.assertEqual((fields["X-Spam-Flag"], fields["X-Spam-Score"]), ("YES", str(score)))

    def test_from_hold_on_it_is_held_whatever_the_policy_says(self) -> None:
        scorer = self.scorer(hold=10)
        self.assertEqual([self.verdict(scorer, "alice@example.org", score).hold for score in (9, 10)], [False, True])

    def test_names_of_strangers_make_no_field_that_cannot_be(self) -> None:
        scorer = self.scorer()
        envelope = replace(self.envelope(), findings=tuple([Finding("ü\u202e" * 50, 9.0, source="x" * 100)] * 50))
        verdict = self.answer(scorer.weigh(envelope, self.recipient()))
        self.assertTrue(all(len(one.value) < 950 for one in verdict.findings[0].tags))


SPEAKS = Finding("spam", 7.0, "it is", source="words")


@implementer(IContentFilter)
class Words:
    async def judge_content(self, envelope: Any, content: Any) -> Any:
        return Pass(findings=(SPEAKS,))


@implementer(IComponentFactory)
class WordsFactory:
    name = "words"
    summary = "Finds something."
    api_version = "1.0"
    options = Options
    provides = IContentFilter

    def build(self, options: Any, services: Any) -> Words:
        return Words()


class OneMessage(MailCase):
    def test_has_for_each_user_the_outcome_of_his_own_thresholds(self) -> None:
        people = [f"{name}@example.org" for name in ("alice", "bob", "carol")]
        self.serve('[[filter]]\nuse = "words"\n\n[[filter]]\nuse = "scores"\njunk = 20\nrefuse = 30\n', WordsFactory())
        scores = self.component("scores")
        for who, levels in ((people[0], {"tag": "5"}), (people[1], {"junk": "7"}), (people[2], {"hold": "6", "junk": "5"})):
            self.answer(scores.set(who, **levels))
        self.assertEqual(self.send(recipients=people).code, 250)
        lines = {one.recipient.address.local: one.lines for one in self.taken[0].destinations}
        self.assertIn(b"X-Spam-Flag: YES", lines["alice"])
        self.assertIn(b"required=7", lines["bob"])
        self.assertEqual((len(self.mailbox(people[0])), len(self.mailbox(people[1], "Junk"))), (1, 1))
        self.assertEqual([self.mailbox(who) for who in people[1:]] + [self.mailbox(people[2], "Junk")], [[], [], []])
        (held,) = self.answer(self.services_for("scores").quarantine.held())
        self.assertEqual((held.recipient, held.held_by), (people[2], ("scores",)))

    def test_who_would_be_refused_by_his_own_has_it_held_while_another_takes_it_and_alone_refuses_it(self) -> None:
        self.serve('[[filter]]\nuse = "words"\n\n[[filter]]\nuse = "scores"\njunk = 20\nrefuse = 30\n', WordsFactory())
        self.answer(self.component("scores").set("alice@example.org", junk="2", refuse="3"))
        self.assertEqual(self.send(recipients=["alice@example.org", "bob@example.org"]).code, 250)
        self.assertEqual(len(self.mailbox("bob@example.org")), 1)
        self.assertEqual(self.send(recipients=["alice@example.org"]).code, 550)
