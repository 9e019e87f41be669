"""The signs that an account was taken over: what each is, and when they are enough.  Pure.

One sign alone is somebody on a holiday, a newsletter, a list of old addresses.  Two of different kinds within the same time are
not; nor is one that is far beyond what anybody does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["EXAMPLES_MOST", "SIGNALS", "SeenSignal", "SignalLimits", "Suspicion", "weighed"]

EXAMPLES_MOST = 5

SIGNALS: Mapping[str, str] = {
    "networks": "log-ins from networks that are new for it",
    "recipients": "recipients it has never written to",
    "unknown": "recipients here who do not exist",
    "refusals": "recipients whom other hosts have refused",
    "complaints": "complaints about its mail",
}
"""Each with what is counted."""


@dataclass(frozen=True, slots=True)
class SignalLimits:
    """From `suspicious` on the signal counts as one of those that together stop an account, from `alone` on it does so by itself.

    0: never.
    """

    suspicious: int
    alone: int


@dataclass(frozen=True, slots=True)
class SeenSignal:
    """How much was counted of a signal within the window, and examples of it, `EXAMPLES_MOST` at most."""

    signal: str
    count: int
    examples: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Such as ``3 complaints about its mail (…; …)``."""
        more = f" ({'; '.join(self.examples)})" if self.examples else ""
        return f"{self.count} {SIGNALS.get(self.signal, self.signal)}{more}"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """`counting` are the signals that are suspicious, `stops` whether they are enough, `alone` the one that is by itself."""

    counting: tuple[SeenSignal, ...]
    stops: bool
    alone: str = ""

    @property
    def words(self) -> str:
        """All that counts, in a sentence's worth of words."""
        return ", ".join([one.words for one in self.counting])


def weighed(seen: Sequence[SeenSignal], thresholds: Mapping[str, SignalLimits], needed: int) -> Suspicion:
    """Whether an account is to be stopped: `needed` signals are suspicious, or one is beyond its own limit."""
    counting = [one for one in seen if _reaches(one.count, thresholds[one.signal].suspicious)]
    alone = next((one for one in seen if _reaches(one.count, thresholds[one.signal].alone)), None)
    if alone is not None and alone not in counting:
        counting.append(alone)
    return Suspicion(tuple(counting), alone is not None or len(counting) >= needed, "" if alone is None else alone.signal)


def _reaches(count: int, limit: int) -> bool:
    return 0 < limit <= count
