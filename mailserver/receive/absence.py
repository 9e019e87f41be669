"""Recipients whose mail nobody could deliver now: they are put off at RCPT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from mailserver.interfaces import IMayBeMissing, IRouter
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Refused, Route
from mailserver.smtp import replies

__all__ = ["RouterAtTheDoor", "at_the_door"]


def at_the_door(router: Any, delivery: Any) -> Any:
    """The router for RCPT: where the delivery cannot be missing it is the router itself."""
    return RouterAtTheDoor(router, delivery) if IMayBeMissing.providedBy(delivery) else router


@implementer(IRouter)
class RouterAtTheDoor:
    """Asks `router`, and `delivery`, which serves its local routes, whether it is there.

    Mail for other hosts goes into the queue in any case: whether this peer may relay at all is asked later.
    """

    def __init__(self, router: Any, delivery: Any) -> None:
        self._router = router
        self._delivery = delivery

    async def route(self, address: Address) -> Sequence[Route]:
        """The router's routes, or one `Refused` with 451."""
        routes: Sequence[Route] = await self._router.route(address)
        if any(isinstance(route, Local) for route in routes) and (why := self._delivery.missing()):
            return [Refused(replies.LOCAL_ERROR, f"who would deliver it is missing: {why}")]
        return routes
