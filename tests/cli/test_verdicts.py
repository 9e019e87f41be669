"""``mailserver explain``: what was found of a message, how it was weighed, and what would have changed the outcome."""

from __future__ import annotations

import json
from typing import Any

from zope.interface import implementer

from mailserver.api import (
    Accept,
    Defer,
    Finding,
    IComponentFactory,
    IContentFilter,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    Options,
    Pass,
    Quarantine,
    Refuse,
)
from mailserver.cli.verdicts import as_it_went, explained, held_in, in_words
from mailserver.observe.judged import FACTS, about, filter_steps, recipients_of
from mailserver.observe.redaction import Redaction
from mailserver.observe.road_table import format_road
from mailserver.observe.roads import Step
from mailserver.observe.steps import Steps
from mailserver.testing import MailCase

SAYS: dict[str, Any] = {}


class SaysOptions(Options):
    """Nothing."""


@implementer(IPeerFilter, IRecipientFilter, IContentFilter, IRecipientContentFilter)
class Says:
    """Answers what the test wants, by its name and the stage."""

    def __init__(self, name: str) -> None:
        self.name = name

    def says(self, stage: str, recipient: Any = None) -> Any:
        whom = "" if recipient is None else f" {recipient.address.local}"
        return SAYS.get(f"{self.name} {stage}{whom}", SAYS.get(f"{self.name} {stage}", Pass()))

    async def judge_peer(self, peer: Any) -> Any:
        return self.says("peer")

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Any:
        return self.says("recipient", recipient)

    async def judge_content(self, envelope: Any, content: Any) -> Any:
        return self.says("content")

    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
        return self.says("content_for", recipient)


@implementer(IComponentFactory)
class SaysFactory:
    name = "says"
    summary = "Says what the test wants."
    api_version = "1.0"
    options = SaysOptions
    provides = IContentFilter

    def build(self, options: Any, services: Any) -> Says:
        return Says(services.name)


FILTERS = "".join(f'[[filter]]\nuse = "says"\nname = "{name}"\n{more}\n' for name, more in (
    ("first", ""), ("second", 'after = ["first"]\n'), ("quiet", 'mode = "shadow"\n'),
))  # fmt: skip
SCORES = '[[filter]]\nuse = "scores"\ntag = 3\nweights = { "second/b" = 0.5 }\n'


class Explained(MailCase):
    def said(self, what: dict[str, Any], *recipients: str, **more: Any) -> list[Any]:
        """What is explained of a message, by recipient."""
        SAYS.clear()
        SAYS.update(what)
        self.serve(FILTERS + SCORES, SaysFactory())
        self.heard = self.send(recipients=recipients or ("alice@example.org",), **more)
        steps = [Step(one["time"], one["id"], one["step"], {k: v for k, v in one.items() if k not in ("time", "id", "step")})
                 for one in self.server.steps_seen]  # fmt: skip
        self.road_of = json.loads(json.dumps([[one.time, one.id, one.step, one.fields] for one in steps]))
        return explained([Step(*one) for one in self.road_of])

    def test_each_finding_has_its_weight_and_the_sum_its_thresholds_and_what_would_have_changed_it(self) -> None:
        a = Finding("a", 4.0, "it is odd", {"result": "x"})
        (one,) = self.said({"first content": Pass(findings=(a,)), "second content_for": Pass(findings=(Finding("b", 5.0),))})
        self.assertEqual((one.recipient, one.outcome, one.sum), ("alice@example.org", "junk", 6.5))
        self.assertEqual(one.changes, [
            "more than 0.5 points less: tagged", "8.5 points more: refused",
            "without first/a (4): delivered", "without second/b (2.5): tagged",
        ])  # fmt: skip
        text = "\n".join(in_words([one]))
        for words in ("for alice@example.org: put into Junk", "×0.5", "first/a", "it is odd", "tag 3, junk 6, refuse 15"):
            self.assertIn(words, text)
        found = one.as_json()["answers"][0]["findings"]
        self.assertEqual(found, [{"name": "a", "score": 4.0, "weight": 1.0, "evidence": "it is odd", "properties": {"result": "x"}}])
        json.dumps(one.as_json())

    def test_two_recipients_have_two_outcomes_and_who_has_the_same_one_section(self) -> None:
        said = self.said(
            {"first content_for alice": Quarantine("for her", hold=True)}, "alice@example.org", "bob@example.org", "carol@example.org"
        )
        self.assertEqual([(one.recipient[:5], one.outcome) for one in said], [("alice", "hold")])
        said = self.said(
            {"first content_for alice": Quarantine("no"), "first content": Pass(findings=(Finding("a", 1.0),))},
            "alice@example.org", "bob@example.org", "carol@example.org",
        )  # fmt: skip
        self.assertEqual([(one.recipient[:5], one.outcome) for one in said], [("alice", "junk"), ("bob@e", ""), ("carol", "")])
        self.assertIn("for bob@example.org, carol@example.org: delivered", in_words(said))

    def test_what_was_refused_is_explained_at_each_stage_and_the_id_is_in_the_reply(self) -> None:
        for what, code in (
            ({"first recipient": Refuse("not her")}, 550), ({"first content": Refuse("bad words")}, 550),
            ({"first content_for": Refuse("not for her")}, 550), ({"first content": Pass(findings=(Finding("a", 20.0),))}, 550),
            ({"second content": Defer("later")}, 450),
        ):  # fmt: skip
            (one,) = self.said(what)
            self.assertEqual((self.heard.code, one.outcome), (code, "refuse" if code == 550 else "defer"), what)
            (refused,) = self.steps("refused")
            self.assertIn(refused["id"], refused["reply"])
            self.assertTrue(one.changes, what)

    def test_who_was_refused_at_rcpt_has_nothing_to_do_with_what_came_later(self) -> None:
        what = {"first recipient alice": Refuse("not her"), "second content": Refuse("nobody")}
        said = self.said(what, "alice@example.org", "bob@example.org")
        self.assertEqual([(one.recipient, [it.filter for it in one.answers]) for one in said], [("alice@example.org", ["first"]), ("", ["second"])])

    def test_what_was_released_holds_it_no_more_and_who_did_it_is_said(self) -> None:
        what = {"first content_for alice": Quarantine("wait", hold=True), "second content": Quarantine("odd")}
        self.said(what, "alice@example.org", "bob@example.org")
        for holders, outcomes in ((["first"], ["junk", "junk"]), (None, ["", "junk"])):
            fields = {"by": "first: alice", "recipients": ["alice@example.org"], "holders": holders}
            steps = [*[Step(*one) for one in self.road_of], Step(self.clock.seconds() + 9, self.road_of[-1][1], "released", fields)]
            said = explained(steps)
            self.assertEqual([one.outcome for one in said], outcomes)
            self.assertIn("first (content_for): Quarantine: wait (released by first: alice)", "\n".join(in_words(said)))

    def test_what_does_not_count_is_shown_and_not_weighed(self) -> None:
        (one,) = self.said({"quiet content": Refuse("never"), "first content": Pass(findings=(Finding("a", 1.0),))})
        self.assertEqual((one.outcome, one.changes), ("", ["2 points more: tagged"]))
        self.assertIn("quiet (content): Refuse: never (does not count)", "\n".join(in_words([one])))

    def test_what_a_friend_has_taken_away_is_no_reason(self) -> None:
        (one,) = self.said({"first content": Quarantine("odd"), "second content": Accept("a friend")})
        self.assertEqual((one.outcome, [it.counts for it in one.answers]), ("", [False, True]))

    def test_a_peer_that_says_ehlo_again_counts_once_and_by_its_worse_answer(self) -> None:
        said = self.said({"first peer": Pass(findings=(Finding("a", 4.0),))})
        self.assertEqual([len(one.answers[0].findings) for one in said], [1])
        self.assertEqual(said[0].sum, 4.0)

    def test_the_road_s_table_and_the_log_do_not_say_it_twice(self) -> None:
        self.said({"first content": Pass(findings=(Finding("a", 1.0, "x", {"k": 1}),))})
        lines: list[bytes] = []
        steps = Steps(write=lines.append)
        (step,) = [one for one in self.road_of if one[2] == "filter" and one[3]["filter"] == "first"]
        steps.note("0" * 16, "filter", **step[3])
        steps.flush()
        self.assertIn(b"a 1: x", b"".join(lines))
        self.assertNotIn(b"facts", b"".join(lines))
        self.assertNotIn(FACTS, "\n".join(format_road([Step(*step)])))


