"""A reactor without a network: what was sent is seen, what arrives is said by the test, the time is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, UserError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

__all__ = ["Connection", "Datagram", "Network"]


class Port:
    """A UDP socket."""

    def __init__(self, network, protocol, number):
        self.network, self.protocol, self.number = network, protocol, number
        self.peer = None
        self.open = True

    def connect(self, host, port):
        if self.network.no_route:
            raise OSError(101, "Network is unreachable")
        self.peer = (host, port)

    def write(self, data):
        if self.network.nobody_listens:
            self.protocol.connectionRefused()
            return
        self.network.sent.append(Datagram(self, data))

    def stopListening(self):
        """As Twisted: over one turn later, and a second call would end in an error."""
        if not self.open:
            raise RuntimeError("stopListening was called twice")
        self.open = False
        self.network.ports.remove(self)
        over = Deferred()
        self.network.callLater(0, self._lost, over)
        return over

    def _lost(self, over):
        self.protocol.doStop()
        over.callback(None)


@dataclass
class Datagram:
    """A question that went out."""

    port: Port
    data: bytes

    @property
    def server(self):
        return self.port.peer[0]

    def answer(self, data, peer=None):
        """Let octets arrive at the socket that asked."""
        self.port.protocol.datagramReceived(data, peer or self.port.peer)


class Connection:
    """A TCP connection that was begun."""

    def __init__(self, network, host, port, factory):
        self.network, self.peer, self.factory = network, (host, port), factory
        self.transport = StringTransport()
        self.transport.abortConnection = self.disconnect
        self.protocol = None
        self.over = False

    def made(self):
        """The other side accepts; returns the octets of the question."""
        self.protocol = self.factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        value = self.transport.value()
        assert int.from_bytes(value[:2]) == len(value) - 2
        return value[2:]

    def arrives(self, data):
        self.protocol.dataReceived(data)

    def disconnect(self):
        """Either side ends it."""
        if self.over:
            return
        self.over = True
        self.network.connections.remove(self)
        if self.protocol is None:
            self.factory.clientConnectionFailed(self, Failure(UserError()))
        else:
            self.protocol.connectionLost(Failure(ConnectionDone()))
            self.factory.clientConnectionLost(self, Failure(ConnectionDone()))


class Network(Clock):
    """`sent` are the datagrams in their order, `ports` the open sockets, `connections` the open connections."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Datagram] = []
        self.ports: list[Port] = []
        self.connections: list[Connection] = []
        self.no_route = False
        self.nobody_listens = False
        self.interfaces: list[str] = []
        self._numbers = iter(range(40000, 65536))

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> Port:
        assert port == 0
        self.interfaces.append(interface)
        found = Port(self, protocol, next(self._numbers))
        self.ports.append(found)
        protocol.makeConnection(found)
        return found

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30) -> Connection:
        found = Connection(self, host, port, factory)
        self.connections.append(found)
        return found
