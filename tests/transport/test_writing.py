"""The quick way to the socket: it is quick, and the octets come in the order in which they were written."""

from __future__ import annotations

import os
import random
import socket
import ssl
import subprocess
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

from OpenSSL.SSL import Error
from twisted.internet import reactor as installed_reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mailserver.tls import Certificates, ClientCertificates, Sources
from mailserver.transport.writing import hang_up, let_go, writer
from tests.requires import require_tool
from tests.tls.authority import Authority

reactor: Any = installed_reactor
AUTHORITY = Authority()
PIECES = [random.Random(n).randbytes(size) for n, size in enumerate([5, 40_000, 1, 0, 16_384, 16_385, 100_000] * 20)]


@implementer(IHandshakeListener)
class Side(Protocol):
    """The server's: begins with TLS after the first octet where it is told to, and calls the test when it can write."""

    transport: Any

    def __init__(self, case: WritingCase) -> None:
        self.case = case

    def connectionMade(self) -> None:
        self.write = writer(self.transport)
        if self.case.way == "plain":
            self.case.connected.callback(self)

    def dataReceived(self, data: bytes) -> None:
        if self.case.way == "starttls":
            self.write(b"!")
            self.transport.startTLS(self.case.creator)

    def handshakeCompleted(self) -> None:
        self.case.connected.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.case.lost.callback(None)


class WritingCase(TestCase):
    timeout = 30

    async def listen(self, way: str) -> None:
        """`way` is plain, starttls or implicit."""
        self.way = way
        self.connected: Deferred[Side] = Deferred()
        self.lost: Deferred[None] = Deferred()
        sources = Sources(AUTHORITY.leaf("mx.example.org").write(self.mktemp_folder()))
        certificates = Certificates(sources=lambda: sources, clock=Clock(), run_in_thread=deferToThread)
        certificates.load()
        self.creator = certificates.creator(ClientCertificates.IGNORE)
        factory: Any = Factory.forProtocol(lambda: Side(self))  # type: ignore[arg-type]
        if way == "implicit":
            factory = TLSMemoryBIOFactory(self.creator, False, factory)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # what it accepts has the same: soon nothing more is taken
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def mktemp_folder(self) -> str:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        return folder

    def connect(self) -> socket.socket:
        """Blocks."""
        plain = socket.create_connection(("127.0.0.1", self.port), 20)
        if self.way == "plain":
            return plain
        if self.way == "starttls":
            plain.sendall(b"?")
            plain.recv(1)
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        return context.wrap_socket(plain, server_hostname="mx.example.org")

    async def for_each_way(self, test: Callable[[Side, socket.socket], Any]) -> None:
        for way in ("plain", "starttls", "implicit"):
            await self.listen(way)
            client = await deferToThread(self.connect)
            self.addCleanup(client.close)
            await test(await self.connected, client)
            if not self.lost.called:
                client.close()
            await self.lost


class Below(Connection):
    """A connection that is open, with a socket that takes what it is told to."""

    def __init__(self, takes: int | OSError = 10_000) -> None:
        self._tempDataBuffer, self.dataBuffer, self.disconnecting = [], b"", False
        self.socket = mock.Mock()
        self.socket.send.side_effect = (lambda octets: min(takes, len(octets))) if isinstance(takes, int) else takes


class Layer(TLSMemoryBIOProtocol):
    """TLS after its handshake.  Its records are the octets themselves, and `wrote` is what went Twisted's way."""

    def __init__(self, below: Any, takes: int | Error = 10_000) -> None:
        self.transport, self.wrote = below, list[bytes]()
        self._handshakeDone, self._lostTLSConnection, self.disconnecting, self._appSendBuffer = True, False, False, []
        self._aggregator, self._tlsConnection = mock.Mock(_buffer=[]), mock.Mock()
        self._tlsConnection.send.side_effect = (lambda octets: min(takes, len(octets))) if isinstance(takes, int) else takes
        self._tlsConnection.bio_read.return_value = b"record"

    def write(self, data: bytes) -> None:
        self.wrote.append(data)


