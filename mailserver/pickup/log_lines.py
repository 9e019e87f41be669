"""Log lines about the entries of the pickup folder, so few that no user can flood the log."""

from __future__ import annotations

from collections.abc import Callable

from mailserver.interfaces import Clock
from mailserver.pickup.folder import FoundFile

__all__ = ["PickupLog"]

TOLD_OF_A_USER = 20  # lines about a user's entries …
TOLD_SECONDS = 600.0  # … in this time
USERS_MOST = 1000


class PickupLog:
    """One line for each entry of the folder, and for one user no more than `TOLD_OF_A_USER` within `TOLD_SECONDS`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: set[FoundFile] = set()
        self._lines: dict[int, tuple[float, int]] = {}  # by user: since when, how many

    def once(self, found: FoundFile, words: str, say: Callable[..., None]) -> None:
        """Say it, unless it was said."""
        if found in self._entries:
            return
        self._entries.add(found)
        since, lines = self._lines.get(found.uid, (self._clock.seconds(), 0))
        if not 0 <= self._clock.seconds() - since < TOLD_SECONDS:
            since, lines = self._clock.seconds(), 0
        self._lines[found.uid] = since, lines + 1
        if lines < TOLD_OF_A_USER:
            say("{name} of user {uid} in the pickup folder {words}", name=ascii(found.name), uid=found.uid, words=words)
        elif lines == TOLD_OF_A_USER:
            say("for some minutes no more is told of entries of user {uid} in the pickup folder", uid=found.uid)

    def forget_others(self, present: set[FoundFile]) -> None:
        """Only these are still there.  An entry that goes and comes again gets a line again."""
        self._entries = {found for found in self._entries if not found.name or found in present}
        if len(self._lines) > USERS_MOST:
            self._lines.clear()
