"""Which mail the relay's routes refuse, so that its sender hears it at RCPT."""

from __future__ import annotations

from collections.abc import Callable

from mailserver.config import Configuration
from mailserver.mail.address import Address
from mailserver.mail.route_map import RouteMap

__all__ = ["NO_ROUTE", "route_refusals"]

NO_ROUTE = "There is no relay for this recipient"


def route_refusals(configuration: Configuration) -> Callable[[Address | None, Address], str | None]:
    """A function: why mail of this sender to this address is not sent on, "" without a reason; None where it is."""
    default = NO_ROUTE if configuration.relay.use == "none" and configuration.route else None
    refusals: RouteMap[str | None] = RouteMap(
        default, [(route.rule, route.reason if route.use == "none" else None) for route in configuration.route]
    )
    return refusals.route_for
