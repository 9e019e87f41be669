"""What came out of a stage: each filter's answer, and the one verdict that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailserver.mail.answers import Accept, Defer, Discard, Finding, Quarantine, Refuse, Signal, Verdict
from mailserver.mail.content import Content
from mailserver.mail.edits import Edit, in_words
from mailserver.mail.json_text import json_text
from mailserver.mail.message_parts import BEYOND_BOUNDS
from mailserver.mail.quick import quick
from mailserver.mail.set_apart import Holder
from mailserver.receive.verdicts import PASS, STRONGEST_FIRST

__all__ = ["PASSED", "FilterAnswer", "Judgement", "judgement_of", "note_answers", "with_bounds", "with_worse"]

OURS = "mailserver"  # who has found what no filter has said
FACT_CHARACTERS = 900  # below what the log cuts values to
HOLDS = (Refuse, Defer, Quarantine)
encode = json_text()  # nothing in a fact refers to another thing in it
PEER_FINDINGS_MOST = 1000  # a peer may say EHLO often, with a name that is found fault with each time


@quick
@dataclass(frozen=True, slots=True)
class FilterAnswer:
    """What one filter said at one stage.

    `error` is an exception's class and words, `place` the file and line that raised it: for the log, never for the peer.
    `is_hard`: an Accept of another filter does not take it away.  `is_shadow`: it is recorded, not obeyed.
    """

    filter: str
    stage: str
    verdict: Verdict
    milliseconds: float
    error: str = ""
    edits: tuple[Edit, ...] = ()
    findings: tuple[Finding, ...] = ()
    place: str = ""
    is_hard: bool = False
    is_shadow: bool = False


@quick
@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of one stage.

    `verdict` is Pass, Quarantine, Defer, Discard, Refuse, Disconnect or Accept; of several equally bad ones the first that was
    asked for, of those that put aside the first that wants it held.  `answers` stand in the order in which the filters were
    asked; those that had nothing to say are missing, unless their passes are recorded, and those that need not be asked any more.
    Of the first `taken_away`, which an Accept has followed, only hard ones count.
    """

    verdict: Verdict
    answers: tuple[FilterAnswer, ...]
    taken_away: int = 0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that was found by filters whose answers count."""
        return tuple([finding for answer in self.answers if not answer.is_shadow for finding in answer.findings])

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All that was seen and did not decide."""
        return tuple(answer.verdict for answer in self.answers if isinstance(answer.verdict, Signal) and not answer.is_shadow)

    @property
    def score(self) -> float:
        """The findings' scores, added up."""
        return sum((finding.score for finding in self.findings), 0.0)

    @property
    def quarantine(self) -> tuple[Holder, ...]:
        """Who wants it put aside, the strictest first; () where nobody does."""
        return self.holders if isinstance(self.verdict, Quarantine) else ()

    @property
    def holders(self) -> tuple[Holder, ...]:
        """Who stands in the way of a delivery, the one whose verdict it is first."""
        verdict = self.verdict
        if not isinstance(verdict, HOLDS):
            return ()
        found = [
            Holder(answer.filter, answer.stage, answer.verdict.why or "quarantine", getattr(answer.verdict, "hold", False))
            for n, answer in enumerate(self.answers)
            if isinstance(answer.verdict, HOLDS) and not answer.is_shadow and (n >= self.taken_away or answer.is_hard)
        ]
        return tuple(sorted(found, key=lambda one: (one.why != (verdict.why or "quarantine"), not one.hold)))

    @property
    def discard(self) -> str:
        """Why it is to be thrown away, "" where it is not."""
        verdict = self.verdict
        return verdict.why or "discarded" if isinstance(verdict, Discard) else ""


PASSED = Judgement(PASS, ())


