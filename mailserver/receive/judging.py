"""Asks the filters of a stage side by side, each with a deadline; one judgement comes out.

The worst verdict wins: Refuse, then Defer, then Quarantine; signals only add up.  An explicit Accept ends the stage, whatever
the others say or would have said.  A filter that raises, answers with anything but a verdict, or is late counts as its
configured `on_error`: a broken filter never loses a message and, unless the administrator says *skip*, never lets one through.
A verdict of a derived class counts as the verdict it is derived from.

Reply texts are not made here.  Where no filter has to wait, no Deferred is made and no reactor turn is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import Interface

from mailserver.interfaces import (
    Clock,
    IContentFilter,
    IModifier,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    ISenderFilter,
)
from mailserver.mail.answers import Accept, Defer, Pass, Quarantine, Refuse, Signal, Verdict
from mailserver.mail.content import Content
from mailserver.mail.edits import Edit
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.plugins.awaiting import FAULTS, now_or_later
from mailserver.receive.verdicts import PASS, STRONGEST_FIRST, read_edits, read_verdict

__all__ = ["PASSED", "Asks", "BoundFilter", "Finding", "Judgement", "Judging", "note_findings"]

ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class BoundFilter:
    """A component as the configuration binds it.

    `services` are the listeners' profiles that it serves, None for all.  `on_error` says what its failure counts as.
    """

    name: str
    component: object
    services: frozenset[str] | None = None
    on_error: Literal["defer", "skip", "refuse"] = "defer"
    deadline_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one filter said at one stage.  `error` is an exception's class and words: for the log, never for the peer."""

    filter: str
    stage: str
    verdict: Verdict
    milliseconds: float
    error: str = ""
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of one stage.

    `verdict` is Pass, Quarantine, Defer, Refuse or Accept; of several equally bad ones the first in configured order.
    `findings` stand in configured order; filters that an Accept made needless are missing.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All that was seen and did not decide."""
        return tuple(finding.verdict for finding in self.findings if isinstance(finding.verdict, Signal))

    @property
    def score(self) -> float:
        """The signals' scores, added up."""
        return sum((signal.score for signal in self.signals), 0.0)

    @property
    def quarantine(self) -> str:
        """Why it is to be put aside, "" where it is not."""
        verdict = self.verdict
        return verdict.why or "quarantine" if isinstance(verdict, Quarantine) else ""


PASSED = Judgement(PASS, ())


@dataclass(frozen=True, slots=True)
class Asks:
    """The stages at which one service has filters."""

    peer: bool
    sender: bool
    recipient: bool
    content: bool
    content_for: bool
    edits: bool


def note_findings(note: Callable[..., None], id: str, judgement: Judgement) -> None:
    """Record each finding on the road of the message or connection `id`."""
    for finding in judgement.findings:
        note(
            id,
            "filter",
            filter=finding.filter,
            stage=finding.stage,
            verdict=type(finding.verdict).__name__,
            why=getattr(finding.verdict, "why", ""),
            ms=round(finding.milliseconds, 1),
            error=finding.error,
        )


