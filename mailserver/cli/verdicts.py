"""What ``mailserver explain`` says of verdicts: what was found, how it was weighed, what would have changed the outcome."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mailserver.cli.output import cells_of
from mailserver.mail.answers import Finding
from mailserver.observe.judged import FilterStep, about, filter_steps, recipients_of, with_releases
from mailserver.observe.roads import Step
from mailserver.trust.weighing import (
    IN_WORDS,
    LEVELS,
    CountedVerdict,
    Thresholds,
    Weighed,
    alternatives,
    thresholds_of,
    weigh,
    weights_of,
    worst_of,
)

__all__ = ["Explained", "as_it_went", "explained", "held_in", "in_words"]

SCORER = "score"


@dataclass(frozen=True, slots=True)
class Explained:
    """What was judged of one recipient's copy ("": of all).  `sum` is None where nothing was weighed."""

    recipient: str
    outcome: str
    answers: list[FilterStep]
    sum: float | None
    thresholds: Thresholds | None
    of: str
    weights: dict[str, float]
    changes: list[str]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "recipient": self.recipient,
            "outcome": IN_WORDS[self.outcome],
            "sum": self.sum,
            "thresholds": None if self.thresholds is None else asdict(self.thresholds),
            "thresholds_of": self.of,
            "answers": [
                {
                    "filter": one.filter, "stage": one.stage, "verdict": one.verdict, "why": one.why, "error": one.error,
                    "counts": one.counts, "released_by": one.released,
                    "findings": [
                        {"name": it.name, "score": it.score, "weight": self._weight(it), "evidence": it.evidence,
                         "properties": dict(it.properties)} for it in one.findings
                    ],
                }
                for one in self.answers
            ],
            "would_have_changed_it": self.changes,
        }  # fmt: skip

    def _weight(self, finding: Finding) -> float:
        return self.weights.get(f"{finding.source}/{finding.name}", self.weights.get(finding.name, 1.0))

    def weight(self, finding: Finding) -> str:
        """In words, "" for the usual one."""
        weight = self._weight(finding)
        return "" if weight == 1 else f"×{weight:g}"


def explained(steps: Sequence[Step]) -> list[Explained]:
    """For each recipient, where his differs; nothing where no filter has said anything."""
    answers = filter_steps(steps)
    if not answers:
        return []
    found = [
        _explained(one, with_releases(about(answers, one, at_rcpt=at_rcpt), steps, one))
        for one, at_rcpt in recipients_of(steps).items()
    ]
    return [one for one in found if one.answers]


def held_in(steps: Sequence[Step]) -> set[str]:
    """For whom a copy was held when it came."""
    held = [one.fields for one in steps if one.step == "held" and one.fields.get("hold") == "quarantined"]
    named = [one.get("recipients") for one in held]
    return {str(who) for one in named if isinstance(one, list | tuple) for who in one}


def as_it_went(found: Sequence[Explained], held: Collection[str]) -> list[Explained]:
    """The same, where what filters put aside was held for these recipients (`policy.quarantine`, or no Junk at another host)."""
    return [
        replace(one, outcome="hold") if one.outcome == "junk" and (one.recipient in held or (held and not one.recipient)) else one
        for one in found
    ]


def _explained(recipient: str, answers: list[FilterStep]) -> Explained:
    counted = [one for one in answers if one.counts]
    verdicts = [CountedVerdict(one.filter, one.outcome) for one in counted if one.outcome]
    score = next((it for one in counted if one.stage == SCORER for it in one.findings if it.name == "score"), None)
    if score is None:
        outcome = worst_of([one.outcome for one in verdicts])
        changes = alternatives(verdicts, [it for one in counted for it in one.findings])
        return Explained(recipient, outcome, answers, None, None, "", {}, changes)
    verdicts = [CountedVerdict(one.filter, one.outcome) for one in counted if one.outcome and one.stage != SCORER]
    findings = [it for one in counted if one.stage != SCORER for it in one.findings]
    thresholds, weights = thresholds_of(score.properties), weights_of(score.properties)
    weighed = Weighed(score.score, weigh(findings, weights).parts)  # the sum as it was, whatever the road has lost
    outcome = worst_of([*[one.outcome for one in verdicts], thresholds.reached(weighed.total)])
    changes = alternatives(verdicts, findings, weighed, thresholds)
    of = str(score.properties.get("of", ""))
    return Explained(recipient, outcome, answers, weighed.total, thresholds, of, weights, changes)


def in_words(found: Sequence[Explained]) -> list[str]:
    """Lines for people.  Recipients of whom the same is said have one section."""
    sections: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        sections.setdefault(tuple(_section(one)), []).append(one.recipient)
    lines: list[str] = []
    for section, recipients in sections.items():
        names = ", ".join(filter(None, recipients))
        lines += ["", f"for {names}: {section[0]}" if names else section[0], *section[1:]]
    return lines


def _note(step: FilterStep) -> str:
    if step.released:
        return f" (released by {step.released})"
    return "" if step.counts else " (does not count)"


def _section(one: Explained) -> list[str]:
    lines = [IN_WORDS[one.outcome]]
    rows = [
        (f"{it.score:g}", one.weight(it), f"{it.source}/{it.name}", it.evidence, _note(step).strip(" ()"))
        for step in one.answers
        if step.stage != SCORER
        for it in step.findings
    ]
    rows.sort(key=lambda row: -abs(float(row[0])))
    if rows:
        lines += [f"  {line}" for line in cells_of((" SCORE", "WEIGHT", "FOUND", "EVIDENCE", ""), rows)]
    if one.sum is not None and one.thresholds is not None:
        known = [f"{level} {value:g}" for level in LEVELS if (value := getattr(one.thresholds, level)) is not None]
        whose = "" if one.of in ("", "site") else f" ({one.of})"
        lines.append(f"  sum {one.sum:g}; thresholds: {', '.join(known)}{whose}")
    for it in one.answers:
        if (it.outcome or it.verdict == "Accept" or it.error) and not (it.stage == SCORER and one.sum is not None):
            why = f": {it.why or it.error}" if it.why or it.error else ""
            lines.append(f"  {it.filter} ({it.stage}): {it.verdict or 'failed'}{why}{_note(it)}")
    if one.changes:
        lines += ["  what would have changed it:", *[f"    {change}" for change in one.changes]]
    return lines
