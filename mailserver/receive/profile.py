"""What the connections of one listener share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred

from mailserver.interfaces import Clock
from mailserver.mail.address import Address
from mailserver.mail.answers import Route
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer
from mailserver.mail.ids import IdSource
from mailserver.mail.known_sender import ToldSenders
from mailserver.mail.networks import Networks
from mailserver.mail.parcel import Destination
from mailserver.mail.reverse_names import LookUp
from mailserver.mail.set_apart import SetApart
from mailserver.plugins.generation import Generation
from mailserver.receive.absence import Absence
from mailserver.receive.encryption import Encryption, has_certificate_of
from mailserver.receive.ends import Ends
from mailserver.receive.judging import Asks, Judging
from mailserver.receive.service_extensions import ServiceExtensions
from mailserver.receive.spooling import SpoolBudget
from mailserver.receive.submission.rules import Submission
from mailserver.receive.throttle import Pace, Patience
from mailserver.receive.tls_rules import NO_TLS_RULES, TLSRules
from mailserver.sasl.steps import ChannelBindings
from mailserver.smtp.server.session import Extensions, SessionLimits

__all__ = ["CopyPolicy", "OffersLogins", "ConnectionLimits", "Profile", "FindsRoutes", "Store"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on one connection; where each default comes from stands in docs/configuration.md."""

    message_octets: int = 52_428_800
    header_octets: int = 262_144
    stray_line_ends: Literal["normalize", "refuse"] = "normalize"
    recipients: int = 1000
    messages_per_connection: int = 10_000
    hops: int = 100
    greeting_delay_seconds: float = 0
    pipelined_octets: int = 65_536
    proxy_header_seconds: float = 5.0
    patience: Patience = field(default_factory=Patience)
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class CopyPolicy:
    """What becomes of copies that are not simply delivered.

    `told`: who hears of the recipients whose verdicts refuse his message, where one reply cannot say so; everybody else's copies
    are held.  `holds_quarantine`: what is put aside is held, also a copy for a
    mailbox, which else goes to Junk.
    """

    told: ToldSenders = ToldSenders.USERS
    holds_quarantine: bool = False


class Store(Protocol):
    """The queue, as far as a listener needs it."""

    @property
    def writable(self) -> bool: ...

    def room_for(self, octets: int) -> bool: ...

    def spool_path(self, id: str) -> str: ...

    def commit(
        self,
        envelope: Envelope,
        content: Content,
        destinations: tuple[Destination, ...],
        set_apart: Mapping[int, SetApart] = ...,
    ) -> Deferred[None]: ...


class OffersLogins(Protocol):
    """`IAuthenticator`."""

    def mechanisms(self, peer: Peer) -> Sequence[str]: ...

    def begin(self, mechanism: str, peer: Peer, bindings: ChannelBindings) -> Any: ...

    def granted_senders(self, account: str) -> Awaitable[Sequence[str]]: ...


class FindsRoutes(Protocol):
    """`IRouter`."""

    def route(self, address: Address) -> Awaitable[Sequence[Route]]: ...


def _for_nobody(address: Address) -> bool:
    """This host is nobody's second mail exchanger."""
    return False


