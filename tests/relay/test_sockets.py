"""The relay over real sockets on loopback: TLS, a peer that reads slowly, smtp-sink."""

import datetime
import os
import socket
import subprocess
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.interfaces import Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.parcel import Destination
from mailserver.relay.components import SmarthostFactory, SmarthostOptions
from mailserver.testing import FakeResolver
from tests.ports import free_port
from tests.requires import require_tool
from tests.scenarios.support import wait_until

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


def certificate(name):
    """A context with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(made)
    context.use_privatekey(key)
    return context


@implementer(IOpenSSLServerConnectionCreator)
@dataclass
class ServerSide:
    """What `startTLS` wants."""

    context: SSL.Context

    def serverConnectionForTLS(self, protocol):
        return SSL.Connection(self.context, None)


class Sink(Protocol):
    """An SMTP server that takes everything; `factory.tls` is what STARTTLS does: a context, "garbage", or None (no offer)."""

    encrypted = in_content = breaks_handshake = stays = False
    buffer = b""

    def connectionMade(self):
        self.gone = Deferred()
        self.factory.connections.append(self)
        self.transport.write(b"220 sink.example ESMTP\r\n")

    def connectionLost(self, reason):
        self.gone.callback(None)

    def dataReceived(self, data):
        if self.factory.slow:
            self.transport.pauseProducing()
            self.factory.resuming = reactor.callLater(0.002, self.transport.resumeProducing)
        if self.breaks_handshake:
            self.transport.write(b"This is no TLS at all\r\n" * 5)
            self.transport.loseConnection()
            return
        self.buffer += data
        while True:
            end = b"\r\n.\r\n" if self.in_content else b"\r\n"
            line, found, rest = self.buffer.partition(end)
            if not found:
                return
            self.buffer = rest
            self.line(line)

    def line(self, line):
        factory, verb = self.factory, line[:4].upper()
        if self.in_content:
            self.in_content = False
            factory.messages.append((self.encrypted, line + b"\r\n"))
            self.transport.write(b"250 2.0.0 Kept\r\n")
        elif verb == b"EHLO":
            offer = b"250-STARTTLS\r\n" if factory.tls is not None and not self.encrypted else b""
            self.transport.write(b"250-sink.example\r\n250-8BITMIME\r\n" + offer + b"250 PIPELINING\r\n")
        elif verb == b"STAR":
            self.transport.write(b"220 Go ahead\r\n" + factory.behind_220)
            if factory.tls == "garbage":
                self.breaks_handshake = True
            else:
                self.encrypted = True
                self.transport.startTLS(factory.tls)
        elif verb == b"DATA":
            self.in_content = True
            self.transport.write(b"354 Go ahead\r\n")
        elif verb == b"QUIT":
            self.transport.write(b"221 Bye\r\n")
            if self.stays:
                self.transport.pauseProducing()
            else:
                self.transport.loseConnection()
        else:
            self.transport.write(b"250 2.0.0 Ok\r\n")


class Staying(Sink):
    """It says goodbye, and does not look whether the other side has gone."""

    stays = True


class SocketCase(TestCase):
    timeout = 60

    def setUp(self):
        self.sink = Factory.forProtocol(Sink)
        self.sink.noisy = False
        self.sink.connections, self.sink.messages, self.sink.tls, self.sink.slow = [], [], None, False
        self.sink.behind_220 = b""
        port = reactor.listenTCP(0, self.sink, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        self.sink.resuming = None
        self.addCleanup(lambda: self.sink.resuming and self.sink.resuming.active() and self.sink.resuming.cancel())

        self.addCleanup(self.hang_up)

    def hang_up(self):
        for connection in self.sink.connections:
            connection.transport.abortConnection()
        return gatherResults([connection.gone for connection in self.sink.connections])

    async def relay(self, **options):
        services = Services(
            clock=reactor,
            run_in_thread=deferToThread,
            state=None,
            resolver=FakeResolver({"sink.example": {"A": ["127.0.0.1"]}}),
            hostname="us.example",
            configuration_directory="/",
            data_directory="/",
        )
        checked = SmarthostOptions(**{"host": "sink.example", "port": self.port, **options})
        relay = SmarthostFactory().build(checked, services)
        await relay.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(relay.stop()))
        return relay

    async def deliver(self, relay, content=None):
        recipient = Recipient(Address("user", "example.org"))
        envelope = Envelope("id", Peer("192.0.2.1", 1, "mx"), Address("sender", "example.net"), (recipient,), 0.0)
        destinations = [Destination(0, recipient, Remote(recipient.address))]
        return (await relay.deliver(envelope, content or Content.of(MESSAGE), destinations))[0]


class Encryption(SocketCase):
    def offer_tls(self):
        self.sink.tls = ServerSide(certificate("sink.example"))

    async def test_where_starttls_is_offered_it_is_used_whatever_the_certificate(self):
        self.offer_tls()
        for _ in range(2):
            outcome = await self.deliver(relay := await self.relay())
            self.assertIsInstance(outcome, Delivered)
            self.assertRegex(outcome.note, r"\]:\d+, TLSv1\.[23] [A-Z0-9_]+ \w+, message 1")
            self.assertRegex((await self.deliver(relay)).note, r"TLSv1\.[23] [A-Z0-9_]+ \w+, message 2")
        self.assertEqual(self.sink.messages, [(True, MESSAGE)] * 4)

    async def test_a_host_that_says_goodbye_and_does_not_close_its_side_takes_no_place(self):
        self.offer_tls()
        self.sink.protocol = Staying
        relay = await self.relay(connections_per_host=1, messages_per_connection=1)
        for _ in range(3):
            self.assertIsInstance(await self.deliver(relay), Delivered)
        self.assertEqual(self.sink.messages, [(True, MESSAGE)] * 3)

    test_a_host_that_says_goodbye_and_does_not_close_its_side_takes_no_place.timeout = 12  # less than is waited for a goodbye

    async def test_a_large_file_goes_through_tls(self):
        self.offer_tls()
        path, data = self.mktemp(), b"0123456789abcdef\r\n" * 100_000
        with open(path, "wb") as file:
            file.write(data)
        self.sink.slow = True
        self.assertIsInstance(await self.deliver(await self.relay(), Content.at(path, len(data))), Delivered)
        self.assertEqual(self.sink.messages, [(True, data)])

    async def test_a_broken_handshake_is_followed_at_once_by_a_connection_in_the_clear(self):
        self.sink.tls = "garbage"
        outcome = await self.deliver(await self.relay())
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual((len(self.sink.connections), self.sink.messages), (3, [(False, MESSAGE)]))

    async def test_octets_in_the_clear_behind_the_220_end_the_connection_and_nothing_goes_in_the_clear_instead(self):
        """RFC 3207 section 5"""
        self.offer_tls()
        self.sink.behind_220 = b"250 2.0.0 Trust me\r\n"
        outcome = await self.deliver(await self.relay())
        self.assertEqual((type(outcome), outcome.reply.enhanced, self.sink.messages), (Delayed, "4.5.0", []))
        self.assertEqual(len(self.sink.connections), 1)

    async def test_what_must_be_encrypted_waits_where_the_handshake_breaks(self):
        self.sink.tls = "garbage"
        outcome = await self.deliver(await self.relay(tls="required"))
        self.assertEqual((type(outcome), outcome.reply.enhanced, self.sink.messages), (Delayed, "4.7.5", []))

    async def test_what_must_be_verified_waits_where_nobody_vouches_for_the_certificate(self):
        self.offer_tls()
        outcome = await self.deliver(await self.relay(tls="verified"))
        self.assertEqual((type(outcome), outcome.reply.enhanced, self.sink.messages), (Delayed, "4.7.5", []))


class Streaming(SocketCase):
    async def test_a_large_file_goes_as_fast_as_the_peer_reads_and_is_never_whole_in_memory(self):
        path, data = self.mktemp(), b"0123456789abcdef\r\n" * 600_000
        with open(path, "wb") as file:
            file.write(data)
        relay = await self.relay()
        self.sink.slow = True
        most = 0

        def look():
            nonlocal most
            for connection in relay.connections._connections.values():
                transport = connection.transport
                most = max(most, len(transport.dataBuffer) + sum(map(len, transport._tempDataBuffer)))

        looking = LoopingCall(look)
        looking.start(0.001)
        outcome = await self.deliver(relay, Content.at(path, len(data)))
        looking.stop()
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual(self.sink.messages, [(False, data)])
        self.assertGreater(most, 0)
        self.assertLess(most, 1_000_000)


class Sinks(SocketCase):
    """Postfix's smtp-sink, which can be told to behave badly."""

    async def sunk(self, *options):
        """A relay to a fresh smtp-sink that has taken its first connection."""
        program = require_tool("smtp-sink")
        self.port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [program, *user, *options, f"127.0.0.1:{self.port}", "100"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        await deferToThread(wait_until, lambda: listens(self.port), lambda: "smtp-sink does not listen")
        return await self.relay()

    async def test_it_gets_every_message_over_a_few_connections(self):
        relay = await self.sunk()
        outcomes = await gatherResults([Deferred.fromCoroutine(self.deliver(relay)) for _ in range(500)])
        self.assertEqual({type(one) for one in outcomes}, {Delivered})
        counts = relay.connections.pool.counts
        self.assertLessEqual(counts.opened, 20)
        self.assertGreater(counts.hit_rate, 0.95)

    async def test_without_pipelining_and_without_esmtp_it_works_as_well(self):
        for option in ("-p", "-e"):
            relay = await self.sunk(option)
            for _ in range(3):
                self.assertIsInstance(await self.deliver(relay), Delivered)

    async def test_one_that_refuses_a_command_for_now_or_for_ever(self):
        for command, phase in (("mail", "MAIL"), ("rcpt", "RCPT"), ("data", "DATA"), (".", "END")):
            for option, kind in (("-r", Delayed), ("-f", Failed)):
                outcome = await self.deliver(await self.sunk(option, command))
                self.assertEqual((type(outcome), outcome.phase), (kind, phase), f"{option} {command}: {outcome}")

    async def test_one_that_hangs_up_defers(self):
        for command in ("connect", "ehlo", "mail", "rcpt", "data", "."):
            outcome = await self.deliver(await self.sunk("-q", command))
            self.assertIsInstance(outcome, Delayed, command)
            self.assertEqual("may have been delivered" in outcome.note, command == ".", f"{command}: {outcome}")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
