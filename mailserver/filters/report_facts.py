"""Facts that are counted by day for reports: what DMARC's and TLS's have in common.

They are in the state store, so they outlive a restart; a power loss may cost seconds of them.  All is bounded, and what goes
beyond is counted and told.
"""

from __future__ import annotations

from twisted.logger import Logger

from mailserver.api import Clock, IStateStore
from mailserver.filters.report_days import DAY_SECONDS
from mailserver.mail.json_text import json_text

__all__ = ["ENCODE", "KEPT_SECONDS", "ReportFacts"]

KEPT_SECONDS = 4.0 * DAY_SECONDS
GROUPS_MOST = 5_000  # of a day
REMEMBERED = 20_000  # keys that are known to be there
PAGE = 10_000
ENCODE = json_text()


class ReportFacts:
    """`beyond` is what the log says once a day where something had no room."""

    beyond = ""
    log = Logger()

    def __init__(self, state: IStateStore, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._known: set[str] = set()
        self._told = ""

    async def left_out(self, day: str) -> int:
        """How much of the day had no room, or not with all that was to be said of it."""
        return int(await self._state.get(f"beyond/{day}") or 0)

    async def _has_group(self, day: str, path: str, value: bytes) -> bool:
        """Whether there is a report of this path, or room for one more of the day."""
        is_new = await self._state.put_if_absent(f"group/{path}", value, KEPT_SECONDS)
        if is_new and await self._state.add(f"groups/{day}", 1, KEPT_SECONDS) > GROUPS_MOST:
            await self._state.drop(f"group/{path}")
            return False
        return True

    async def _have_room(self, *counts: tuple[str, int]) -> bool:
        """Whether one more is not too many for each of these counts; it is counted up to the first that has no room."""
        for count, most in counts:
            if await self._state.add(count, 1, KEPT_SECONDS) > most:
                return False
        return True

    def _remember(self, key: str) -> None:
        """It is there."""
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known.add(key)

    async def _beyond(self, day: str) -> bool:
        """It had no room."""
        await self._state.add(f"beyond/{day}", 1, KEPT_SECONDS)
        if self._told != day:
            self._told = day
            self.log.warn("{what}", what=self.beyond.format(day=day))
        return False

    async def _all(self, first: str) -> list[tuple[str, bytes]]:
        """Key and value of all keys that begin so."""
        found: list[tuple[str, bytes]] = []
        at, before = first, first + "\U0010ffff"
        while page := await self._state.items(at, before, PAGE):
            found += [(key, value) for key, value, _ in page]
            at = page[-1][0] + "\0"
        return found
