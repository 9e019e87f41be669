"""What a filter has found: checked when it is read, seen by those who are asked later, and on the road."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IContentFilter, IPeerFilter, IRecipientFilter, ISenderFilter
from mailserver.mail.added_header import AddHeader
from mailserver.mail.address import Address
from mailserver.mail.answers import (
    Accept,
    Defer,
    Discard,
    Disconnect,
    Finding,
    Pass,
    Quarantine,
    Refuse,
    Signal,
)
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient
from mailserver.mail.filter_notes import FilterNotes
from mailserver.receive import verdicts
from mailserver.receive.filter_stage import _with_findings
from mailserver.receive.judgement import FilterAnswer, Judgement, note_answers, with_worse
from mailserver.receive.judging import PASSED, BoundFilter, Judging
from mailserver.receive.verdicts import FINDINGS_MOST, PROPERTIES_MOST, read_findings

BOB = Recipient(Address("bob", "example.org"))
CONTENT = Content.of(b"Subject: hello\r\n\r\nworld\r\n")
VERDICTS = (Pass, Quarantine, Defer, Refuse, Accept, Discard, Disconnect)


class Text(str):
    """Of a derived class."""


class Number(int):
    """Of a derived class."""


@implementer(IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter)
class Says:
    """Answers the same at each stage, and keeps what it was shown."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[Any] = []

    async def judge_peer(self, peer: Peer) -> Any:
        self.seen.append(peer)
        return self.answer

    async def judge_sender(self, envelope: Envelope) -> Any:
        self.seen.append(envelope)
        return self.answer

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Any:
        return self.answer

    async def judge_content(self, envelope: Envelope, content: Content) -> Any:
        self.seen.append(envelope)
        return self.answer


class FindingsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.peer = Peer("192.0.2.1", 40000, "mx")
        self.envelope = Envelope("0" * 16, self.peer, Address("alice", "example.net"), (BOB,), 0.0)

    def judging(self, *filters: Any, **bound: Any) -> Judging:
        made = [
            one if isinstance(one, BoundFilter) else BoundFilter(f"filter{n}", Says(one), **bound) for n, one in enumerate(filters)
        ]
        return Judging(made, clock=Clock())

    def judge(self, *filters: Any, **bound: Any) -> Judgement:
        judgement = self.judging(*filters, **bound).peer(self.peer)
        assert isinstance(judgement, Judgement)
        return judgement


