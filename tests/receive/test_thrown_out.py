"""Disconnect and Discard, on the wire."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import IContentFilter, IPeerFilter, IRecipientContentFilter, IRecipientFilter, ISenderFilter
from mailserver.mail.answers import Defer, Discard, Disconnect, Finding, Pass, Refuse, Signal
from mailserver.receive.judging import BoundFilter
from tests.receive.test_protocol import ConnectionCase

HELLO = b"EHLO client.example\r\n"
MESSAGE = b"MAIL FROM:<a@example.net>\r\nRCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
TEXT = b"Subject: x\r\n\r\nhello\r\n.\r\n"


@implementer(IPeerFilter)
class Peers:
    def __init__(self, verdict: Any, *, after_hello: bool) -> None:
        self.verdict, self.after_hello = verdict, after_hello

    async def judge_peer(self, peer: Any) -> Any:
        return self.verdict if bool(peer.hello) is self.after_hello else Pass()


@implementer(ISenderFilter)
class Senders:
    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    async def judge_sender(self, envelope: Any) -> Any:
        return self.verdict


@implementer(IRecipientFilter)
class Bob:
    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Any:
        return self.verdict if recipient.address.local == "bob" else Pass()


@implementer(IContentFilter)
class Contents:
    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict
        self.seen: list[Any] = []

    async def judge_content(self, envelope: Any, content: Any) -> Any:
        self.seen.append(envelope)
        return self.verdict


@implementer(IRecipientContentFilter)
class BobsContents(Bob):
    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
        self.seen = envelope
        return await self.judge_recipient(envelope, recipient)


class ThrownOutCase(ConnectionCase):
    def filtered(self, *components: Any, **options: Any) -> Any:
        return self.listener(filters=[BoundFilter(f"filter{n}", one) for n, one in enumerate(components)], **options)


class Disconnects(ThrownOutCase):
    def test_at_connect_it_is_the_greeting(self) -> None:
        listener = self.filtered(Peers(Disconnect("enough"), after_hello=False))
        _, wire = listener.connect()
        self.assertEqual(wire.codes(), [421])
        self.assertTrue(wire.disconnecting)
        self.assertEqual(listener.step("rejected")["why"], "enough")

    def test_after_ehlo_nothing_more_is_answered(self) -> None:
        listener = self.filtered(Peers(Disconnect("enough"), after_hello=True))
        protocol, wire = listener.connect()
        wire.clear()
        protocol.dataReceived(HELLO + MESSAGE)
        self.assertEqual(wire.codes(), [421])
        self.assertTrue(wire.disconnecting)
        self.assertEqual(listener.step("rejected")["why"], "enough")

    def test_at_mail_nothing_more_is_answered(self) -> None:
        listener = self.filtered(Senders(Disconnect("enough")))
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        self.assertEqual(wire.codes(), [421])
        self.assertTrue(wire.disconnecting)
        self.assertEqual(listener.step("refused")["why"], "enough")
        self.assertEqual(listener.store.taken, [])

    def test_it_is_no_error_of_the_peers(self) -> None:
        listener = self.filtered(Senders(Disconnect("enough")))
        protocol, _ = listener.greeted()
        protocol.dataReceived(MESSAGE)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(listener.step("closed"), {"messages": 0, "errors": 0})

    def test_the_enhanced_code_of_a_deferral_is_said_at_each_stage(self) -> None:
        later = Defer("busy", "4.2.2")
        protocol, wire = self.filtered(Peers(later, after_hello=False)).connect()
        self.assertIn("421 ", wire.said())
        for one, said in ((Senders(later), b"MAIL FROM:<>\r\n"), (Bob(later), MESSAGE)):
            protocol, wire = self.filtered(one).greeted()
            self.assertIn("450 4.2.2 ", self.hear(protocol, wire, said))

    def hear(self, protocol: Any, wire: Any, octets: bytes) -> str:
        wire.clear()
        protocol.dataReceived(octets)
        return str(wire.said())


class Discards(ThrownOutCase):
    def send(self, listener: Any) -> list[int]:
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        protocol.dataReceived(TEXT)
        return list(wire.codes())

    def discarded(self, listener: Any) -> list[str]:
        return [to for _, step, fields in listener.steps if step == "discarded" for to in fields["recipients"]]

    def test_of_a_sender_or_a_content_it_is_the_whole_message_and_the_peer_hears_250(self) -> None:
        for component in (Senders(Discard("virus")), Contents(Discard("virus"))):
            listener = self.filtered(component)
            self.assertEqual(self.send(listener), [250, 250, 250, 354, 250])
            self.assertEqual(listener.store.taken, [])
            self.assertEqual(sorted(self.discarded(listener)), ["alice@example.org", "bob@example.org"])
            self.assertEqual(listener.step("discarded")["why"], "virus")

    def test_of_a_recipient_it_is_his_copy_alone(self) -> None:
        listener = self.filtered(Bob(Discard("unwanted")))
        self.assertEqual(self.send(listener), [250, 250, 250, 354, 250])
        ((_, _, destinations, *_),) = listener.store.taken
        self.assertEqual([str(one.recipient.address) for one in destinations], ["alice@example.org"])
        self.assertEqual(self.discarded(listener), ["bob@example.org"])

    def test_who_comes_later_is_not_asked_about_what_is_thrown_away(self) -> None:
        later = Contents(Refuse("no"))
        self.assertEqual(self.send(self.filtered(Senders(Discard("x")), later)), [250, 250, 250, 354, 250])
        self.assertEqual(later.seen, [])

    def test_in_lmtp_each_recipient_has_his_reply(self) -> None:
        listener = self.filtered(Bob(Discard("unwanted")), service="lmtp")
        protocol, wire = listener.connect()
        wire.clear()
        protocol.dataReceived(b"LHLO client.example\r\n" + MESSAGE)
        protocol.dataReceived(TEXT)
        self.assertEqual(wire.codes()[-2:], [250, 250])
        self.assertEqual(self.discarded(listener), ["bob@example.org"])


class Found(ThrownOutCase):
    def test_what_was_found_is_seen_by_later_stages_and_a_recipients_by_his_own(self) -> None:
        contents, bobs = Contents(Signal("text", 3.0, "c")), BobsContents(Pass())
        listener = self.filtered(
            Peers(Signal("host", 1.0, "a"), after_hello=False),
            Peers(Pass(findings=(Finding("name", 2.0),)), after_hello=True),
            Senders(Signal("sender", 1.5, "b")),
            Bob(Signal("bob", 0.5, "d")),
            contents,
            bobs,
        )
        protocol, _wire = listener.greeted()
        protocol.dataReceived(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n" + TEXT)
        self.assertEqual([one.name for one in contents.seen[0].findings], ["host", "name", "sender"])
        self.assertEqual([one.name for one in bobs.seen.findings], ["host", "name", "sender", "text", "bob"])
        self.assertEqual({one.source for one in bobs.seen.findings}, {"filter0", "filter1", "filter2", "filter3", "filter4"})

    def test_another_message_of_the_connection_begins_with_what_was_found_of_the_peer(self) -> None:
        contents = Contents(Signal("text", 3.0, "c"))
        listener = self.filtered(Peers(Signal("host", 1.0, "a"), after_hello=False), contents)
        protocol, _wire = listener.greeted()
        for _ in range(2):
            protocol.dataReceived(MESSAGE + TEXT)
        self.assertEqual([[one.name for one in seen.findings] for seen in contents.seen], [["host"], ["host"]])
