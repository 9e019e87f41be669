"""Who exists, remembered for a while: each recipient of each message asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from mailserver.interfaces import Clock
from mailserver.mail.until import still_holds

__all__ = ["KnownAccounts"]

AT_MOST = 10_000


class KnownAccounts:
    """A cache of which accounts exist and which do not.

    Answers are kept for `seconds`.  The least recently used leave first.  Errors are not kept.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._known: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    def note(self, name: str) -> None:
        """Remember that the account exists."""
        self._keep(name, True)

    def forget(self) -> None:
        """Ask again, whoever it is."""
        self._known.clear()

    async def exists(self, name: str, ask: Callable[[str], Awaitable[bool]]) -> bool:
        """Whether the account exists: from the cache, else by `ask`.  Its errors pass."""
        now = self._clock.seconds()
        until, exists = self._known.get(name, (0.0, False))
        if not still_holds(until, now, self._seconds):
            exists = await ask(name)
            self._keep(name, exists)
        return exists

    def _keep(self, name: str, exists: bool) -> None:
        self._known[name] = (self._clock.seconds() + self._seconds, exists)
        self._known.move_to_end(name)
        if len(self._known) > AT_MOST:
            self._known.popitem(last=False)
