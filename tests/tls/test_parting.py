"""What a TLS connection leaves in memory when it ends: nothing, without the collector."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from mailserver.tls import Certificates, ClientCertificates, Sources
from mailserver.transport.writing import let_go, writer
from tests.tls.test_handshakes import SERVER, HandshakeCase, reactor


class Parting(Protocol):
    """Encrypted as after STARTTLS, a producer as `ReceiveProtocol` is, and gone with its connection."""

    transport: Any

    def __init__(self, case: PartingCase) -> None:
        self.case = case

    def connectionMade(self) -> None:
        self.case.refer(self)
        self.write = writer(self.transport)
        self.transport.registerProducer(self, True)
        self.transport.startTLS(self.case.certificates.creator(ClientCertificates.IGNORE))
        layer = self.transport.protocol
        self.case.refer(layer)
        self.case.refer(layer._tlsConnection)

    def dataReceived(self, data: bytes) -> None:
        self.write(data)

    def pauseProducing(self) -> None:
        pass

    resumeProducing = stopProducing = pauseProducing

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        let_go(self.transport, reason)
        lost, self.case.lost = self.case.lost, None
        if lost is not None:
            reactor.callLater(0, lost.callback, None)


class PartingCase(HandshakeCase):
    def refer(self, thing: Any) -> None:
        self.references.append(weakref.ref(thing))

    async def left_by(self, part: Callable[[ssl.SSLSocket], None]) -> list[str]:
        """What is left of a connection whose peer goes in this way."""
        self.references: list[weakref.ref[Any]] = []
        pair = SERVER.write(self.directory)
        self.certificates = Certificates(sources=lambda: Sources(pair, {}), clock=self.clock, run_in_thread=deferToThread)
        await self.certificates.start()
        self.addCleanup(self.certificates.stop)
        port = reactor.listenTCP(0, Factory.forProtocol(lambda: Parting(self)), interface="127.0.0.1")  # type: ignore[arg-type]
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        context = self.context()

        def visit() -> None:
            with socket.create_connection(("127.0.0.1", self.port), 10) as plain:
                with context.wrap_socket(plain, server_hostname="mx.example.org") as client:
                    client.sendall(b"said\n")
                    assert client.recv(5) == b"said\n"
                    part(client)

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        lost = self.lost = Deferred()
        await deferToThread(visit)
        await lost
        left = [type(found).__name__ for one in self.references if (found := one()) is not None]
        self.assertEqual(len(self.references), 3)
        return left


class Ends(PartingCase):
    async def test_a_peer_that_resets_its_connection_leaves_nothing(self) -> None:
        def reset(client: ssl.SSLSocket) -> None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        self.assertEqual(await self.left_by(reset), [])

    async def test_a_peer_that_goes_without_a_goodbye_leaves_nothing(self) -> None:
        self.assertEqual(await self.left_by(lambda client: None), [])

    async def test_a_peer_that_says_goodbye_leaves_nothing(self) -> None:
        def unwrap(client: ssl.SSLSocket) -> None:
            client.unwrap()

        self.assertEqual(await self.left_by(unwrap), [])
