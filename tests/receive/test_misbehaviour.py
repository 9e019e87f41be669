"""Whatever a component does when it is asked, at every stage: it is its own failure, and nothing else comes of it."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import (
    IContentFilter,
    IModifier,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    IScorer,
    ISenderFilter,
    ISigner,
)
from mailserver.mail.address import Address
from mailserver.mail.answers import Accept, Defer, Discard, Disconnect, Finding, Pass, Quarantine, Refuse, Signal
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader, PutAside
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.plugins.asking import LEFT_MOST
from mailserver.plugins.left_behind import LeftBehind
from mailserver.receive.judging import BoundFilter, Judgement, Judging
from tests.plugins.misbehaviour import stubborn

BOB = Recipient(Address("bob", "example.org"))
CONTENT = Content.of(b"Subject: hello\r\n\r\nworld\r\n")
STAGES = ("peer", "sender", "recipient", "content", "content_for", "score", "edits", "sign")
VERDICTS = (Pass, Signal, Quarantine, Defer, Refuse, Accept, Discard, Disconnect)
KNOWN = {  # which verdicts each stage knows, beside Pass and Signal
    "peer": {Quarantine, Defer, Refuse, Accept, Disconnect},
    "sender": {Quarantine, Defer, Refuse, Accept, Disconnect, Discard},
    "recipient": {Quarantine, Defer, Refuse, Accept, Discard},
    "content": {Quarantine, Defer, Refuse, Accept, Discard},
    "content_for": {Quarantine, Defer, Refuse, Accept, Discard},
    "score": {Quarantine, Defer, Refuse, Accept, Discard},
    "edits": {Discard, Refuse, Defer},
    "sign": set(),
}


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Trap:
    """Raises when it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("looked at")


class Liar(Refuse):
    why = property(lambda self: 1 / 0)  # type: ignore[assignment]
    findings = property(lambda self: exec("raise SystemExit"))  # type: ignore[assignment]

    def __init__(self) -> None:
        pass


def stage_of(name: str, behave: Callable[[], Any]) -> Any:
    """A component of one stage that does this when it is asked."""
    if name == "peer":

        @implementer(IPeerFilter)
        class OfPeer:
            def judge_peer(self, peer: Any) -> Any:
                return behave()

        return OfPeer()
    interface, method = {
        "sender": (ISenderFilter, "judge_sender"),
        "recipient": (IRecipientFilter, "judge_recipient"),
        "content": (IContentFilter, "judge_content"),
        "content_for": (IRecipientContentFilter, "judge_content_for"),
        "score": (IScorer, "weigh"),
        "edits": (IModifier, "edits"),
        "sign": (ISigner, "sign"),
    }[name]
    kind = type("OfOthers", (), {method: lambda self, *arguments: behave()})
    return implementer(interface)(kind)()


def raising(error: Any) -> Any:
    def now() -> Any:
        raise error

    async def later() -> Any:
        raise error

    return now, later, lambda: fail(error)


def answering(answer: Any) -> Any:
    async def later() -> Any:
        return answer

    return later, lambda: succeed(answer)


def deep() -> Any:
    return deep()


async def deep_later() -> Any:
    return deep()


def generator() -> Iterator[Any]:
    yield Pass()


async def leaks_one_that_fails() -> Any:
    return fail(ValueError("leaked"))


ERRORS = (
    ValueError("broken"), OSError(5, "I/O error"), CancelledError(), asyncio.CancelledError(), SystemExit(3), Mute(),
    MemoryError(), StopAsyncIteration(), ExceptionGroup("many", [ValueError("one")]), RecursionError("deep"),
)  # fmt: skip
ANSWERS = (None, True, 0, "250 OK", b"ok", Pass, [Pass()], {"verdict": "refuse"}, object(), Trap(), Ellipsis, float("nan"))
NO_AWAITABLES = (None, "250 OK", Pass(), Refuse("no"), [], generator)


class MisbehaviourCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        peer = Peer("192.0.2.1", 40000, "mx")
        self.envelope = Envelope("0" * 16, peer, Address("alice", "example.net"), (BOB,), 0.0)

    def ask(self, stage: str, behave: Callable[[], Any], **bound: Any) -> Any:
        judging = Judging([BoundFilter("bad", stage_of(stage, behave), **bound)], clock=self.clock)
        match stage:
            case "peer":
                return judging.peer(self.envelope.peer)
            case "sender":
                return judging.sender(self.envelope)
            case "recipient":
                return judging.recipient(self.envelope, BOB)
            case "content":
                return judging.content(self.envelope, CONTENT)
            case "content_for" | "score":
                return judging.content_for(self.envelope, CONTENT, BOB)
            case _:
                (modifier,) = judging.signers("mx") if stage == "sign" else judging.modifiers("mx")
                return judging.modify(modifier, self.envelope, CONTENT)

    def assertFails(self, stage: str, behave: Callable[[], Any], what: object) -> None:
        """It counts as `on_error` says, its words go nowhere, nothing waits any more."""
        for on_error, verdict in (("defer", Defer), ("refuse", Refuse), ("skip", Pass)):
            judgement = self.ask(stage, behave, on_error=on_error)
            if isinstance(judgement, Deferred):
                judgement = self.successResultOf(judgement)
            self.assertIsInstance(judgement, Judgement, what)
            self.assertIs(type(judgement.verdict), verdict, (stage, what, judgement))
            (answer,) = judgement.answers
            self.assertNotEqual(answer.error, "", (stage, what))
            self.assertLess(len(answer.error), 1000)
            self.assertEqual((answer.edits, answer.findings), ((), ()))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EveryStage(MisbehaviourCase):
    def test_what_is_raised_is_a_failure(self) -> None:
        for stage, error in itertools.product(STAGES, ERRORS):
            for behave in raising(error):
                self.assertFails(stage, behave, type(error))

    def test_recursion_without_an_end_is_one(self) -> None:
        for stage in STAGES:
            for behave in (deep, deep_later):
                self.assertFails(stage, behave, "recursion")

    def test_an_answer_that_is_none_is_one(self) -> None:
        for stage, answer in itertools.product(STAGES, ANSWERS):
            for behave in answering(answer):
                self.assertFails(stage, behave, answer)

    def test_what_cannot_be_awaited_is_one(self) -> None:
        for stage, thing in itertools.product(STAGES, NO_AWAITABLES):
            self.assertFails(stage, thing if callable(thing) and thing is generator else lambda thing=thing: thing, thing)

    def test_a_deferred_that_leaks_and_fails_is_one(self) -> None:
        for stage in STAGES:
            self.assertFails(stage, leaks_one_that_fails, "leaked")

    def test_a_verdict_that_the_stage_does_not_know_is_one(self) -> None:
        for stage, kind in itertools.product(STAGES, VERDICTS):
            answer: Any = Pass() if kind is Pass else Signal("s", 1.0, "w") if kind is Signal else kind("why")
            if kind in KNOWN[stage] or (kind in (Pass, Signal) and stage not in ("edits", "sign")):
                judgement = self.ask(stage, answering(answer)[0])
                self.assertIs(type(judgement.verdict), Pass if kind is Signal else kind, (stage, kind))
            else:
                self.assertFails(stage, answering(answer)[0], (stage, kind))

    def test_a_verdict_that_lies_about_itself_is_one(self) -> None:
        for stage in STAGES:
            self.assertFails(stage, answering(Liar())[0], "liar")

    def test_silence_is_one_also_of_what_ignores_being_cancelled(self) -> None:
        async def ignores() -> Any:
            while True:
                try:
                    await Deferred(lambda _: None)
                except CancelledError:
                    continue

        for stage, behave in itertools.product(STAGES, (Deferred, ignores)):
            judgement = self.ask(stage, behave, deadline_seconds=3)
            self.assertNoResult(judgement)
            self.clock.advance(3)
            answer = self.successResultOf(judgement).answers[0]
            self.assertIn("DeadlineExceeded", answer.error)
            self.assertIsInstance(answer.verdict, Defer)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_calls_that_run_on_are_counted_and_from_a_thousand_on_nobody_is_asked(self) -> None:
        left = LeftBehind()
        coroutines = [stubborn() for _ in range(LEFT_MOST)]
        for n, one in enumerate(coroutines):
            self.assertEqual(len(left), n)
            judgement = self.ask("content", lambda one=one: one, deadline_seconds=3, left=left)
            self.clock.advance(3)
            self.assertIn("DeadlineExceeded", self.successResultOf(judgement).answers[0].error)
        for on_error, verdict in (("defer", Defer), ("refuse", Refuse), ("skip", Pass)):
            judgement = self.ask("content", self.fail, on_error=on_error, left=left)
            self.assertIsInstance(judgement.verdict, verdict)
            self.assertEqual(judgement.answers[0].error, "1000 earlier calls have not ended")
        del one
        coroutines.clear()
        gc.collect()
        self.assertEqual(len(left), 0)

    def test_words_of_any_size_with_anything_in_them_are_bounded(self) -> None:
        evil = "x\r\nX-Evil: 1\x1b[31m\udcff\u202e" + "y" * 20_000_000
        for stage in STAGES:
            for kind in KNOWN[stage]:
                judgement = self.ask(stage, answering(kind(evil, findings=(Finding("f", 1.0, evil),)))[0])
                for text in (judgement.verdict.why, *[one.evidence for one in judgement.findings]):
                    self.assertLessEqual(len(text.encode("utf-8")), 1000)
                    self.assertTrue(text.isprintable())

    def test_two_hundred_filters_one_of_which_is_bad(self) -> None:
        async def passes() -> Any:
            return Pass()

        filters = [BoundFilter(f"f{n}", stage_of("content", passes)) for n in range(200)]
        filters[100] = BoundFilter("bad", stage_of("content", raising(ValueError("broken"))[0]), on_error="skip")
        judgement: Any = Judging(filters, clock=self.clock).content(self.envelope, CONTENT)
        self.assertIsInstance(judgement.verdict, Pass)
        self.assertEqual([answer.filter for answer in judgement.answers], ["bad"])

    def test_edits_that_are_none_are_a_failure(self) -> None:
        for stage in ("edits", "sign"):
            for answer in ("text", [None], [AddHeader], [AddHeader("A", "b"), Trap()], {"A": "b"}, [Refuse("no")], [PutAside]):
                self.assertFails(stage, answering(answer)[0], answer)
