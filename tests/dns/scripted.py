"""A name server on loopback, UDP and TCP on one port, that does what the test's script says."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from mailserver.mail.dns_records import ServerAddress

__all__ = ["ScriptedServer"]

Script = Callable[[bytes], Iterable[bytes]]


class ScriptedServer:
    """`by_udp(query)` and `by_tcp(query)` return the datagrams, or the octets of the stream, that are sent back; none is silence.

    `asked` keeps every question by UDP, `streams` the open connections.
    """

    def __init__(self, by_udp: Script, by_tcp: Script | None = None) -> None:
        self.asked: list[bytes] = []
        self.streams: list[Protocol] = []
        self.peers: set[tuple[str, int]] = set()
        self._by_udp = by_udp
        self._by_tcp = by_tcp
        self._ports = []

    def start(self) -> ScriptedServer:
        while not self._ports:
            udp = reactor.listenUDP(0, _Datagrams(self), interface="127.0.0.1")
            self._ports.append(udp)
            if self._by_tcp is not None:
                try:
                    self._ports.append(reactor.listenTCP(udp.getHost().port, _Streams(self), interface="127.0.0.1"))
                except CannotListenError:  # somebody else has that port
                    udp.stopListening()
                    self._ports = []
        return self

    @property
    def address(self) -> ServerAddress:
        return ServerAddress("127.0.0.1", self._ports[0].getHost().port)

    def stop(self):
        for stream in self.streams:
            stream.transport.abortConnection()
        return gatherResults([maybeDeferred(port.stopListening) for port in self._ports])

    def datagrams(self, query, peer):
        self.asked.append(query)
        self.peers.add(peer)
        return self._by_udp(query)

    def octets(self, query):
        return self._by_tcp(query)


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, server):
        self.server = server

    def datagramReceived(self, data, peer):
        for datagram in self.server.datagrams(data, peer):
            self.transport.write(datagram, peer)


class _Stream(Protocol):
    def __init__(self, server):
        self.server = server
        self.received = b""

    def connectionMade(self):
        self.server.streams.append(self)

    def connectionLost(self, reason):
        self.server.streams.remove(self)

    def dataReceived(self, data):
        self.received += data
        if len(self.received) >= 2 and len(self.received) >= 2 + int.from_bytes(self.received[:2]):
            for octets in self.server.octets(self.received[2:]):
                self.transport.write(octets)


class _Streams(Factory):
    noisy = False

    def __init__(self, server):
        self.server = server

    def buildProtocol(self, _):
        return _Stream(self.server)