class ReadBack(MailCase):
    def test_what_was_cut_or_redacted_is_read_as_far_as_it_goes(self) -> None:
        fields: dict[str, Any] = {"filter": "f", "stage": "content", "verdict": "Pass", "findings": ["a b 2.5: x: y", "c -1e-05", "zz"]}
        for facts in (None, ["{", '["a"]', "[[[["], ["…"], [1, None], '["a",1,{}]', ['["c",NaN,{}]'] * 3, ["[" * 900] * 3):
            (step,) = filter_steps([Step(0.0, "x", "filter", {**fields, "facts": facts})])
            self.assertEqual([(one.name, one.score, one.evidence) for one in step.findings], [("a b", 2.5, "x: y"), ("c", -1e-05, "")])

    def test_redacted_roads_are_explained(self) -> None:
        for how in ("domain", "hash", "none"):
            redaction = Redaction(how)  # type: ignore[arg-type]
            fields = {
                "filter": "f", "stage": "content_for", "verdict": "Quarantine", "why": "alice@example.org", "recipient": "alice@example.org",
                "findings": ["a 2: alice@example.org"], "facts": ['["a",2.0,{"of":"alice@example.org"}]'],
            }  # fmt: skip
            (one,) = explained([Step(0.0, "x", "filter", dict(redaction.fields(fields)))])
            self.assertEqual((one.outcome, one.answers[0].findings[0].score), ("junk", 2.0))
            self.assertNotIn("alice", "".join(in_words([one])))

    def test_a_road_without_filters_has_nothing_to_say(self) -> None:
        steps = [Step(0.0, "x", "accepted", {"recipients": ["alice@example.org", 3]})]
        self.assertEqual((explained(steps), recipients_of(steps), about([], "")), ([], {"alice@example.org": False}, []))

    def test_what_was_put_aside_and_held_is_not_said_to_be_in_junk(self) -> None:
        fields = {"filter": "f", "stage": "content_for", "verdict": "Quarantine", "why": "odd"}
        road = [Step(0.0, "x", "filter", {**fields, "recipient": f"{one}@example.org"}) for one in ("alice", "bob")]
        road += [
            Step(0.0, "x", "accepted", {"recipients": ["alice@example.org", "bob@example.org"]}),
            Step(0.0, "x", "held", {"recipients": ["alice@example.org"], "hold": "quarantined"}),
            Step(0.0, "x", "held", {"recipients": ["bob@example.org"], "hold": "refused"}),
            Step(0.0, "x", "held", {"recipients": None, "hold": "quarantined"}),
        ]
        found = as_it_went(explained(road), held_in(road))
        self.assertEqual([(one.recipient, one.outcome) for one in found], [("alice@example.org", "hold"), ("bob@example.org", "junk")])
        self.assertIn("for alice@example.org: held", in_words(found))