class Judging:
    """All filters of a server, sorted once by stage and service.

    Each question returns the `Judgement` itself where no filter waits.  Cancelling the Deferred cancels the filters.
    """

    __slots__ = ("_clock", "_content", "_content_for", "_edits", "_peer", "_recipient", "_sender")

    def __init__(self, filters: Sequence[BoundFilter], *, clock: Clock) -> None:
        self._clock = clock
        self._peer = _Stage("peer", IPeerFilter, "judge_peer", filters, clock)
        self._sender = _Stage("sender", ISenderFilter, "judge_sender", filters, clock)
        self._recipient = _Stage("recipient", IRecipientFilter, "judge_recipient", filters, clock)
        self._content = _Stage("content", IContentFilter, "judge_content", filters, clock)
        self._content_for = _Stage("content_for", IRecipientContentFilter, "judge_content_for", filters, clock)
        self._edits = _Stage("edits", IModifier, "edits", filters, clock)

    def asks(self, service: str) -> Asks:
        """The stages with filters.  For the others the caller need not even make the arguments."""
        stages = (self._peer, self._sender, self._recipient, self._content, self._content_for, self._edits)
        return Asks(*[bool(stage.questions(service)) for stage in stages])

    # --- The stages. ---

    def peer(self, peer: Peer) -> Judgement | Deferred[Judgement]:
        """At connect (`peer.hello` is empty) and again after EHLO, HELO or LHLO."""
        questions = self._peer.questions(peer.service)
        return _ask(questions, self._clock, peer) if questions else PASSED

    def sender(self, envelope: Envelope) -> Judgement | Deferred[Judgement]:
        """At MAIL."""
        questions = self._sender.questions(envelope.peer.service)
        return _ask(questions, self._clock, envelope) if questions else PASSED

    def recipient(self, envelope: Envelope, recipient: Recipient) -> Judgement | Deferred[Judgement]:
        """At RCPT, for this recipient alone."""
        questions = self._recipient.questions(envelope.peer.service)
        return _ask(questions, self._clock, envelope, recipient) if questions else PASSED

    def content(self, envelope: Envelope, content: Content) -> Judgement | Deferred[Judgement]:
        """After the data, for all recipients."""
        questions = self._content.questions(envelope.peer.service)
        return _ask(questions, self._clock, envelope, content) if questions else PASSED

    def content_for(
        self, envelope: Envelope, content: Content, recipient: Recipient
    ) -> Judgement | Deferred[Judgement]:
        """After the data, for this recipient alone."""
        questions = self._content_for.questions(envelope.peer.service)
        return _ask(questions, self._clock, envelope, content, recipient) if questions else PASSED

    def edits(
        self, envelope: Envelope, content: Content
    ) -> tuple[tuple[Edit, ...], Judgement] | Deferred[tuple[tuple[Edit, ...], Judgement]]:
        """What the modifiers ask for, in configured order.

        Each sees the message as it came.  The judgement is Pass unless a modifier has failed; there are no edits then.
        """
        questions = self._edits.questions(envelope.peer.service)
        if not questions:
            return (), PASSED
        judgement = _ask(questions, self._clock, envelope, content)
        return judgement.addCallback(_with_edits) if isinstance(judgement, Deferred) else _with_edits(judgement)


def _with_edits(judgement: Judgement) -> tuple[tuple[Edit, ...], Judgement]:
    if not isinstance(judgement.verdict, Pass):
        return (), judgement
    return tuple(edit for finding in judgement.findings for edit in finding.edits), judgement


class _Stage:
    """Who is asked at one stage, for each service that a filter names and for all others."""

    __slots__ = ("_elsewhere", "_named")

    def __init__(
        self, name: str, interface: type[Interface], method: str, filters: Sequence[BoundFilter], clock: Clock
    ) -> None:
        present = [bound for bound in filters if interface.providedBy(bound.component)]
        named = {service for bound in present for service in bound.services or ()}

        def questions(bounds: list[BoundFilter]) -> tuple[_Question, ...]:
            return tuple(_Question(name, bound, getattr(bound.component, method), clock) for bound in bounds)

        self._elsewhere = questions([bound for bound in present if bound.services is None])
        self._named = {
            service: questions([bound for bound in present if bound.services is None or service in bound.services])
            for service in named
        }

    def questions(self, service: str) -> tuple[_Question, ...]:
        return self._named.get(service, self._elsewhere)


class _Question:
    """One filter at one stage: turns whatever comes back into a finding."""

    __slots__ = ("ask", "bound", "reading", "seconds", "stage")

    def __init__(self, stage: str, bound: BoundFilter, ask: Callable[..., Any], clock: Clock) -> None:
        self.stage = stage
        self.bound = bound
        self.ask = ask
        self.seconds = clock.seconds
        self.reading = read_edits if stage == "edits" else read_verdict

    def answered(self, answer: object, began: float) -> Finding:
        try:
            verdict, edits = self.reading(answer)
        except Exception as error:  # noqa: BLE001  # an answer is a plugin's object and may do anything when it is looked at
            return self.failed(error, began)
        return Finding(self.bound.name, self.stage, verdict, (self.seconds() - began) * 1000, "", edits)

    def failed(self, error: BaseException | str, began: float) -> Finding:
        words = error if isinstance(error, str) else f"{type(error).__name__}: {safe_str(error)[:ERROR_CHARACTERS]}"
        bound = self.bound
        match bound.on_error:
            case "skip":
                verdict: Verdict = PASS
            case "refuse":
                verdict = Refuse(f"the filter {bound.name} failed")
            case _:
                verdict = Defer(f"the filter {bound.name} failed")
        return Finding(bound.name, self.stage, verdict, (self.seconds() - began) * 1000, words)


