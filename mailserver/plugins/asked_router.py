"""A plugin's router as the core asks it: within its time, and each answer looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.mail.address import Address
from mailserver.mail.answers import NotMine, Route
from mailserver.plugins.asking import Asking
from mailserver.plugins.sound_routes import routes_of

__all__ = ["AskedRouter"]


class AskedRouter:
    """Raises `CannotTell` in place of whatever the router does wrong."""

    def __init__(self, router: Any, asking: Asking, seconds: float) -> None:
        self._router = router
        self._asking = asking
        self._seconds = seconds

    async def route(self, address: Address) -> Sequence[Route] | NotMine:
        """As `IRouter`."""
        answer = self._asking.ask("route", self._seconds, routes_of, self._router.route, address)
        return await answer if isinstance(answer, Deferred) else answer
