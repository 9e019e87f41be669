"""A filter as the configuration binds it, and the question that it is asked at one stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from twisted.logger import Logger

from mailserver.mail.answers import (
    NO_FACTS,
    Accept,
    Defer,
    Discard,
    Disconnect,
    Finding,
    Pass,
    Quarantine,
    Refuse,
    Verdict,
)
from mailserver.mail.edits import Edit
from mailserver.plugins.asking import LEFT_MOST
from mailserver.plugins.awaiting import FAULTS
from mailserver.plugins.budget import Budget, Budgets
from mailserver.plugins.durations import Durations
from mailserver.plugins.failure_log import FailureLog, Fault, place_of, words_of
from mailserver.plugins.left_behind import LeftBehind
from mailserver.receive.judgement import FilterAnswer
from mailserver.receive.verdicts import (
    NO_FINDINGS,
    PASS,
    read_edits,
    read_findings,
    read_notes,
    read_signature,
    read_verdict,
)

__all__ = ["NOTHING_SAID", "BoundFilter", "Question"]

NOTHING_SAID = FilterAnswer("", "", PASS, 0.0)  # a Pass that nobody wants to read about
log = Logger()

INSTEAD_OF_EDITS = (Discard, Refuse, Defer)
USUAL = frozenset({Quarantine, Defer, Refuse, Accept})
ALLOWED: Mapping[str, frozenset[type]] = MappingProxyType(
    {
        "peer": USUAL | {Disconnect},
        "sender": USUAL | {Disconnect, Discard},
        "recipient": USUAL | {Discard},
        "content": USUAL | {Discard},
        "content_for": USUAL | {Discard},
        "score": USUAL | {Discard},
        "edits": frozenset(INSTEAD_OF_EDITS),
    }
)
"""The verdicts that a stage knows, beside Pass and Signal."""


@dataclass(frozen=True, slots=True)
class BoundFilter:
    """A component as the configuration binds it.

    `services` are the listeners' profiles that it serves, None for all.  `on_error` says what its failure counts as.  It is asked
    after those of a lower `level`, and of its level after those of a lower `cost`.  `skippable`: it only knows suspicions, and is
    not asked where an Accept came before.  `hard`: no Accept takes its verdict away.  `shadow`: what it says is recorded, not
    obeyed.  `log_passes`: it is recorded, too, that it had nothing to say.  `budgets`: how often it may fail at a stage.
    `durations`: how long those calls took that waited, failed or had something to say.  `left`: calls that run on after their
    deadline.
    """

    name: str
    component: object
    services: frozenset[str] | None = None
    on_error: Literal["defer", "skip", "refuse"] = "defer"
    deadline_seconds: float = 10.0
    level: int = 0
    cost: float = 0
    skippable: bool = False
    hard: bool = False
    shadow: bool = False
    log_passes: bool = False
    budgets: Budgets | None = None
    durations: Durations = field(default_factory=Durations, compare=False)
    left: LeftBehind = field(default_factory=LeftBehind, compare=False)


class Question:
    """One filter at one stage: turns whatever comes back into an answer."""

    __slots__ = ("_failures", "_reads_edits", "allowed", "ask", "bound", "budget", "is_told_of_passes", "seconds", "stage")

    def __init__(
        self, stage: str, bound: BoundFilter, ask: Callable[..., Any], seconds: Callable[[], float], failures: FailureLog
    ) -> None:
        self.stage = stage
        self.bound = bound
        self.budget = bound.budgets.of(stage) if bound.budgets is not None else None
        self.ask = ask
        self.seconds = seconds
        self._failures = failures
        self._reads_edits = read_edits if stage == "edits" else read_signature if stage == "sign" else None
        self.is_told_of_passes = bound.log_passes or self._reads_edits is not None
        if stage == "score":
            self.ask = lambda envelope, _content, recipient: ask(envelope, recipient)
        self.allowed = ALLOWED.get(stage, USUAL)

    def unasked(self) -> FilterAnswer | None:
        """The answer where it may not be asked now, since it has failed too often, or too many calls of it run on."""
        left, budget = self.bound.left, self.budget
        if left.things and len(left) >= LEFT_MOST:
            return self._answer(self._on_error(), self.seconds(), error=f"{len(left)} earlier calls have not ended")
        if budget is None or budget.is_closed or not budget.is_open(self.seconds()):
            return None
        return self._answer(self._on_error(), self.seconds(), error="it has failed too often and is not asked for a while")

    def answered(self, answer: object, began: float, subject: Any) -> FilterAnswer:
        """`subject` is the peer or the envelope that it was asked about."""
        bound = self.bound
        seconds = self.seconds() - began
        bound.durations.add(seconds)
        budget, is_pass = self.budget, answer.__class__ is Pass and self._reads_edits is None
        if is_pass and answer.findings is NO_FINDINGS and answer.notes is NO_FACTS:  # type: ignore[attr-defined]
            if budget is not None and not budget.is_closed:
                self._succeeded(budget)
            return self._answer(PASS, began) if bound.log_passes else NOTHING_SAID
        edits: tuple[Edit, ...] = ()
        verdict: Verdict = PASS
        findings: tuple[Finding, ...] = ()
        try:
            if self._reads_edits is not None and not (self.stage == "edits" and isinstance(answer, INSTEAD_OF_EDITS)):
                edits = self._reads_edits(answer)
            else:
                if not is_pass:
                    verdict = read_verdict(answer, self.allowed)
                findings = read_findings(answer, bound.name)
                notes = NO_FACTS if is_pass and answer.notes is NO_FACTS else read_notes(answer)  # type: ignore[attr-defined]
                if notes is not NO_FACTS and notes:
                    getattr(subject, "peer", subject).notes.keep(bound.name, notes)
        except FAULTS as error:  # an answer is a plugin's object and may do anything when it is looked at
            return self._failed(error, began)
        if budget is not None and not budget.is_closed:
            self._succeeded(budget)
        if verdict is PASS and not (edits or findings or bound.log_passes):
            return NOTHING_SAID
        return FilterAnswer(
            bound.name, self.stage, verdict, seconds * 1000, "", edits, findings, "", bound.hard, bound.shadow
        )

    def failed(self, error: Fault, began: float) -> FilterAnswer:
        """It raised, or was late."""
        self.bound.durations.add(self.seconds() - began)
        return self._failed(error, began)

    def _failed(self, error: Fault, began: float) -> FilterAnswer:
        """Or it answered with what is no answer."""
        bound = self.bound
        place = place_of(error, bound.component)
        self._failures.tell(f"the filter {bound.name} ({self.stage})", error, place)
        budget = self.budget
        if budget is not None and budget.failed(self.seconds()):
            log.error(
                'the filter {name} ({stage}) fails too often: it is not asked for a while, and on_error = "{on_error}" holds',
                name=bound.name,
                stage=self.stage,
                on_error=bound.on_error,
            )
        return self._answer(self._on_error(), began, error=words_of(error), place=place)

    def _succeeded(self, budget: Budget) -> None:
        if budget.succeeded(self.seconds()):
            log.info("the filter {name} ({stage}) answers, and is asked again", name=self.bound.name, stage=self.stage)

    def _on_error(self) -> Verdict:
        bound = self.bound
        match bound.on_error:
            case "skip":
                return PASS
            case "refuse":
                return Refuse(f"the filter {bound.name} failed")
            case _:
                return Defer(f"the filter {bound.name} failed")

    def _answer(self, verdict: Verdict, began: float, **more: Any) -> FilterAnswer:
        bound = self.bound
        return FilterAnswer(
            bound.name,
            self.stage,
            verdict,
            (self.seconds() - began) * 1000,
            is_hard=bound.hard,
            is_shadow=bound.shadow,
            **more,
        )
