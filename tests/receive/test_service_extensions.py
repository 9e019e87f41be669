"""What plugins add to SMTP, on connections (`IExtension`)."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import IExtension, ISenderFilter
from mailserver.mail.answers import Pass, Refuse, Verdict
from mailserver.mail.envelope import Envelope, Peer
from mailserver.mail.reply import Reply
from mailserver.receive.judging import BoundFilter
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.service_extensions import ExtensionClash, ServiceExtensions
from mailserver.receive.throttle import Patience
from mailserver.smtp.server.additions import ExtensionCommand, ExtensionParameter, SMTPExtension
from tests.receive.connections import Listener
from tests.receive.test_protocol import ENVELOPE, ConnectionCase

TICKETS = SMTPExtension(
    "X-TICKETS",
    arguments=("2",),
    mail_parameters=(ExtensionParameter("XTICKET"),),
    recipient_parameters=(ExtensionParameter("XHINT"),),
    commands=(ExtensionCommand("XTICKETS"), ExtensionCommand("XLEFT", in_transaction=True)),
    replies={
        "taken": Reply.of(250, "2.0.0", "Taken", "two lines"),
        "unknown": Reply.of(550, "5.7.1", "No such ticket"),
        "closing": Reply.of(421, "4.3.2", "Closed for today"),
    },
)


@implementer(IExtension, ISenderFilter)
class Tickets:
    """Sells tickets, and wants one with each message."""

    extension = TICKETS

    def __init__(self, answer: Any = "taken", offer: Any = True) -> None:
        self.answer, self.offer = answer, offer
        self.asked: list[tuple[str, str, str, Envelope | None]] = []

    def offers(self, peer: Peer) -> bool:
        if isinstance(self.offer, BaseException):
            raise self.offer
        return self.offer  # type: ignore[no-any-return]

    async def command(self, verb: str, argument: str, peer: Peer, envelope: Envelope | None) -> str:
        self.asked.append((verb, argument, peer.hello, envelope))
        if callable(self.answer):
            return await self.answer()  # type: ignore[no-any-return]
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        has_one = dict(envelope.parameters.extra).get("XTICKET") == "7"
        return Pass() if has_one or envelope.peer.hello_verb == "HELO" else Refuse("no ticket")


class ExtensionCase(ConnectionCase):
    def offering(self, *components: object, service: str = "mx", **options: Any) -> Listener:
        clock = Clock()
        bounds = [BoundFilter(f"plugin{n}", one, deadline_seconds=5) for n, one in enumerate(components)]
        steps: list[tuple[str, str, dict[str, Any]]] = []
        self.steps = steps
        added = ServiceExtensions(
            bounds, service=service, clock=clock, note=lambda id, step, **fields: steps.append((id, step, fields))
        )
        self.deadlines = clock
        return self.listener(filters=bounds, service=service, service_extensions=added, **options)

    def said(self, listener: Listener, octets: bytes) -> str:
        protocol, wire = listener.greeted()
        protocol.dataReceived(octets)
        return wire.said()


class Offer(ExtensionCase):
    def hello(self, component: object, octets: bytes = b"EHLO c.example\r\n", **options: Any) -> str:
        protocol, wire = self.offering(component, **options).connect()
        wire.clear()
        protocol.dataReceived(octets)
        return wire.said()

    def test_ehlo_and_lhlo_announce_it_and_helo_does_not(self) -> None:
        self.assertIn("X-TICKETS 2\r\n", self.hello(Tickets()))
        self.assertIn("X-TICKETS 2\r\n", self.hello(Tickets(), b"LHLO c.example\r\n", service="lmtp"))
        self.assertEqual(self.hello(Tickets(), b"HELO c.example\r\nXTICKETS\r\n").splitlines()[1], "500 5.5.2 Command not recognised")

    def test_before_ehlo_its_command_is_unknown(self) -> None:
        self.assertEqual(self.hello(Tickets(), b"XTICKETS\r\n"), "500 5.5.2 Command not recognised\r\n")

    def test_whoever_it_is_not_offered_to_does_not_see_it(self) -> None:
        for offer in (False, None, "yes", 1, ValueError("broken"), SystemExit(1), asyncio.CancelledError()):
            heard = self.hello(Tickets(offer=offer), b"EHLO c.example\r\nXTICKETS\r\nMAIL FROM:<a@b.example> XTICKET=7\r\n")
            self.assertNotIn("X-TICKETS", heard)
            self.assertEqual([line[:3] for line in heard.splitlines()[-2:]], ["500", "555"], offer)

    def test_a_peer_that_is_offered_it_does_not_give_it_to_the_next_one(self) -> None:
        tickets = Tickets()
        listener = self.offering(tickets)
        self.assertIn("250", self.said(listener, b"XTICKETS\r\n"))
        tickets.offer = False
        self.assertIn("500", self.said(listener, b"XTICKETS\r\n"))
        tickets.offer = True
        self.assertIn("250", self.said(listener, b"XTICKETS\r\n"))

    def test_two_that_claim_one_word_stop_the_start(self) -> None:
        with self.assertRaisesRegex(ExtensionClash, "the EHLO keyword X-TICKETS belongs to two"):
            self.offering(Tickets(), Tickets())

    def test_what_is_no_extension_stops_the_start_with_its_name(self) -> None:
        for wrong in (None, "X-TICKETS", SMTPExtension, object()):
            tickets = Tickets()
            tickets.extension = wrong  # type: ignore[assignment]
            with self.assertRaisesRegex(ExtensionClash, "plugin0: its extension is no SMTPExtension"):
                self.offering(tickets)


class Parameters(ExtensionCase):
    def test_a_filter_judges_by_them(self) -> None:
        listener = self.offering(Tickets())
        heard = self.said(listener, b"MAIL FROM:<a@b.example>\r\nMAIL FROM:<a@b.example> XTICKET=7\r\n")
        self.assertEqual([line[:3] for line in heard.splitlines()], ["550", "250"])

    def test_they_end_with_the_judgement_and_are_not_stored(self) -> None:
        from mailserver.mail.envelope_codec import decode_envelope, encode_envelope

        listener = self.offering(Tickets())
        self.said(
            listener,
            b"MAIL FROM:<a@b.example> XTICKET=7 SIZE=20\r\nRCPT TO:<alice@example.org> XHINT=x\r\nDATA\r\nSubject: x\r\n\r\n.\r\n",
        )
        [(envelope, _, destinations)] = listener.store.taken
        self.assertEqual(envelope.recipients[0].parameters.extra, (("XHINT", "x"),))
        kept, _ = decode_envelope(encode_envelope(envelope, destinations))
        self.assertEqual((kept.parameters.size, kept.parameters.extra, kept.recipients[0].parameters.extra), (20, (), ()))


class Commands(ExtensionCase):
    def test_the_answer_is_the_reply_of_that_name(self) -> None:
        tickets = Tickets()
        self.assertEqual(self.said(self.offering(tickets), b"xtickets a  b\r\n"), "250-2.0.0 Taken\r\n250 2.0.0 two lines\r\n")
        self.assertEqual(tickets.asked, [("XTICKETS", "a  b", "client.example", None)])
        [(_, step, fields)] = self.steps
        self.assertEqual((step, fields["filter"], fields["command"], fields["error"]), ("command", "plugin0", "XTICKETS", ""))

    def test_amid_a_transaction_it_sees_the_envelope(self) -> None:
        tickets = Tickets()
        listener = self.offering(tickets)
        heard = self.said(listener, ENVELOPE.replace(b"\r\n", b" XTICKET=7\r\n", 1) + b"XLEFT\r\nXTICKETS\r\nDATA\r\n.\r\n")
        self.assertEqual([line[:3] for line in heard.splitlines()], ["250", "250", "250", "250", "503", "354", "250"])
        envelope = tickets.asked[0][3]
        assert envelope is not None
        self.assertEqual([str(one.address) for one in envelope.recipients], ["alice@example.org"])
        self.assertEqual(self.steps[0][0], envelope.id)

    def test_a_421_closes_the_connection(self) -> None:
        protocol, wire = self.offering(Tickets("closing")).greeted()
        protocol.dataReceived(b"XTICKETS\r\nNOOP\r\n")
        self.assertEqual(wire.said(), "421 4.3.2 Closed for today\r\n")
        self.assertTrue(wire.disconnecting)

    def test_whatever_else_comes_back_is_451_for_this_command_alone(self) -> None:
        async def recursion() -> str:
            return await recursion()

        class Odd(str):
            def __hash__(self) -> int:
                raise ValueError("no hash")

        answers = (
            None, "", "Taken", b"taken", 250, ["taken"], Tickets, Reply.of(250, "2.0.0", "x"), Pass(), Odd("taken"), recursion,
            ValueError("broken"), SystemExit(1), asyncio.CancelledError(), CancelledError(), RecursionError(), "\ud800", "x" * 10**7,
        )  # fmt: skip
        for answer in answers:
            heard = self.said(self.offering(Tickets(answer)), b"XTICKETS\r\nNOOP\r\n")
            self.assertEqual(heard.splitlines(), ["451 4.3.0 Local error, please try again later", "250 2.0.0 OK"], type(answer))
            self.assertNotEqual(self.steps[0][2]["error"], "")
            self.assertLess(len(repr(self.steps)), 1000)

    def test_one_that_hangs_is_451_after_its_deadline(self) -> None:
        hanging: Deferred[str] = Deferred()

        async def hang() -> str:
            return await hanging

        protocol, wire = self.offering(Tickets(hang)).greeted()
        protocol.dataReceived(b"XTICKETS\r\nNOOP\r\n")
        self.assertEqual(wire.said(), "")
        self.deadlines.advance(5)
        self.assertEqual(wire.codes(), [451, 250])
        self.assertIn("DeadlineExceeded", self.steps[0][2]["error"])

    def test_a_connection_that_is_lost_meanwhile_gives_its_parts_back(self) -> None:
        waiting: Deferred[str] = Deferred()

        async def wait() -> str:
            return await waiting

        listener = self.offering(Tickets(wait))
        protocol, _ = listener.greeted()
        protocol.dataReceived(b"XTICKETS\r\n")
        self.assertEqual(listener.profile.generation.uses, 1)
        protocol.connectionLost(Failure(ConnectionLost()))
        waiting.callback("taken")
        self.assertEqual(listener.profile.generation.uses, 0)

    def test_its_parts_are_held_for_the_command_alone_or_for_the_transaction_around_it(self) -> None:
        listener = self.offering(Tickets())
        uses = listener.profile.generation
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"XTICKETS\r\n")
        self.assertEqual((wire.codes(), uses.uses), ([250], 0))
        protocol.dataReceived(b"MAIL FROM:<a@b.example> XTICKET=7\r\nXLEFT\r\n")
        self.assertEqual((wire.codes(), uses.uses), ([250, 250], 1))
        protocol.dataReceived(b"RSET\r\n")
        self.assertEqual((wire.codes(), uses.uses), ([250], 0))

    def test_one_that_is_refused_is_an_error_once(self) -> None:
        limits = ConnectionLimits(patience=Patience(junk_commands=1))
        listener = self.offering(Tickets("unknown"), limits=limits)
        protocol, _ = listener.greeted()
        protocol.dataReceived(b"XTICKETS\r\n" * 4)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(listener.step("closed")["errors"], 4)

    def test_after_a_reload_that_has_taken_it_away_its_command_is_502(self) -> None:
        listener = self.offering(Tickets())
        protocol, wire = listener.greeted()
        listener.factory.profile = self.listener().profile
        protocol.dataReceived(b"XTICKETS\r\nNOOP\r\nEHLO again.example\r\nXTICKETS\r\n")
        codes = wire.codes()
        self.assertEqual((codes[0], codes[1], codes[-1]), (502, 250, 500))

    def test_many_of_them_cost_patience_as_noop_does_and_refused_ones_as_errors_do(self) -> None:
        limits = ConnectionLimits(patience=Patience(soft_errors=100, hard_errors=3))
        listener = self.offering(Tickets("unknown"), limits=limits)
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"XTICKETS\r\n" * 5)
        self.assertEqual(wire.codes()[-1], 421)
        self.assertTrue(wire.disconnecting)
        limits = ConnectionLimits(patience=Patience(soft_errors=100, hard_errors=3, junk_commands=2))
        protocol, wire = self.offering(Tickets(), limits=limits).greeted()
        protocol.dataReceived(b"XTICKETS\r\n" * 20)
        self.assertEqual(wire.codes()[-1], 421)
