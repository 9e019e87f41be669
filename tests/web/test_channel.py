"""Connections to the web process: what a stranger, or a slow client, can do with them; TLS, and what a CA sees of it."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.networks import Networks
from mailserver.web.answers import answer
from mailserver.web.certificates import WebCertificates, WebTLSFactory
from mailserver.web.channel import BODY_OCTETS, BehindProxyFactory, HTTPFactory, WebRoom
from mailserver.web.content import AlpnCertificate, WebCertificate, WebContent
from mailserver.web.hello import offered_protocols
from tests.any_octets import any_octets
from tests.tls.authority import Authority
from tests.web.test_answers import CONTENT, OUTLOOK

LIVE = b"GET /health/live HTTP/1.1\r\nHost: example.org\r\n\r\n"
POST = b"POST /autodiscover/autodiscover.xml HTTP/1.1\r\nHost: example.org\r\n"
AUTHORITY = Authority()


class Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class ChannelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.lines = Clock(), list[tuple[str, dict[str, Any]]]()
        self.room = WebRoom(connections=20, connections_per_network=5)
        self.factory = HTTPFactory(
            room=self.room, clock=self.clock, answering=lambda request: answer(request, CONTENT), tell=self.tell, failed=self.fail, https_port=None
        )

    def tell(self, step: str, **fields: Any) -> None:
        self.lines.append((step, fields))

    def connect(self, host: str = "192.0.2.1", factory: Any = None) -> Any:
        peer = IPv4Address("TCP", host, 4711)
        channel = (factory or self.factory).buildProtocol(peer)
        channel.makeConnection(Transport(hostAddress=peer, peerAddress=peer))
        return channel

    def said(self, *octets: bytes) -> bytes:
        channel = self.connect()
        for one in octets:
            channel.dataReceived(one)
        value: bytes = channel.transport.value()
        channel.connectionLost()
        return value


class Requests(ChannelCase):
    def test_an_answer_names_no_program_and_has_its_length_and_the_headers_of_security(self) -> None:
        head, _, body = self.said(LIVE).partition(b"\r\n\r\n")
        fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:])
        self.assertEqual(body, b'{"live": true}\n')
        self.assertEqual(int(fields[b"Content-Length"]), len(body))
        self.assertEqual(fields[b"X-Content-Type-Options"], b"nosniff")
        self.assertIn(b"default-src 'none'", fields[b"Content-Security-Policy"])
        self.assertNotIn(b"Server", fields)
        self.assertNotIn(b"wisted", head)

    def test_a_head_has_the_length_and_no_body(self) -> None:
        head, _, body = self.said(LIVE.replace(b"GET", b"HEAD")).partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 15", head)
        self.assertEqual(body, b"")

    def test_requests_that_are_sent_ahead_are_answered_in_order_and_not_without_end(self) -> None:
        said = self.said(LIVE * 250)
        self.assertEqual(said.count(b"HTTP/1.1 200 OK"), 100)
        self.assertEqual(said.count(b"Connection: close"), 1)

    def test_a_body_comes_whole_or_in_chunks_and_a_large_one_is_refused_before_it_is_read(self) -> None:
        whole = POST + b"Content-Length: %d\r\n\r\n" % len(OUTLOOK) + OUTLOOK
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(OUTLOOK), OUTLOOK)
        for octets in (whole, chunked):
            self.assertIn(b"<Type>IMAP</Type>", self.said(octets))
            self.assertIn(b"<Type>IMAP</Type>", self.said(*[octets[n : n + 7] for n in range(0, len(octets), 7)]))
        large = self.said(POST + b"Content-Length: 1000000000000\r\n\r\n", b"x" * 1000)
        self.assertEqual(large.split(b"\r\n")[0], b"HTTP/1.1 413 Content Too Large")
        piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        endless = self.said(POST + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * (BODY_OCTETS // 0x4000 + 1), piece)
        self.assertEqual(endless.count(b"HTTP/1.1 413"), 1)

    def test_malformed_requests_are_refused_and_end_the_connection(self) -> None:
        for octets in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: example.org\r\nA: \0\r\n\r\n",
            POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            POST + b"Content-Length: +1\r\n\r\nx", POST + b"Content-Length: -1\r\n\r\nx", POST + b"Content-Length: 0x1\r\n\r\nx",
            POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nx", POST + b"Content-Length: " + b"0" * 5000 + b"\r\n\r\n",
            POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nabcde", POST + b"Transfer-Encoding: identity\r\n\r\n",
            POST + b"Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n",
            POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 9000 + b"\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 70 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 900 + b"\r\n") * 40 + b"\r\n",
        ):  # fmt: skip
            channel = self.connect()
            channel.dataReceived(octets + LIVE)
            value = channel.transport.value()
            self.assertRegex(value, rb"^HTTP/1.1 4\d\d [^\r]*\r\n(?:[^\r]*\r\n)*\r\n", octets[:60])
            self.assertEqual(value.count(b"HTTP/1.1"), 1, octets[:60])
            self.assertTrue(channel.transport.disconnecting, octets[:60])
            channel.connectionLost()

    def test_a_failure_of_ours_is_one_requests_and_the_log_has_no_query(self) -> None:
        failures: list[int] = []

        def answering(request: Any) -> Any:
            if "bad" in request.target:
                raise KeyError(request.target)
            return answer(request, CONTENT)

        self.factory.answering, self.factory.failed = answering, lambda: failures.append(1)
        said = self.said(LIVE.replace(b"live", b"bad?emailaddress=alice@example.org") + LIVE)
        self.assertEqual([b"500 " in said, b"200 " in said, failures], [True, True, [1]])
        self.assertNotIn("alice", str(self.lines))
        self.assertEqual(self.lines[1], ("request", {"peer": "192.0.2.1", "method": "GET", "host": "example.org", "path": "/health/live", "status": 200, "why": ""}))

    @settings(max_examples=40)
    @given(st.lists(any_octets(), max_size=4))
    def test_any_octets_are_borne(self, pieces: list[bytes]) -> None:
        channel = self.connect()
        for one in pieces:
            if not channel.transport.disconnecting:
                channel.dataReceived(one)
        channel.connectionLost()


class Time(ChannelCase):
    def test_a_request_that_drips_has_no_more_time_than_another(self) -> None:
        channel = self.connect()
        for octet in b"GET /hea":
            channel.dataReceived(bytes([octet]))
            self.clock.advance(3)
        self.assertTrue(channel.transport.disconnecting)
        self.clock.advance(11)
        self.assertTrue(channel.transport.aborted)

    def test_a_client_that_does_not_close_its_side_is_cut_off(self) -> None:
        for octets in (LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), LIVE * 100, b"GET\r\n\r\n", LIVE.replace(b"1.1", b"1.0")):
            channel = self.connect()
            channel.dataReceived(octets)  # over TLS `loseConnection` waits for the other's close_notify
            self.assertTrue(channel.transport.disconnecting)
            self.clock.pump([1.0] * 11)
            self.assertTrue(channel.transport.aborted, octets[:60])
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_second_request_on_a_connection_has_time_of_its_own(self) -> None:
        channel = self.connect()
        for _ in range(3):
            self.clock.advance(15)
            channel.dataReceived(LIVE)
            self.assertFalse(channel.transport.disconnecting)
        self.clock.advance(21)
        self.assertTrue(channel.transport.disconnecting)
        channel.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_network_has_so_many_and_all_together_have_so_many(self) -> None:
        held = [self.connect("192.0.2.1") for _ in range(7)]
        self.assertEqual([one.transport.aborted for one in held], [False] * 5 + [True] * 2)
        others = [self.connect(f"198.51.100.{n}") for n in range(20)]
        self.assertTrue(all(one.transport.aborted for one in held))  # the oldest give way
        self.assertFalse(any(one.transport.aborted for one in others))
        for one in (*held, *others):
            one.connectionLost()
        self.assertEqual((self.room._open, self.room._of_network), ({}, {}))


class Proxies(ChannelCase):
    def setUp(self) -> None:
        super().setUp()
        self.behind = BehindProxyFactory(self.factory, proxies=Networks([ipaddress.ip_network("192.0.2.10")]), room=self.room, clock=self.clock, tell=self.tell)

    def test_the_client_is_who_the_proxy_says_and_others_are_not_believed(self) -> None:
        header = b"PROXY TCP4 203.0.113.9 192.0.2.10 4000 80\r\n"
        channel = self.connect("192.0.2.10", self.behind)
        for piece in (header[:20], header[20:] + LIVE[:10]):
            channel.dataReceived(piece)
        inner = channel.transport.protocol
        inner.dataReceived(LIVE[10:])
        self.assertIn(b"200 OK", channel.transport.value())
        self.assertEqual(self.lines[-1][1]["peer"], "203.0.113.9")
        inner.connectionLost()
        self.assertIsNone(self.behind.buildProtocol(IPv4Address("TCP", "203.0.113.1", 1)))

    def test_a_header_that_is_none_or_late_ends_the_connection(self) -> None:
        none, late = (self.connect("192.0.2.10", self.behind) for _ in range(2))
        none.dataReceived(LIVE)
        self.assertTrue(none.transport.aborted)
        self.clock.advance(6)
        self.assertTrue(late.transport.aborted)
        for one in (none, late):
            one.connectionLost()
        self.assertEqual((self.clock.getDelayedCalls(), self.room._open), ([], {}))


class TLS(ChannelCase):
    def setUp(self) -> None:
        super().setUp()
        self.certificates = WebCertificates()
        self.tls = WebTLSFactory(self.certificates, self.factory, self.clock)
        self.leaf, self.acme = AUTHORITY.leaf("example.org"), AUTHORITY.leaf("validation.example")
        self.content = WebContent(certificate=WebCertificate(self.leaf.certificate_pem.decode(), self.leaf.key_pem.decode()))

    def publish(self) -> None:
        acme = AlpnCertificate(self.acme.certificate.public_bytes(serialization.Encoding.DER), self.acme.key_pem.decode())
        self.certificates.take_up(replace(self.content, alpn={"example.org": acme}))

    def shake(self, *protocols: str, name: str = "example.org", version: Any = None, step: int = 0) -> tuple[Any, Any, Any]:
        """A handshake: the client's TLS, its octets towards the server, the server's protocol."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if version is not None:
            context.maximum_version = version
        if protocols:
            context.set_alpn_protocols(list(protocols))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname=name)
        server = self.connect(factory=self.tls)
        for _ in range(8):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            octets = outgoing.read()
            for n in range(0, len(octets), step or len(octets) or 1):
                server.dataReceived(octets[n : n + (step or len(octets))])
            incoming.write(server.transport.value())
            server.transport.clear()
        return client, outgoing, server

    def test_a_ca_that_offers_acme_tls_alone_sees_the_validation_and_everybody_else_the_certificate(self) -> None:
        self.publish()
        http, acme = self.leaf.certificate, self.acme.certificate
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for protocols, name, chosen, shown in (
                (("acme-tls/1",), "example.org", "acme-tls/1", acme),
                (("acme-tls/1",), "EXAMPLE.org", "acme-tls/1", acme),
                (("acme-tls/1",), "other.example", None, http),
                (("acme-tls/1", "http/1.1"), "example.org", "http/1.1", http),
                (("h2", "http/1.1"), "example.org", "http/1.1", http),
                (("h2",), "example.org", None, http),
                ((), "example.org", None, http),
            ):
                client, _, server = self.shake(*protocols, name=name, version=version, step=100)
                self.assertEqual(client.selected_alpn_protocol(), chosen, protocols)
                self.assertEqual(x509.load_der_x509_certificate(client.getpeercert(True)), shown, (protocols, name))
                self.assertEqual(server.hello, b"")
                server.connectionLost(_closed())

    def test_a_connection_of_a_ca_carries_no_request(self) -> None:
        self.publish()
        client, outgoing, server = self.shake("acme-tls/1")
        client.write(LIVE)
        server.dataReceived(outgoing.read())
        self.assertTrue(server.transport.aborted)
        server.connectionLost(_closed())

    def test_a_request_over_tls_is_answered_and_a_new_certificate_is_for_new_connections(self) -> None:
        self.certificates.take_up(self.content)
        client, outgoing, server = self.shake("http/1.1")
        newer = AUTHORITY.leaf("example.org")
        self.certificates.take_up(WebContent(certificate=WebCertificate(newer.certificate_pem.decode(), newer.key_pem.decode())))
        client.write(LIVE)
        server.dataReceived(outgoing.read())
        self.assertTrue(server.transport.value())
        other, _, second = self.shake()
        self.assertEqual(x509.load_der_x509_certificate(other.getpeercert(True)), newer.certificate)
        for one in (server, second):
            one.connectionLost(_closed())

    def test_a_certificate_that_cannot_be_used_changes_nothing_and_without_one_the_connection_is_closed(self) -> None:
        self.assertIsNone(self.tls.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        self.certificates.take_up(self.content)
        for chain, key in (("", ""), (self.leaf.certificate_pem.decode(), self.acme.key_pem.decode()), ("x", self.leaf.key_pem.decode())):
            with self.assertRaises((ValueError, SSL.Error)):
                self.certificates.take_up(WebContent(certificate=WebCertificate(chain, key)))
        client, _, server = self.shake()
        self.assertEqual(x509.load_der_x509_certificate(client.getpeercert(True)), self.leaf.certificate)
        server.connectionLost(_closed())

    @settings(max_examples=40)
    @given(any_octets(), st.integers(0, 600))
    def test_a_hello_that_is_none_offers_nothing(self, octets: bytes, cut: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["acme-tls/1"])
        outgoing = ssl.MemoryBIO()
        try:
            context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="example.org").do_handshake()
        except ssl.SSLWantReadError:
            pass
        hello = outgoing.read()
        self.assertEqual(offered_protocols(hello + octets), (b"acme-tls/1",))
        offered_protocols(octets)
        offered_protocols(b"\x16\x03\x01" + octets)
        if cut < len(hello):
            self.assertEqual(offered_protocols(hello[:cut]), ())


def _closed() -> Failure:
    return Failure(ConnectionDone())
