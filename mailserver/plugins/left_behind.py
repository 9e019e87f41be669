"""What was given up at its deadline and runs on all the same: how much of that there is.

A deadline ends the waiting.  A coroutine that catches its cancellation, or a Deferred that does not let itself be cancelled, goes
on.  It is only counted here, and what nobody refers to any more is gone.
"""

from __future__ import annotations

import weakref
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.plugins.awaiting import Rest

__all__ = ["LeftBehind"]


class LeftBehind:
    """Counts what still runs (`len`); `things` may hold what has ended since.

    `add` is told what was given up, after its cancelling.
    """

    __slots__ = ("things",)

    def __init__(self) -> None:
        self.things: list[weakref.ref[Any]] = []

    def add(self, answer: Deferred[Any]) -> None:
        """An answer that nobody waits for any more."""
        thing = answer.coroutine if isinstance(answer, Rest) else answer
        if _runs(thing):
            self.things = [one for one in self.things if _runs(one())]
            self.things.append(weakref.ref(thing))

    def __len__(self) -> int:
        if self.things:
            self.things = [one for one in self.things if _runs(one())]
        return len(self.things)


def _runs(thing: Any) -> bool:
    if thing is None:
        return False
    return not thing.called if isinstance(thing, Deferred) else thing.cr_frame is not None