def judgement_of(answers: Sequence[FilterAnswer], taken_away: int = 0) -> Judgement:
    """The judgement.  Of the first `taken_away` answers, which an Accept has followed, only hard ones count."""
    if not answers:
        return PASSED
    best: Verdict = PASS
    rank = len(STRONGEST_FIRST)
    for n, answer in enumerate(answers):
        verdict = answer.verdict
        if verdict is PASS:
            continue
        kind = type(verdict)
        if answer.is_shadow or (n < taken_away and not answer.is_hard and kind is not Accept):
            continue
        if kind is Accept:
            if best is PASS:
                best = verdict
        elif kind in STRONGEST_FIRST and STRONGEST_FIRST.index(kind) < rank:
            rank = STRONGEST_FIRST.index(kind)
            best = verdict
        elif isinstance(verdict, Quarantine) and isinstance(best, Quarantine) and verdict.hold and not best.hold:
            best = verdict
    return Judgement(best, tuple(answers), taken_away)


def with_bounds(judgement: Judgement, content: Content) -> Judgement:
    """With a finding where filters have met parts of the message that nobody looks at, and have not said so."""
    beyond = content.parts_beyond_bounds
    if not beyond or any(finding.name == BEYOND_BOUNDS for finding in judgement.findings):
        return judgement
    finding = Finding(BEYOND_BOUNDS, 0.0, beyond, source=OURS)
    answers = (*judgement.answers, FilterAnswer(OURS, "content", PASS, 0.0, findings=(finding,)))
    return Judgement(judgement.verdict, answers, judgement.taken_away)


def with_worse(before: tuple[Finding, ...], now: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings of one who is judged again: what was found twice counts once, by its worse score.

    So a peer that is asked about at connect and after each EHLO counts no more than once, and another EHLO takes nothing back.
    """
    worst: dict[tuple[str, str], Finding] = {}
    for finding in (*before, *now):
        key = finding.source, finding.name
        if key not in worst or finding.score >= worst[key].score:
            worst[key] = finding
    return tuple(worst.values())[:PEER_FINDINGS_MOST]


def note_answers(note: Callable[..., None], id: str, judgement: Judgement, recipient: str = "") -> None:
    """Record each answer on the road of the message or connection `id`.  What is not there takes no field.

    `recipient` is the one whose copy was judged.  `facts` has for programs what `findings` says in words (`observe.judged`).
    """
    for n, answer in enumerate(judgement.answers):
        verdict = answer.verdict
        fields: dict[str, object] = {
            "filter": answer.filter,
            "stage": answer.stage,
            "verdict": type(verdict).__name__,
            "why": "" if verdict is PASS else getattr(verdict, "why", ""),
            "ms": round(answer.milliseconds, 1),
            "error": answer.error,
        }
        if recipient:
            fields["recipient"] = recipient
        if answer.findings:
            fields["findings"] = [_in_words(finding) for finding in answer.findings]
            fields["facts"] = facts_of(answer.findings)
        if answer.edits:
            fields["edits"] = [in_words(edit) for edit in answer.edits]
        if answer.is_shadow:
            fields["shadow"] = True
        elif n < judgement.taken_away and not answer.is_hard and not isinstance(verdict, Accept):
            fields["overruled"] = True
        if verdict is not PASS and getattr(verdict, "hold", False):
            fields["hold"] = True
        if answer.place:
            fields["at"] = answer.place
        note(id, "filter", **fields)


def facts_of(findings: Sequence[Finding]) -> list[str]:
    """For each finding its name, score and properties as JSON; properties that are long are left out."""
    facts = []
    for one in findings:
        properties = one.properties
        whole = encode([one.name, one.score, properties if properties.__class__ is dict else dict(properties)])
        facts.append(whole if len(whole) <= FACT_CHARACTERS else encode([one.name, one.score, {}]))
    return facts


def _in_words(finding: Finding) -> str:
    """``spf 2.5: the host is not permitted``."""
    evidence = f": {finding.evidence}" if finding.evidence else ""
    return f"{finding.name} {finding.score:g}{evidence}"
