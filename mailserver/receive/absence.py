"""Recipients whose mail nobody could deliver now: they are put off at RCPT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from mailserver.interfaces import IMayBeMissing, IRouter
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Refused, Remote, Route
from mailserver.smtp import replies

__all__ = ["RouterAtTheDoor"]


@implementer(IRouter)
class RouterAtTheDoor:
    """Asks `router`, and `local` and `remote`, the deliveries of its routes, whether they are there."""

    def __init__(self, router: Any, *, local: Any, remote: Any) -> None:
        self._router = router
        self._deliveries = [
            (kind, one) for kind, one in ((Local, local), (Remote, remote)) if IMayBeMissing.providedBy(one)
        ]

    async def route(self, address: Address) -> Sequence[Route]:
        """The router's routes, or one `Refused` with 451."""
        routes: Sequence[Route] = await self._router.route(address)
        for kind, delivery in self._deliveries:
            if any(isinstance(route, kind) for route in routes) and (why := delivery.missing()):
                return [Refused(replies.LOCAL_ERROR, f"the delivery is missing: {why}")]
        return routes
