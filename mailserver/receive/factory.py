"""A listener: makes a protocol for each connection, counts them, looks at the clock for them and sees them off."""

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
from mailserver.mail.reply import Reply
from mailserver.receive.profile import Profile
from mailserver.receive.protocol import ReceiveProtocol
from mailserver.receive.throttle import Admission
from mailserver.smtp.server import ServerSession

__all__ = ["ReceiveFactory"]

log = Logger()

CHECK_SECONDS = 1.0


class ReceiveFactory(ServerFactory):
    """Makes the connections of one listener.

    A reload replaces `profile`: connections that are open keep the one that they began with.  `admission` is shared by all
    listeners.
    """

    noisy = False

    def __init__(self, profile: Profile, admission: Admission) -> None:
        self.profile = profile
        self.admission = admission
        self._open: dict[ReceiveProtocol, bool] = {}  # the value says whether it was admitted
        self._check = LoopingCall(self._check_all)
        self._check.clock = profile.clock  # type: ignore[assignment]
        self._gone: Deferred[None] | None = None
        self.is_leaving = False  # each connection says goodbye at its next chance

    def startFactory(self) -> None:
        if not self._check.running:
            self._check.start(CHECK_SECONDS, now=False)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self.protocol_for(addr)
        encryption = protocol.profile.encryption
        if encryption is None or not encryption.implicit:
            return protocol
        layer = TLSMemoryBIOFactory(encryption.creator, False, self, self.profile.clock)  # type: ignore[arg-type]
        return layer.protocol(layer, protocol)

    def protocol_for(self, addr: IAddress | None) -> ReceiveProtocol:
        """A connection's protocol, without a layer of TLS around it."""
        profile = self.profile
        peer = _peer(addr, profile.service)
        session = ServerSession(
            hostname=profile.hostname,
            lmtp=profile.lmtp,
            extensions=profile.extensions,
            limits=profile.session_limits,
            lf_lines=peer.address in profile.bare_lf_networks,
        )
        if profile.encryption is not None and profile.encryption.implicit:
            session.lf_ends_data = False
        protocol = ReceiveProtocol(profile, peer, session)
        protocol.factory = self
        return protocol

    @property
    def stress(self) -> bool:
        """Connections run out: be short."""
        return self.admission.stress

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def opened(self, protocol: ReceiveProtocol) -> Reply | None:
        """A connection is there: None, or the refusal to greet it with."""
        refusal = self.admission.admit(protocol.peer.address)
        self._open[protocol] = refusal is None
        return refusal

    def closed(self, protocol: ReceiveProtocol) -> None:
        """A connection is gone."""
        if self._open.pop(protocol, False):
            self.admission.release(protocol.peer.address)
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
        now, stress = self.profile.clock.seconds(), self.stress
        for protocol in list(self._open):
            try:
                protocol.check(now, stress)
            except Exception:  # noqa: BLE001  # one connection's trouble: the times of all the others must go on
                log.failure("{id}: the connection's time cannot be looked at; it is cut", id=protocol.connection)
                _cut(protocol)


def _cut(protocol: ReceiveProtocol) -> None:
    try:
        protocol.transport.abortConnection()
    except Exception:  # noqa: BLE001  # it may be half gone already
        log.failure("{id}: the connection cannot be cut", id=protocol.connection)


def _peer(addr: object, service: str) -> Peer:
    if isinstance(addr, IPv4Address | IPv6Address):
        return Peer(addr.host.removeprefix("::ffff:"), addr.port, service)
    return Peer("unix", 0, service)
