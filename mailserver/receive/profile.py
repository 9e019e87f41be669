"""What the connections of one listener share."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred

from mailserver.interfaces import Clock
from mailserver.mail.address import Address
from mailserver.mail.answers import Route
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.ids import IdSource
from mailserver.mail.parcel import Destination
from mailserver.receive.judging import Asks, Judging
from mailserver.receive.spooling import Spool
from mailserver.receive.throttle import Pace, Patience
from mailserver.smtp.server import Extensions, SessionLimits

__all__ = ["Limits", "Networks", "Profile", "Router", "Store"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one connection; where each default comes from stands in docs/configuration.md."""

    message_octets: int = 52_428_800
    header_octets: int = 262_144
    recipients: int = 1000
    messages_per_connection: int = 10_000
    hops: int = 100
    greeting_delay_seconds: float = 0
    pipelined_octets: int = 65_536
    patience: Patience = field(default_factory=Patience)
    pace: Pace = field(default_factory=Pace)


class Networks:
    """A set of networks with a cached answer for each address."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._answers: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        answer = self._answers.get(address)
        if answer is None:
            if len(self._answers) >= 4096:
                self._answers.clear()
            answer = self._answers[address] = self._holds(address)
        return answer

    def _holds(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)


class Store(Protocol):
    """The queue, as far as the door sees it."""

    @property
    def writable(self) -> bool: ...

    def room_for(self, octets: int) -> bool: ...

    def spool_path(self, id: str) -> str: ...

    def commit(self, envelope: Envelope, content: Content, destinations: tuple[Destination, ...]) -> Deferred[None]: ...


class Router(Protocol):
    """`IRouter`."""

    def route(self, address: Address) -> Awaitable[Sequence[Route]]: ...


@dataclass(frozen=True, slots=True)
class Profile:
    """How a listener behaves.

    `service` is ``mx``, ``submission`` or ``lmtp``.  `relays` says whether there is anything that could take mail to other
    hosts; `relay_networks` may use it without authentication.  Connections from `bare_lf_networks` may end lines with LF
    alone, which is converted.  `note` records a step of a message's or a connection's road.
    """

    service: str
    hostname: str
    limits: Limits
    judging: Judging
    router: Router
    store: Store
    relays: bool
    relay_networks: Networks
    bare_lf_networks: Networks
    clock: Clock
    ids: IdSource
    spool: Spool
    note: Callable[..., None]
    asks: Asks = field(init=False)
    extensions: Extensions = field(init=False)
    session_limits: SessionLimits = field(init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        announced = Extensions(
            size=limits.message_octets, recipients_max=limits.recipients, mail_max=limits.messages_per_connection
        )
        session_limits = SessionLimits(message_octets=limits.message_octets, header_octets=limits.header_octets)
        object.__setattr__(self, "asks", self.judging.asks(self.service))
        object.__setattr__(self, "extensions", announced)
        object.__setattr__(self, "session_limits", session_limits)

    @property
    def lmtp(self) -> bool:
        """The listener speaks LMTP (RFC 2033)."""
        return self.service == "lmtp"