class Reading(FindingsCase):
    def test_every_verdict_may_carry_findings_and_the_core_says_whose(self) -> None:
        finding = Finding("spf", 2, "fails", {"result": "fail"}, "somebody else")
        for kind in VERDICTS:
            if kind is Discard:
                continue  # not of a peer
            answer: Any = kind(findings=(finding,)) if kind is Pass else kind("why", findings=(finding,))
            judgement = self.judge(answer)
            self.assertEqual(judgement.findings[-1:], (Finding("spf", 2.0, "fails", {"result": "fail"}, "filter0"),))
            self.assertIs(type(judgement.verdict), kind)
            self.assertEqual(judgement.verdict.findings, ())  # they stand once

    def test_a_signal_is_a_finding(self) -> None:
        judgement = self.judge(Signal("seen", 1.5, "there", findings=(Finding("more"),)))
        self.assertEqual(
            judgement.findings, (Finding("seen", 1.5, "there", source="filter0"), Finding("more", source="filter0"))
        )
        self.assertEqual(judgement.score, 1.5)

    def test_a_property_is_a_text_a_number_a_truth_or_nothing(self) -> None:
        facts: Any = {"text": "a", "count": 3, "least": -(2**63) + 1, "rate": 0.5, "is": True, "none": None}
        [finding] = self.judge(Pass(findings=(Finding("spf", 1.0, "", facts),))).findings
        self.assertEqual(finding.properties, facts)
        self.assertEqual([type(value) for value in finding.properties.values()], [type(value) for value in facts.values()])

    def test_what_is_no_finding_is_the_filters_failure(self) -> None:
        wrong: list[Any] = [
            None,
            "spf",
            7,
            Finding("spf"),
            {"spf": 1},
            (None,),
            ("spf",),
            (Finding,),
            (Finding(None),),  # type: ignore[arg-type]
            (Finding(""),),
            (Finding("spf", float("nan")),),
            (Finding("spf", float("inf")),),
            (Finding("spf", 10**400),),
            (Finding("spf", "2"),),  # type: ignore[arg-type]
            (Finding("spf", 1.0, "", [1]),),  # type: ignore[arg-type]
            (Finding("spf", 1.0, "", {1: 2}),),  # type: ignore[dict-item]
            (Finding("spf", 1.0, "", {"a": object()}),),  # type: ignore[dict-item]
            (Finding("spf", 1.0, "", {"a": 2**80}),),
            (Finding("spf", 1.0, "", {"a": float("nan")}),),
            (Finding("spf", 1.0, "", {str(n): n for n in range(PROPERTIES_MOST + 1)}),),
            (Finding("spf"),) * (FINDINGS_MOST + 1),
        ]
        for findings in wrong:
            for answer in (Pass(findings=findings), Refuse("no", findings=findings), Signal("s", 1.0, "w", findings=findings)):
                judgement = self.judge(answer)
                self.assertIsInstance(judgement.verdict, Defer, findings)
                self.assertNotEqual(judgement.answers[0].error, "")
                self.assertEqual(judgement.findings, ())

    def test_words_are_bounded_and_hold_no_control_characters(self) -> None:
        words = "a\r\nX-Evil: 1\x1b[31m\udcff\u202e" + "x" * 20_000_000
        for answer in (Refuse(words), Refuse("no", findings=(Finding(words, 1.0, words, {words: words}),))):
            judgement = self.judge(answer)
            self.assertIsInstance(judgement.verdict, Refuse)
            texts = [judgement.verdict.why]  # type: ignore[union-attr]
            for finding in judgement.findings:
                texts += [finding.name, finding.evidence, *finding.properties, *map(str, finding.properties.values())]
            for text in texts:
                self.assertLessEqual(len(text.encode("utf-8")), 1000)
                self.assertTrue(text.isprintable(), text)

    @given(st.from_type(object) | st.lists(st.builds(Finding, st.text(), st.floats(), st.text())).map(tuple))
    def test_whatever_stands_for_findings_nothing_is_raised(self, findings: Any) -> None:
        self.peer = Peer("192.0.2.1", 40000, "mx")
        judgement = self.judge(Quarantine("odd", findings=findings))
        self.assertIsInstance(judgement.verdict, Quarantine | Defer)

    def test_the_usual_one_is_read_as_each_of_its_parts_would_be(self) -> None:
        texts = ["a", "", "a" * 100, "a" * 101, "a" * 1000, "a" * 1001, "ä", "\x7f", "\u202e", "\udcff", Text("a"), 1, None]
        facts = [*texts, True, Number(1), 2**63 - 1, 2**63, -(2**63), 0.5, float("inf"), float("nan"), [1]]
        findings: list[Any] = [
            *[Finding(text) for text in texts],
            *[Finding("spf", 1.0, text) for text in texts],
            *[Finding("spf", score) for score in facts],
            *[Finding("spf", 1.0, "fails", {text: 1, "a": "b"}) for text in texts],
            *[Finding("spf", 1.0, "fails", {"fact": fact, "result": "fail"}) for fact in facts],
            *[Finding("spf", 1.0, "fails", {}, "", tags) for tags in ((), (AddHeader("X", "y"),), [], None)],
            Finding("spf", 1.0, "fails", {str(n): "a" * 900 for n in range(PROPERTIES_MOST)}),
            Finding("spf", 1.0, "fails", FilterNotes()),
        ]

        def read(finding: Finding) -> Any:
            try:
                [found] = read_findings(Pass(findings=(finding,)), "spf")
            except (TypeError, ValueError, OverflowError) as error:
                return type(error)
            if finding.properties:
                self.assertIsNot(found.properties, finding.properties)  # the filter may go on to change its own
            return repr(found), type(found.score), [type(value) for value in found.properties.values()]

        for finding in findings:
            quickly = read(finding)
            with patch.object(verdicts, "_plain", lambda finding, source: None):
                self.assertEqual(quickly, read(finding), finding)

    def test_an_enhanced_code_of_a_deferral_is_checked_when_it_is_made(self) -> None:
        self.assertEqual(self.judge(Defer("full", "4.2.2")).verdict, Defer("full", "4.2.2"))
        for code in ("5.7.1", "4.7", "4.7.1\r\n", ""):
            with self.assertRaises(ValueError):
                Defer("later", code)


class Stages(FindingsCase):
    def test_disconnect_is_for_peers_and_senders(self) -> None:
        judging = self.judging(Disconnect("enough"))
        self.assertIsInstance(judging.peer(self.peer).verdict, Disconnect)  # type: ignore[union-attr]
        self.assertIsInstance(judging.sender(self.envelope).verdict, Disconnect)  # type: ignore[union-attr]
        for judgement in (judging.recipient(self.envelope, BOB), judging.content(self.envelope, CONTENT)):
            self.assertIsInstance(judgement.verdict, Defer)  # type: ignore[union-attr]
            self.assertIn("Disconnect", judgement.answers[0].error)  # type: ignore[union-attr]

    def test_discard_is_for_all_but_peers(self) -> None:
        judging = self.judging(Discard("virus"))
        self.assertIsInstance(judging.peer(self.peer).verdict, Defer)  # type: ignore[union-attr]
        for judgement in (
            judging.sender(self.envelope),
            judging.recipient(self.envelope, BOB),
            judging.content(self.envelope, CONTENT),
        ):
            self.assertEqual(judgement.discard, "virus")  # type: ignore[union-attr]

    def test_the_worst_verdict_wins(self) -> None:
        ascending = [Quarantine("q"), Defer("d"), Discard("x"), Refuse("r"), Disconnect("c")]
        for n in range(1, len(ascending)):
            for mild in ascending[:n]:
                for both in ((ascending[n], mild), (mild, ascending[n])):
                    self.assertIs(self.judging(*both).sender(self.envelope).verdict, ascending[n])  # type: ignore[union-attr]


