"""Connections that stay open over a reload: what serves them, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.assembly.retirement import Retirement
from mailserver.interfaces import Denial, Denied, IContentFilter, IPeerFilter, ISenderFilter, LoggedIn
from mailserver.mail.address import Address
from mailserver.mail.answers import Pass, Route, Verdict
from mailserver.mail.envelope import Peer
from mailserver.plugins.generation import Generation
from mailserver.receive.judging import BoundFilter
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.protocol import ReceiveProtocol
from mailserver.receive.throttle import Pace
from mailserver.sasl.steps import Challenge, ChannelBindings
from tests.receive.connections import Listener, Router, Wire
from tests.receive.test_protocol import MESSAGE, ConnectionCase

MAIL, RCPT = b"MAIL FROM:<carol@example.net>\r\n", b"RCPT TO:<alice@example.org>\r\n"
CONTENT = b"DATA\r\nSubject: one\r\n\r\nhello\r\n.\r\n"
WITHIN = 30.0


@implementer(IPeerFilter, ISenderFilter, IContentFilter)
class Parts(Router):
    """A directory, filters and an authenticator of one configuration, as of a database: once stopped, all of them fail."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.generation = Generation()
        self.is_stopped = False
        self.asked: list[str] = []
        self.waits_at = ""
        self.waiting: list[Deferred[None]] = []
        self.offers: Sequence[str] = ("LOGIN",)

    async def stop(self) -> None:
        self.is_stopped = True

    async def ask(self, what: str) -> None:
        if what == self.waits_at:
            self.waiting.append(Deferred())
            await self.waiting[-1]
        if self.is_stopped:
            raise RuntimeError(f"{self.name} is stopped and was asked at {what}")
        self.asked.append(what)

    async def route(self, address: Address) -> Sequence[Route]:
        await self.ask("RCPT")
        return await super().route(address)

    async def judge_peer(self, peer: Peer) -> Verdict:
        await self.ask("EHLO" if peer.hello else "connect")
        return Pass()

    async def judge_sender(self, envelope: Any) -> Verdict:
        await self.ask("MAIL")
        return Pass()

    async def judge_content(self, envelope: Any, content: Any) -> Verdict:
        await self.ask("DATA")
        return Pass()

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        return self.offers

    def begin(self, mechanism: str, peer: Peer, bindings: ChannelBindings) -> Exchange:
        return Exchange(self)

    async def granted_senders(self, account: str) -> Sequence[str]:
        return ()


