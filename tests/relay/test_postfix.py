"""The relay with a real Postfix on the other side: what it is told, what it stores, what it refuses."""

from __future__ import annotations

import email
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import TestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Outcome, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, RecipientParameters
from mailserver.mail.parcel import Destination
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.library import smarthost_relay
from mailserver.relay.security import TLSMode
from tests.relay.postfix import SIZE_LIMIT, Postfix
from tests.scenarios.support import BASIC, ScenarioCase, Stored, Wire, wait_until

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
HOSTILE = (
    b".\r\n..\r\n.dot\r\n\r\n...\r\nFrom here\r\n \t\r\n"
    + bytes(range(128, 256)) + b"\r\n"
    + "Grüße, 你好\r\n".encode()
    + b"x" * 998 + b"\r\n"
    + b"." * 5000 + b"\r\n"
    + b"\r\n.\r\nend\r\n\r\n"
)  # fmt: skip


class Recording(ProtocolWrapper):
    """Keeps what is written to the connection, and what is read from it."""

    def write(self, data: bytes) -> None:
        self.factory.heard.append((">", data))
        super().write(data)

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard.append(("<", data))
        super().dataReceived(data)


class RecordingFactory(WrappingFactory):
    protocol = Recording
    noisy = False

    def __init__(self, factory: Any, heard: list[tuple[str, bytes]]) -> None:
        super().__init__(factory)
        self.heard = heard


