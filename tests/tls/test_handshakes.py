"""Handshakes over real sockets, with the clients of OpenSSL and of Python."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import socket
import ssl
import subprocess
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from OpenSSL import SSL
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mailserver.mail.envelope import TLSFacts
from mailserver.sasl.steps import ChannelBindings
from mailserver.tls import Certificates, ClientCertificates, Pair, Sources
from mailserver.transport.channel_bindings import end_point_of
from tests.requires import require_tool
from tests.tls.authority import Authority, Leaf
from tests.tls.folder import FolderCase

reactor: Any = installed_reactor
AUTHORITY = Authority()
SERVER = AUTHORITY.leaf("mx.example.org")


@implementer(IHandshakeListener)
class Echo(Protocol):
    """Says hello after the handshake, and gives back what it hears."""

    transport: Any

    def __init__(self, case: HandshakeCase) -> None:
        self.case = case

    def handshakeCompleted(self) -> None:
        self.case.facts.append(self.case.certificates.facts(self.transport))
        self.case.bindings.append(self.case.certificates.bindings(self.transport))
        self.transport.write(b"hello\n")

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.case.faults.append(self.case.certificates.fault(self.transport, reason))
        if self.case.lost is not None:
            lost, self.case.lost = self.case.lost, None
            lost.callback(None)


class HandshakeCase(FolderCase, TestCase):
    timeout = 30

    def setUp(self) -> None:
        super().setUp()
        self.facts: list[TLSFacts] = []
        self.bindings: list[ChannelBindings] = []
        self.faults: list[str] = []
        self.lost: Deferred[None] | None = None
        self.clock = Clock()
        self.port = 0

    async def listen(
        self,
        leaf: Leaf = SERVER,
        *,
        policy: ClientCertificates = ClientCertificates.IGNORE,
        names: Mapping[str, Leaf] | None = None,
        **sources: Any,
    ) -> None:
        pair = leaf.write(self.directory)
        others = {name: one.write(self.directory, name.replace("*", "_")) for name, one in (names or {}).items()}
        found = Sources(pair, others, **sources)
        self.certificates = Certificates(sources=lambda: found, clock=self.clock, run_in_thread=deferToThread)
        await self.certificates.start()
        self.addCleanup(self.certificates.stop)
        factory = Factory.forProtocol(lambda: Echo(self))  # type: ignore[arg-type]
        port = reactor.listenTCP(
            0, TLSMemoryBIOFactory(self.certificates.creator(policy), False, factory), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def context(self, client: Leaf | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        if client is not None:
            pair = client.write(self.directory, "client")
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    def connect(self, context: ssl.SSLContext, name: str = "mx.example.org") -> ssl.SSLSocket:
        """Blocks: call it in a thread."""
        with contextlib.ExitStack() as closing:
            client = closing.enter_context(socket.create_connection(("127.0.0.1", self.port), 10))
            client = closing.enter_context(context.wrap_socket(client, server_hostname=name))
            assert client.recv(6) == b"hello\n"
            closing.pop_all()
            return client

    async def visit(self, client: Leaf | None = None, name: str = "mx.example.org") -> str:
        """Connect and leave; "" or what the client has to complain of."""

        def go() -> str:
            try:
                with self.connect(self.context(client), name):
                    return ""
            except (ssl.SSLError, AssertionError, ConnectionError) as error:
                return str(error) or "nothing was said"

        self.lost = Deferred()
        lost = self.lost
        complaint = await deferToThread(go)
        await lost
        return complaint

    async def openssl(self, *arguments: str) -> str:
        """What `openssl s_client` says."""

        def go() -> str:
            done = subprocess.run(
                [require_tool("openssl"), "s_client", "-connect", f"127.0.0.1:{self.port}", *arguments],
                input=b"Q\n", capture_output=True, check=False, timeout=20,
            )  # fmt: skip
            return (done.stdout + done.stderr).decode("utf-8", "replace")

        return await deferToThread(go)


class Versions(HandshakeCase):
    async def test_tls_1_1_is_refused_and_1_2_and_1_3_are_spoken(self) -> None:
        await self.listen()
        old = await self.openssl("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        self.assertIn("Cipher is (NONE)", old)
        self.assertIn("unsupported protocol", self.faults[0])
        for option, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            self.assertIn(version, await self.openssl(option))
            self.assertEqual(self.facts[-1].version, version)

    async def test_the_floor_can_be_raised(self) -> None:
        await self.listen(minimum_version="1.3")
        self.assertIn("Cipher is (NONE)", await self.openssl("-tls1_2"))

    async def test_ciphers_without_forward_secrecy_are_not_spoken(self) -> None:
        await self.listen()
        self.assertIn("Cipher is (NONE)", await self.openssl("-tls1_2", "-cipher", "AES128-SHA:ECDHE-ECDSA-AES128-SHA"))
        self.assertIn("ECDHE-ECDSA-CHACHA20-POLY1305", await self.openssl("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"))

    async def test_a_session_is_resumed_by_its_ticket(self) -> None:
        await self.listen()
        path = os.path.join(self.directory, "session")
        await self.openssl("-tls1_2", "-sess_out", path)
        self.assertIn("Reused, TLSv1.2", await self.openssl("-tls1_2", "-sess_in", path))

    def reconnected(self, context: ssl.SSLContext, name: str = "mx.example.org") -> tuple[bool, str | None]:
        """Whether a second connection, for `name`, resumes the session of the first one; blocks."""
        with self.connect(context) as client:
            session = client.session
        with socket.create_connection(("127.0.0.1", self.port), 10) as plain:
            with context.wrap_socket(plain, server_hostname=name, session=session) as client:
                client.recv(6)
                return bool(client.session_reused), client.version()

    async def test_sessions_of_both_versions_are_resumed(self) -> None:
        await self.listen()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context()
            context.maximum_version = version
            self.assertEqual(await deferToThread(self.reconnected, context), (True, version.name.replace("_", ".")))

    async def test_where_certificates_are_asked_for_every_handshake_is_a_full_one(self) -> None:
        # else one that has been revoked since would still open the door
        leaf = Clients.GOOD
        await self.listen(policy=ClientCertificates.REQUEST, authorities=self.write("ca.pem", AUTHORITY.pem))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(leaf)
            context.maximum_version = version
            self.assertEqual((await deferToThread(self.reconnected, context))[0], False)
        self.assertEqual([one.client_certificate for one in self.facts], [leaf.fingerprint] * 4)

    async def test_plain_text_is_no_handshake(self) -> None:
        await self.listen()

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), 10) as plain:
                plain.sendall(b"EHLO a.example\r\n")
                return plain.recv(1000)

        self.lost = lost = Deferred()
        self.assertNotIn(b"250", await deferToThread(talk))
        await lost
        self.assertNotIn(self.faults, ([""], []))


class Names(HandshakeCase):
    async def test_the_name_that_is_asked_for_chooses_the_certificate(self) -> None:
        other, wild = AUTHORITY.leaf("mail.example.net"), AUTHORITY.leaf("*.example.com")
        await self.listen(names={"mail.example.net": other, "*.example.com": wild})
        for name in ("mx.example.org", "mail.example.net", "Mail.Example.NET", "smtp.example.com"):
            self.assertEqual(await self.visit(name=name), "")
        self.assertEqual(self.facts[-1].server_name, "smtp.example.com")

    async def test_an_unknown_name_and_none_at_all_get_the_default(self) -> None:
        await self.listen(names={"mail.example.net": AUTHORITY.leaf("mail.example.net")})
        self.assertIn("not valid for 'unknown.example'", await self.visit(name="unknown.example"))
        self.assertIn("CN = mx.example.org", await self.openssl("-noservername"))

    async def test_the_default_certificate_is_bound_where_it_was_shown_and_the_other_where_that_was(self) -> None:
        # RFC 5929 section 4
        other = AUTHORITY.leaf("mail.example.net")
        await self.listen(names={"mail.example.net": other})
        await self.visit()
        await self.visit(name="mail.example.net")
        found = [one.data["tls-server-end-point"].hex() for one in self.bindings]
        self.assertEqual(found, [SERVER.fingerprint, other.fingerprint])

    async def test_both_ends_export_the_same_octets(self) -> None:
        # RFC 9266
        await self.listen()

        def go() -> tuple[bytes, str]:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            with socket.create_connection(("127.0.0.1", self.port), 10) as plain:
                plain.settimeout(None)
                client = SSL.Connection(context, plain)
                client.set_connect_state()
                client.do_handshake()
                client.recv(6)
                return client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""), client.get_protocol_version_name()

        self.assertEqual(await deferToThread(go), (self.bindings[0].data["tls-exporter"], "TLSv1.3"))

    async def test_before_tls_1_3_nothing_is_exported(self) -> None:
        await self.listen()
        await self.openssl("-tls1_2")
        self.assertEqual(list(self.bindings[0].data), ["tls-server-end-point"])


class EndPoints(SynchronousTestCase):
    def test_a_signature_without_a_hash_of_its_own_has_nothing_to_bind_to(self) -> None:
        key, name = ed25519.Ed25519PrivateKey.generate(), AUTHORITY.name
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        self.assertIsNone(end_point_of(builder.sign(key, None)))


class Clients(HandshakeCase):
    GOOD = AUTHORITY.leaf(emails=["alice@example.org"], client=True)
    EXPIRED = AUTHORITY.leaf(emails=["alice@example.org"], client=True, days=(-30, -1))
    EARLY = AUTHORITY.leaf(emails=["alice@example.org"], client=True, days=(5, 30))
    STRANGE = Authority("Another CA").leaf(emails=["alice@example.org"], client=True)
    SERVERS = AUTHORITY.leaf("client.example")

    async def asking(self, policy: ClientCertificates) -> None:
        await self.listen(
            policy=policy,
            authorities=self.write("ca.pem", AUTHORITY.pem),
            revocations=self.write("crl.pem", AUTHORITY.revocations(self.REVOKED)),
        )

    REVOKED = AUTHORITY.leaf(emails=["alice@example.org"], client=True)
    FAULTY: Mapping[str, Leaf] = {
        "expired": EXPIRED,
        "not yet valid": EARLY,
        "unknown authority": STRANGE,
        "revoked": REVOKED,
        "wrong purpose": SERVERS,
    }

    async def test_where_none_is_asked_for_none_is_known(self) -> None:
        await self.listen()
        self.assertEqual(await self.visit(self.GOOD), "")
        self.assertEqual(self.facts[0].client_certificate, "")

    async def test_a_good_one_is_verified_and_has_its_addresses(self) -> None:
        for policy in (ClientCertificates.REQUEST, ClientCertificates.REQUIRE):
            await self.asking(policy)
            self.assertEqual(await self.visit(self.GOOD), "")
            facts = self.facts[-1]
            self.assertEqual((facts.client_certificate, facts.client_verified), (self.GOOD.fingerprint, True))
            self.assertEqual((facts.client_fault, facts.client_emails), ("", ("alice@example.org",)))

    async def test_where_one_is_required_every_other_one_is_refused_and_the_log_says_why(self) -> None:
        await self.asking(ClientCertificates.REQUIRE)
        for fault, leaf in self.FAULTY.items():
            self.assertNotEqual(await self.visit(leaf), "", fault)
            self.assertEqual(self.faults[-1], f"client certificate: {fault}")
        self.assertNotEqual(await self.visit(), "")
        self.assertEqual(self.faults[-1], "no client certificate")
        self.assertEqual(self.facts, [])

    async def test_where_one_is_requested_every_client_goes_on_and_what_is_wrong_is_known(self) -> None:
        await self.asking(ClientCertificates.REQUEST)
        for fault, leaf in self.FAULTY.items():
            self.assertEqual(await self.visit(leaf), "")
            facts = self.facts[-1]
            self.assertEqual((facts.client_certificate, facts.client_verified), (leaf.fingerprint, False))
            self.assertEqual(facts.client_fault, fault)
        self.assertEqual(await self.visit(), "")
        self.assertEqual((self.facts[-1].client_certificate, self.facts[-1].client_verified), ("", False))

    async def test_whatever_a_client_has_written_into_its_certificate_its_fingerprint_is_known(self) -> None:
        await self.listen(policy=ClientCertificates.REQUEST, authorities=self.write("ca.pem", AUTHORITY.pem))
        x400 = AUTHORITY.leaf(client=True, alternatives=bytes.fromhex("3005a303020100"))  # an address of that kind
        of_version_6 = AUTHORITY.leaf(emails=["alice@example.org"], client=True)
        der = of_version_6.certificate.public_bytes(serialization.Encoding.DER)
        der = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"), 1)
        of_version_6.certificate_pem = ssl.DER_cert_to_PEM_cert(der).encode()
        for leaf in (x400, of_version_6):
            self.assertEqual(await self.visit(leaf), "")
            facts = self.facts[-1]
            shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf.certificate_pem.decode())).hexdigest()
            self.assertEqual((facts.client_certificate, facts.client_emails), (shown, ()))

    async def test_without_authorities_nobody_is_vouched_for(self) -> None:
        await self.listen(policy=ClientCertificates.REQUEST)
        await self.visit(self.GOOD)
        self.assertEqual((self.facts[0].client_verified, self.facts[0].client_fault), (False, "unknown authority"))

    async def test_a_certificate_for_another_name_asks_clients_all_the_same(self) -> None:
        await self.listen(
            policy=ClientCertificates.REQUIRE,
            names={"mail.example.net": AUTHORITY.leaf("mail.example.net")},
            authorities=self.write("ca.pem", AUTHORITY.pem),
        )
        self.assertNotEqual(await self.visit(name="mail.example.net"), "")
        self.assertEqual(await self.visit(self.GOOD, name="mail.example.net"), "")
        self.assertNotEqual(await self.visit(self.STRANGE, name="mail.example.net"), "")


class Changes(HandshakeCase):
    async def shown(self) -> str:
        """The fingerprint of the certificate that a new client sees."""

        def go() -> str:
            with self.connect(self.context()) as client:
                return hashlib.sha256(client.getpeercert(True) or b"").hexdigest()

        found: str = await deferToThread(go)
        return found

    async def test_a_new_pair_is_taken_up_and_no_open_connection_is_dropped(self) -> None:
        await self.listen()
        clients = [await deferToThread(self.connect, self.context()) for _ in range(50)]
        for client in clients:
            self.addCleanup(client.close)
        renewed = AUTHORITY.leaf("mx.example.org")
        renewed.write(self.directory)
        await self.certificates.look()
        self.assertEqual(await self.shown(), renewed.fingerprint)

        def still_there() -> list[bytes]:
            for client in clients:
                client.sendall(b"still there\n")
            return [client.recv(100) for client in clients]

        self.assertEqual(await deferToThread(still_there), [b"still there\n"] * 50)
        self.assertEqual(self.certificates.default.fingerprint, renewed.fingerprint)

    async def test_half_a_change_replaces_nothing_and_is_told_once(self) -> None:
        await self.listen()
        renewed = AUTHORITY.leaf("mx.example.org")
        self.write("server.pem", renewed.certificate_pem)
        for _ in range(3):
            await self.certificates.look()
        self.assertEqual(await self.shown(), SERVER.fingerprint)
        self.write("server.key", renewed.key_pem)
        await self.certificates.look()
        self.assertEqual(await self.shown(), renewed.fingerprint)

    async def test_what_is_gone_or_broken_replaces_nothing(self) -> None:
        await self.listen(names={"mail.example.net": AUTHORITY.leaf("mail.example.net")})
        os.unlink(os.path.join(self.directory, "server.key"))
        self.write("mail.example.net.pem", b"nonsense")
        await self.certificates.look()
        self.assertEqual(await self.shown(), SERVER.fingerprint)
        self.assertEqual(await self.visit(name="mail.example.net"), "")

    async def test_the_clock_makes_it_look(self) -> None:
        await self.listen()
        AUTHORITY.leaf("mx.example.org").write(self.directory)
        looked: Deferred[None] = Deferred()
        look = self.certificates.look

        async def observed() -> None:
            await look()
            reactor.callLater(0, looked.callback, None)

        self.certificates.look = observed  # type: ignore[method-assign]
        self.clock.advance(5.0)
        await looked
        self.assertNotEqual(await self.shown(), SERVER.fingerprint)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1, "it goes on looking")
        await self.certificates.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Fallback(HandshakeCase):
    async def test_a_pair_that_cannot_be_used_stops_the_start(self) -> None:
        pair = Pair(self.write("a.pem", SERVER.certificate_pem), self.write("a.key", AUTHORITY.leaf("x.example").key_pem))
        found = Sources(pair, authorities=self.write("ca.pem", b"nothing"))
        certificates = Certificates(sources=lambda: found, clock=self.clock, run_in_thread=deferToThread)
        with self.assertRaises(ValueError) as caught:
            await certificates.start()
        self.assertIn("a.key: the key does not belong to the first certificate of", str(caught.exception))
        self.assertIn("ca.pem: there is no certificate in PEM form", str(caught.exception))

    async def test_ciphers_that_nobody_knows_stop_the_start(self) -> None:
        found = Sources(SERVER.write(self.directory), ciphers="NONSENSE")
        certificates = Certificates(sources=lambda: found, clock=self.clock, run_in_thread=deferToThread)
        with self.assertRaises(ValueError) as caught:
            await certificates.start()
        self.assertTrue(str(caught.exception).endswith("or the ciphers: no cipher match"), caught.exception)

    def test_before_the_first_read_there_is_neither_a_certificate_nor_a_connection(self) -> None:
        certificates = Certificates(sources=lambda: Sources(Pair("", "")), clock=self.clock, run_in_thread=deferToThread)
        self.assertRaises(RuntimeError, lambda: certificates.default)
        self.assertRaises(RuntimeError, certificates.connection, ClientCertificates.IGNORE)
