"""What a stage of filters decides, and that a broken filter decides nothing."""

from __future__ import annotations

import asyncio
import sys
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import (
    IContentFilter,
    IModifier,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    ISenderFilter,
)
from mailserver.mail.address import Address
from mailserver.mail.answers import Accept, Defer, Pass, Quarantine, Refuse, Signal
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.receive.judging import PASSED, BoundFilter, Judgement, Judging

PEER = Peer("192.0.2.1", 40000, "mx")
BOB = Recipient(Address("bob", "example.org"))
ENVELOPE = Envelope("0" * 16, PEER, Address("alice", "example.net"), (BOB,), 0.0)
CONTENT = Content.of(b"Subject: hello\r\n\r\nworld\r\n")


def decisive(judgement: Judgement) -> list[str]:
    """The filters whose verdict has won."""
    return [answer.filter for answer in judgement.answers if answer.verdict is judgement.verdict]


@implementer(IPeerFilter)
class Says:
    """Answers at once, and counts how often it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    async def judge_peer(self, peer: Peer) -> Any:
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@implementer(IPeerFilter)
class Waits:
    """Answers when its `answer` is fired."""

    def __init__(self, canceller: Any = None) -> None:
        self.cancelled = 0
        self.answer: Deferred[Any] = Deferred(canceller or self._cancel)

    def _cancel(self, _answer: object) -> None:
        self.cancelled += 1

    async def judge_peer(self, peer: Peer) -> Any:
        return await self.answer


@implementer(ISenderFilter, IRecipientFilter, IContentFilter, IRecipientContentFilter)
class Everywhere:
    """Serves four stages and writes down what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def judge_sender(self, envelope: Envelope) -> Any:
        self.calls.append(("sender", envelope))
        return Pass()

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Any:
        self.calls.append(("recipient", envelope, recipient))
        return Refuse("no such bob")

    async def judge_content(self, envelope: Envelope, content: Content) -> Any:
        self.calls.append(("content", envelope, content))
        return Quarantine("looks odd")

    async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Any:
        self.calls.append(("content_for", envelope, content, recipient))
        return Defer("not for bob now")