class Network:
    """The reactor, as far as the relay needs it, with a record of what goes over its connections."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.seconds = reactor.seconds  # type: ignore[attr-defined]
        self.callLater = reactor.callLater  # type: ignore[attr-defined]

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float, bindAddress: Any) -> Any:
        recording = RecordingFactory(factory, self.heard)
        return reactor.connectTCP(host, port, recording, timeout, bindAddress)  # type: ignore[attr-defined]

    def said(self) -> bytes:
        """All that was written."""
        return b"".join(data for target, data in self.heard if target == ">")


class WithPostfix(TestCase):
    timeout = 90

    def start(self, settings: str = "") -> None:
        self.postfix = Postfix(settings)
        self.addCleanup(self.postfix.remove)
        self.postfix.start()

    async def relay(self, tls: TLSMode = TLSMode.NONE) -> Relay:
        self.network = Network()
        network = self.network if tls is TLSMode.NONE else reactor  # a record of what is encrypted would say little
        connect_settings = ConnectSettings(port=self.postfix.port, tls=tls)
        relay = smarthost_relay(reactor=network, hostname="us.example", host="127.0.0.1", connect_settings=connect_settings)
        await relay.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(relay.stop()))
        return relay

    async def deliver(
        self, relay: Relay, *to: str, data: bytes = MESSAGE, recipient: RecipientParameters | None = None, **mail: Any
    ) -> list[Outcome]:
        """One message from sender@far.example; the outcomes in the recipients' order."""
        parameters = recipient or RecipientParameters()
        paths = tuple(Recipient(Address.parse(f"{one}@far.example", utf8=True), parameters) for one in to)
        sender = Address("sender", "far.example")
        envelope = Envelope("id", Peer("192.0.2.1", 1, "mx"), sender, paths, 0.0, MailParameters(**mail))
        destinations = [Destination(index, path, Remote(path.address)) for index, path in enumerate(paths)]
        outcomes = await relay.deliver(envelope, Content.of(data), destinations)
        self.assertEqual(sorted(outcomes), list(range(len(to))))
        return [outcomes[index] for index in range(len(to))]

    async def stored(self, user: str, count: int = 1) -> Sequence[Stored]:
        messages: Sequence[Stored] = await deferToThread(self.postfix.wait_for_mail, user, count)
        return messages

    async def test_each_recipient_has_postfixs_own_word_and_those_it_takes_get_one_copy(self) -> None:
        self.start()
        relay = await self.relay()
        alice, refused, later, unknown, bob = await self.deliver(relay, "alice", "refused", "later", "unknown", "bob")
        self.assertEqual((type(alice), type(bob)), (Delivered, Delivered))
        assert isinstance(refused, Failed) and isinstance(later, Delayed) and isinstance(unknown, Failed)
        for outcome, words in (
            (refused, "550 5.7.1 <refused@far.example>: Recipient address rejected: Nothing for this one"),
            (later, "450 4.7.1 <later@far.example>: Recipient address rejected: Come back another day"),
            (unknown, "550 5.1.1 <unknown@far.example>: Recipient address rejected: User unknown"),
        ):
            self.assertIn(words, str(outcome.reply))
        self.assertEqual({one.phase for one in (refused, later, unknown)}, {"RCPT"})
        for user, count in (("alice", 1), ("bob", 1), ("carol", 0)):
            await self.stored(user, count)

    async def test_the_whole_envelope_is_said_before_postfix_answers_its_first_line(self) -> None:
        """RFC 2920 section 3.1"""
        self.start()
        await self.deliver(await self.relay(), "alice", "refused", "bob")
        envelopes = [data for target, data in self.network.heard if target == ">" and data.startswith(b"MAIL FROM:")]
        [envelope] = envelopes
        verbs = [line.split(b":")[0] for line in envelope.splitlines()]
        self.assertEqual(verbs, [b"MAIL FROM", b"RCPT TO", b"RCPT TO", b"RCPT TO", b"DATA"])

    async def test_where_pipelining_is_not_offered_each_command_waits_for_its_answer(self) -> None:
        """RFC 2920 section 3.1; such a Postfix turns away who does not wait."""
        self.start("smtpd_discard_ehlo_keywords = pipelining\nsmtpd_data_restrictions = reject_unauth_pipelining\n")
        outcomes = await self.deliver(await self.relay(), "alice", "refused", "bob")
        self.assertEqual([type(one) for one in outcomes], [Delivered, Failed, Delivered])
        targets = "".join(target for target, _ in self.network.heard)
        self.assertNotIn(">>", targets)

    async def test_a_body_with_dots_eight_bits_and_long_lines_arrives_octet_by_octet(self) -> None:
        """RFC 5321 section 4.5.2; RFC 6152"""
        self.start()
        data = b"Subject: x\r\n\r\n" + HOSTILE
        [outcome] = await self.deliver(await self.relay(), "alice", data=data, body="8BITMIME")
        self.assertIsInstance(outcome, Delivered)
        self.assertIn(b" BODY=8BITMIME", self.network.said())
        [message] = await self.stored("alice")
        self.assertEqual(message.body, HOSTILE)

    async def test_a_postfix_that_does_not_take_8_bits_gets_them_encoded_and_a_reader_sees_the_same(self) -> None:
        """RFC 6152"""
        self.start("smtpd_discard_ehlo_keywords = 8bitmime, smtputf8\nstrict_7bit_headers = no\nstrict_8bitmime_body = yes\n")
        relay = await self.relay()
        head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        parts = (
            "Content-Type: text/plain; charset=utf-8\r\n\r\n..Gr\u00fc\u00dfe an alle\r\n.\r\n".encode(),
            b"Content-Type: application/octet-stream\r\n\r\n" + bytes(range(128, 256)),
            b"Content-Type: text/plain\r\n\r\nplain",
        )
        data = head + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
        [outcome] = await self.deliver(relay, "alice", data=data, body="8BITMIME")
        assert isinstance(outcome, Delivered)
        self.assertIn("converted for this host", outcome.note)
        self.assertNotIn(b"BODY=", self.network.said())
        [stored] = await self.stored("alice")
        self.assertTrue(stored.data.isascii())
        contents = [
            [part.get_payload(decode=True) for part in email.message_from_bytes(octets).walk() if not part.is_multipart()]
            for octets in (data, stored.data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        ]
        self.assertEqual([one.replace(b"\r\n", b"\n") for one in contents[0]], [one.replace(b"\r\n", b"\n") for one in contents[1]])
        [outcome] = await self.deliver(relay, "bob", body="8BITMIME")
        self.assertIsInstance(outcome, Delivered)
        [stored] = await self.stored("bob")
        self.assertEqual(stored.body, b"text\r\n")

    async def test_an_address_and_a_header_that_are_not_ascii_arrive(self) -> None:
        """RFC 6531"""
        self.start()
        data = "Subject: Grüße\r\n\r\ntext\r\n".encode()
        [outcome] = await self.deliver(await self.relay(), "jürgen", data=data, body="8BITMIME", smtputf8=True)
        self.assertIsInstance(outcome, Delivered)
        [message] = await self.stored("jürgen")
        self.assertEqual((message.header("Subject"), message.header("Delivered-To")), ("Grüße", "jürgen@far.example"))

    async def test_postfix_without_smtputf8_gets_nothing_of_such_a_message(self) -> None:
        """RFC 6531 section 3.4"""
        self.start("smtputf8_enable = no\n")
        relay = await self.relay()
        [outcome] = await self.deliver(relay, "jürgen")
        assert isinstance(outcome, Failed)
        self.assertEqual((outcome.reply.enhanced, outcome.peer), ("5.6.7", ""))
        self.assertIsInstance((await self.deliver(relay, "alice"))[0], Delivered)

    async def test_the_report_that_was_asked_for_is_postfixs(self) -> None:
        """RFC 3461 sections 4 and 5.2.1"""
        self.start()
        asked = RecipientParameters(frozenset({"SUCCESS", "FAILURE"}), ("rfc822", "robert+x@old.example"))
        [outcome] = await self.deliver(await self.relay(), "bob", recipient=asked, envid="QQ=314", ret="HDRS")
        assert isinstance(outcome, Delivered)
        self.assertTrue(outcome.notifies)
        await self.stored("bob")
        [report] = await self.stored("sender")
        text = " ".join(report.data.decode().split())
        self.assertIn("Original-Envelope-Id: QQ=314", text)
        self.assertIn("Original-Recipient: rfc822;robert+x@old.example", text)
        self.assertIn("Action: delivered", text)
        self.assertIn("text/rfc822-headers", text)

    async def test_what_is_too_large_fails_before_anything_is_said_and_the_connection_stays(self) -> None:
        """RFC 1870 section 6.1"""
        self.start()
        relay = await self.relay()
        large = MESSAGE + b"0123456789abcdef\r\n" * (SIZE_LIMIT // 18)
        [outcome] = await self.deliver(relay, "alice", data=large)
        assert isinstance(outcome, Failed)
        self.assertEqual((outcome.reply.enhanced, outcome.peer), ("5.3.4", ""))
        self.assertNotIn(b"MAIL", self.network.said())
        self.assertIsInstance((await self.deliver(relay, "alice"))[0], Delivered)
        self.assertEqual(self.postfix.connections, 1)

    async def test_many_messages_share_a_few_connections_and_arrive_once(self) -> None:
        self.start()
        relay = await self.relay()
        for n in range(5):
            [outcome] = await self.deliver(relay, "alice", data=b"Subject: %d\r\n\r\ntext\r\n" % n)
            assert isinstance(outcome, Delivered)
            self.assertIn(f"message {n + 1} on the connection", outcome.note)
        self.assertEqual(self.postfix.connections, 1)
        messages = [b"Subject: %d\r\n\r\ntext\r\n" % n for n in range(5, 60)]
        await gatherResults([Deferred.fromCoroutine(self.deliver(relay, "alice", data=data)) for data in messages])
        stored = await self.stored("alice", 60)
        self.assertEqual(Counter(one.header("Subject") for one in stored), Counter(str(n) for n in range(60)))
        self.assertLessEqual(self.postfix.connections, 20)

    async def test_starttls_with_a_certificate_that_nobody_vouches_for(self) -> None:
        """RFC 3207; RFC 7435: encrypted without a proof is better than in the clear"""
        self.start()
        [outcome] = await self.deliver(await self.relay(TLSMode.OPPORTUNISTIC), "alice")
        assert isinstance(outcome, Delivered)
        self.assertRegex(outcome.note, r"TLSv1\.[23]")
        await self.stored("alice")
        self.assertIn("TLS connection established from", self.postfix.log())
        [outcome] = await self.deliver(await self.relay(TLSMode.VERIFIED), "alice")
        assert isinstance(outcome, Delayed)
        self.assertEqual(outcome.reply.enhanced, "4.7.5")

    async def test_a_postfix_that_was_restarted_gets_the_next_message_over_a_new_connection(self) -> None:
        self.start()
        relay = await self.relay()
        self.assertIsInstance((await self.deliver(relay, "alice"))[0], Delivered)
        await deferToThread(self.postfix.stop)
        await deferToThread(self.postfix.start)
        self.assertIsInstance((await self.deliver(relay, "alice"))[0], Delivered)
        await self.stored("alice", 2)
        self.assertEqual(relay.counts()["opened"], 2)


class WholeServer(ScenarioCase):
    def test_a_report_with_eight_bits_in_it_reaches_its_sender_over_a_host_that_does_not_take_them(self) -> None:
        postfix = Postfix("smtpd_discard_ehlo_keywords = 8bitmime, smtputf8\n")
        self.addCleanup(postfix.remove)
        postfix.start()
        relay = f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {postfix.port}\neightbit = "refuse"\nnetworks = ["127.0.0.0/8"]\n'
        server = self.serve(BASIC + relay)
        with Wire(server.port) as wire:
            mail = "MAIL FROM:<sender@far.example> BODY=8BITMIME RET=FULL"
            wire.dialogue("EHLO client.example", mail, "RCPT TO:<alice@far.example>", "DATA")
            wire.send("Subject: x\r\n\r\nViele Grüße\r\n.\r\n".encode())
            self.assertEqual(wire.reply().code, 250)
        [report] = postfix.wait_for_mail("sender")
        self.assertTrue(report.data.isascii())
        self.assertIn(b"Status: 5.6.3", report.data)
        self.assertIn(b"Viele Gr=C3=BC=C3=9Fe", report.data)

    def test_our_queue_delivers_to_postfix_and_its_refusal_comes_back_in_a_report(self) -> None:
        postfix = Postfix()
        self.addCleanup(postfix.remove)
        postfix.start()
        relay = f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {postfix.port}\nnetworks = ["127.0.0.0/8"]\n'
        server = self.serve(BASIC + relay)
        users = ("alice", "refused", "bob", "carol")
        with Wire(server.port) as wire:
            recipients = [f"RCPT TO:<{user}@far.example>" for user in users]
            wire.dialogue("EHLO client.example", "MAIL FROM:<alice@example.org>", *recipients, "DATA")
            wire.send(b"Subject: to four\r\n\r\n..dot\r\nyes\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250)
        for user in ("alice", "bob", "carol"):
            [message] = postfix.wait_for_mail(user)
            self.assertEqual(message.body, b".dot\r\nyes\r\n")
        [report] = server.wait_for_mail("alice")
        words = b" ".join(report.data.split())
        self.assertIn(b"550 5.7.1 <refused@far.example>: Recipient address rejected: Nothing for this one", words)
        self.assertNotIn(b"carol@far.example", report.data)
        wait_until(lambda: not json.loads(server.command("queue", "list", "--json").stdout), server.log)