def _sent_on(sender: Address | None, address: Address) -> None:
    """All mail is."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How a listener behaves.

    `service` is ``mx``, ``submission`` or ``lmtp``.  `relays` says whether there is anything that could take mail to other
    hosts, and `why_not_sent_on(sender, address)` why it does not take mail of this sender there, None where it does;
    `relay_networks` and the owners of `relay_certificates` (SHA-256 fingerprints) may use it without authentication, and anybody
    for the addresses that it `is_second_for`.
    `submission` is what is asked of users' messages, `tls_rules` whose mail is taken over encrypted connections alone.
    `encryption` is None where there is no TLS, `authenticator` where nobody can log in.  `hides_clients` keeps the address of a
    user who has logged in out of the Received field.  Where `proxies` is given, each connection begins with a PROXY header, and
    only these may connect (and whoever may use a Unix socket).  Connections from `bare_lf_networks` may end lines with LF
    alone (`ServerSession.lf_lines`).  `note` records a step of a message's or a connection's road.
    `absence` says whether a delivery is missing; None: mail is queued in any case, since nobody waits for a reply.
    `ends` are told how transactions and connections end; `service_extensions` is what plugins add to the offer.
    `look_up` is `IResolver.query`, for the names of peers.
    `is_return_path` knows the return paths of forwarded mail, which take bounces alone.
    `generation` counts what is under way with these parts.  The times of connections go by `steady_seconds`, a clock that
    nobody sets, where it is given, else by `clock`.
    """

    service: str
    hostname: str
    limits: ConnectionLimits
    judging: Judging
    router: FindsRoutes
    store: Store
    relays: bool
    relay_networks: Networks
    bare_lf_networks: Networks
    clock: Clock
    ids: IdSource
    spool: SpoolBudget
    note: Callable[..., None]
    encryption: Encryption | None = None
    tls_required: bool = False
    authenticator: OffersLogins | None = None
    failures_per_connection: int = 3
    relay_certificates: frozenset[str] = frozenset()
    hides_clients: bool = False
    submission: Submission | None = None
    tls_rules: TLSRules = NO_TLS_RULES
    proxies: Networks | None = None
    absence: Absence | None = None
    generation: Generation = field(default_factory=Generation)
    steady_seconds: Callable[[], float] | None = None
    look_up: LookUp | None = None
    ends: Ends | None = None
    service_extensions: ServiceExtensions | None = None
    copy_policy: CopyPolicy = CopyPolicy()
    is_return_path: Callable[[Address], bool] | None = None
    why_not_sent_on: Callable[[Address | None, Address], str | None] = _sent_on
    is_second_for: Callable[[Address], bool] = _for_nobody
    seconds: Callable[[], float] = field(init=False)
    lmtp: bool = field(init=False)  # the listener speaks LMTP (RFC 2033)
    asks: Asks = field(init=False)
    extensions: Extensions = field(init=False)
    session_limits: SessionLimits = field(init=False)
    _offers: dict[tuple[bool, tuple[str, ...], tuple[str, ...]], Extensions] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        limits = self.limits
        object.__setattr__(self, "seconds", self.steady_seconds or self.clock.seconds)
        object.__setattr__(self, "lmtp", self.service == "lmtp")
        object.__setattr__(self, "asks", self.judging.asks(self.service))
        announced = Extensions(
            size=limits.message_octets,
            recipients_max=limits.recipients,
            mail_max=limits.messages_per_connection,
            starttls=self.encryption is not None and not self.encryption.implicit,
            auth_needs_tls=self.encryption is not None and self.authenticator is not None,
            prdr=self.asks.content_for and not self.lmtp,
        )
        session_limits = SessionLimits(
            message_octets=limits.message_octets,
            header_octets=limits.header_octets,
            stray_line_ends=limits.stray_line_ends,
        )
        object.__setattr__(self, "extensions", announced)
        object.__setattr__(self, "session_limits", session_limits)

    def offer(self, peer: Peer) -> Extensions:
        """The extensions for this peer as it is now: encrypted or not."""
        added = self.service_extensions.offered_to(peer) if self.service_extensions else ()
        if not added and self.authenticator is None and (self.encryption is None or peer.tls is None):
            return self.extensions
        starttls = self.extensions.starttls and peer.tls is None
        mechanisms = () if self.authenticator is None else tuple(self.authenticator.mechanisms(peer))
        key = peer.tls is not None, mechanisms, tuple([one.keyword for one in added])
        offer = self._offers.get(key)
        if offer is None:  # there are few: what a listener offers in the clear and under TLS, with a certificate or without
            requiretls = peer.tls is not None and not self.lmtp
            offer = self._offers[key] = replace(
                self.extensions, starttls=starttls, auth=mechanisms, requiretls=requiretls, added=added
            )
        return offer

    def may_relay(self, peer: Peer) -> bool:
        """The peer may use the relay."""
        if self.lmtp:
            return False
        return bool(peer.login) or peer.address in self.relay_networks or has_certificate_of(peer, self.relay_certificates)
