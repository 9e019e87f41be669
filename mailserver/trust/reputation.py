"""What is thought of a network or a domain by what came of its mail.  Pure: times are given in.

Two sums, of what was bad and what was good, fade: after each half-life half of them is left.  So a host that was taken over and
cleaned is forgiven, and one that has sent good mail for years is not welcome for ever.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

__all__ = ["NOTHING_KNOWN", "Repute", "read_repute"]

SUM_MOST = 1e6
SMALLEST = 0.01


@dataclass(frozen=True, slots=True)
class Repute:
    """`bad` and `good` as they were `at` a time, in seconds since the epoch."""

    bad: float = 0.0
    good: float = 0.0
    at: float = 0.0

    def now(self, seconds: float, half_life: float) -> Repute:
        """What is left of it at another time.  A clock that was set back makes nothing younger."""
        left = 0.5 ** (max(seconds - self.at, 0.0) / half_life)
        return Repute(_faded(self.bad, left), _faded(self.good, left), seconds)

    def after(self, seconds: float, half_life: float, *, bad: float = 0.0, good: float = 0.0) -> Repute:
        """With something more of each kind, or less where it was counted wrongly before."""
        then = self.now(seconds, half_life)
        return Repute(_bounded(then.bad + bad), _bounded(then.good + good), seconds)

    @property
    def seen(self) -> float:
        """How much is known."""
        return self.bad + self.good

    @property
    def badness(self) -> float:
        """From 0 to 1; a half where nothing is known, and nearer to it the less is."""
        return (self.bad + 0.5) / (self.seen + 1)

    def octets(self) -> bytes:
        """As it is kept."""
        return json.dumps([round(self.bad, 3), round(self.good, 3), round(self.at)]).encode()


NOTHING_KNOWN = Repute()


def read_repute(octets: bytes | None, seconds: float) -> Repute:
    """As it was kept; what is none says nothing.  One from the future (the clock was set) counts as of now."""
    try:
        bad, good, at = map(float, json.loads(octets or b""))
    except (ValueError, TypeError):
        return NOTHING_KNOWN
    if not all(map(math.isfinite, (bad, good, at))) or bad < 0 or good < 0:
        return NOTHING_KNOWN
    return Repute(_bounded(bad), _bounded(good), min(at, seconds))


def _faded(value: float, left: float) -> float:
    value *= left
    return value if value >= SMALLEST else 0.0


def _bounded(value: float) -> float:
    return min(max(value, 0.0), SUM_MOST)
