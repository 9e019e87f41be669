"""A connection from a proxy, until its PROXY header is there.

Nothing is said, counted against a network or judged before the header is whole.  Then the connection that the header announces
takes this one's place on the transport, and this one is gone; so behind a proxy everything is as without one: implicit TLS,
STARTTLS, logins, limits.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mailserver.mail.envelope import NO_ADDRESS, Peer
from mailserver.receive.listener import Listener
from mailserver.receive.profile import Profile
from mailserver.transport.proxy_header import HeaderFault, read_header

__all__ = ["ProxiedConnection"]


class ProxiedConnection(Protocol):
    """Waits for the header.  `proxy` is the proxy's own address, ``"unix"`` on a Unix socket."""

    factory: Listener
    transport: Any

    def __init__(self, profile: Profile, proxy: str) -> None:
        self.profile = profile
        self.proxy = proxy
        self.connection = profile.ids.next()
        self._octets = b""
        self._since = 0.0
        self._is_over = False  # it is being cut off; octets that Twisted had read before are no header any more

    def connectionMade(self) -> None:
        self._since = self.profile.seconds()
        if self.factory.opened(self, "unix") is not None:  # one of all connections; whose network it is nobody knows yet
            self._refuse("rejected", "no room for the connection")

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            return
        self._octets += data
        try:
            found = read_header(self._octets)
        except HeaderFault as fault:
            self._refuse("rejected", f"the PROXY header is not understood: {fault}")
            return
        if found is None:
            return
        origin, end = found
        rest, self._octets = self._octets[end:], b""
        self.factory.closed(self)
        transport = self.transport
        profile, address = self.profile, origin.address or f"{NO_ADDRESS}{self.proxy}"
        peer = Peer(address, origin.port, profile.service, look_up=profile.look_up)
        protocol = self.factory.connection_of(peer, via=self.proxy)
        transport.protocol = protocol  # from now on its octets, its end and its TLS (`startTLS`) are that one's
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.closed(self)

    def check(self, now: float, stress: bool) -> None:
        """Called each second."""
        if not self._is_over and now >= self._since + self.profile.limits.proxy_header_seconds:
            self._refuse("timeout", "no PROXY header in time")

    def shut_down(self) -> None:
        """The listener goes away, and nobody is there to be told."""
        self._is_over = True
        self.transport.abortConnection()

    def _refuse(self, step: str, why: str) -> None:
        """Without a word: nobody knows who would read it."""
        self.profile.note(self.connection, step, peer=f"{NO_ADDRESS}{self.proxy}", why=why)
        self._is_over = True
        self.transport.abortConnection()