class Notes(FindingsCase):
    def test_they_stand_under_the_filters_name_for_the_connection(self) -> None:
        self.judge(Pass(notes={"seen": 1}), Refuse("no", notes={"seen": 2}))
        self.judge(Pass(notes={"more": [3]}))
        self.assertEqual(dict(self.peer.notes["filter0"]), {"seen": 1, "more": [3]})
        self.assertEqual(dict(self.peer.notes["filter1"]), {"seen": 2})

    def test_at_the_stages_of_an_envelope_they_go_to_its_peer(self) -> None:
        self.judging(Pass(notes={"seen": 1})).sender(self.envelope)
        self.assertEqual(dict(self.peer.notes["filter0"]), {"seen": 1})

    def test_what_are_no_notes_is_the_filters_failure(self) -> None:
        for notes in (None, "seen", [1], {1: 2}, {"": 1}, {str(n): n for n in range(1001)}):
            self.assertIsInstance(self.judge(Pass(notes=notes)).verdict, Defer)  # type: ignore[arg-type]
            self.assertEqual(dict(self.peer.notes), {})


class Travelling(FindingsCase):
    def test_nothing_else_of_an_envelope_changes_with_what_is_found(self) -> None:
        parameters = MailParameters(size=7)
        envelope = Envelope("4X", Peer("192.0.2.1", 1, "mx"), None, (BOB,), 1.5, parameters, (Finding("a"),), sent_on=True)
        found = _with_findings(envelope, (Finding("b"),))
        for one in fields(Envelope):
            if one.name != "findings":
                self.assertIs(getattr(found, one.name), getattr(envelope, one.name))
        self.assertEqual(found.findings, (Finding("a"), Finding("b")))

    def test_a_later_group_sees_what_was_found_and_the_same_group_does_not(self) -> None:
        first, beside, later = Says(Signal("odd", 1.0, "x")), Says(Pass()), Says(Pass())
        judging = Judging(
            [BoundFilter("first", first), BoundFilter("beside", beside), BoundFilter("later", later, level=1)], clock=Clock()
        )
        judging.content(self.envelope, CONTENT)
        judging.peer(self.peer)
        self.assertEqual([one.findings for one in beside.seen], [(), ()])
        found = (Finding("odd", 1.0, "x", source="first"),)
        self.assertEqual([one.findings for one in later.seen], [found, found])
        self.assertIs(later.seen[1].notes, self.peer.notes)

    def test_of_one_peer_judged_again_the_worse_counts_once(self) -> None:
        mild, bad, other = Finding("dnsl", 1.0, source="a"), Finding("dnsl", 3.0, source="a"), Finding("dnsl", 2.0, source="b")
        self.assertEqual(with_worse((mild,), (bad, other)), (bad, other))
        self.assertEqual(with_worse((bad, other), (mild,)), (bad, other))

    def test_the_road_has_them_with_name_and_score(self) -> None:
        steps: list[dict[str, Any]] = []
        judgement = self.judge(
            BoundFilter("a", Says(Pass(findings=(Finding("spf", 2.5, "fails"), Finding("ptr", -1))))),
            BoundFilter("b", Says(Refuse("no")), shadow=True),
            BoundFilter("c", Says(Pass())),
            BoundFilter("d", Says(Pass()), log_passes=True),
        )
        note_answers(lambda id, step, **fields: steps.append({"id": id, "step": step, **fields}), "1", judgement)
        self.assertEqual([step["filter"] for step in steps], ["a", "b", "d"])
        self.assertEqual(steps[0]["findings"], ["spf 2.5: fails", "ptr -1"])
        self.assertIs(steps[1]["shadow"], True)
        self.assertNotIn("shadow", steps[0])

    def test_a_filter_in_the_shadow_is_asked_and_not_obeyed(self) -> None:
        for verdict in (Refuse("no"), Accept("yes"), Disconnect("go"), Signal("odd", 5.0, "x"), None):
            other = Says(Quarantine("odd"))
            judgement = self.judge(BoundFilter("shadow", Says(verdict), shadow=True), BoundFilter("other", other))
            self.assertEqual(judgement.verdict, Quarantine("odd"))
            self.assertEqual(judgement.findings, ())
            self.assertEqual(len(judgement.answers), 2)

    def test_where_nobody_has_anything_to_say_there_is_a_constant(self) -> None:
        self.assertIs(self.judge(Pass(), Pass()), PASSED)

    def test_an_answer_in_the_shadow_has_its_place_in_the_answers(self) -> None:
        judgement = self.judge(BoundFilter("s", Says(None), shadow=True))
        answer = judgement.answers[0]
        self.assertIsInstance(answer, FilterAnswer)
        self.assertTrue(answer.is_shadow)
        self.assertIsInstance(judgement.verdict, Pass)
