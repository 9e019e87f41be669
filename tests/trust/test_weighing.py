"""What was found, added up; and what would have changed the outcome."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.answers import Finding
from mailserver.trust.weighing import (
    IN_WORDS,
    SEVERITY,
    CountedVerdict,
    Thresholds,
    alternatives,
    thresholds_of,
    weigh,
    weights_of,
    worst_of,
)

SPF = Finding("spf", 2.5, "", {"result": "softfail"}, "spf")
DMARC = Finding("dmarc", 4.0, "", {"result": "fail"}, "dmarc")
LISTED = Finding("dnsbl", 1.5, "", {}, "zen")
KNOWN = Finding("list", -3.0, "", {}, "lists")
LEVELS = Thresholds(tag=3, junk=6, refuse=15)
numbers = st.integers(-100, 100)


class Weighing(SynchronousTestCase):
    def test_a_weight_of_filter_and_name_comes_before_one_of_the_name(self) -> None:
        weighed = weigh([SPF, DMARC, LISTED, LISTED], {"dnsbl": 10, "zen/dnsbl": 2, "spf": 0})
        self.assertEqual((weighed.total, weighed.parts), (10.0, (("zen/dnsbl", 6.0), ("dmarc/dmarc", 4.0))))

    def test_what_a_scorer_writes_down_is_read_again(self) -> None:
        properties = {"outcome": "junk", "tag": 3, "junk": 6.0, "refuse": 15.0, "weight spf/spf": 0.5, "of": "site"}
        self.assertEqual((thresholds_of(properties), weights_of(properties)), (LEVELS, {"spf/spf": 0.5}))

    def test_thresholds_rise_and_are_numbers(self) -> None:
        for sound in (LEVELS, Thresholds(), Thresholds(tag=-5, refuse=-5), Thresholds(junk=6, hold=6, defer=7)):
            self.assertEqual(sound.faults, "")
        for wrong in (Thresholds(tag=7, junk=6), Thresholds(hold=6, refuse=5)):
            self.assertEqual(wrong.faults, "tag, junk, hold, defer, refuse: each threshold is at least the one before")
        for wrong in (Thresholds(tag=math.nan), Thresholds(tag=1, refuse=math.inf), Thresholds(junk=-math.inf)):
            self.assertEqual(wrong.faults, "thresholds are finite numbers")

    def test_the_worst_outcome_wins(self) -> None:
        self.assertEqual(worst_of(["junk", "refuse", "defer"]), "refuse")
        self.assertEqual(worst_of([]), "")

    def test_fewer_points_and_more_points_are_told_with_what_they_lead_to(self) -> None:
        found = [SPF, DMARC]
        self.assertEqual(
            alternatives([], found, weigh(found, {}), LEVELS),
            [
                "more than 0.5 points less: tagged",
                "8.5 points more: refused",
                "dmarc=pass in place of fail (4): delivered",
                "spf=pass in place of softfail (2.5): tagged",
            ],
        )

    def test_what_speaks_for_a_message_changes_it_too(self) -> None:
        found = [DMARC, SPF, KNOWN]
        self.assertIn("without lists/list (-3): put into Junk", alternatives([], found, weigh(found, {}), LEVELS))

    def test_a_verdict_that_is_stricter_than_the_sum_hides_what_would_change_the_sum(self) -> None:
        found = [SPF, DMARC]
        said = [CountedVerdict("clamav", "refuse")]
        self.assertEqual(
            alternatives(said, found, weigh(found, {}), LEVELS), ["without the verdict of clamav: put into Junk"]
        )

    def test_where_authentication_failed_it_is_said_what_a_pass_would_have_meant_with_its_score_gone_too(self) -> None:
        said = [CountedVerdict("dmarc", "junk")]
        self.assertEqual(alternatives(said, [DMARC]), ["dmarc=pass in place of fail: delivered"])
        found = [DMARC, SPF]
        self.assertEqual(
            alternatives(said, found, weigh(found, {}), Thresholds(tag=2, hold=20, refuse=30)),
            ["dmarc=pass in place of fail: tagged", "13.5 points more: held"],
        )

    def test_of_two_who_say_the_same_neither_alone_would_have_changed_it(self) -> None:
        self.assertEqual(alternatives([CountedVerdict("clamav", "refuse"), CountedVerdict("rspamd", "refuse")]), [])
        self.assertEqual(alternatives([CountedVerdict("clamav", "refuse"), CountedVerdict("dmarc", "junk")]), ["without the verdict of clamav: put into Junk"])

    def test_nothing_is_said_of_what_was_delivered_and_far_from_everything(self) -> None:
        self.assertEqual(alternatives([], [], weigh([], {}), Thresholds()), [])

    @given(st.lists(st.tuples(st.sampled_from("abc"), numbers), max_size=6), st.lists(numbers, min_size=5, max_size=5, unique=True),
           st.lists(st.sampled_from(SEVERITY), max_size=3))  # fmt: skip
    def test_each_sentence_is_true_and_speaks_of_a_change(self, scores: list[tuple[str, int]], levels: list[int], said: list[str]) -> None:
        found = [Finding(name, float(score), source="f") for name, score in scores]
        thresholds = Thresholds(*map(float, sorted(levels)))
        weighed = weigh(found, {})
        others = [CountedVerdict(f"filter{n}", one) for n, one in enumerate(said)]
        now = worst_of([*said, thresholds.reached(weighed.total)])
        for sentence in alternatives(others, found, weighed, thresholds):
            what, _, then = sentence.rpartition(": ")
            total, kept = weighed.total, list(said)
            if what.startswith("more than"):
                total -= float(what.split()[2]) + 1e-6
            elif what.endswith("points more"):
                total += float(what.split()[0])
            elif what.startswith("without the verdict of filter"):
                kept.pop(int(what.removeprefix("without the verdict of filter")))
            else:
                total -= float(what.split("(")[1].rstrip(")"))
            becomes = worst_of([*kept, thresholds.reached(total)])
            self.assertNotEqual(becomes, now)
            self.assertEqual(IN_WORDS[becomes], then, (sentence, now))