class Known(SynchronousTestCase):
    """Only transports whose attributes are all as we know them are written to directly."""

    def test_what_only_looks_like_a_connection_is_written_to_as_it_says(self) -> None:
        transport = mock.Mock()
        self.assertIs(writer(transport), transport.write)

    def test_a_layer_that_lacks_anything_writes_itself(self) -> None:
        strange, lacking, older = Layer(object()), Layer(Below()), Layer(Below())
        del lacking._tlsConnection
        older._aggregator = object()
        for layer in (strange, lacking, older):
            writer(layer)(b"220 ")
            self.assertEqual(layer.wrote, [b"220 "])

    def test_a_layer_at_its_end_writes_itself(self) -> None:
        layer = Layer(Below())
        write = writer(layer)
        layer._aggregator = object()
        write(b"221 ")
        self.assertEqual(layer.wrote, [b"221 "])

    def test_what_the_layer_does_not_take_goes_twisteds_way_and_nothing_else(self) -> None:
        for takes, data, left in (
            (100, b"250 Ok", []), (3, b"250 Ok", [b" Ok"]), (Error("no"), b"250 Ok", [b"250 Ok"]), (100, b"", [b""]),
        ):  # fmt: skip
            layer = Layer(below := Below(), takes)
            writer(layer)(data)
            self.assertEqual(layer.wrote, left)
            self.assertEqual([call.args for call in below.socket.send.call_args_list], [(b"record",)] * (left != [data]))

    def test_what_the_socket_does_not_take_goes_twisteds_way_and_nothing_else(self) -> None:
        left: list[bytes] = []
        self.patch(FileDescriptor, "write", lambda _, octets: left.append(octets))
        for takes in (100, 3, BlockingIOError(), ConnectionResetError()):
            below = Below(takes)
            below.TLS = False
            writer(below)(b"250 Ok")
        self.assertEqual(left, [b" Ok", b"250 Ok", b"250 Ok"])


class Cycles(SynchronousTestCase):
    """What `let_go` takes apart."""

    def test_a_layer_has_no_producer_any_more_whichever_way_it_is_reached(self) -> None:
        for implicit in (True, False):
            layer = mock.Mock(spec=TLSMemoryBIOProtocol)
            below = types.SimpleNamespace(getHandle=types.MethodType(lambda _: None, layer), getPeerCertificate=None)
            let_go(layer if implicit else below, Failure(connectionDone.value))
            layer.unregisterProducer.assert_called_once_with()
            self.assertEqual(len(vars(below)), 2 if implicit else 0)


class Writing(WritingCase):
    async def test_a_reply_is_on_the_wire_before_the_reactor_turns(self) -> None:
        async def test(side: Side, client: socket.socket) -> None:
            side.write(b"220 Hello\r\n")  # behind the session tickets, where these are not yet on the wire
            self.assertEqual(await deferToThread(client.recv, 100), b"220 Hello\r\n", self.way)
            side.write(b"250 Ok\r\n")
            self.assertEqual(client.recv(100), b"250 Ok\r\n", self.way)  # it blocks, and so does the reactor

        await self.for_each_way(test)

    async def test_pieces_of_any_size_come_in_order_however_slowly_the_peer_reads(self) -> None:
        whole = b"".join(PIECES)

        def read(client: socket.socket) -> bytes:
            octets = bytearray()
            while len(octets) < len(whole) and (more := client.recv(3000)):
                octets += more
            return bytes(octets)

        async def test(side: Side, client: socket.socket) -> None:
            for n, piece in enumerate(PIECES):
                if n % 5 == 3:  # of every size
                    side.transport.write(piece)  # as a producer does
                else:
                    side.write(piece)
            self.assertEqual(await deferToThread(read, client), whole, self.way)

        await self.for_each_way(test)

    async def test_what_is_written_after_the_end_is_lost_without_a_sound(self) -> None:
        async def test(side: Side, client: socket.socket) -> None:
            side.write(b"221 Bye\r\n")
            side.transport.loseConnection()
            if self.way != "plain":
                side.write(b"more\r\n")
            self.assertEqual(await deferToThread(client.recv, 100), b"221 Bye\r\n")
            self.assertEqual(await deferToThread(client.recv, 100), b"")
            client.close()
            await self.lost
            if self.way != "plain":
                side.write(b"more\r\n")

        await self.for_each_way(test)

    async def test_who_does_not_say_goodbye_is_not_waited_for_and_has_heard_all(self) -> None:
        octets = PIECES[1] * 100

        def read(client: socket.socket) -> bytes:
            heard = b""
            while more := client.recv(65536):
                heard += more
            return heard

        async def test(side: Side, client: socket.socket) -> None:
            side.write(octets)
            side.transport.loseConnection()
            hang_up(side.transport)
            hang_up(side.transport)
            self.assertEqual(await deferToThread(read, client), octets, self.way)
            await self.lost  # though the client neither says anything nor closes
            hang_up(side.transport)

        await self.for_each_way(test)

    async def test_a_client_that_asks_for_small_records_gets_everything(self) -> None:
        # RFC 6066 section 4
        await self.listen("implicit")
        command = [require_tool("openssl"), "s_client", "-connect", f"127.0.0.1:{self.port}", "-maxfraglen", "512", "-quiet"]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        side = await self.connected
        lines = b"".join(b"250-%04d and some words that make the line longer\r\n" % n for n in range(300))
        side.write(lines)
        side.write(b"250 end\r\n")
        side.transport.loseConnection()
        said, _ = await deferToThread(client.communicate)
        self.assertEqual(said, lines + b"250 end\r\n")
        await self.lost
