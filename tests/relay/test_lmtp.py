"""Mail into a store by LMTP: scripted ones for the faults, Dovecot for the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.config import check_options
from mailserver.interfaces import IComponent, IConcurrentDelivery, IForgiving, Services
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Mailbox, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient
from mailserver.mail.parcel import Destination, Parcel
from mailserver.relay.lmtp import AddressTemplate, LMTPDelivery, LMTPFactory, LMTPOptions
from mailserver.relay.security import TLSMode
from tests.delivery.messages import PEER
from tests.relay.dovecot import Dovecot

DATA = b"Subject: one\r\n\r\nhello\r\n.dot\r\n"


def options(**values: Any) -> LMTPOptions:
    checked = check_options(LMTPOptions, values, "/etc/mailserver")
    assert isinstance(checked, LMTPOptions)
    return checked


def built(**values: Any) -> LMTPDelivery:
    services = Services(reactor, deferToThread, None, None, "mx.example.org", "/etc/mailserver", "/var/lib/mailserver")
    return LMTPFactory().build(options(**values), services)


def parcel(*names: str, content: Content | bytes = DATA, sender: str | None = "carol@example.net") -> Parcel:
    """For accounts of example.org: ``alice``, or ``alice.Junk`` for a folder."""
    destinations = []
    for index, name in enumerate(names):
        user, _, folder = name.partition(".")
        recipient = Recipient(Address(user, "example.org"))
        box = Mailbox(user, "example.org", (folder,) if folder else ())
        destinations.append(Destination(index, recipient, Local(recipient.address, box)))
    envelope = Envelope(
        "0123456789ABCDEF", PEER, None if sender is None else Address.parse(sender),
        tuple(destination.recipient for destination in destinations), 1700000000.25,
    )  # fmt: skip
    return Parcel(envelope, content if isinstance(content, Content) else Content.of(content), tuple(destinations))


class Addresses(SynchronousTestCase):
    def said(self, template: str, destination: Destination) -> str:
        return str(AddressTemplate(template).addressed(destination).route.address)

    def test_each_form_says_whose_mail_it_is(self) -> None:
        recipient = Recipient(Address("sales", "example.com"))
        box = Mailbox("alice", "example.org", ("lists", "python"))
        destination = Destination(3, recipient, Local(Address("alice+x", "example.org"), box))
        for template, said in (
            ("{recipient}", "alice+x@example.org"),
            ("{original_recipient}", "sales@example.com"),
            ("{user}", "alice"),
            ("{user}@{domain}", "alice@example.org"),
            ("{local_part}@store.example", "alice+x@store.example"),
            ("{user}+{folder}@{domain}", "alice+lists.python@example.org"),
            ("{user}{+folder}@{domain}", "alice+lists.python@example.org"),
        ):
            self.assertEqual(self.said(template, destination), said)

    def test_a_socket_of_this_host_needs_no_tls_and_another_host_what_is_configured(self) -> None:
        self.assertIs(built(host="192.0.2.1", tls="required").relay.routes.default.connect_settings.tls, TLSMode.REQUIRED)
        self.assertIs(built(socket="/run/dovecot/lmtp").relay.routes.default.connect_settings.tls, TLSMode.NONE)

    def test_which_templates_name_the_folder(self) -> None:
        for template, names in (("{user}", False), ("{user}+{folder}@{domain}", True), ("{user}{+folder}", True), ("{recipient}", False)):
            self.assertIs(AddressTemplate(template).names_folder, names)

    def test_the_inbox_has_no_detail(self) -> None:
        self.assertEqual(self.said("{user}{+folder}@{domain}", parcel("alice").destinations[0]), "alice@example.org")

    def test_what_is_no_word_is_quoted(self) -> None:
        box = Mailbox("odd one", "example.org")
        destination = Destination(0, Recipient(Address("a", "example.org")), Local(Address("a", "example.org"), box))
        self.assertEqual(self.said("{user}@{domain}", destination), '"odd one"@example.org')

    def test_what_is_no_template_is_refused(self) -> None:
        for text in ("", "alice@example.org", "{usr}", "x{recipient}", "@{domain}", "{user}@{folder}", "post@{domain}"):
            self.assertRaises(ValueError, AddressTemplate, text)


class Options(SynchronousTestCase):
    def test_there_is_one_place(self) -> None:
        for values in ({}, {"host": "127.0.0.1", "socket": "/run/lmtp"}, {"host": "not a host"}, {"socket": ""}, {"socket": "/" + "x" * 107}):
            self.assertRaises(ValueError, options, **values)

    def test_the_rest_is_checked(self) -> None:
        for values in ({"port": 0}, {"recipient": "{usr}"}, {"connections": 0}, {"tls": "yes"}, {"timeout": 0}):
            self.assertRaises(ValueError, options, host="127.0.0.1", **values)

    def test_it_is_a_delivery_that_waits_for_others(self) -> None:
        delivery = built(socket="/run/dovecot/lmtp", connections=5)
        verifyObject(IConcurrentDelivery, delivery)
        verifyObject(IComponent, delivery)
        verifyObject(IForgiving, delivery)
        self.assertEqual(delivery.calls_at_once, 20)


class Script(Protocol):
    """An LMTP store that does what the test says: `answers` maps a command's beginning to what is answered.

    An answer of None closes the connection, "" says nothing.  One line for "content" stands for each recipient.
    """

    def __init__(self, store: ScriptedStore) -> None:
        self._store = store
        self._buffer = b""
        self._in_data = False
        self._accepted = 0

    def connectionMade(self) -> None:
        self._store.connections.append(self)
        self._say(self._store.answers["greeting"])

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while (at := self._buffer.find(b"\r\n.\r\n" if self._in_data else b"\r\n")) >= 0:
            line, self._buffer = self._buffer[:at], self._buffer[at + (5 if self._in_data else 2) :]
            if self._in_data:
                self._in_data = False
                self._store.contents.append(line + b"\r\n")
                answer = self._store.answers["content"]
                self._say("\n".join([answer] * self._accepted) if answer and "\n" not in answer else answer)
                self._accepted = 0
            else:
                self._hear(line)

    def _hear(self, line: bytes) -> None:
        if self.transport.disconnecting:
            return
        self._store.heard.append(line)
        for begin, answer in self._store.answers.items():
            if line.startswith(begin.encode()):
                self._in_data = line == b"DATA" and bool(answer) and answer.startswith("354")
                self._accepted += begin == "RCPT"
                self._say(answer)
                return

    def _say(self, answer: str | None) -> None:
        if answer is None:
            self.transport.loseConnection()
        elif answer:
            self.transport.write(answer.replace("\n", "\r\n").encode() + b"\r\n")


class ScriptedStore(Factory):
    noisy = False

    def __init__(self) -> None:
        self.answers: dict[str, str | None] = {
            "greeting": "220 store.example.org",
            "LHLO": "250-store.example.org\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250 8BITMIME",
            "MAIL": "250 2.1.0 ok",
            "RCPT TO:<nobody": "550 5.1.1 nobody",
            "RCPT": "250 2.1.5 ok",
            "DATA": "354 go",
            "content": "250 2.0.0 kept",
            "RSET": "250 2.0.0 ok",
            "QUIT": "221 2.0.0 bye",
        }
        self.heard: list[bytes] = []
        self.contents: list[bytes] = []
        self.connections: list[Script] = []

    def buildProtocol(self, addr: Any) -> Script:
        return Script(self)


class LMTPCase(TestCase):
    async def started(self, **values: Any) -> LMTPDelivery:
        delivery = built(**values)
        await delivery.start()
        self.addCleanup(delivery.relay.connections.stop, 1.0)
        return delivery

    async def outcomes(self, delivery: LMTPDelivery, one: Parcel) -> list[Outcome]:
        outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
        return [outcomes[destination.index] for destination in one.destinations]


class Scripted(LMTPCase):
    async def setUp(self) -> None:
        self.store = ScriptedStore()
        self.listening: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.store)
        self.port = self.listening.getHost().port
        self.addCleanup(self.listening.stopListening)

    async def delivery(self, **values: Any) -> LMTPDelivery:
        return await self.started(host="127.0.0.1", port=self.port, **values)

    async def test_all_recipients_go_in_one_transaction_and_each_has_its_own_answer(self) -> None:
        """RFC 2033 section 4.2"""
        self.store.answers["content"] = "250 2.0.0 one\n452 4.2.2 full\n550-5.7.1 no\n550 5.7.1 never"
        alice, nobody, bob, carl = await self.outcomes(await self.delivery(), parcel("alice", "nobody", "bob", "carl"))
        self.assertIsInstance(alice, Delivered)
        assert isinstance(nobody, Failed) and isinstance(bob, Delayed) and isinstance(carl, Failed)
        self.assertEqual([str(nobody.reply), str(bob.reply)], ["550 5.1.1 nobody", "452 4.2.2 full"])
        self.assertEqual(carl.reply.lines, ("no", "never"))
        self.assertEqual(self.store.contents, [DATA.replace(b"\r\n.", b"\r\n..")])
        self.assertEqual(self.store.heard[0], b"LHLO mx.example.org")
        self.assertEqual([line for line in self.store.heard if line.startswith(b"MAIL")], [b"MAIL FROM:<carol@example.net>"])

    async def test_whose_copies_have_other_tags_get_them_in_a_transaction_of_their_own(self) -> None:
        one = parcel("alice", "bob", "nobody", "alice", content=b"X-Spam-Flag: NO\r\n" + DATA)
        lines = (b"X-Spam-Flag: YES\r\n", b"", b"X-Spam-Flag: YES\r\n", b"X-Spam-Flag: too late\r\n")
        tagged = tuple([replace(each, lines=tags) for each, tags in zip(one.destinations, lines, strict=True)])
        outcomes = await self.outcomes(await self.delivery(), replace(one, destinations=tagged))
        self.assertEqual([type(outcome) for outcome in outcomes], [Delivered, Delivered, Failed, Delivered])
        plain = DATA.replace(b"\r\n.", b"\r\n..")
        self.assertEqual(sorted(self.store.contents), sorted([plain, b"X-Spam-Flag: YES\r\n" + plain]))

    async def test_a_mailbox_of_several_recipients_is_one_recipient_and_all_have_its_answer(self) -> None:
        self.store.answers["content"] = "250 2.0.0 one\n452 4.2.2 full"
        for template in ("{recipient}", "{original_recipient}", "{user}@{domain}"):
            self.store.heard.clear()
            one = parcel("alice", "bob", "alice", "bob")
            alias = Recipient(Address("sales", "example.org"))
            last = replace(one.destinations[2], recipient=alias, route=replace(one.destinations[2].route, address=Address("ALICE", "example.org")))
            one = replace(one, destinations=(*one.destinations[:2], last, one.destinations[3]))
            outcomes = await self.outcomes(await self.delivery(recipient=template), one)
            self.assertEqual([type(outcome) for outcome in outcomes], [Delivered, Delayed, Delivered, Delayed])
            told = [line for line in self.store.heard if line.startswith(b"RCPT")]
            self.assertEqual(told, [b"RCPT TO:<alice@example.org>", b"RCPT TO:<bob@example.org>"])

    async def test_a_store_that_is_told_no_folder_gets_one_copy_for_the_mailbox(self) -> None:
        for template, told in (("{user}@{domain}", 1), ("{user}{+folder}@{domain}", 2)):
            self.store.heard.clear()
            outcomes = await self.outcomes(await self.delivery(recipient=template), parcel("alice", "alice.Junk"))
            self.assertEqual([type(outcome) for outcome in outcomes], [Delivered, Delivered])
            self.assertEqual(len([line for line in self.store.heard if line.startswith(b"RCPT")]), told, template)

    async def test_a_follower_whose_parameters_the_store_was_not_told_is_reported_by_us(self) -> None:
        self.store.answers["LHLO"] = "250-store.example.org\n250-DSN\n250-ENHANCEDSTATUSCODES\n250 8BITMIME"
        first, second = await self.outcomes(await self.delivery(), parcel("alice", "alice"))
        assert isinstance(first, Delivered) and isinstance(second, Delivered)
        self.assertEqual((first.notifies, second.notifies), (True, False))

    async def test_the_address_is_the_one_that_is_configured(self) -> None:
        await self.outcomes(await self.delivery(recipient="{user}{+folder}"), parcel("alice.Junk", "bob"))
        self.assertIn(b"RCPT TO:<alice+Junk>", self.store.heard)
        self.assertIn(b"RCPT TO:<bob>", self.store.heard)

    async def test_a_report_has_the_null_sender(self) -> None:
        await self.outcomes(await self.delivery(), parcel("alice", sender=None))
        self.assertIn(b"MAIL FROM:<>", self.store.heard)

    async def test_a_connection_is_kept_for_the_next_message(self) -> None:
        delivery = await self.delivery()
        for _ in range(3):
            self.assertIsInstance((await self.outcomes(delivery, parcel("alice")))[0], Delivered)
        self.assertEqual((len(self.store.connections), len(self.store.contents)), (1, 3))

    async def test_one_that_the_store_has_closed_is_replaced_at_once(self) -> None:
        delivery = await self.delivery()
        await self.outcomes(delivery, parcel("alice"))
        self.store.answers["MAIL"] = None  # as if it had just closed

        def reopened() -> None:
            self.store.answers["MAIL"] = "250 2.1.0 ok"

        self.on_connection(reopened)
        self.assertIsInstance((await self.outcomes(delivery, parcel("alice")))[0], Delivered)
        self.assertEqual(len(self.store.connections), 2)

    def on_connection(self, action: Callable[[], None]) -> None:
        build = self.store.buildProtocol

        def building(addr: Any) -> Script:
            action()
            return build(addr)

        self.store.buildProtocol = building  # type: ignore[method-assign]

    async def test_who_was_answered_before_the_connection_broke_has_the_message_and_the_others_wait(self) -> None:
        """RFC 2033 section 4.2: no recipient gets a second copy after its 250 was read"""
        self.store.answers["content"] = "250 2.0.0 one\n"
        say = Script._say

        def say_and_close(script: Script, answer: str | None) -> None:
            if answer == "250 2.0.0 one\n":
                script.transport.write(b"250 2.0.0 one\r\n")
                answer = None
            say(script, answer)

        self.patch(Script, "_say", say_and_close)
        alice, bob = await self.outcomes(await self.delivery(), parcel("alice", "bob"))
        self.assertIsInstance(alice, Delivered)
        assert isinstance(bob, Delayed)
        self.assertIn("may have been delivered", bob.note)
        self.assertEqual(len(self.store.contents), 1)

    async def test_a_store_that_turns_us_away_or_is_not_there_is_for_later_whatever_its_code(self) -> None:
        self.store.answers["greeting"] = "554 5.3.2 no"
        self.assertIsInstance((await self.outcomes(await self.delivery(), parcel("alice")))[0], Delayed)
        await self.listening.stopListening()
        self.assertIsInstance((await self.outcomes(await self.delivery(), parcel("alice")))[0], Delayed)

    async def test_a_store_that_closes_at_any_stage_gets_nothing_twice_and_everything_waits(self) -> None:
        for stage in ("greeting", "LHLO", "MAIL", "RCPT", "DATA", "content"):
            answers, self.store.answers = self.store.answers, {**self.store.answers, stage: None}
            self.store.contents.clear()
            [outcome] = await self.outcomes(await self.delivery(probe="1s"), parcel("alice"))
            self.assertIsInstance(outcome, Delayed, stage)
            self.assertEqual(len(self.store.contents), stage == "content")
            self.store.answers = answers

    async def test_a_store_that_says_421_gets_it_later(self) -> None:
        for stage in ("greeting", "LHLO", "MAIL", "RCPT", "DATA", "content"):
            answers, self.store.answers = self.store.answers, {**self.store.answers, stage: "421 4.3.2 going down"}
            [outcome] = await self.outcomes(await self.delivery(probe="1s"), parcel("alice"))
            assert isinstance(outcome, Delayed)
            self.store.answers = answers

    async def test_a_store_that_is_silent_costs_its_time_and_no_more(self) -> None:
        self.store.answers["content"] = ""
        [outcome] = await self.outcomes(await self.delivery(timeout="1s"), parcel("alice"))
        assert isinstance(outcome, Delayed)
        self.assertEqual(len(self.store.contents), 1)

    async def test_no_more_connections_than_are_allowed(self) -> None:
        delivery = await self.delivery(connections=2)
        waiting = [delivery.deliver(one.envelope, one.content, one.destinations) for one in [parcel("alice")] * 9]
        for answer in waiting:
            self.assertIsInstance((await answer)[0], Delivered)
        self.assertLessEqual(len(self.store.connections), 2)
        self.assertEqual(len(self.store.contents), 9)

    async def test_a_large_message_comes_from_its_file_in_pieces(self) -> None:
        path = self.mktemp()
        line = b"." + b"x" * 70 + b"\r\n"
        data = b"Subject: large\r\n\r\n" + line * 40_000
        with open(path, "wb") as file:
            file.write(data)
        [outcome] = await self.outcomes(await self.delivery(), parcel("alice", content=Content.at(path, len(data))))
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual(self.store.contents, [data.replace(b"\r\n.", b"\r\n..")])

    async def test_binary_content_is_encoded_for_a_store_that_takes_text_and_what_is_signed_is_not(self) -> None:
        """RFC 3030 section 3"""
        head = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: image/x\r\n"
        delivery = await self.delivery()
        [outcome] = await self.outcomes(delivery, parcel("alice", content=Content.of(head + b"\r\n\0\n", binary=True)))
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual(self.store.contents, [head + b"Content-Transfer-Encoding: base64\r\n\r\nAAo=\r\n"])
        signed = Content.of(b"DKIM-Signature: v=1\r\n" + head + b"\r\n\0\n", binary=True)
        [outcome] = await self.outcomes(delivery, parcel("alice", content=signed))
        assert isinstance(outcome, Failed)
        self.assertEqual(outcome.reply.enhanced, "5.6.3")
        self.assertEqual(len(self.store.contents), 1)


class WithDovecot(LMTPCase):
    def setUp(self) -> None:
        self.store = Dovecot()
        self.addCleanup(self.store.remove)
        self.store.start()

    async def test_messages_arrive_as_they_are(self) -> None:
        data = b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\nend\r\n"
        for values in ({"host": "127.0.0.1", "port": self.store.port}, {"socket": self.store.socket}):
            delivery = await self.started(**values)
            for content in (Content.of(data), Content.of(data, prefix=b"X-Trace: ours\r\n")):
                outcomes = await self.outcomes(delivery, parcel("alice", "bob", content=content))
                self.assertEqual([outcome.__class__ for outcome in outcomes], [Delivered, Delivered], outcomes)
        self.assertEqual(len(self.store.messages("bob")), 4)
        for stored in self.store.messages("alice"):
            self.assertTrue(stored.startswith(b"Return-Path: <carol@example.net>\n"), repr(stored))
            self.assertTrue(stored.endswith(data.replace(b"\r\n", b"\n")), repr(stored))
        self.assertEqual(sum(b"X-Trace: ours\n" in stored for stored in self.store.messages("alice")), 2)

    async def test_a_message_that_came_with_a_return_path_has_one_in_the_store(self) -> None:
        delivery = await self.started(socket=self.store.socket)
        await self.outcomes(delivery, parcel("alice", content=b"Return-Path: <x@y.example>\r\n" + DATA))
        (stored,) = self.store.messages("alice")
        self.assertTrue(stored.startswith(b"Return-Path: <carol@example.net>\n"), repr(stored))
        self.assertEqual(stored.count(b"Return-Path:"), 1)

    async def test_each_recipient_has_its_own_outcome(self) -> None:
        delivery = await self.started(socket=self.store.socket)
        large = DATA + b"x" * 70 * 50 + b"\r\n"
        alice, unknown, full = await self.outcomes(delivery, parcel("alice", "unknown", "full", content=large))
        self.assertIsInstance(alice, Delivered)
        assert isinstance(unknown, Failed) and isinstance(full, Failed | Delayed)
        self.assertEqual(unknown.reply.enhanced, "5.1.1")
        self.assertEqual(full.reply.enhanced[2:], "2.2")
        self.assertEqual((len(self.store.messages("alice")), len(self.store.messages("full"))), (1, 0))

    async def test_a_folder_is_found_through_the_detail(self) -> None:
        delivery = await self.started(socket=self.store.socket, recipient="{user}{+folder}@{domain}")
        await self.outcomes(delivery, parcel("alice.Junk"))
        self.assertEqual((len(self.store.messages("alice")), len(self.store.messages("alice", ".Junk"))), (0, 1))

    async def test_a_restart_of_the_store_costs_no_message(self) -> None:
        delivery = await self.started(socket=self.store.socket, probe="1s")
        self.assertIsInstance((await self.outcomes(delivery, parcel("alice")))[0], Delivered)
        await deferToThread(self.store.stop)
        self.assertIsInstance((await self.outcomes(delivery, parcel("alice")))[0], Delayed)
        await deferToThread(self.store.start)
        while not isinstance((await self.outcomes(delivery, parcel("alice")))[0], Delivered):
            await deferLater(reactor, 0.05)
        self.assertEqual(len(self.store.messages("alice")), 2)

    async def test_a_store_that_is_back_is_tried_at_once_when_a_person_asks(self) -> None:
        delivery = await self.started(socket=self.store.socket, probe="10m")
        await deferToThread(self.store.stop)
        self.assertIsInstance((await self.outcomes(delivery, parcel("alice")))[0], Delayed)
        await deferToThread(self.store.start)
        self.assertIsInstance((await self.outcomes(delivery, parcel("alice")))[0], Delayed)
        delivery.forgive()
        self.assertIsInstance((await self.outcomes(delivery, parcel("alice")))[0], Delivered)

    async def test_a_hundred_messages_side_by_side(self) -> None:
        delivery = await self.started(socket=self.store.socket, connections=4)
        waiting = [
            delivery.deliver(one.envelope, one.content, one.destinations)
            for one in [parcel("alice", content=b"Subject: %d\r\n\r\nx\r\n" % n) for n in range(100)]
        ]
        for answer in waiting:
            self.assertIsInstance((await answer)[0], Delivered)
        subjects = {stored.partition(b"Subject: ")[2].split(b"\n")[0] for stored in self.store.messages("alice")}
        self.assertEqual(len(subjects), 100)
