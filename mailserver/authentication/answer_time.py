"""Denials whose time shows nothing about the account, for stores whose response time we do not control."""

from __future__ import annotations

import math

from twisted.internet.task import deferLater

from mailserver.interfaces import Clock

__all__ = ["at_whole_second"]

SECONDS = 1.0


async def at_whole_second(clock: Clock, since: float) -> None:
    """Wait until a whole number of seconds, at least one, has passed since `since` (by this clock)."""
    passed = max(0.0, clock.seconds() - since)  # the clock may have been set back
    await deferLater(clock, max(math.ceil(passed / SECONDS), 1) * SECONDS - passed)  # type: ignore[arg-type]
