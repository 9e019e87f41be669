"""An `IStateStore` in memory."""

from __future__ import annotations

import sys

from mailserver.interfaces import Clock, IStateStore
from mailserver.state_store.facts import Fact
from mailserver.state_store.former import FormerState
from mailserver.state_store.space import Space
from mailserver.testing.verbs import Calls, watched

__all__ = ["MemoryState"]


@watched(IStateStore)
class MemoryState(Space):
    """Small facts that expire by the given clock.  They are lost at the end of the test.

    It is one space; `space(name)` is another beside it, and always the same one for one name.  The verbs in `failing` raise
    `StorageBroken` (``"*"`` stands for all of them); `calls` knows those of all spaces that nobody has awaited.
    """

    what = "state"

    def __init__(self, clock: Clock, *, name: str = "", beside: MemoryStore | None = None) -> None:
        self._beside = MemoryStore(clock) if beside is None else beside
        self.failing: set[str] = set()
        self.calls = self._beside.calls
        most = sys.maxsize
        super().__init__(name, self._beside, facts_most=most, remembered=most, octets_most=most, unwritten_most=most)
        self._beside.spaces.setdefault(name, self)

    def space(self, name: str) -> MemoryState:
        """Another space."""
        return self._beside.space(name)

    def seconds(self) -> float:
        """The time that lifetimes go by: the test's."""
        return self._beside.seconds()


class MemoryStore:
    """A store without a disk.  Its spaces share a clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.calls = Calls()
        self.spaces: dict[str, MemoryState] = {}

    def space(self, name: str, *, facts_most: int | None = None) -> MemoryState:
        """The facts under this name; there is no bound."""
        found = self.spaces.get(name)
        return MemoryState(self._clock, name=name, beside=self) if found is None else found

    def former(self, own: str) -> FormerState:
        """As plugins of API 0.1 know them."""
        return FormerState(self, own)

    def seconds(self) -> float:
        """The test's time."""
        return self._clock.seconds()

    def on_the_wall(self, moment: float) -> float:
        """Nobody sets a test's clock."""
        return moment

    def changed(self, space: Space) -> None:
        """There is nowhere to write it."""
        space.begin_write()
        space.written()

    async def read(self, space: str, key: str) -> Fact | None:
        """All of it is in memory."""
        return None

    async def read_range(self, space: str, first: str, before: str | None, most: int) -> dict[str, Fact]:
        """All of it is in memory."""
        return {}

    def read_now(self, space: str, key: str) -> Fact | None:
        """All of it is in memory."""
        return None

    def read_range_now(self, space: str, first: str, most: int) -> dict[str, Fact]:
        """All of it is in memory."""
        return {}