@implementer(IModifier)
class Edits:
    """Asks for the edits that it was made with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def edits(self, envelope: Envelope, content: Content) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


class JudgingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def judging(self, *components: Any, **bound: Any) -> Judging:
        return Judging(
            [BoundFilter(f"filter{n}", component, **bound) for n, component in enumerate(components)], clock=self.clock
        )

    def judge(self, *components: Any, **bound: Any) -> Judgement:
        """What filters that do not wait decide: the judgement itself, no Deferred."""
        judgement = self.judging(*components, **bound).peer(PEER)
        self.assertIsInstance(judgement, Judgement)
        return judgement  # type: ignore[return-value]

    def later(self, *components: Any, **bound: Any) -> Deferred[Judgement]:
        judgement = self.judging(*components, **bound).peer(PEER)
        self.assertIsInstance(judgement, Deferred)
        return judgement  # type: ignore[return-value]


class TheWorstWins(JudgingCase):
    def test_no_filter_passes_with_a_constant(self) -> None:
        self.assertIs(self.judge(), PASSED)

    def test_each_verdict_alone_is_the_judgement(self) -> None:
        for verdict in (Quarantine("q"), Defer("d"), Refuse("r"), Accept("a")):
            self.assertIs(self.judge(Says(Pass()), Says(verdict)).verdict, verdict)

    def test_refuse_beats_defer_beats_quarantine_beats_pass_in_any_order(self) -> None:
        ascending = [Pass(), Signal("s", 1.0, "w"), Quarantine("q"), Defer("d"), Refuse("r")]
        for n in range(2, len(ascending)):
            for worse, better in ((ascending[n], mild) for mild in ascending[:n]):
                self.assertIs(self.judge(Says(worse), Says(better)).verdict, worse)
                self.assertIs(self.judge(Says(better), Says(worse)).verdict, worse)

    def test_of_two_refusals_the_first_configured_is_decisive(self) -> None:
        judgement = self.judge(Says(Pass()), Says(Refuse("one")), Says(Refuse("two")))
        self.assertEqual(judgement.verdict, Refuse("one"))
        self.assertEqual(decisive(judgement), ["filter1"])

    def test_an_accept_outweighs_a_refusal_before_it(self) -> None:
        self.assertEqual(self.judge(Says(Refuse("r")), Says(Accept("listed"))).verdict, Accept("listed"))

    def test_after_an_accept_nobody_else_is_asked(self) -> None:
        never = Says(Refuse("r"))
        judgement = self.judge(Says(Accept("listed")), never)
        self.assertEqual(judgement.verdict, Accept("listed"))
        self.assertEqual(never.asked, 0)
        self.assertEqual(len(judgement.answers), 1)

    def test_an_accept_outweighs_a_filter_that_failed(self) -> None:
        self.assertEqual(self.judge(Says(ValueError()), Says(Accept("listed"))).verdict, Accept("listed"))

    def test_signals_pass_and_their_scores_add_up(self) -> None:
        judgement = self.judge(Says(Signal("a", 1.5, "x")), Says(Pass()), Says(Signal("b", 2, "y")))
        self.assertIsInstance(judgement.verdict, Pass)
        self.assertEqual(decisive(judgement), [])
        self.assertEqual([signal.name for signal in judgement.signals], ["a", "b"])
        self.assertEqual(judgement.score, 3.5)

    def test_every_answer_is_a_finding_with_its_time(self) -> None:
        waits = Waits()
        later = self.later(Says(Pass()), waits, log_passes=True)
        self.clock.advance(0.25)
        waits.answer.callback(Defer("d"))
        first, second = self.successResultOf(later).answers
        self.assertEqual((first.filter, first.stage, first.milliseconds), ("filter0", "peer", 0.0))
        self.assertEqual((second.filter, second.verdict, second.milliseconds), ("filter1", Defer("d"), 250.0))


class AFailureIsTheConfiguredAnswer(JudgingCase):
    def test_an_exception_defers_unless_configured(self) -> None:
        judgement = self.judge(Says(ValueError("broken\nbadly")))
        self.assertIsInstance(judgement.verdict, Defer)
        self.assertEqual(judgement.answers[0].error, "ValueError: broken\nbadly")

    def test_the_words_of_an_exception_do_not_stand_in_the_verdict(self) -> None:
        verdict = self.judge(Says(ValueError("secret"))).verdict
        self.assertNotIn("secret", verdict.why)  # type: ignore[union-attr]

    def test_skip_passes_and_keeps_the_error(self) -> None:
        judgement = self.judge(Says(ValueError("broken")), on_error="skip")
        self.assertIsInstance(judgement.verdict, Pass)
        self.assertEqual(judgement.answers[0].error, "ValueError: broken")

    def test_refuse_refuses(self) -> None:
        self.assertIsInstance(self.judge(Says(ValueError()), on_error="refuse").verdict, Refuse)

    def test_an_answer_that_is_no_verdict_is_a_failure(self) -> None:
        for answer in (
            None,
            True,
            "250 OK",
            Pass,
            [Refuse("r")],
            Signal("s", float("nan"), "w"),
            Signal("s", "9", "w"),
        ):  # type: ignore[arg-type]
            judgement = self.judge(Says(answer))
            self.assertIsInstance(judgement.verdict, Defer, repr(answer))
            self.assertNotEqual(judgement.answers[0].error, "")

    def test_a_verdict_of_a_derived_class_counts_as_the_one_it_was_derived_from(self) -> None:
        class NotWelcome(Refuse):
            pass

        class Wordless(Refuse):
            def __init__(self) -> None:  # nothing is set
                pass

        class Later(Defer):
            pass

        class Odd(Quarantine):
            pass

        class Friend(Accept):
            pass

        class Seen(Signal):
            pass

        class Nothing(Pass):
            pass

        for answer, verdict in (
            (NotWelcome("no", "5.7.27"), Refuse("no", "5.7.27")),
            (Wordless(), Refuse("")),
            (Later("busy"), Defer("busy")),
            (Odd("odd"), Quarantine("odd")),
            (Friend("friend"), Accept("friend")),
            (Nothing(), Pass()),
        ):
            judgement = self.judge(Says(answer), Says(Pass()), log_passes=True)
            self.assertEqual((judgement.verdict, type(judgement.verdict)), (verdict, type(verdict)))
            self.assertIs(type(judgement.answers[0].verdict), type(verdict))
        self.assertEqual(self.judge(Says(Seen("seen", True, "x"))).signals, (Signal("seen", 1.0, "x"),))
        self.assertEqual(self.judge(Says(Odd("odd")), Says(NotWelcome("no"))).verdict, Refuse("no"))

    def test_what_is_several_verdicts_at_once_counts_as_the_worst(self) -> None:
        class Both(Accept):
            @property  # type: ignore[misc]
            def __class__(self) -> Any:
                return Refuse

        self.assertIsInstance(self.judge(Says(Both("which?"))).verdict, Refuse)

    def test_words_of_any_type_do_not_change_what_a_verdict_is(self) -> None:
        for why in (None, 7, b"octets", ["list"], "\udcff", "x" * 100_000):
            for kind in (Refuse, Defer, Quarantine):
                verdict = self.judge(Says(kind(why))).verdict
                self.assertIsInstance(verdict, kind)
                self.assertLessEqual(len(verdict.why.encode("utf-8")), 1000)  # type: ignore[union-attr]

    def test_an_enhanced_code_that_is_none_does_not_undo_the_refusal(self) -> None:
        class Unchecked(Refuse):
            def __post_init__(self) -> None:
                pass

        for code in (None, "4.7.1", b"5.7.1"):
            self.assertEqual(self.judge(Says(Unchecked("no", code))).verdict, Refuse("no"))  # type: ignore[arg-type]

    def test_a_refusal_whose_words_or_code_cannot_be_had_is_still_one(self) -> None:
        class Secret(Refuse):
            def __init__(self) -> None:
                pass

            why = property(lambda self: 1 / 0)  # type: ignore[assignment]
            enhanced = property(lambda self: 1 / 0)  # type: ignore[assignment]

        self.assertEqual(self.judge(Says(Secret()), on_error="skip").verdict, Refuse(""))

    def test_an_answer_that_raises_when_it_is_looked_at_is_a_failure(self) -> None:
        class Trap:
            @property
            def why(self) -> str:
                raise RuntimeError("looked at")

        judgement = self.judge(Says(Trap()))
        self.assertIsInstance(judgement.verdict, Defer)
        self.assertIn("Trap", judgement.answers[0].error)

    def test_a_method_that_is_not_awaitable_is_a_failure(self) -> None:
        @implementer(IPeerFilter)
        class Forgot:
            def judge_peer(self, peer: Peer) -> Any:
                return Pass()

        judgement = self.judge(Forgot())
        self.assertIsInstance(judgement.verdict, Defer)
        self.assertIn("TypeError", judgement.answers[0].error)

    def test_sys_exit_and_asyncio_cancellation_are_failures(self) -> None:
        @implementer(IPeerFilter)
        class Leaves:
            async def judge_peer(self, peer: Peer) -> Any:
                sys.exit("goodbye")

        self.assertIsInstance(self.judge(Leaves()).verdict, Defer)
        self.assertIsInstance(self.judge(Says(asyncio.CancelledError())).verdict, Defer)

    def test_an_exception_that_cannot_print_itself_is_still_a_failure(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        self.assertIsInstance(self.judge(Says(Mute())).verdict, Defer)

    def test_the_error_text_is_bounded(self) -> None:
        self.assertLess(len(self.judge(Says(ValueError("x" * 100_000))).answers[0].error), 1000)

    def test_a_deferred_that_fails_or_has_been_cancelled_is_a_failure(self) -> None:
        for error in (ValueError("broken"), CancelledError()):
            waits = Waits()
            later = self.later(waits)
            waits.answer.errback(error)
            self.assertIsInstance(self.successResultOf(later).verdict, Defer)

    def test_one_failure_does_not_silence_the_others(self) -> None:
        judgement = self.judge(Says(ValueError()), Says(Refuse("r")))
        self.assertEqual(judgement.verdict, Refuse("r"))
        self.assertEqual(len(judgement.answers), 2)


class WaitingFilters(JudgingCase):
    def test_a_deferred_that_has_fired_costs_no_deferred(self) -> None:
        waits = Waits()
        waits.answer.callback(Refuse("r"))
        self.assertEqual(self.judge(waits).verdict, Refuse("r"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_filters_are_asked_side_by_side(self) -> None:
        first, second = Waits(), Waits()
        later = self.later(first, second, log_passes=True)
        second.answer.callback(Refuse("two"))
        self.assertNoResult(later)
        first.answer.callback(Pass())
        judgement = self.successResultOf(later)
        self.assertEqual(judgement.verdict, Refuse("two"))
        self.assertEqual([answer.filter for answer in judgement.answers], ["filter0", "filter1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_late_filter_counts_as_failed_and_is_cancelled(self) -> None:
        waits = Waits()
        later = self.later(waits, deadline_seconds=3)
        self.clock.advance(2.9)
        self.assertNoResult(later)
        self.clock.advance(0.2)
        judgement = self.successResultOf(later)
        self.assertIsInstance(judgement.verdict, Defer)
        self.assertIn("no answer within 3 s", judgement.answers[0].error)
        self.assertEqual(waits.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_filter_has_a_deadline_of_its_own(self) -> None:
        quick, slow = Waits(), Waits()
        judging = Judging(
            [
                BoundFilter("quick", quick, on_error="skip", deadline_seconds=1),
                BoundFilter("slow", slow, deadline_seconds=5),
            ],
            clock=self.clock,
        )
        later = judging.peer(PEER)
        self.clock.advance(1)
        self.assertEqual((quick.cancelled, slow.cancelled), (1, 0))
        slow.answer.callback(Quarantine("q"))
        self.assertEqual(self.successResultOf(later).verdict, Quarantine("q"))  # type: ignore[arg-type]

    def test_a_late_answer_is_not_heard(self) -> None:
        @implementer(IPeerFilter)
        class Stubborn:
            """Will not be cancelled, and answers after the deadline."""

            gate: Deferred[None] = Deferred()

            async def judge_peer(self, peer: Peer) -> Any:
                hold: Deferred[None] = Deferred(lambda _: None)
                try:
                    await hold
                except CancelledError:
                    await self.gate
                    return Accept("too late")

        stubborn = Stubborn()
        later = self.later(stubborn, deadline_seconds=1)
        self.clock.advance(1)
        self.assertIsInstance(self.successResultOf(later).verdict, Defer)
        stubborn.gate.callback(None)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_canceller_that_raises_does_not_hold_up_the_judgement(self) -> None:
        def raises(_answer: object) -> None:
            raise RuntimeError("cannot stop")

        @implementer(IPeerFilter)
        class Uncancellable:
            def judge_peer(self, peer: Peer) -> Any:
                return Deferred(raises)

        later = self.later(Uncancellable(), deadline_seconds=1)
        self.clock.advance(1)
        self.assertIsInstance(self.successResultOf(later).verdict, Defer)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_accept_ends_the_stage_and_cancels_who_still_thinks(self) -> None:
        slow, listed = Waits(), Waits()
        later = self.later(slow, listed)
        listed.answer.callback(Accept("listed"))
        judgement = self.successResultOf(later)
        self.assertEqual(judgement.verdict, Accept("listed"))
        self.assertEqual([answer.filter for answer in judgement.answers], ["filter1"])
        self.assertEqual(slow.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_immediate_accept_cancels_who_was_asked_before_it(self) -> None:
        slow = Waits()
        self.assertEqual(self.judge(slow, Says(Accept("listed"))).verdict, Accept("listed"))
        self.assertEqual(slow.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_filter_that_fires_another_ones_accept_is_the_last_one_asked(self) -> None:
        first, never = Waits(), Says(Refuse("r"))

        @implementer(IPeerFilter)
        class Fires:
            async def judge_peer(self, peer: Peer) -> Any:
                first.answer.callback(Accept("listed"))
                return Pass()

        self.assertEqual(self.judge(first, Fires(), never).verdict, Accept("listed"))
        self.assertEqual(never.asked, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_the_judgement_cancels_the_filters_and_their_deadlines(self) -> None:
        first, second = Waits(), Waits()
        later = self.later(first, second)
        later.cancel()
        self.failureResultOf(later, CancelledError)
        self.assertEqual((first.cancelled, second.cancelled), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])


VERDICTS = [Pass(), Signal("s", 1.0, "w"), Quarantine("q"), Defer("d"), Refuse("r"), ValueError("broken")]


class WaitingChangesNothing(JudgingCase):
    @given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.booleans()), max_size=6), st.randoms())
    def test_the_judgement_is_the_same_whoever_waits_and_in_whatever_order_they_answer(
        self, filters: list[tuple[Any, bool]], order: Random
    ) -> None:
        self.clock = Clock()
        at_once = self.judge(*(Says(verdict) for verdict, _ in filters))
        waiting = [(Waits(), verdict) for verdict, waits in filters if waits]
        components: list[Any] = [Says(verdict) for verdict, _ in filters]
        for place, (component, _) in zip([n for n, (_, waits) in enumerate(filters) if waits], waiting, strict=True):
            components[place] = component
        answers = waiting[:]
        judgement = self.judging(*components).peer(PEER)
        order.shuffle(answers)
        for component, verdict in answers:
            self.assertIsInstance(judgement, Deferred)
            self.assertNoResult(judgement)  # type: ignore[arg-type]
            (component.answer.errback if isinstance(verdict, Exception) else component.answer.callback)(verdict)
        if isinstance(judgement, Deferred):
            judgement = self.successResultOf(judgement)
        self.assertEqual(judgement, at_once)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StagesAndServices(JudgingCase):
    def test_a_component_is_asked_at_the_stages_that_its_interfaces_name(self) -> None:
        everywhere = Everywhere()
        judging = self.judging(everywhere)
        self.assertIs(judging.peer(PEER), PASSED)
        self.assertIsInstance(judging.sender(ENVELOPE).verdict, Pass)  # type: ignore[union-attr]
        self.assertEqual(judging.recipient(ENVELOPE, BOB).verdict, Refuse("no such bob"))  # type: ignore[union-attr]
        self.assertEqual(judging.content(ENVELOPE, CONTENT).verdict, Quarantine("looks odd"))  # type: ignore[union-attr]
        self.assertEqual(judging.content_for(ENVELOPE, CONTENT, BOB).verdict, Defer("not for bob now"))  # type: ignore[union-attr]
        self.assertEqual(
            everywhere.calls,
            [
                ("sender", ENVELOPE),
                ("recipient", ENVELOPE, BOB),
                ("content", ENVELOPE, CONTENT),
                ("content_for", ENVELOPE, CONTENT, BOB),
            ],
        )

    def test_the_questions_about_stages_agree_with_the_interfaces(self) -> None:
        judging = self.judging(Everywhere(), Edits([]))
        self.assertFalse(judging.asks("mx").peer)
        self.assertTrue(judging.asks("mx").sender)
        self.assertTrue(judging.asks("mx").recipient)
        self.assertTrue(judging.asks("mx").content)
        self.assertTrue(judging.asks("mx").content_for)
        self.assertTrue(judging.asks("mx").edits)
        self.assertFalse(self.judging(Everywhere()).asks("mx").edits)
        self.assertTrue(self.judging(Says(Pass())).asks("lmtp").peer)

    def test_a_filter_serves_only_its_services(self) -> None:
        judging = Judging(
            [
                BoundFilter("mx only", Says(Refuse("mx")), services=frozenset({"mx"})),
                BoundFilter("all", Says(Quarantine("all"))),
                BoundFilter("no one", Says(Refuse("never")), services=frozenset()),
            ],
            clock=self.clock,
        )
        self.assertEqual(judging.peer(PEER).verdict, Refuse("mx"))  # type: ignore[union-attr]
        submission = judging.peer(Peer("192.0.2.1", 40000, "submission"))
        self.assertEqual([answer.filter for answer in submission.answers], ["all"])  # type: ignore[union-attr]

    def test_a_component_without_the_method_of_its_interface_stops_the_start(self) -> None:
        @implementer(IPeerFilter)
        class Hollow:
            pass

        with self.assertRaises(AttributeError):
            self.judging(Hollow())