class _OpenStage:
    """A stage of which at least one filter has not answered yet.  It ends once.

    `findings` has a place for each filter that was asked, None until it has answered or is late.  Once the place is filled,
    nothing more is heard of that filter.  That guards against three orders of events: a Deferred that has fired already calls
    `_heard` amid `wait`, before there is a deadline to cancel; cancelling a late filter calls `_heard` amid `_late`; and a
    filter that ignores being cancelled answers whenever it likes.

    `ended`: the judgement is known, or nobody waits for it any more.  `end` is what the caller waits for.  An Accept may come
    amid `_ask`, when `end` is None: `_ask` then finds the stage ended, asks nobody else and returns the judgement itself.
    """

    __slots__ = ("_clock", "_open", "end", "ended", "findings")

    log = Logger()

    def __init__(self, clock: Clock, findings: list[Finding | None]) -> None:
        self._clock = clock
        self._open: dict[int, tuple[Deferred[Any], Any]] = {}  # position: the filter's answer to be, its deadline
        self.ended = False
        self.findings = findings
        self.end: Deferred[Judgement] | None = None

    @property
    def is_over(self) -> bool:
        return self.ended or not self._open

    def wait(self, position: int, question: _Question, answer: Deferred[Any], began: float) -> None:
        """Listen to a filter that has not answered, or whose Deferred has already fired."""
        answer.addBoth(self._heard, position, question, began)
        if self.findings[position] is None:
            deadline = self._clock.callLater(question.bound.deadline_seconds, self._late, position, question, began)
            self._open[position] = answer, deadline

    def abandon(self, _cancelled: object = None) -> None:
        """Nobody waits for the judgement any more, or it is known: cancel what still runs."""
        self.ended = True
        waiting, self._open = self._open, {}
        for answer, deadline in waiting.values():
            deadline.cancel()
            self._cancel(answer)

    def _heard(self, answer: object, position: int, question: _Question, began: float) -> None:
        if self.ended or self.findings[position] is not None:
            return
        if isinstance(answer, Failure):
            finding = question.failed(answer.value or answer.getErrorMessage(), began)
        else:
            finding = question.answered(answer, began)
        _answer, deadline = self._open.pop(position, (None, None))
        if deadline is not None:
            deadline.cancel()
        self._take(position, finding)

    def _late(self, position: int, question: _Question, began: float) -> None:
        answer, _deadline = self._open.pop(position)
        finding = question.failed(f"DeadlineExceeded: no answer within {question.bound.deadline_seconds:g} s", began)
        self.findings[position] = finding  # before the cancelling, which may call `_heard`
        self._cancel(answer)
        self._take(position, finding)

    def _take(self, position: int, finding: Finding) -> None:
        self.findings[position] = finding
        if isinstance(finding.verdict, Accept):
            self.abandon()
        if self.end is not None and self.is_over:
            end, self.end = self.end, None
            self.ended = True
            end.callback(_judgement_of(self.findings))

    def _cancel(self, answer: Deferred[Any]) -> None:
        try:
            answer.cancel()
        except Exception:  # noqa: BLE001  a plugin's canceller is a plugin's code
            self.log.failure("a filter's answer cannot be cancelled")


def _ask(questions: tuple[_Question, ...], clock: Clock, *arguments: object) -> Judgement | Deferred[Judgement]:
    findings: list[Finding | None] = []
    waiting: _OpenStage | None = None
    for position, question in enumerate(questions):
        if waiting is not None and waiting.ended:
            break
        began = question.seconds()
        findings.append(None)
        try:
            answer = now_or_later(question.ask(*arguments))
        except FAULTS as error:
            findings[position] = question.failed(error, began)
            continue
        if isinstance(answer, Deferred):
            if waiting is None:
                waiting = _OpenStage(clock, findings)
            waiting.wait(position, question, answer, began)
            continue
        finding = findings[position] = question.answered(answer, began)
        if isinstance(finding.verdict, Accept):
            if waiting is not None:
                waiting.abandon()
            break
    if waiting is None or waiting.is_over:
        return _judgement_of(findings)
    waiting.end = Deferred(waiting.abandon)
    return waiting.end


def _judgement_of(answers: Sequence[Finding | None]) -> Judgement:
    findings = tuple([finding for finding in answers if finding is not None])
    best: Verdict = PASS
    rank = len(STRONGEST_FIRST)
    for finding in findings:
        kind = type(finding.verdict)
        if kind in STRONGEST_FIRST and STRONGEST_FIRST.index(kind) < rank:
            rank = STRONGEST_FIRST.index(kind)
            best = finding.verdict
    return Judgement(best, findings)
