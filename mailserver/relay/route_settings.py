"""A route as the relay follows it: which hosts, how they are connected to, and when it is tried again."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailserver.interfaces import RetryTimes
from mailserver.mail.answers import Delayed, Failed
from mailserver.relay.client_certificate import ClientCertificate
from mailserver.relay.hosts import Host, HostBook, Hosts
from mailserver.relay.login import RelayLogin
from mailserver.relay.pool import Key
from mailserver.relay.security import Barred, Demand, TLSMode, TLSOverride, demanded
from mailserver.relay.transmission import Target, Targets
from mailserver.relay.wishes import NO_WISHES, TLSWishes

__all__ = ["ConnectSettings", "RouteSettings"]


@dataclass(frozen=True, slots=True)
class ConnectSettings:
    """How to connect: the port, the TLS mode, our own addresses ("" for any), and which address families are used.

    `prefer` says which addresses of a host are tried first, "ipv4" or "ipv6"; "any": as the host has them.  One attempt tries up
    to `hosts_most` hosts and `addresses_most` of their addresses.  `login` is how to log in, None for no login; with
    `implicit_tls` connections are encrypted from the first octet on.  With
    `names_host` the hosts come from the configuration; `route` is the name of the route that says so.
    """

    port: int = 25
    tls: TLSMode = TLSMode.OPPORTUNISTIC
    source_ipv4: str = ""
    source_ipv6: str = ""
    ipv4: bool = True
    ipv6: bool = True
    prefer: str = "any"
    hosts_most: int = 5
    addresses_most: int = 5
    login: RelayLogin | None = None
    implicit_tls: bool = False
    certificate: ClientCertificate | None = None
    names_host: bool = False
    route: str = ""

    @property
    def identity(self) -> Hashable:
        """What no two connections of different log-ins or certificates have in common, for the pool's key."""
        if self.login is None and self.certificate is None and not self.implicit_tls:
            return None
        return (self.login, self.certificate, self.implicit_tls)

    def targets(
        self,
        hosts: Hosts,
        chance: random.Random,
        wishes: TLSWishes = NO_WISHES,
        override: TLSOverride | None = None,
        *,
        spares_ipv6: bool = False,
    ) -> Targets:
        """The addresses in the order in which they are tried, with what is demanded there.

        With `spares_ipv6` the IPv6 addresses of the Internet are left out where there are IPv4 addresses, too.
        A message with REQUIRETLS is tried at all of them: one that takes it may be the last.
        """
        by_host: list[list[Target]] = []
        barred: list[Barred] = []
        identity = self.identity
        ours = self.login, self.implicit_tls, self.certificate, self.names_host, self.route
        spares_ipv6 = spares_ipv6 and any(":" not in one for group in hosts.groups for host in group for one in host.addresses)
        for host in hosts.in_order(chance):
            demand = self.demand(hosts, host, wishes, override)
            if isinstance(demand, Barred):
                barred.append(demand)
                continue
            targets = []
            for address in self._addresses(host, spares_ipv6):
                source = self.source_ipv6 if ":" in address else self.source_ipv4
                key = Key(address, host.port or self.port, demand.value, source, identity)
                targets.append(Target(host.name, key, demand, *ours))
            if targets:
                by_host.append(targets)
        if wishes.requires_tls:
            return Targets([target for targets in by_host for target in targets], barred)
        return Targets(_bounded(by_host[: self.hosts_most], self.addresses_most), barred)

    def demand(
        self, hosts: Hosts, host: Host, wishes: TLSWishes = NO_WISHES, override: TLSOverride | None = None
    ) -> Demand | Barred:
        """What a connection to this one of the hosts must have."""
        return demanded(
            tls=self.tls,
            domain=hosts.domain,
            host=host,
            sts=hosts.sts,
            name_is_sure=hosts.is_authentic,
            requires_tls=wishes.requires_tls,
            tls_not_required=wishes.tls_not_required,
            override=override,
            logs_in=self.login is not None,
        )

    @property
    def leaves_family_open(self) -> bool:
        """Whether nobody has said that IPv6 shall be used, or that it shall not."""
        return self.ipv4 and self.ipv6 and self.prefer != "ipv6"

    def _addresses(self, host: Host, spares_ipv6: bool) -> Sequence[str]:
        """Those of the host that are used, in their order."""
        addresses: Sequence[str] = host.addresses
        if spares_ipv6:
            addresses = [one for one in addresses if ":" not in one or not ipaddress.ip_address(one).is_global]
        if not (self.ipv4 and self.ipv6):
            addresses = [one for one in addresses if (self.ipv6 if ":" in one else self.ipv4)]
        if self.prefer == "any":
            return addresses
        first = self.prefer == "ipv6"
        return sorted(addresses, key=lambda one: (":" in one) is not first)


@dataclass(frozen=True, slots=True, eq=False)
class RouteSettings:
    """One route.

    `book` says where a domain's mail goes; with `by_domain` False its look-up of the empty name serves all domains.  `name` is
    the route's, "" for what `[relay]` itself says.  With `refusal` nothing is sent: that is the outcome.
    `facts` are for people (`route_facts`).
    """

    book: HostBook
    connect_settings: ConnectSettings
    by_domain: bool = True
    name: str = ""
    retry_times: RetryTimes | None = None
    refusal: Delayed | Failed | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def _bounded(by_host: Sequence[list[Target]], most: int) -> list[Target]:
    """So many of them: a host with many addresses gives up its last ones, before another host has none."""
    count = sum(map(len, by_host))
    while count > most and max(map(len, by_host)) > 1:
        longest = max(reversed(by_host), key=len)
        longest.pop()
        count -= 1
    return [target for targets in by_host for target in targets][:most]
