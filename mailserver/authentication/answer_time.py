"""Denials whose time tells nothing, for stores whose work for a wrong password is not ours to weigh."""

from __future__ import annotations

import math

from twisted.internet.task import deferLater

from mailserver.interfaces import Clock

__all__ = ["at_whole_second"]

SECONDS = 1.0


async def at_whole_second(clock: Clock, since: float) -> None:
    """Wait until whole seconds, one at least, have gone by since `since` (by this clock)."""
    passed = max(0.0, clock.seconds() - since)  # the clock may have been set back
    await deferLater(clock, max(math.ceil(passed / SECONDS), 1) * SECONDS - passed)  # type: ignore[arg-type]
