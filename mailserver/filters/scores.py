"""Weighs what the other filters have found: the sum of the scores decides, by thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from zope.interface import implementer

from mailserver.api import (
    Defer,
    Envelope,
    Finding,
    IComponentFactory,
    IScorer,
    Options,
    Pass,
    Quarantine,
    Recipient,
    Refuse,
    Services,
    Verdict,
)

__all__ = ["Scores", "ScoresOptions", "factory"]

ACCEPTED = "accepted"
NAMED_MOST = 10
SCORE_MOST = 1e9  # of one finding, either way: sums stay numbers


class ScoresOptions(Options):
    """The sum of all findings' scores, and what it leads to."""

    junk: float | None = 6.0
    """From this sum on a message is put aside (`Quarantine`)."""
    defer: float | None = None
    """From this sum on it is deferred (4yz)."""
    refuse: float | None = 15.0
    """From this sum on it is refused (5yz)."""
    weights: dict[str, float] = Field(default_factory=dict)
    """What a finding's score is multiplied by, by the finding's name, or by the filter's name, a slash and the finding's:
    `weights = { "spf" = 0.5, "denylist/odd" = 0 }`. The others count as they are."""

    @model_validator(mode="after")
    def _fit_together(self) -> ScoresOptions:
        thresholds = [one for one in (self.junk, self.defer, self.refuse) if one is not None]
        if not thresholds:
            raise ValueError("junk, defer or refuse: without a threshold nothing follows from a sum")
        if not all(map(math.isfinite, (*thresholds, *self.weights.values()))):
            raise ValueError("thresholds and weights are finite numbers")
        if thresholds != sorted(thresholds):
            raise ValueError("junk, defer, refuse: each threshold is at least the one before")
        return self


@implementer(IScorer)
class Scores:
    """Adds up the scores.  Where a filter has said Accept, nothing is weighed."""

    skippable = True

    def __init__(self, options: ScoresOptions) -> None:
        self._weights: Mapping[str, float] = options.weights
        self._thresholds = [
            (threshold, verdict)
            for threshold, verdict in ((options.refuse, Refuse), (options.defer, Defer), (options.junk, Quarantine))
            if threshold is not None
        ]

    async def weigh(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """The verdict of the highest threshold that the sum has reached."""
        findings = envelope.findings
        if not findings:
            return Pass()
        if any(one.name == ACCEPTED for one in findings):
            return Pass()
        scores = {f"{one.source}/{one.name}": 0.0 for one in findings}
        for one in findings:
            score = one.score * self._weight(one)
            scores[f"{one.source}/{one.name}"] += min(max(score, -SCORE_MOST), SCORE_MOST)
        total = math.fsum(scores.values())
        worst_first = sorted([(score, name) for name, score in scores.items() if score], key=lambda one: -abs(one[0]))
        evidence = ", ".join([f"{name} {score:g}" for score, name in worst_first[:NAMED_MOST]])
        found = (Finding("score", round(total, 3), evidence),)
        for threshold, verdict in self._thresholds:
            if total >= threshold:
                return verdict(f"score {total:g}: {evidence}", findings=found)
        return Pass(findings=found)

    def _weight(self, finding: Finding) -> float:
        of_filter = self._weights.get(f"{finding.source}/{finding.name}")
        return self._weights.get(finding.name, 1.0) if of_filter is None else of_filter


@implementer(IComponentFactory)
class ScoresFactory:
    """Makes the scorer for ``[[filter]] use = "scores"``."""

    name = "scores"
    summary = "Adds up the scores of what the other filters have found: junk, later or no, by thresholds."
    api_version = "1.0"
    provides = IScorer
    options = ScoresOptions

    def build(self, options: Any, services: Services) -> Scores:
        """Return the scorer."""
        return Scores(options)


factory = ScoresFactory()
