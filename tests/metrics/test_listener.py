"""Connections to a metrics listener: what a stranger, or a slow client, can do with them."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.password_file import password_of
from mailserver.metrics.pages import MonitoringFactory, Pages

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
PEER = IPv4Address("TCP", "192.0.2.1", 4711)


class Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Connections(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.open(lambda: None)

    def open(self, token: Any) -> None:
        async def metrics(accept: str) -> tuple[bytes, str]:
            return b"x 1\n", "text/plain"

        self.factory = MonitoringFactory(Pages(metrics=metrics, not_ready=list, token=token))

    def connect(self) -> Any:
        channel = self.factory.buildProtocol(PEER)
        channel.callLater = self.clock.callLater
        transport: Any = Transport(hostAddress=PEER, peerAddress=PEER)
        channel.makeConnection(transport)
        return channel

    def test_a_request_with_a_body_is_refused_before_any_of_it_is_kept(self) -> None:
        for field in (b"Content-Length: 1000000000000", b"Transfer-Encoding: chunked"):
            for method in (b"POST", b"GET"):
                channel = self.connect()
                channel.dataReceived(method + b" /metrics HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
                transport = channel.transport
                self.assertTrue(transport.disconnecting, field)
                self.assertEqual(transport.value(), b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def test_a_request_that_drips_has_no_more_time_than_another(self) -> None:
        channel = self.connect()
        for octet in b"GET /heal":
            channel.dataReceived(bytes([octet]))
            self.clock.advance(4)
        self.assertTrue(channel.transport.disconnecting)

    def test_who_keeps_connections_open_keeps_nobody_out(self) -> None:
        held = [self.connect() for _ in range(60)]
        self.assertEqual(self.factory.connections, 50)
        self.assertEqual([one.transport.aborted for one in held], [True] * 10 + [False] * 50)
        asking = self.connect()
        asking.dataReceived(LIVE)
        self.assertIn(b'{"live": true}', asking.transport.value())

    def test_a_second_request_on_a_connection_has_time_of_its_own(self) -> None:
        channel = self.connect()
        for _ in range(3):
            self.clock.advance(20)
            channel.dataReceived(LIVE)
            self.assertFalse(channel.transport.disconnecting)
        self.assertEqual(channel.transport.value().count(b'{"live": true}'), 3)
        self.clock.advance(31)
        self.assertTrue(channel.transport.disconnecting)

    def test_nobody_is_let_in_by_a_token_that_is_no_text(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"\xff\xfe\n")
        self.open(lambda: password_of(path))
        channel = self.connect()
        channel.dataReceived(LIVE)
        self.assertIn(b"401 ", channel.transport.value())
        self.assertEqual(len(self.flushLoggedErrors()), 0)
