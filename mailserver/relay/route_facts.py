"""What a route says, as `mailserver route` shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mailserver.config.route_table import NextHop, RouteTable, next_hop_of, next_hop_of_relay
from mailserver.config.schema import Configuration
from mailserver.mail.address import Address
from mailserver.mail.route_map import RouteMap

__all__ = ["facts_of", "way_of"]

Facts = Mapping[str, Any]


def facts_of(table: RouteTable | None, hop: NextHop | None) -> Facts:
    """Of a route (None: `[relay]` itself) and where it sends mail (None: nowhere).  No secrets."""
    facts: dict[str, Any] = {"route": "" if table is None else table.label}
    if hop is None:
        return {**facts, "use": "none", "reason": "" if table is None else table.reason}
    facts |= {
        "use": "mx" if hop.host is None else "smarthost",
        "host": hop.host or "",
        "look_up_mx": hop.look_up_mx,
        "port": hop.port,
        "tls": hop.tls,
        "implicit_tls": hop.implicit_tls,
        "username": hop.username,
        "login": ("oauth" if hop.oauth else "password") if hop.username else "",
        "client_certificate": hop.client_certificate or "",
        "source_ipv4": hop.source_ipv4 or "",
        "source_ipv6": hop.source_ipv6 or "",
        "ip": hop.ip,
        "prefer": hop.prefer,
    }
    if table is not None:
        for key in ("retry", "warn", "expire"):
            if getattr(table, key) is not None:
                facts[key] = getattr(table, key)
    return facts


def way_of(configuration: Configuration) -> Callable[[Address | None, Address], Facts]:
    """A function: what holds for mail of this sender to this address, by the configuration alone."""
    relay = next_hop_of_relay(configuration.relay.use, configuration.relay.options)
    ways = RouteMap(
        facts_of(None, relay),
        [
            (table.rule, facts_of(table, None if table.use == "none" else next_hop_of(table, relay)))
            for table in configuration.route
        ],
    )
    return ways.route_for
