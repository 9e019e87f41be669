"""The command about an address: where it leads, and what a peer would hear at RCPT."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mailserver.control.parts import PolicyParts, RunningServer
from mailserver.control.server import CommandRefused
from mailserver.interfaces import CannotTell, IHostFinder
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Local, Refused, Remote, Route
from mailserver.mail.networks import Networks
from mailserver.mail.route_map import ANYBODY
from mailserver.routing.router import Hop

__all__ = ["RelayRights", "RouteCommands", "itinerary", "parsed_address", "parsed_sender", "refused_by_way", "usable_routes"]

NOT_SENT_ON = "Mail for this recipient is not sent on"


class RouteCommands:
    """``route``.  `policy` gives the one in force."""

    def __init__(self, server: RunningServer, policy: Callable[[], PolicyParts]) -> None:
        self._server = server
        self._policy = policy

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {"route": self.route}

    async def route(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`address`; `from`, an IP address or network, "" for nobody in particular; `sender`, likewise, "<>" for the null one."""
        policy, server = self._policy(), self._server
        address = parsed_address(str(arguments.get("address", "")))
        try:
            with policy.generation:
                routes, hops = await policy.router.explain(address)
        except (AddressError, CannotTell) as error:
            raise CommandRefused(f"{address}: {error}") from error
        profile, peer = policy.pickup_profile, str(arguments.get("from", ""))
        rights = RelayRights(profile.relay_networks, profile.is_second_for)
        answer = itinerary(address, routes, hops, peer, rights, server.remote is not None)
        sender = parsed_sender(str(arguments.get("sender", "")))
        for end, route in zip(answer["ends"], routes, strict=True):
            if isinstance(route, Remote) and server.relay is not None:
                end["way"] = dict(server.relay.way_for(sender, route.address))
            if isinstance(route, Remote) and IHostFinder.providedBy(server.remote):
                end |= await self._hosts(route.address, sender if server.relay is not None else ANYBODY)
        return refused_by_way(answer)

    async def _hosts(self, address: Address, sender: Address | None) -> dict[str, Any]:
        remote: Any = self._server.remote
        try:
            if sender is ANYBODY:
                found = await remote.hosts_for(address)
            else:
                found = await remote.hosts_for(address, sender)
        except (AddressError, CannotTell) as error:
            return {"fault": str(error)}
        if isinstance(found, Sequence):
            return {"hosts": [asdict(one) for one in found]}
        return {"fault": f"{found.reply} ({found.note})"}


@dataclass(frozen=True, slots=True)
class RelayRights:
    """Who may send to other hosts without a login: these networks, and anybody to the addresses that this host is second for."""

    networks: Networks
    is_second_for: Callable[[Address], bool]

    def may_send(self, peer: str, address: Address) -> bool:
        """Every address of the peer's network may; "" is a peer without rights."""
        if self.is_second_for(address):
            return True
        return bool(peer) and self.networks.covers(ipaddress.ip_network(peer, strict=False))


def parsed_address(text: str) -> Address:
    """The address, ``postmaster`` alone included.  Raises `CommandRefused` where it is malformed."""
    try:
        return Address.parse(text, utf8=True) if text.lower() != "postmaster" else Address(text, "")
    except AddressError as error:
        raise CommandRefused(f"{text!r} is not an address: {error}") from error


def parsed_sender(text: str) -> Address | None:
    """A sender nobody has named is taken for a stranger's; ``<>`` is the null reverse-path.  Raises `CommandRefused`."""
    if text == "<>":
        return None
    return parsed_address(text) if text else ANYBODY


def refused_by_way(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, with the refusal where a route says so."""
    for end in answer["ends"]:
        way = end.get("way")
        if answer["accepted"] and way is not None and way["use"] == "none":
            answer |= {"accepted": False, "reply": f"550 5.7.1 {way['reason'] or NOT_SENT_ON}"}
    return answer


def usable_routes(address: Address, routes: Sequence[Route], relays: bool) -> tuple[Local | Remote, ...]:
    """The routes for a redirected message.  Raises `CommandRefused` where mail cannot go there."""
    usable: list[Local | Remote] = []
    for route in routes:
        if isinstance(route, Refused):
            raise CommandRefused(f"{address}: {route.why}")
        if isinstance(route, Remote) and not relays:
            raise CommandRefused(f'{address}: it is elsewhere, and there is no relay ([relay] use = "none")')
        usable.append(route)
    return tuple(usable)


def itinerary(
    address: Address, routes: Sequence[Route], hops: Sequence[Hop], peer: str, rights: RelayRights, relays: bool
) -> dict[str, Any]:
    """Where the address leads, and what a peer would hear at RCPT (`accepted` and `reply`), "" for a peer without rights."""
    refusal, partly = "", False
    for route in routes:
        if isinstance(route, Refused):
            refusal = str(route.reply)
        elif isinstance(route, Remote) and not relays:
            refusal = "550 5.7.1 Relaying denied: there is no relay"
        elif isinstance(route, Remote) and route.address == address and not rights.may_send(peer, address):
            refusal = "550 5.7.1 Relaying denied: only [relay] networks and users who have logged in may send there"
            partly = bool(peer) and rights.networks.overlaps(ipaddress.ip_network(peer, strict=False))
        if refusal:
            break
    return {
        "address": str(address),
        "from": peer,
        "accepted": not refusal,
        "reply": refusal or "250 2.1.5 OK",
        "partly": partly,  # some addresses of the peer's network may, others not
        "hops": [_hop(hop) for hop in hops],
        "ends": [_end(route) for route in routes],
    }


def _hop(hop: Hop) -> dict[str, Any]:
    further = [str(address) for address in hop.leads_to] if isinstance(hop.leads_to, tuple) else []
    return {"address": str(hop.address), "how": hop.how, "leads_to": further}


def _end(route: Route) -> dict[str, Any]:
    if isinstance(route, Refused):
        return {"kind": "refused", "reply": str(route.reply), "why": route.why}
    if isinstance(route, Remote):
        return {"kind": "remote", "address": str(route.address), "domain": route.address.domain_key}
    box = route.mailbox
    name = f"{box.user}@{box.domain}" if box.domain else box.user
    end = {
        "kind": "local",
        "address": str(route.address),
        "mailbox": name,
        "folder": "/".join(box.folder),
        "if_there": box.folder_must_exist,
        "system_user": box.system,
    }
    return end | {"reader": box.reader} if box.reader else end
