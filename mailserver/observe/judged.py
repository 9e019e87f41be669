"""What a road says of verdicts and findings, read back as values.

A step ``filter`` has what was found in words (`findings`), and for programs in `facts`: for each finding its name, its score and
its properties, as JSON.  What was cut or redacted is read as far as it goes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mailserver.mail.answers import NO_FACTS, Finding
from mailserver.observe.roads import Step

__all__ = ["FACTS", "FilterStep", "about", "filter_steps", "recipients_of", "with_releases"]

FACTS = "facts"
WORDS = re.compile(r"(?s)(.+?) (-?[0-9.]+(?:e[+-]?[0-9]+)?)(?:: (.*))?")
PEER = "peer"
HELD = ("junk", "hold", "defer", "refuse")  # what may hold a copy
AFTER_DATA = ("content", "content_for", "score", "edits", "sign")
VERDICTS = {"Refuse": "refuse", "Defer": "defer", "Discard": "discard", "Disconnect": "disconnect", "Quarantine": "junk"}


@dataclass(frozen=True, slots=True)
class FilterStep:
    """One answer of a filter.  `recipient` is "" where it holds for all; `outcome` is "" or one of `trust.weighing.SEVERITY`.

    `released` says who has taken it away later, "" where nobody has; it does not count then.
    """

    time: float
    filter: str
    stage: str
    recipient: str
    verdict: str
    outcome: str
    why: str
    error: str
    findings: tuple[Finding, ...]
    counts: bool
    released: str = ""


def filter_steps(steps: Iterable[Step]) -> list[FilterStep]:
    """All answers on a road, in their order."""
    return [_filter_step(step) for step in steps if step.step == "filter" and step.fields.get("stage") != "tags"]


def recipients_of(steps: Iterable[Step]) -> dict[str, bool]:
    """Everybody of whom a verdict can be told, in the order in which they were named, and whether he was refused at RCPT.

    "" stands for those whom the road does not name, as where the data were refused.
    """
    found: dict[str, bool] = {}
    is_accepted = has_content = False
    for step in steps:
        fields = step.fields
        one = fields.get("recipient")
        if step.step == "accepted":
            is_accepted = True
            named = fields.get("recipients")
            found |= dict.fromkeys([one for one in named if isinstance(one, str)] if isinstance(named, list) else [], False)
        elif step.step == "filter":
            has_content = has_content or fields.get("stage") in AFTER_DATA
            if isinstance(one, str) and one:
                found.setdefault(one, False)
        elif step.step == "refused" and isinstance(one, str) and one and fields.get("stage") == "rcpt":
            found[one] = True
    if not is_accepted and (has_content or not found) and all(found.values()):
        found[""] = False
    return found


def about(steps: Sequence[FilterStep], recipient: str, *, at_rcpt: bool = False) -> list[FilterStep]:
    """What holds for one recipient ("": for all, as where nobody was named).  Who has answered twice has changed his answer.

    `at_rcpt`: he was refused there, so what came later was not about him.
    """
    latest: dict[tuple[str, str, str], FilterStep] = {}
    for step in steps:
        if step.recipient in ("", recipient) and not (at_rcpt and step.stage in AFTER_DATA):
            key = step.filter, step.stage, step.recipient
            before = latest.pop(key, None)
            if step.stage == PEER and before is not None:  # asked at connect and after each EHLO: what was worse stays
                step = _worse(before, step)
            latest[key] = step
    return list(latest.values())


def with_releases(steps: Sequence[FilterStep], road: Iterable[Step], recipient: str) -> list[FilterStep]:
    """For one recipient: what somebody has released does not hold his copy any more."""
    found = list(steps)
    for step in road:
        if step.step != "released" or recipient not in _texts(step.fields.get("recipients")):
            continue
        holders, by = _texts(step.fields.get("holders")), str(step.fields.get("by") or "somebody")
        found = [
            replace(one, counts=False, released=by)
            if one.outcome in HELD and one.counts and one.time <= step.time and (not holders or one.filter in holders)
            else one
            for one in found
        ]
    return found


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _worse(before: FilterStep, now: FilterStep) -> FilterStep:
    worst: dict[tuple[str, str], Finding] = {}
    for one in (*before.findings, *now.findings):
        key = one.source, one.name
        if key not in worst or one.score >= worst[key].score:
            worst[key] = one
    strict = now if now.outcome or not before.outcome else before
    return FilterStep(now.time, now.filter, now.stage, now.recipient, strict.verdict, strict.outcome, strict.why, strict.error,
                      tuple(worst.values()), strict.counts)  # fmt: skip


def _filter_step(step: Step) -> FilterStep:
    fields = step.fields
    filter, verdict = str(fields.get("filter", "")), str(fields.get("verdict", ""))
    outcome = VERDICTS.get(verdict, "")
    if outcome == "junk" and fields.get("hold") is True:
        outcome = "hold"
    return FilterStep(
        step.time,
        filter,
        str(fields.get("stage", "")),
        str(fields.get("recipient", "")),
        verdict,
        outcome,
        str(fields.get("why", "")),
        str(fields.get("error", "")),
        _findings(fields, filter),
        not (fields.get("shadow") or fields.get("overruled")),
    )


def _findings(fields: dict[str, Any], source: str) -> tuple[Finding, ...]:
    words, facts = fields.get("findings"), fields.get(FACTS)
    if not isinstance(words, list):
        return ()
    facts = facts if isinstance(facts, list) else []
    texts = [(text, facts[n] if n < len(facts) else None) for n, text in enumerate(words) if isinstance(text, str)]
    found = [_finding(text, fact, source) for text, fact in texts]
    return tuple([one for one in found if one is not None])


def _finding(words: str, fact: object, source: str) -> Finding | None:
    try:
        known: Any = json.loads(fact) if isinstance(fact, str) else (None, None, None)
        name, score, properties = known
        if isinstance(name, str) and type(score) in (int, float) and math.isfinite(score) and isinstance(properties, dict):
            evidence = words.removeprefix(f"{name} {score:g}").removeprefix(": ")
            return Finding(name, float(score), evidence, properties, source)
    except (ValueError, TypeError, RecursionError):
        pass
    match = WORDS.fullmatch(words)
    return None if match is None else Finding(match[1], _number(match[2]), match[3] or "", NO_FACTS, source)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
