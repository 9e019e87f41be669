"""Refuses or defers peers by network or HELO name, and senders by address or domain.

The shipped example of a filter; `docs/plugins/filter.md` walks through it.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

from zope.interface import implementer

from mailserver.api import (
    Defer,
    DomainName,
    Envelope,
    IComponentFactory,
    IPeerFilter,
    ISenderFilter,
    MailAddress,
    Network,
    Options,
    Pass,
    Peer,
    Refuse,
    Services,
    Verdict,
    normal_names,
)

__all__ = ["Denylist", "DenylistOptions", "factory"]


class DenylistOptions(Options):
    """Who is not wanted."""

    networks: tuple[Network, ...] = ()
    """Networks of peers: `192.0.2.0/24`, or one address."""
    hello_names: tuple[DomainName, ...] = ()
    """Names given with EHLO or HELO; a domain stands for every name below it, too."""
    senders: tuple[MailAddress, ...] = ()
    """Whole addresses of senders; upper and lower case are the same."""
    sender_domains: tuple[DomainName, ...] = ()
    """Domains of senders, with every name below them."""
    verdict: Literal["refuse", "defer"] = "refuse"
    """Whether they are refused (5yz) or deferred (4yz)."""


@implementer(IPeerFilter, ISenderFilter)
class Denylist:
    """Says no to those who are listed and nothing to all others."""

    def __init__(self, options: DenylistOptions) -> None:
        self._networks = options.networks
        self._hello_names = frozenset(options.hello_names)
        self._senders = frozenset(map(normal_names, options.senders))
        self._sender_domains = frozenset(options.sender_domains)
        self._no = Refuse if options.verdict == "refuse" else Defer

    async def judge_peer(self, peer: Peer) -> Verdict:
        """Judge the network at connect, and the HELO name when there is one."""
        address = _address_of(peer) if self._networks else None
        if address is not None:
            for network in self._networks:
                if address in network:
                    return self._no(f"the peer {peer.address} is in {network}")
        if _is_listed(peer.hello, self._hello_names):
            return self._no(f"the peer calls itself {peer.hello}")
        return Pass()

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """Judge the reverse-path; the null reverse-path of bounces always passes."""
        sender = envelope.sender
        if sender is None:
            return Pass()
        if normal_names(sender) in self._senders:
            return self._no(f"the sender {sender} is listed")
        if _is_listed(sender.domain_key, self._sender_domains):
            return self._no(f"the sender's domain {sender.domain} is listed")
        return Pass()


def _address_of(peer: Peer) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None on a Unix socket, and behind a proxy that does not say whom it brings."""
    try:
        address = ipaddress.ip_address(peer.address.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address  # an IPv4 peer on a listener for both is ::ffff:192.0.2.1


def _is_listed(name: str, domains: frozenset[str]) -> bool:
    """Is the name one of the domains, or below one?"""
    labels = name.rstrip(".").lower().split(".")
    return any(".".join(labels[n:]) in domains for n in range(len(labels)))


@implementer(IComponentFactory)
class DenylistFactory:
    """Makes a denylist for each `[[filter]]` that uses it."""

    name = "denylist"
    summary = "Refuses or defers peers by network or HELO name, and senders by address or domain."
    api_version = "1.0"
    replays = True
    provides = (IPeerFilter, ISenderFilter)
    options = DenylistOptions

    def build(self, options: Any, services: Services) -> Denylist:
        """Return the filter."""
        return Denylist(options)


factory = DenylistFactory()
