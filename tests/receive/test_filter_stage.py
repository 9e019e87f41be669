"""Groups of filters: who is asked after whom, and what an Accept takes away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IPeerFilter, IRecipientContentFilter, IScorer
from mailserver.mail.address import Address
from mailserver.mail.answers import Accept, Defer, Disconnect, Finding, Pass, Quarantine, Refuse, Signal
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.plugins.budget import Budget, Budgets
from mailserver.receive.judgement import note_answers
from mailserver.receive.judging import PASSED, BoundFilter, Judging

PEER = Peer("192.0.2.1", 40000, "mx")
BOB, EVE = Recipient(Address("bob", "example.org")), Recipient(Address("eve", "example.org"))
ENVELOPE = Envelope("0" * 16, PEER, Address("alice", "example.net"), (BOB, EVE), 0.0)
CONTENT = Content.of(b"Subject: hello\r\n\r\nworld\r\n")


class GroupsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.waiting: dict[str, Deferred[Any]] = {}
        self.cancelled: list[str] = []

    def filter(self, name: str, answer: Any, **bound: Any) -> BoundFilter:
        """`answer` None: it waits."""
        case = self

        @implementer(IPeerFilter)
        class Says:
            def judge_peer(self, peer: Peer) -> Any:
                case.asked.append(name)
                if answer is None:
                    case.waiting[name] = Deferred(lambda _: case.cancelled.append(name))
                    return case.waiting[name]
                return case.answer(answer)

        return BoundFilter(name, Says(), **bound)

    async def answer(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def judge(self, *filters: BoundFilter) -> Any:
        return Judging(filters, clock=self.clock).peer(PEER)

    def verdict(self, *filters: BoundFilter) -> Any:
        return self.judge(*filters).verdict


class Groups(GroupsCase):
    def test_levels_come_first_and_within_a_level_the_cheap_before_the_costly(self) -> None:
        self.judge(
            self.filter("late", Pass(), level=1),
            self.filter("costly", Pass(), cost=10),
            self.filter("cheap", Pass(), cost=-1.5),
            self.filter("plain", Pass()),
        )
        self.assertEqual(self.asked, ["cheap", "plain", "costly", "late"])

    def test_once_a_group_has_refused_later_ones_are_not_asked(self) -> None:
        for verdict in (Refuse("no"), Disconnect("go")):
            self.asked.clear()
            later = self.filter("later", Pass(), level=1)
            self.assertIs(self.verdict(self.filter("a", verdict), self.filter("b", Pass()), later), verdict)
            self.assertEqual(self.asked, ["a", "b"])

    def test_after_a_deferral_or_a_quarantine_they_are(self) -> None:
        for verdict in (Defer("later"), Quarantine("odd")):
            self.assertEqual(self.verdict(self.filter("a", verdict), self.filter("b", Refuse("no"), level=1)), Refuse("no"))

    def test_a_group_waits_for_all_of_the_one_before(self) -> None:
        later = self.judge(
            self.filter("a", None), self.filter("b", None), self.filter("c", None, level=1), self.filter("d", Pass(), level=2)
        )
        self.waiting["a"].callback(Pass())
        self.assertEqual(self.asked, ["a", "b"])
        self.waiting["b"].callback(Signal("odd", 1.0, "x"))
        self.assertEqual(self.asked, ["a", "b", "c"])
        self.assertNoResult(later)
        self.waiting["c"].callback(Quarantine("q"))
        judgement = self.successResultOf(later)
        self.assertEqual(self.asked, ["a", "b", "c", "d"])
        self.assertEqual((judgement.verdict, judgement.score), (Quarantine("q"), 1.0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_refusal_that_was_waited_for_ends_it(self) -> None:
        later = self.judge(self.filter("a", None), self.filter("b", Pass(), level=1))
        self.waiting["a"].callback(Refuse("no"))
        self.assertEqual(self.successResultOf(later).verdict, Refuse("no"))
        self.assertEqual(self.asked, ["a"])

    def test_each_group_has_its_deadlines(self) -> None:
        later = self.judge(self.filter("a", None, deadline_seconds=3), self.filter("b", None, level=1, deadline_seconds=3))
        self.clock.advance(3)
        self.assertNoResult(later)
        self.clock.advance(3)
        self.assertEqual(len(self.successResultOf(later).answers), 2)

    def test_cancelling_ends_the_group_that_is_open(self) -> None:
        later = self.judge(self.filter("a", Pass()), self.filter("b", None, level=1), self.filter("c", Pass(), level=2))
        later.cancel()
        self.failureResultOf(later)
        self.assertEqual(self.cancelled, ["b"])
        self.assertEqual(self.asked, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_shadow_that_refuses_ends_nothing(self) -> None:
        self.judge(self.filter("a", Refuse("no"), shadow=True), self.filter("b", Pass(), level=1))
        self.assertEqual(self.asked, ["a", "b"])


class FindingsOnTheWay(GroupsCase):
    """Of those who pass at once, whatever comes after them."""

    def saw(self, name: str, answer: Any, **bound: Any) -> BoundFilter:
        """It writes down which findings it was shown."""
        made = self.filter(name, answer, **bound)
        case, inner = self, made.component.judge_peer  # type: ignore[attr-defined]

        def judge_peer(peer: Peer) -> Any:
            case.seen[name] = [one.name for one in peer.findings]
            return inner(peer)

        made.component.judge_peer = judge_peer  # type: ignore[attr-defined]
        return made

    def setUp(self) -> None:
        super().setUp()
        self.seen: dict[str, list[str]] = {}

    def test_a_later_group_sees_those_of_the_groups_before_it_but_no_shadows_and_none_of_its_own(self) -> None:
        for last in (Pass(), Refuse("no"), ValueError("x"), None):
            judgement = self.judge(
                self.filter("a", Pass(findings=(Finding("one", 1.0),))),
                self.filter("dark", Pass(findings=(Finding("dark", 1.0),)), shadow=True),
                self.saw("b", Pass(findings=(Finding("two", 1.0),)), level=1),
                self.saw("c", Pass(), level=1),
                self.saw("d", last, level=2),
            )
            self.assertEqual(self.seen, {"b": ["one"], "c": ["one"], "d": ["one", "two"]})
            if last is None:
                self.waiting["d"].callback(Refuse("no"))
                judgement = self.successResultOf(judgement)
            self.assertEqual([answer.filter for answer in judgement.answers][:3], ["a", "dark", "b"])
            self.assertEqual([one.name for one in judgement.findings], ["one", "two"])

    def test_what_was_said_stands_where_the_next_one_is_not_asked(self) -> None:
        budgets = Budgets(lambda: Budget(failures=1, window_seconds=60, pause_seconds=30))
        failing = self.filter("fails", ValueError("x"), budgets=budgets, level=1)
        said = [
            self.filter("a", Pass(findings=(Finding("one", 1.0),))),
            self.filter("b", Pass(findings=(Finding("two", 1.0),)), level=1, cost=-1),
        ]
        said.append(self.filter("c", Pass(findings=(Finding("three", 1.0),)), level=1))
        for _ in range(2):
            judgement = self.judge(*said, failing)
            self.assertEqual([answer.filter for answer in judgement.answers], ["a", "b", "c", "fails"])
            self.assertEqual([one.name for one in judgement.findings], ["one", "two", "three"])
        self.assertEqual(self.asked.count("fails"), 1)


class OnTheRoad(GroupsCase):
    def test_it_says_who_wants_the_message_held(self) -> None:
        written: list[dict[str, Any]] = []
        judgement = self.judge(self.filter("a", Quarantine("q", hold=True)), self.filter("b", Quarantine("q")))
        note_answers(lambda _id, _event, **fields: written.append(fields), "x", judgement)
        self.assertEqual([(one["filter"], one.get("hold")) for one in written], [("a", True), ("b", None)])


class WhatAnAcceptTakesAway(GroupsCase):
    def test_the_verdicts_of_its_group_and_of_those_before(self) -> None:
        self.assertEqual(
            self.verdict(
                self.filter("a", Defer("later")),
                self.filter("b", Quarantine("odd"), level=1),
                self.filter("c", Accept("listed"), level=1),
            ),
            Accept("listed"),
        )

    def test_later_ones_are_asked_and_count_unless_they_are_skippable(self) -> None:
        accept = self.filter("list", Accept("listed"))
        self.assertEqual(
            self.verdict(
                accept,
                self.filter("suspects", Refuse("spam"), level=1, skippable=True),
                self.filter("knows", Quarantine("odd"), level=1),
            ),
            Quarantine("odd"),
        )
        self.assertEqual(self.asked, ["list", "knows"])
        self.assertEqual(self.verdict(accept, self.filter("suspects", Refuse("x"), level=1, skippable=True)), Accept("listed"))

    def test_not_what_is_hard(self) -> None:
        for hard in (
            self.filter("virus", Refuse("virus"), hard=True),
            self.filter("virus", Refuse("virus"), hard=True, level=1),
        ):
            for order in ((hard, self.filter("list", Accept("x"))), (self.filter("list", Accept("x")), hard)):
                self.assertEqual(self.verdict(*order), Refuse("virus"))
        self.assertIsInstance(
            self.verdict(self.filter("virus", ValueError(), hard=True), self.filter("list", Accept("x"))), Defer
        )

    def test_who_is_hard_is_waited_for_and_others_are_not(self) -> None:
        later = self.judge(self.filter("a", None), self.filter("virus", None, hard=True), self.filter("list", Accept("x")))
        self.assertEqual(self.cancelled, ["a"])
        self.assertNoResult(later)
        self.waiting["virus"].callback(Pass())
        self.assertEqual(self.successResultOf(later).verdict, Accept("x"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_its_group_who_is_hard_is_asked_after_it_too(self) -> None:
        self.verdict(self.filter("list", Accept("x")), self.filter("b", Pass()), self.filter("virus", Pass(), hard=True))
        self.assertEqual(self.asked, ["list", "virus"])

    def test_it_leaves_a_finding_for_later_stages(self) -> None:
        judgement = self.judge(self.filter("list", Accept("listed")))
        self.assertEqual(judgement.findings, (Finding("accepted", 0.0, "listed", source="list"),))


class BesideOneThatHangs(GroupsCase):
    def test_normal_mail_is_judged_in_the_same_turn_as_ever(self) -> None:
        @implementer(IPeerFilter)
        class HangsForOne:
            async def judge_peer(self, peer: Peer) -> Any:
                return await Deferred() if peer.address == "192.0.2.66" else Pass()

        for _ in range(3):
            judging = Judging([BoundFilter("hangs", HangsForOne()), self.filter("other", Pass())], clock=self.clock)
            self.assertIs(judging.peer(PEER), PASSED)
            hanging = [judging.peer(replace(PEER, address="192.0.2.66")) for _ in range(100)]
            for _ in range(5):
                self.assertIs(judging.peer(PEER), PASSED)  # no Deferred, so no turn of the reactor
            self.clock.advance(10)
            self.assertIs(judging.peer(PEER), PASSED)
            self.assertEqual({type(self.successResultOf(one).verdict) for one in hanging}, {Defer})  # type: ignore[arg-type]
            self.assertIs(judging.peer(PEER), PASSED)


class ErrorBudgets(GroupsCase):
    def budget(self) -> Budgets:
        return Budgets(lambda: Budget(failures=2, window_seconds=60, pause_seconds=30))

    def test_after_so_many_failures_it_is_not_asked_and_on_error_holds(self) -> None:
        for on_error, verdict in (("defer", Defer), ("refuse", Refuse), ("skip", Pass)):
            self.asked.clear()
            broken = self.filter("broken", ValueError(), on_error=on_error, budgets=self.budget())
            for _ in range(4):
                self.assertIs(type(self.verdict(broken)), verdict)
            self.assertEqual(self.asked, ["broken", "broken"])
            self.assertIn("is not asked", self.judge(broken).answers[0].error)

    def test_one_trial_after_the_pause_closes_it_again(self) -> None:
        flaky = self.filter("flaky", None, budgets=self.budget())
        for _ in range(2):
            later = self.judge(flaky)
            self.waiting["flaky"].errback(ValueError())
            self.successResultOf(later)
        self.assertIsInstance(self.verdict(flaky), Defer)
        self.clock.advance(30)
        trial = self.judge(flaky)
        self.assertIsInstance(self.verdict(flaky), Defer)  # one call is the trial
        self.waiting["flaky"].callback(Pass())
        self.assertIsInstance(self.successResultOf(trial).verdict, Pass)
        again = self.judge(flaky)
        self.assertIsInstance(again, Deferred)
        again.addErrback(lambda _: None)
        again.cancel()

    def test_an_answer_that_is_none_and_silence_are_failures_too(self) -> None:
        budget = self.budget()
        self.judge(self.filter("wrong", "no verdict", budgets=budget))
        self.successResultOf(self.late(self.filter("late", None, budgets=budget, deadline_seconds=1)))
        self.assertTrue(budget.of("peer").is_open(self.clock.seconds()))

    def late(self, one: BoundFilter) -> Any:
        judgement = self.judge(one)
        self.clock.advance(1)
        return judgement

    def test_what_fails_at_one_stage_is_asked_at_the_others_and_their_answers_close_nothing(self) -> None:
        asked = self.asked

        @implementer(IPeerFilter, IRecipientContentFilter)
        class Half:
            async def judge_peer(self, peer: Any) -> Any:
                asked.append("peer")
                return Pass()

            async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
                asked.append("content")
                raise ValueError

        judging = Judging([BoundFilter("half", Half(), budgets=self.budget())], clock=self.clock)
        for _ in range(4):
            self.assertIsInstance(judging.peer(PEER).verdict, Pass)  # type: ignore[union-attr]
            self.assertIsInstance(judging.content_for(ENVELOPE, CONTENT, BOB).verdict, Defer)  # type: ignore[union-attr]
        self.assertEqual((asked.count("peer"), asked.count("content")), (4, 2))
        self.clock.advance(30)  # a trial is due, and an answer to another question is none
        judging.peer(PEER)
        judging.content_for(ENVELOPE, CONTENT, BOB)
        judging.content_for(ENVELOPE, CONTENT, BOB)
        self.assertEqual(asked.count("content"), 3)

    def test_a_verdict_is_no_failure(self) -> None:
        budget = self.budget()
        for _ in range(5):
            self.judge(self.filter("a", Refuse("no"), budgets=budget))
        self.assertEqual(budget.of("peer").state(0).failures, 0)


class Scorers(SynchronousTestCase):
    def test_they_are_asked_last_for_each_recipient_with_all_that_was_found(self) -> None:
        seen: list[tuple[Any, ...]] = []

        @implementer(IRecipientContentFilter)
        class Finds:
            async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Any:
                return Signal(f"for {recipient.address.local}", 1.0, "x")

        @implementer(IScorer)
        class Weighs:
            async def weigh(self, envelope: Envelope, recipient: Recipient) -> Any:
                seen.append((recipient.address.local, [one.name for one in envelope.findings]))
                return Quarantine("odd") if recipient is BOB else Pass()

        judging = Judging([BoundFilter("weighs", Weighs()), BoundFilter("finds", Finds(), level=5, cost=7)], clock=Clock())
        self.assertTrue(judging.asks("mx").content_for)
        self.assertTrue(Judging([BoundFilter("weighs", Weighs())], clock=Clock()).asks("mx").content_for)
        verdicts = [judging.content_for(ENVELOPE, CONTENT, one).verdict for one in (BOB, EVE)]  # type: ignore[union-attr]
        self.assertEqual(seen, [("bob", ["for bob"]), ("eve", ["for eve"])])
        self.assertEqual(verdicts, [Quarantine("odd"), Pass()])
