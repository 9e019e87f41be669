"""Adds up what was found, says what that leads to, and what would have led elsewhere.  Pure.

A verdict of one filter and the sum of all scores meet in one outcome: the worst wins, as in `receive.judgement`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from mailserver.mail.answers import Finding
from mailserver.mail.quick import quick

__all__ = [
    "IN_WORDS",
    "LEVELS",
    "SEVERITY",
    "CountedVerdict",
    "Thresholds",
    "Weighed",
    "alternatives",
    "thresholds_of",
    "weigh",
    "weights_of",
    "worst_of",
]

SCORE_MOST = 1e9  # of one finding, either way: sums stay numbers
ALTERNATIVES_MOST = 12
LEVELS = ("tag", "junk", "hold", "defer", "refuse")
IN_WORDS: Mapping[str, str] = {
    "": "delivered",
    "tag": "tagged",
    "junk": "put into Junk",
    "hold": "held",
    "defer": "deferred",
    "discard": "discarded",
    "refuse": "refused",
    "disconnect": "refused, and the connection closed",
}
SEVERITY = tuple(IN_WORDS)  # the mildest first
AUTHENTICATION = ("spf", "dkim", "dmarc", "arc")
FAILURES = ("fail", "softfail", "permerror", "temperror", "neutral", "none", "policy")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which sum on a copy is tagged, goes into Junk, is held, deferred, refused; None for never."""

    tag: float | None = None
    junk: float | None = None
    hold: float | None = None
    defer: float | None = None
    refuse: float | None = None

    def reached(self, total: float) -> str:
        """The name of the strictest one that the sum has reached, "" for none."""
        for level in reversed(LEVELS):
            threshold = getattr(self, level)
            if threshold is not None and total >= threshold:
                return level
        return ""

    def changed(self, given: Mapping[str, float | None]) -> Thresholds:
        """With these in the place of others; what is not given stays."""
        return replace(self, **{name: value for name, value in given.items() if name in LEVELS}) if given else self

    @property
    def faults(self) -> str:
        """What is wrong with them, "" where nothing is."""
        known = [value for value in (getattr(self, one.name) for one in fields(self)) if value is not None]
        if not all(map(math.isfinite, known)):
            return "thresholds are finite numbers"
        return "" if known == sorted(known) else f"{', '.join(LEVELS)}: each threshold is at least the one before"


@quick
@dataclass(frozen=True, slots=True)
class Weighed:
    """The sum, and what each kind of finding (``filter/name``) adds to it, the greatest first."""

    total: float
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class CountedVerdict:
    """A filter's verdict that counted, as one of `SEVERITY`."""

    filter: str
    outcome: str


def key_of(finding: Finding) -> str:
    """``filter/name``."""
    return f"{finding.source}/{finding.name}"


def weigh(findings: Iterable[Finding], weights: Mapping[str, float]) -> Weighed:
    """Add up.  A weight is by ``filter/name``, else by the finding's name, else 1."""
    sums: dict[str, float] = {}
    for one in findings:
        key = key_of(one)
        score = one.score * weights.get(key, weights.get(one.name, 1.0))
        sums[key] = sums.get(key, 0.0) + min(max(score, -SCORE_MOST), SCORE_MOST)
    parts = sorted(((key, score) for key, score in sums.items() if score), key=lambda one: -abs(one[1]))
    return Weighed(math.fsum(sums.values()), tuple(parts))


def weights_of(properties: Mapping[str, object]) -> dict[str, float]:
    """The weights that a scorer has written into its finding's properties."""
    return {
        name.removeprefix("weight "): float(value)
        for name, value in properties.items()
        if name.startswith("weight ") and isinstance(value, int | float)
    }


def thresholds_of(properties: Mapping[str, object]) -> Thresholds:
    """The thresholds likewise."""
    known = {level: properties.get(level) for level in LEVELS}
    return Thresholds(**{level: float(value) for level, value in known.items() if isinstance(value, int | float)})


def worst_of(outcomes: Iterable[str]) -> str:
    """The strictest outcome, "" of none."""
    return max(outcomes, key=SEVERITY.index, default="")


def alternatives(
    said: Sequence[CountedVerdict],
    findings: Sequence[Finding] = (),
    weighed: Weighed | None = None,
    thresholds: Thresholds | None = None,
) -> list[str]:
    """What would have changed the outcome, one thing at a time, in sentences.

    `said` are the verdicts of filters; the sum and its thresholds where one has weighed `findings`.
    """
    by_sum = "" if weighed is None or thresholds is None else thresholds.reached(weighed.total)
    others = [one.outcome for one in said]
    now = worst_of([*others, by_sum])
    found: list[str] = []

    def tell(what: str, outcomes: Iterable[str]) -> None:
        then = worst_of(outcomes)
        if then != now and len(found) < ALTERNATIVES_MOST:
            found.append(f"{what}: {IN_WORDS[then]}")

    for name in dict.fromkeys([one.filter for one in said if one.outcome == now]):
        rest = [one.outcome for one in said if one.filter != name]
        failed = next((one for one in findings if one.source == name and _failed(one)), None)
        if failed is None:
            tell(f"without the verdict of {name}", [by_sum, *rest])
        else:  # it would have found nothing to say, and its score would be missing, too
            left = ""
            if weighed is not None and thresholds is not None:
                left = thresholds.reached(weighed.total - dict(weighed.parts).get(key_of(failed), 0.0))
            tell(f"{failed.name}=pass in place of {failed.properties['result']}", [left, *rest])
    if weighed is None or thresholds is None:
        return found
    total = weighed.total
    if by_sum:
        below = getattr(thresholds, by_sum)
        milder = Thresholds(**{level: getattr(thresholds, level) for level in LEVELS[: LEVELS.index(by_sum)]})
        tell(f"more than {total - below:.6g} points less", [*others, milder.reached(below)])
    higher = LEVELS[LEVELS.index(by_sum) + 1 :] if by_sum else LEVELS
    for level in higher:
        threshold = getattr(thresholds, level)
        if threshold is not None and threshold > total:
            tell(f"{threshold - total:.6g} points more", [*others, level])
            break
    for key, score in weighed.parts:
        tell(_without(key, score, findings), [*others, thresholds.reached(total - score)])
    return found


def _failed(finding: Finding) -> bool:
    return finding.name in AUTHENTICATION and finding.properties.get("result") in FAILURES


def _without(key: str, score: float, findings: Sequence[Finding]) -> str:
    """``dmarc=pass in place of fail (4)``, ``without dnsbl/listed (4)``."""
    mine = [one for one in findings if key_of(one) == key]
    if mine and _failed(mine[0]):
        return f"{mine[0].name}=pass in place of {mine[0].properties['result']} ({score:.6g})"
    return f"without {key} ({score:.6g})"
