"""Name servers that are not believed: mail that goes out by them knows nothing of DANE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailserver.cli.without_server import NotNow, finished

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["dns_notes", "reverse_name_notes"]

SECONDS = 10.0


def dns_notes(configuration: Configuration) -> list[str]:
    """A sentence for each server whose AD bit does not count, where mail goes out and nobody has ordered that.  Asks them."""
    sends = configuration.relay.use in ("mx", "smarthost") or bool(configuration.route)
    if not sends or configuration.dns.trust != "auto":
        return []
    from twisted.internet import reactor

    from mailserver.assembly.resolver import make_resolver

    resolver = make_resolver(configuration, reactor, examines=True)
    found: dict[str, Any] = {}
    try:
        finished(resolver.start())
        found = finished(resolver.examined(), SECONDS)
    except NotNow:
        found = resolver.beliefs
    finally:
        finished(resolver.stop())
    return [
        f"dns: {server} is {said}; mail goes out without DANE where it is asked (docs/dns.md)"
        for server, said in found.items()
        if not said.startswith("believed")
    ]


def reverse_name_notes(configuration: Configuration) -> list[str]:
    """A sentence for each of our IPv6 addresses without a confirmed reverse name, where mail may leave from it.  Asks the DNS."""
    from mailserver.config.route_table import next_hop_of, next_hop_of_relay

    relay = next_hop_of_relay(configuration.relay.use, configuration.relay.options)
    hops = [relay] if relay is not None else []
    hops += [next_hop_of(route, relay) for route in configuration.route if route.use != "none"]
    open_hops = [hop for hop in hops if hop.host is None and hop.ip == "any" and hop.prefer != "ipv6"]
    if not open_hops:
        return []
    from twisted.internet import reactor

    from mailserver.assembly.resolver import make_resolver
    from mailserver.relay.own_ipv6 import ReverseName, found_out, kernels_address

    addresses = {hop.source_ipv6 or kernels_address() for hop in open_hops} - {""}
    resolver, found = make_resolver(configuration, reactor), []
    try:
        finished(resolver.start())
        found = [finished(found_out(address, resolver), SECONDS) for address in sorted(addresses)]
    except NotNow:
        return []
    finally:
        finished(resolver.stop())
    return [
        f"relay: our IPv6 address {one.address} {one.why}: mail exchangers with IPv4 are connected to over IPv4 (docs/relay.md)"
        for one in found
        if one.state is ReverseName.MISSING
    ]
