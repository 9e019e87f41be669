"""What reports of others say about a domain, as far as a stricter policy rests on it: DMARC's and TLS's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["NO_EVIDENCE", "ReportEvidence", "dmarc_evidence", "tls_evidence"]

GOOD_SHARE_LEAST = 0.98  # forwarders break a signature now and then, and a network fails
STRANGERS_TOLD = 5


@dataclass(frozen=True, slots=True)
class ReportEvidence:
    """How many reports there are; of the messages of ours (or sessions) `counted`, `good` were as they should be.

    `strangers` are sources that never pass, with their messages: forgers, or services of ours that nobody has thought of.
    """

    reports: int = 0
    counted: int = 0
    good: int = 0
    strangers: tuple[tuple[str, int], ...] = ()

    @property
    def is_good(self) -> bool | None:
        """None where nobody has said anything."""
        return None if not self.counted else self.good >= self.counted * GOOD_SHARE_LEAST

    @property
    def share(self) -> str:
        """The good ones, in per cent, never rounded up to all."""
        return "" if not self.counted else f"{int(1000 * self.good / self.counted) / 10:g} %"


NO_EVIDENCE = ReportEvidence()


def dmarc_evidence(answer: Mapping[str, Any], own: Collection[str]) -> ReportEvidence:
    """By the answer of the command ``show`` of `dmarc_reports`, whose rows are those with most failures.

    A source is ours if it is one of our addresses, or if half of its messages pass at least.
    """
    failed, strangers = 0, []
    for row in answer["rows"]:
        if row["source"] in own or 2 * row["passed"] >= row["messages"]:
            failed += row["failed"]
        else:
            strangers.append((str(row["source"]), int(row["failed"])))
    good = int(answer["passed"])
    return ReportEvidence(int(answer["reports"]), good + failed, good, tuple(strangers[:STRANGERS_TOLD]))


def tls_evidence(answer: Mapping[str, Any]) -> ReportEvidence:
    """By the answer of the command ``show`` of `tls_reports`."""
    good, bad = int(answer["successes"]), int(answer["failures"])
    return ReportEvidence(int(answer["reports"]), good + bad, good)
