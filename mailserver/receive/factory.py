"""A listener: makes the connections, counts them, checks their times each second, ends them when it goes away."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from mailserver.mail.envelope import Peer
from mailserver.mail.networks import network_of
from mailserver.mail.reply import Reply
from mailserver.receive.connection import Connection
from mailserver.receive.profile import Profile
from mailserver.receive.protocol import ReceiveProtocol
from mailserver.receive.proxied import ProxiedConnection
from mailserver.receive.throttle import Admission
from mailserver.smtp.server.session import ServerSession
from mailserver.transport.recording import Recordings

__all__ = ["ReceiveFactory", "peer_at"]

log = Logger()

CHECK_SECONDS = 1.0
STRANGERS_TOLD = 100


class ReceiveFactory(ServerFactory):
    """Makes the connections of one listener.

    A reload replaces `profile`: connections that are open take it up with their next EHLO, MAIL or AUTH.  `admission` and
    `recordings` are shared by all listeners.
    """

    noisy = False

    def __init__(self, profile: Profile, admission: Admission, recordings: Recordings | None = None) -> None:
        self.profile = profile
        self.admission = admission
        self.recordings = recordings
        # The address under which each was admitted, None where it was not: it is there until it has read its 421, and must not be
        # released.  One that says it is gone twice is not in here the second time.
        self._open: dict[Connection | ProxiedConnection, str | None] = {}
        self._strangers: set[bytes] = set()
        self._check = LoopingCall(self._check_all)
        self._check.clock = profile.clock  # type: ignore[assignment]
        self._gone: Deferred[None] | None = None  # `shut_down` waits for the last connection
        self.is_leaving = False  # each connection says goodbye at its next chance

    def startFactory(self) -> None:
        if not self._check.running:
            self._check.start(CHECK_SECONDS, now=False)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        profile = self.profile
        peer = peer_at(addr, profile)
        if profile.proxies is None:
            return self.connection_of(peer)
        if peer.address != "unix" and peer.address not in profile.proxies:
            self._tell_of_stranger(peer.address)
            return None  # Twisted closes it
        proxied = ProxiedConnection(profile, peer.address)
        proxied.factory = self
        return proxied

    def connection_of(self, peer: Peer, *, via: str = "") -> Any:
        """What drives a connection, with a layer of TLS around it where the listener has implicit TLS."""
        protocol = self.protocol_for(peer, via=via)
        encryption = protocol.profile.encryption
        if encryption is None or not encryption.implicit:
            return protocol
        layer = TLSMemoryBIOFactory(encryption.creator, False, self, self.profile.clock)  # type: ignore[arg-type]
        return layer.protocol(layer, protocol)

    def protocol_for(self, peer: Peer, *, via: str = "") -> ReceiveProtocol:
        """A connection's protocol, without a layer of TLS around it.  `via` is the address of the proxy that brings it."""
        profile = self.profile
        session = ServerSession(
            hostname=profile.hostname,
            lmtp=profile.lmtp,
            extensions=profile.extensions,
            limits=profile.session_limits,
            lf_lines=peer.address in profile.bare_lf_networks,
        )
        if profile.encryption is not None and profile.encryption.implicit:
            session.lf_ends_data = False
        protocol = ReceiveProtocol(profile, peer, session, via=via)
        protocol.factory = self
        protocol.recordings = self.recordings
        return protocol

    def _tell_of_stranger(self, address: str) -> None:
        """Once for each network, and of a bounded number of networks: a scan does not fill the log."""
        network = network_of(address)
        if network in self._strangers or len(self._strangers) >= STRANGERS_TOLD:
            return
        self._strangers.add(network)
        log.warn(
            "a connection from {address} was closed: it is not one of the proxies of this {service} listener (told once{last})",
            address=address,
            service=self.profile.service,
            last="" if len(self._strangers) < STRANGERS_TOLD else ", of no others any more",
        )

    @property
    def stress(self) -> bool:
        """Connections run out: be short."""
        return self.admission.stress

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def opened(self, protocol: Connection | ProxiedConnection, address: str) -> Reply | None:
        """A connection is there: None, or the refusal to greet it with."""
        refusal = self.admission.admit(address)
        self._open[protocol] = address if refusal is None else None
        return refusal

    def closed(self, protocol: Connection | ProxiedConnection) -> None:
        """A connection is gone."""
        address = self._open.pop(protocol, None)
        if address is not None:
            self.admission.release(address)
        if self._gone is not None and not self._open:
            gone, self._gone = self._gone, None
            gone.callback(None)

    def shut_down(self) -> Deferred[None]:
        """Say goodbye to every peer, to one amid its data after these; fires when all are gone."""
        self.is_leaving = True
        if not self._open:
            self._stop_checking()
            return succeed(None)
        gone: Deferred[None] = Deferred(lambda _: self._abort_all())
        self._gone = gone
        for protocol in list(self._open):
            try:
                protocol.shut_down()
            except Exception:  # noqa: BLE001  # the others are to hear their goodbye
                log.failure("{id}: no goodbye can be said; the connection is cut", id=protocol.connection)
                _cut(protocol)
        return gone.addBoth(self._stop_checking)

    def _abort_all(self) -> None:
        self._gone = None
        for protocol in list(self._open):
            _cut(protocol)

    def _stop_checking(self, result: Any = None) -> None:
        if self._check.running:
            self._check.stop()

    def _check_all(self) -> None:
        now, stress = self.profile.seconds(), self.stress
        for protocol in list(self._open):
            try:
                protocol.check(now, stress)
            except Exception:  # noqa: BLE001  # one connection's trouble: the times of all the others must go on
                log.failure("{id}: the connection's time cannot be looked at; it is cut", id=protocol.connection)
                _cut(protocol)


def _cut(protocol: Connection | ProxiedConnection) -> None:
    try:
        protocol.transport.abortConnection()
    except Exception:  # noqa: BLE001  # it may be half gone already
        log.failure("{id}: the connection cannot be cut", id=protocol.connection)


def peer_at(addr: object, profile: Profile) -> Peer:
    """Who is at the other end, as far as the address of a transport says it."""
    if isinstance(addr, IPv4Address | IPv6Address):
        return Peer(addr.host.removeprefix("::ffff:"), addr.port, profile.service, look_up=profile.look_up)
    return Peer("unix", 0, profile.service)
