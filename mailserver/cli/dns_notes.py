"""Name servers that are not believed: mail that goes out by them knows nothing of DANE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailserver.cli.without_server import NotNow, finished

if TYPE_CHECKING:
    from mailserver.config import Configuration

__all__ = ["dns_notes"]

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