class Exchange:
    """Asks two questions, and believes all."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.heard = 0

    async def respond(self, data: bytes | None) -> Challenge | LoggedIn | Denied:
        self.heard += 1
        await self.parts.ask(f"AUTH {self.heard}")
        if data == b"wrong":
            return Denied(Denial.CREDENTIALS, "wrong")
        return LoggedIn("alice@example.org", "LOGIN", "") if self.heard == 3 else Challenge(b"more")

    def cancel(self) -> None:
        pass


class ReloadCase(ConnectionCase):
    def setUp(self) -> None:
        super().setUp()
        self.parts = [Parts("first")]
        self.listener_ = self.of(self.parts[0])
        self.clock = self.listener_.clock
        self.retirement = Retirement(self.clock)

    def of(self, parts: Parts, **more: Any) -> Listener:
        """A listener with these parts."""
        filters = [BoundFilter(parts.name, parts, deadline_seconds=100_000)]
        listener = self.listener(
            **{
                "filters": filters,
                "authenticator": parts,
                "generation": parts.generation,
                "limits": ConnectionLimits(pace=Pace(command_seconds=600)),
                **more,
            }
        )
        object.__setattr__(listener.profile, "router", parts)
        return listener

    def reload(self, **more: Any) -> Parts:
        """As the service does it; the new parts."""
        new = Parts(f"number {len(self.parts) + 1}")
        listener = self.of(new, **more)
        for name in ("store", "clock", "seconds", "ids"):
            object.__setattr__(listener.profile, name, getattr(self.listener_.profile, name))
        self.listener_.factory.profile = listener.profile
        self.retirement.retire(self.parts[-1], WITHIN)
        self.parts.append(new)
        return new

    def open(self) -> tuple[ReceiveProtocol, Wire]:
        return self.listener_.greeted()

    def say(self, connection: tuple[ReceiveProtocol, Wire], octets: bytes) -> list[int]:
        protocol, wire = connection
        wire.clear()
        protocol.dataReceived(octets)
        return wire.codes()

    def lose(self, connection: tuple[ReceiveProtocol, Wire]) -> None:
        connection[0].connectionLost(Failure(ConnectionDone()))

    @property
    def stopped(self) -> list[bool]:
        return [one.is_stopped for one in self.parts]


class Sessions(ReloadCase):
    def test_one_that_is_open_for_an_hour_over_two_reloads_hears_no_451(self) -> None:
        session = self.open()
        codes = []
        for minute in range(60):
            if minute in (20, 40):
                self.reload()
            codes += self.say(session, MESSAGE)
            self.clock.pump([1] * 60)
        self.assertEqual(set(codes), {250, 354})
        self.assertEqual(len(self.listener_.store.taken), 60)
        self.assertEqual([one.asked.count("RCPT") for one in self.parts], [20, 20, 20])
        self.assertEqual(self.stopped, [True, True, False])
        self.assertEqual(len(self.retirement), 0)

    def test_a_reload_amid_each_command_disturbs_no_transaction(self) -> None:
        session = self.open()
        commands = [MAIL, RCPT, RCPT, b"DATA\r\n", b"Subject: one\r\n", b"\r\nhello\r\n.\r\n"]
        for at in range(1, len(commands)):
            for number, command in enumerate(commands):
                if number == at:
                    self.reload()
                    self.assertFalse(self.parts[-2].is_stopped)
                self.assertNotIn(451, self.say(session, command))
            self.assertEqual(self.parts[-2].asked[-4:], ["MAIL", "RCPT", "RCPT", "DATA"])
            self.assertTrue(self.parts[-2].is_stopped, "its last transaction has ended")
        self.assertEqual(len(self.listener_.store.taken), len(commands) - 1)

    def test_whatever_ends_a_transaction_ends_the_use(self) -> None:
        def lost(session: tuple[ReceiveProtocol, Wire]) -> None:
            self.lose(session)

        def says(octets: bytes) -> Any:
            return lambda session: self.say(session, octets)

        def broken(session: tuple[ReceiveProtocol, Wire]) -> None:
            self.listener_.store.writable = False
            self.say(session, b"DATA\r\n")
            self.listener_.store.writable = True

        for end in (lost, says(b"RSET\r\n"), says(b"EHLO again\r\n"), says(CONTENT), broken):
            session = self.open()
            self.say(session, MAIL + RCPT)
            old = self.parts[-1]
            self.assertEqual(old.generation.uses, 1)
            self.reload()
            self.assertFalse(old.is_stopped)
            end(session)
            self.assertTrue(old.is_stopped, end)
        self.assertEqual(self.parts[-1].generation.uses, 0)

    def test_a_refused_mail_uses_nothing(self) -> None:
        self.listener_.store.writable = False
        session = self.open()
        self.assertEqual(self.say(session, MAIL), [451])
        self.assertEqual(self.parts[0].generation.uses, 0)

    def test_what_a_lost_peer_has_asked_is_brought_to_its_end_with_what_it_began_with(self) -> None:
        self.listener_.store.hold = True
        session = self.open()
        self.say(session, MESSAGE)
        self.lose(session)
        self.reload()
        self.assertEqual(self.stopped, [False, False])
        self.listener_.store.waiting.pop().callback(None)
        self.assertEqual(self.stopped, [True, False])

    def test_one_that_does_not_end_keeps_them_for_the_time_that_a_shutdown_has(self) -> None:
        session = self.open()
        self.say(session, MAIL)
        self.reload()
        self.clock.advance(WITHIN - 1)
        self.assertEqual(self.stopped, [False, False])
        self.clock.advance(1)
        self.assertEqual(self.stopped, [True, False])
        self.assertEqual(self.say(session, RCPT), [451])
        self.assertEqual(self.say(session, b"RSET\r\n" + MESSAGE), [250, 250, 250, 354, 250], "the next one has the new ones")
        self.flushLoggedErrors(RuntimeError)

    def test_several_generations_end_each_in_its_own_time(self) -> None:
        sessions = []
        for _ in range(3):
            sessions.append(self.open())
            self.say(sessions[-1], MAIL + RCPT)
            self.reload()
        for n in (1, 0, 2):
            self.assertEqual(self.say(sessions[n], CONTENT), [354, 250])
            self.assertTrue(self.parts[n].is_stopped)
        self.assertEqual(self.stopped, [True, True, True, False])

    def test_a_server_that_stops_waits_for_none(self) -> None:
        self.say(self.open(), MAIL)
        self.reload()
        self.successResultOf(Deferred.fromCoroutine(self.retirement.finish()))
        self.assertEqual(self.stopped, [True, False])

    def test_a_listener_that_goes_away_begins_nothing(self) -> None:
        self.listener_.store.hold = True
        session = self.open()
        self.say(session, MESSAGE + MESSAGE)
        self.listener_.factory.shut_down()
        self.retirement.retire(self.parts[0], WITHIN)
        self.assertFalse(self.parts[0].is_stopped)
        self.listener_.store.waiting.pop().callback(None)
        self.assertEqual(session[1].codes(), [250, 421])
        self.assertTrue(self.parts[0].is_stopped)
        self.assertEqual(len(self.listener_.store.taken), 1)

    def test_one_of_another_service_now_is_asked_to_come_again(self) -> None:
        for begins in (MAIL, b"EHLO again\r\n", b"AUTH LOGIN\r\n"):
            self.setUp()
            session = self.open()
            self.reload(service="submission")
            self.assertEqual(self.say(session, begins), [421])
            self.assertTrue(session[1].disconnecting)
            self.assertEqual([one.generation.uses for one in self.parts], [0, 0])


class Exchanges(ReloadCase):
    def test_a_login_ends_where_it_began_and_the_next_begins_anew(self) -> None:
        session = self.open()
        self.assertEqual(self.say(session, b"AUTH LOGIN\r\n"), [334])
        new = self.reload()
        self.assertEqual(self.say(session, b"d3Jvbmc=\r\n"), [535])
        self.assertEqual(self.stopped, [True, False])
        self.assertEqual(self.say(session, b"AUTH LOGIN\r\nYQ==\r\nYQ==\r\n"), [334, 334, 235])
        self.assertEqual(new.asked, ["AUTH 1", "AUTH 2", "AUTH 3"])
        self.assertEqual(new.generation.uses, 0)

    def test_one_that_is_broken_off_uses_nothing_any_more(self) -> None:
        session = self.open()
        for broken_off in (b"*\r\n", b"?\r\n"):
            self.say(session, b"AUTH LOGIN\r\n")
            self.assertEqual(self.parts[0].generation.uses, 1)
            self.assertEqual(self.say(session, broken_off), [501])
            self.assertEqual(self.parts[0].generation.uses, 0)

    def test_auth_amid_a_transaction_ends_nothing(self) -> None:
        session = self.open()
        self.assertEqual(self.say(session, MAIL + b"AUTH LOGIN\r\n"), [250, 503])
        self.assertEqual(self.parts[0].generation.uses, 1)

    def test_a_lost_peers_question_is_answered_before_its_store_stops(self) -> None:
        self.parts[0].waits_at = "AUTH 2"
        session = self.open()
        self.say(session, b"AUTH LOGIN\r\nYQ==\r\n")
        self.lose(session)
        self.reload()
        self.assertEqual(self.stopped, [False, False])
        self.parts[0].waiting.pop().callback(None)
        self.assertEqual(self.stopped, [True, False])

    def test_a_mechanism_or_all_of_them_may_have_gone(self) -> None:
        session = self.open()
        self.reload().offers = ()
        self.assertEqual(self.say(session, b"AUTH LOGIN\r\n"), [454])
        self.reload(authenticator=None)
        self.assertEqual(self.say(session, b"AUTH LOGIN\r\n"), [454])
        self.assertEqual([one.generation.uses for one in self.parts], [0, 0, 0])


class Greetings(ReloadCase):
    def test_a_filter_that_looks_at_a_peer_is_kept_until_it_has_answered(self) -> None:
        for stage in ("connect", "EHLO"):
            self.setUp()
            self.parts[0].waits_at = stage
            session = self.listener_.connect()
            session[0].dataReceived(b"EHLO client.example\r\n")
            self.reload()
            self.assertEqual(self.stopped, [False, False], stage)
            session[1].clear()
            self.parts[0].waiting.pop().callback(None)
            self.assertEqual(self.stopped, [True, False], stage)
            self.assertEqual(session[1].codes()[-1], 250)

    def test_a_peer_that_goes_meanwhile_keeps_nothing(self) -> None:
        self.parts[0].waits_at = "connect"
        session = self.listener_.connect()
        self.lose(session)
        self.assertEqual(self.parts[0].generation.uses, 1)
        self.parts[0].waiting.pop().callback(None)
        self.assertEqual(self.parts[0].generation.uses, 0)

    def test_what_was_announced_holds_until_the_next_hello(self) -> None:
        large = ConnectionLimits(message_octets=1_000_000, pace=Pace(command_seconds=600))
        small = ConnectionLimits(message_octets=1000, pace=Pace(command_seconds=600))
        self.listener_ = self.of(self.parts[0], limits=large)
        session = self.open()
        self.reload(limits=small)
        self.assertEqual(self.say(session, b"MAIL FROM:<> SIZE=5000\r\nRSET\r\n"), [250, 250])
        session[1].clear()
        session[0].dataReceived(b"EHLO again\r\n")
        self.assertIn("SIZE 1000\r\n", session[1].said())
        self.assertEqual(self.say(session, b"MAIL FROM:<> SIZE=5000\r\n"), [552])
