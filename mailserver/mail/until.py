"""Deadlines on the wall clock, which people and time servers set."""

from __future__ import annotations

__all__ = ["still_holds"]


def still_holds(until: float, now: float, seconds_most: float) -> bool:
    """Whether what was said to hold until a moment, `seconds_most` ahead at most, holds yet.

    One that lies further ahead was said before the clock was set back: it holds no longer, rather than for years.
    """
    return now < until <= now + seconds_most
