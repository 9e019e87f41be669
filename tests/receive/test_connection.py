"""What drives a connection: its turns, its times, its patience and its notes, to the second and to the octet."""

from __future__ import annotations

from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from mailserver.interfaces import Denial, Denied
from mailserver.mail.answers import Defer, Pass, Quarantine, Refuse
from mailserver.mail.reply import Reply
from mailserver.receive.judging import BoundFilter, Judging
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.protocol import ReceiveProtocol
from mailserver.receive.states import ConnectionState
from mailserver.receive.throttle import Admission, Pace, Patience
from mailserver.sasl.steps import Challenge, ChannelBindings
from tests.receive.connections import Listener, Wire
from tests.receive.test_encryption import encryption
from tests.receive.test_login import ALICE, WRONG, Authenticator
from tests.receive.test_protocol import ENVELOPE, MESSAGE, ConnectionCase, Says

SAID = (
    b"EHLO a\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@example.org>\r\n", b"RCPT TO:<nobody@example.org>\r\n", b"DATA\r\n",
    b"Subject: x\r\n\r\nx\r\n.\r\n", b"BDAT 3\r\nabc", b"BDAT 0 LAST\r\n", b"RSET\r\n", b"AUTH LOGIN\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"YQ==\r\n",
    b"*\r\n", b"?\r\n", b"X\r\n", ENVELOPE + b"DATA\r\n", MESSAGE,
)  # fmt: skip
PACE = ConnectionLimits(pace=Pace(command_seconds=300, data_seconds=180, data_octets_per_second=500))


def patient(**patience: Any) -> ConnectionLimits:
    return ConnectionLimits(patience=Patience(**{"soft_errors": 100, "hard_errors": 100, **patience}))


class Case(ConnectionCase):
    def say(self, protocol: ReceiveProtocol, wire: Wire, octets: bytes) -> list[int]:
        wire.clear()
        protocol.dataReceived(octets)
        return wire.codes()

    def seconds_until(self, listener: Listener, wire: Wire, most: int = 400) -> int:
        """How long it takes until the connection is closed or cut."""
        for seconds in range(most):
            if wire.disconnecting or wire.aborted:
                return seconds
            listener.clock.advance(1)
        return most


class Notes(Case):
    """What the log and the road have of it."""

    def test_a_connection_is_told_from_its_beginning_to_its_end(self) -> None:
        listener = self.listener()
        protocol, _ = listener.greeted()
        protocol.dataReceived(b"X\r\n" + MESSAGE + b"X\r\nX\r\n" + MESSAGE + b"X\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(
            listener.step("connected"), {"peer": "203.0.113.9", "port": 4711, "service": "mx", "via": ""}
        )
        self.assertEqual(listener.step("closed"), {"messages": 2, "errors": 1})
        self.assertEqual({id for id, step, _ in listener.steps if step in ("connected", "closed")}, {protocol.connection})

    def test_a_connection_that_ends_after_its_handshake_is_no_failed_one(self) -> None:
        listener = self.listener(encryption=encryption())
        protocol, _ = listener.greeted()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertNotIn("handshake_failed", [step for _, step, _ in listener.steps])

    def test_who_is_turned_away_is_told_with_the_reason(self) -> None:
        for verdict, code, why in ((Refuse("listed"), "554", "listed"), (Defer("busy"), "421", "busy"), (None, "421", "the filter peers failed")):
            listener = self.listener(filters=[BoundFilter("peers", Says(verdict))])  # type: ignore[arg-type]
            listener.connect()
            told = listener.step("rejected")
            self.assertEqual((told["peer"], told["reply"][:3], told["why"]), ("203.0.113.9", code, why))
            self.assertEqual(listener.step("filter")["filter"], "peers")

    def test_a_connection_too_many_is_told(self) -> None:
        for implicit in (False, True):
            listener = self.listener(admission=Admission(connections=0, connections_per_network=1), encryption=encryption(implicit=implicit))
            listener.connect()
            self.assertEqual((listener.step("rejected")["reply"][:3], listener.step("rejected")["peer"]), ("421", "203.0.113.9"))

    def test_a_refused_command_and_a_goodbye_of_the_session_are_told(self) -> None:
        listener = self.listener(limits=ConnectionLimits(message_octets=1000))
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"RCPT TO:<alice@example.org>\r\n")
        told = listener.step("rejected")
        self.assertEqual((told["command"], told["reply"][:3]), ("RCPT", "503"))
        self.assertEqual(self.say(protocol, wire, ENVELOPE + b"BDAT 9999999999\r\n")[-1], 552)
        self.assertTrue(wire.disconnecting)
        self.assertEqual((listener.step("rejected")["peer"], listener.step("rejected")["reply"][:3]), ("203.0.113.9", "552"))

    def test_too_many_errors_and_a_time_that_is_over_are_told(self) -> None:
        listener = self.listener(limits=patient(hard_errors=1))
        listener.greeted()[0].dataReceived(b"X\r\n")
        self.assertEqual((listener.step("rejected")["peer"], listener.step("rejected")["why"]), ("203.0.113.9", "too many errors"))
        listener = self.listener(limits=PACE)
        listener.greeted()
        listener.clock.pump([1] * 300)
        self.assertEqual(listener.step("timeout"), {"peer": "203.0.113.9", "why": "no command for too long"})

    def test_what_a_filter_says_of_a_name_is_told(self) -> None:
        listener = self.listener(filters=[BoundFilter("names", Says(Refuse("liar"), after_hello=True))])
        listener.greeted()
        self.assertEqual([fields["why"] for _, step, fields in listener.steps if step == "filter"][-1:], ["liar"])


class Greetings(Case):
    def test_a_connection_sends_small_replies_at_once(self) -> None:
        listener = self.listener()
        protocol, wire, said = listener.factory.protocol_for(listener.connect()[0].peer), Wire(), []
        wire.setTcpNoDelay = said.append  # type: ignore[attr-defined]
        protocol.makeConnection(wire)
        self.assertEqual(said, [True])

    def test_a_name_that_is_deferred_hears_450_and_may_come_again(self) -> None:
        says = Says(Defer("busy"), after_hello=True)
        protocol, wire = self.listener(filters=[BoundFilter("names", says)]).connect()
        codes = self.say(protocol, wire, b"EHLO a.example\r\n")
        self.assertEqual((len(codes), codes[0] // 100), (1, 4))
        says.verdict = Pass()
        self.assertEqual(self.say(protocol, wire, b"EHLO a.example\r\n"), [250])

    def test_a_filter_that_breaks_at_a_name_defers_it(self) -> None:
        protocol, wire = self.listener(filters=[BoundFilter("broken", Says(None), on_error="defer")]).connect()  # type: ignore[arg-type]
        self.assertEqual(wire.codes(), [421])
        broken = Says(Pass())
        protocol, wire = self.listener(filters=[BoundFilter("broken", broken)]).connect()
        broken.verdict = None  # type: ignore[assignment]
        self.assertEqual(self.say(protocol, wire, b"EHLO a.example\r\n")[0] // 100, 4)

    def test_where_judging_itself_breaks_the_peer_comes_again_later(self) -> None:
        later: Deferred[Any] = Deferred()
        listener = self.listener(filters=[BoundFilter("peers", Says(Pass()))])
        self.patch(Judging, "peer", lambda *_: later)
        _, wire = listener.connect()
        later.errback(RuntimeError("a fault of ours"))
        self.assertEqual((wire.codes(), wire.disconnecting), ([421], True))
        self.assertEqual(listener.step("rejected")["why"], "a filter failed")
        self.assertTrue(self.flushLoggedErrors(RuntimeError))

    def test_where_judging_itself_breaks_at_a_name_the_name_hears_451(self) -> None:
        later: Deferred[Any] = Deferred()
        protocol, wire = self.listener(filters=[BoundFilter("peers", Says(Pass()))]).connect()
        self.patch(Judging, "peer", lambda *_: later)
        self.assertEqual(self.say(protocol, wire, b"EHLO a.example\r\nNOOP\r\n"), [])
        later.errback(RuntimeError("a fault of ours"))
        self.assertEqual((wire.codes(), wire.aborted), ([451, 250], False))
        self.assertTrue(self.flushLoggedErrors(RuntimeError))

    def test_who_is_put_aside_at_its_coming_or_by_its_name_is_so_with_every_message_and_for_the_first_reason(self) -> None:
        for after_hello in (False, True):
            says = Says(Quarantine("odd"), after_hello=after_hello)
            listener = self.listener(filters=[BoundFilter("peers", says)])
            protocol, _ = listener.greeted()
            says.verdict = Pass()
            protocol.dataReceived(MESSAGE + b"EHLO again.example\r\n" + MESSAGE)
            says.verdict = Quarantine("another")
            protocol.dataReceived(b"EHLO again.example\r\n")
            self.assertEqual([one.why for one in protocol.quarantine], ["odd"])
            places = [one.route.mailbox.place for _, _, found in listener.store.taken for one in found]  # type: ignore[union-attr]
            self.assertEqual(places, [("Junk",)] * 2)

    def test_a_greeting_delay_is_for_strangers_only(self) -> None:
        for service, said in (("mx", []), ("submission", [220]), ("lmtp", [220])):
            _, wire = self.listener(service=service, limits=ConnectionLimits(greeting_delay_seconds=5)).connect()
            self.assertEqual(wire.codes(), said, service)

    def test_without_a_greeting_delay_who_talks_first_is_welcome(self) -> None:
        waits: Deferred[Any] = Deferred()

        class Slow(Says):
            async def judge_peer(self, peer: Any) -> Any:
                return Pass() if peer.hello else await waits

        protocol, wire = self.listener(filters=[BoundFilter("slow", Slow(Pass()))]).connect()
        protocol.dataReceived(b"EHLO a.example\r\n")
        waits.callback(Pass())
        self.assertEqual(wire.codes(), [220, 250])

    def test_220_to_starttls_leaves_before_the_handshake_begins(self) -> None:
        protocol, wire = self.listener(encryption=encryption()).greeted()
        said: list[str] = []
        self.patch(wire, "startTLS", lambda creator: said.append(wire.said()))
        protocol.dataReceived(b"STARTTLS\r\n")
        self.assertEqual([one[:4] for one in said], ["220 "])
        self.assertEqual(wire.said(), "")


class Patiences(Case):
    def test_each_command_that_does_no_work_is_junk(self) -> None:
        for command in (b"NOOP", b"RSET", b"HELP", b"VRFY alice", b"EXPN team", b"EHLO again.example"):
            protocol, wire = self.listener(limits=patient(hard_errors=3, junk_commands=5)).greeted()
            codes = self.say(protocol, wire, (command + b"\r\n") * 20)
            self.assertEqual((len(codes), codes[-1]), (9, 421), command)

    def test_each_refusal_is_one_error(self) -> None:
        for number, (octets, code) in enumerate(
            (
                (b"X\r\n", 500), (b"MAIL FROM:<>\r\nRCPT TO:<nobody@example.org>\r\n", 550), (b"MAIL FROM:<a@b> SIZE=2000000000\r\n", 552),
                (b"DATA\r\n", 503), (b"STARTTLS\r\n", 502), (b"AUTH PLAIN AGEAYg==\r\n", 502),
            )
        ):  # fmt: skip
            protocol, wire = self.listener().greeted()
            self.assertEqual(self.say(protocol, wire, octets)[-1], code)
            self.assertEqual(protocol.errors, 1, number)

    def test_a_refused_transaction_is_one_error_and_what_is_accepted_is_none(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE)
        self.assertEqual(protocol.errors, 0)
        listener.store.room = -1
        self.assertEqual(self.say(protocol, wire, b"DATA\r\n"), [452])
        self.assertEqual((protocol.errors, protocol.transaction, protocol.progress), (1, None, None))
        listener.store.writable = False
        self.assertEqual(self.say(protocol, wire, b"MAIL FROM:<>\r\n"), [451])
        self.assertEqual((protocol.errors, protocol.transaction), (2, None))

    def test_recipients_for_another_transaction_are_no_errors(self) -> None:
        protocol, wire = self.listener(limits=ConnectionLimits(recipients=1)).greeted()
        codes = self.say(protocol, wire, ENVELOPE + b"RCPT TO:<bob@example.org>\r\n" * 30)
        self.assertEqual(codes, [250, 250] + [452] * 30)
        self.assertEqual(protocol.errors, 0)

    def test_a_recipient_that_cannot_be_looked_up_is_an_error(self) -> None:
        listener = self.listener()
        listener.router.error = RuntimeError("no directory")
        protocol, wire = listener.greeted()
        self.assertEqual(self.say(protocol, wire, ENVELOPE), [250, 451])
        self.assertEqual(protocol.errors, 1)
        self.flushLoggedErrors(RuntimeError)

    def test_an_accepted_message_makes_junk_forgotten_and_a_refused_one_counts(self) -> None:
        listener = self.listener()
        protocol, _ = listener.greeted()
        protocol.dataReceived(b"X\r\nNOOP\r\nNOOP\r\n")
        self.assertEqual((protocol.errors, protocol.junk), (1, 2))
        protocol.dataReceived(MESSAGE)
        self.assertEqual((protocol.errors, protocol.junk), (0, 0))
        listener.store.answer = RuntimeError("no store")
        protocol.dataReceived(b"X\r\nNOOP\r\n" + MESSAGE)
        self.assertEqual((protocol.errors, protocol.junk, protocol.messages), (2, 1, 2))
        self.flushLoggedErrors(RuntimeError)

    def test_a_message_that_lmtp_takes_for_some_is_one_error(self) -> None:
        listener = self.listener(service="lmtp")
        protocol, _ = listener.greeted("unix")
        some = b"MAIL FROM:<>\r\nRCPT TO:<nobody@example.org>\r\nRCPT TO:<alice@example.org>\r\n"
        protocol.dataReceived(some + b"RCPT TO:<nobody@example.org>\r\n")
        self.assertEqual(protocol.errors, 1)
        protocol.dataReceived(b"RSET\r\n" + some)
        self.assertEqual(protocol.errors, 2)

    def test_whatever_breaks_at_the_end_of_the_data_each_recipient_in_lmtp_hears_451(self) -> None:
        for service, codes in (("lmtp", [451, 451]), ("mx", [451])):
            listener = self.listener(service=service)
            protocol, wire = listener.greeted("unix")
            protocol.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n")

            async def stumble(*_: object) -> None:
                raise RuntimeError("a fault of ours")

            self.patch(type(protocol.transaction), "end_of_data", stumble)
            self.assertEqual(self.say(protocol, wire, b"Subject: x\r\n\r\n.\r\n"), codes)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_pauses_hold_the_reply_back_and_leave_the_peers_time_as_it_is(self) -> None:
        limits = ConnectionLimits(pace=Pace(command_seconds=10), patience=Patience(soft_errors=0, hard_errors=100, error_delay_seconds=60))
        listener = self.listener(limits=limits)
        protocol, wire = listener.greeted()
        listener.clock.pump([1] * 4)
        protocol.dataReceived(b"X\r\n")
        listener.clock.pump([1] * 59)
        self.assertEqual(wire.said(), "")
        listener.clock.pump([1])
        self.assertEqual(wire.codes(), [500])
        self.assertEqual(self.seconds_until(listener, wire), 10)

    def test_the_messages_of_a_connection_are_as_many_as_were_answered(self) -> None:
        listener = self.listener(limits=ConnectionLimits(messages_per_connection=1))
        protocol, wire = listener.greeted()
        self.assertEqual(self.say(protocol, wire, ENVELOPE + b"RSET\r\n" + ENVELOPE + b"RSET\r\n"), [250] * 6)
        self.assertEqual(self.say(protocol, wire, MESSAGE + b"NOOP\r\nMAIL FROM:<>\r\n"), [250, 250, 354, 250, 250, 421])

    def test_failed_logins_are_errors_and_an_account_that_cannot_be_asked_is_no_wrong_password(self) -> None:
        wrong = Denied(Denial.CREDENTIALS, "wrong password", "alice")
        for answer, told in ((wrong, 1), (RuntimeError("no accounts"), 0)):
            authenticator = Authenticator(answer)
            authenticator.mechanisms = lambda peer: ("PLAIN",)  # type: ignore[method-assign]
            listener = self.listener(authenticator=authenticator)
            protocol, wire = listener.greeted()
            self.say(protocol, wire, b"AUTH PLAIN AGEAYg==\r\n")
            self.assertEqual((protocol.errors, protocol.denials), (1, 1))
            self.assertEqual(len([step for _, step, _ in listener.steps if step == "login_failed"]), told)
            self.assertEqual(listener.profile.generation.uses, 0)
        self.flushLoggedErrors(RuntimeError)

    def test_an_exchange_in_the_clear_gets_no_bindings(self) -> None:
        authenticator = Authenticator(Denied(Denial.CREDENTIALS, "wrong"))
        authenticator.mechanisms = lambda peer: ("PLAIN",)  # type: ignore[method-assign]
        with_bindings = encryption()
        object.__setattr__(with_bindings, "bindings", lambda transport: ChannelBindings({"tls-exporter": b"x" * 32}))
        for encrypted in (with_bindings, None):
            protocol, _ = self.listener(encryption=encrypted, authenticator=authenticator).greeted()
            authenticator.answers = [Denied(Denial.CREDENTIALS, "wrong")]
            protocol.dataReceived(b"AUTH PLAIN AGEAYg==\r\n")
        self.assertEqual(authenticator.bindings, [ChannelBindings(), ChannelBindings()])


class Times(Case):
    def test_a_command_has_so_many_seconds_and_not_one_more(self) -> None:
        listener = self.listener(limits=PACE)
        protocol, wire = listener.greeted()
        listener.clock.pump([1] * 100)
        protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.seconds_until(listener, wire), 300)

    def test_the_time_to_log_in_begins_with_the_connection(self) -> None:
        limits = ConnectionLimits(pace=Pace(login_seconds=60))
        listener = self.listener(service="submission", limits=limits)
        protocol, wire = listener.greeted()
        listener.clock.pump([1] * 30)
        protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.seconds_until(listener, wire), 30)

    def test_a_handshake_has_its_own_time_and_the_first_command_all_of_its_own(self) -> None:
        listener = self.listener(encryption=encryption(implicit=True), limits=ConnectionLimits(pace=Pace(command_seconds=20)))
        _, wire = listener.connect()
        self.assertEqual(self.seconds_until(listener, wire), 30)
        protocol, wire = listener.connect()
        listener.clock.pump([1] * 15)
        protocol.handshakeCompleted()
        self.assertEqual(self.seconds_until(listener, wire), 20)

    def test_data_that_come_fast_enough_have_their_time(self) -> None:
        listener = self.listener(limits=PACE)
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\n")
        for _ in range(400):
            listener.clock.advance(1)
            protocol.dataReceived(b"x" * 600)
        self.assertEqual(self.say(protocol, wire, b"\r\n.\r\n"), [250])

    def test_a_disk_that_is_slow_costs_the_peer_nothing(self) -> None:
        writing: list[Deferred[Any]] = []

        def in_thread(work: Any, *arguments: Any) -> Deferred[Any]:
            writing.append(Deferred())
            return writing[-1].addCallback(lambda _: work(*arguments))

        listener = self.listener(limits=PACE, memory_octets=1000, run_in_thread=in_thread)
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\n")
        for _ in range(8):
            protocol.dataReceived(b"x" * 100_000 + b"\r\n")
        self.assertTrue(wire.paused)
        listener.clock.pump([1] * 1000)
        self.assertFalse(wire.disconnecting)
        while writing:
            writing.pop(0).callback(None)
        self.assertFalse(wire.paused)
        self.assertEqual(self.seconds_until(listener, wire), 180, "from now on it is the peer's time again")

    def test_a_message_that_is_complete_before_the_disk_has_taken_it_is_accepted_then(self) -> None:
        writing: list[Deferred[Any]] = []

        def in_thread(work: Any, *arguments: Any) -> Deferred[Any]:
            writing.append(Deferred())
            return writing[-1].addCallback(lambda _: work(*arguments))

        listener = self.listener(memory_octets=1000, run_in_thread=in_thread)
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\n")
        for _ in range(8):
            protocol.dataReceived((b"x" * 900 + b"\r\n") * 100)
        self.assertTrue(wire.paused)
        protocol.dataReceived(b".\r\n")  # it was on its way
        wire.clear()
        while writing:
            writing.pop(0).callback(None)
        self.assertEqual((wire.codes(), wire.paused), ([250], False))

    def test_after_a_message_broken_off_the_peer_has_the_time_of_a_command(self) -> None:
        listener = self.listener(limits=PACE)
        protocol, wire = listener.greeted()
        self.say(protocol, wire, ENVELOPE + b"BDAT 4\r\nabcd")
        self.assertEqual(self.say(protocol, wire, b"RSET\r\n"), [250])
        self.assertIsNone(protocol.progress)
        self.assertEqual(listener.profile.spool.octets, 0, "and its place in memory is free again")
        self.assertEqual(self.seconds_until(listener, wire), 300)

    def test_our_last_words_have_thirty_seconds(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        listener.clock.pump([1] * 100)
        protocol.dataReceived(b"QUIT\r\n")
        listener.clock.pump([1] * 29)
        self.assertFalse(wire.aborted)
        listener.clock.advance(1)
        self.assertTrue(wire.aborted)

    def test_under_stress_data_have_a_shorter_time_too(self) -> None:
        admission = Admission(connections=10, connections_per_network=10, stress_percent=10)
        listener = self.listener(admission=admission, limits=PACE)
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\n")
        self.assertEqual(self.seconds_until(listener, wire), 10)

    def test_a_peer_that_has_stopped_reading_is_ended_all_the_same(self) -> None:
        listener = self.listener(limits=PACE)
        protocol, wire = listener.greeted()
        protocol.pauseProducing()
        self.assertEqual(self.seconds_until(listener, wire), 300)
        self.assertEqual(wire.codes(), [421])
        self.assertEqual(protocol.unread, frozenset())

    def test_what_is_said_early_is_not_read_beyond_its_bound(self) -> None:
        listener = self.listener(limits=ConnectionLimits(pipelined_octets=100, greeting_delay_seconds=5))
        protocol, wire = listener.connect()
        protocol.dataReceived(b"x" * 100)
        self.assertFalse(wire.paused)
        protocol.dataReceived(b"x")
        self.assertTrue(wire.paused)


class Turns(Case):
    def test_a_peer_that_closes_its_half_when_it_has_its_answers_is_closed_at_once(self) -> None:
        protocol, wire = self.listener().greeted()
        protocol.readConnectionLost()
        self.assertTrue(wire.disconnecting)
        self.assertIs(protocol.state, ConnectionState.ENDED)

    def test_a_peer_that_closes_the_other_half_is_cut(self) -> None:
        protocol, wire = self.listener().greeted()
        protocol.writeConnectionLost()
        self.assertTrue(wire.aborted)

    def test_a_connection_that_ends_takes_what_starttls_has_hung_on_its_transport_with_it(self) -> None:
        protocol, wire = self.listener(encryption=encryption()).greeted()
        wire.__dict__["getPeerCertificate"] = protocol.dataReceived
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertNotIn("getPeerCertificate", wire.__dict__)

    def test_an_end_gives_the_producer_back_and_reads_no_more(self) -> None:
        protocol, wire = self.listener().greeted()
        self.assertEqual((wire.producer, wire.streaming), (protocol, True))
        protocol.pauseProducing()
        protocol.dataReceived(b"QUIT\r\n")
        protocol.resumeProducing()
        self.assertIsNone(wire.producer)
        self.assertTrue(wire.disconnecting)
        self.assertTrue(wire.paused)

    def test_a_producer_that_is_stopped_does_nothing_more(self) -> None:
        protocol, wire = self.listener().greeted()
        protocol.stopProducing()
        self.assertEqual(self.say(protocol, wire, b"NOOP\r\n"), [])

    def test_reasons_not_to_read_go_one_by_one(self) -> None:
        listener = self.listener(limits=ConnectionLimits(pipelined_octets=10))
        listener.router.later = later = Deferred()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE)
        protocol.dataReceived(b"NOOP\r\nNOOP\r\n")
        protocol.pauseProducing()
        later.callback(None)
        self.assertTrue(wire.paused, "it does not read what we write")
        protocol.resumeProducing()
        self.assertFalse(wire.paused)
        self.assertEqual(wire.codes(), [250, 250, 250, 250])

    def test_a_peer_that_reads_again_is_not_read_beyond_the_bound_while_it_waits_for_an_answer(self) -> None:
        listener = self.listener(limits=ConnectionLimits(pipelined_octets=10))
        listener.router.later = later = Deferred()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE)
        protocol.pauseProducing()
        protocol.dataReceived(b"NOOP\r\nNOOP\r\n")
        protocol.resumeProducing()
        self.assertTrue(wire.paused)
        later.callback(None)
        self.assertFalse(wire.paused)

    def test_a_lost_peers_question_that_cannot_be_answered_ends_with_its_use(self) -> None:
        listener = self.listener()
        listener.router.later = later = Deferred()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(listener.profile.generation.uses, 1)
        wire.clear()
        later.errback(RuntimeError("no directory"))
        self.assertEqual((wire.said(), listener.profile.generation.uses), ("", 0))
        self.flushLoggedErrors(RuntimeError)

    def test_a_question_that_breaks_later_hears_451_and_the_next_one_its_answer(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        later: Deferred[Reply] = Deferred()
        protocol.dataReceived(b"MAIL FROM:<>\r\n")
        self.patch(type(protocol.transaction), "recipient", lambda *_: later)
        wire.clear()
        protocol.dataReceived(b"RCPT TO:<alice@example.org>\r\nNOOP\r\n")
        later.errback(RuntimeError("a fault of ours"))
        self.assertEqual(wire.codes(), [451, 250])
        self.assertTrue(self.flushLoggedErrors(RuntimeError))

    def test_a_stopping_server_ends_no_handshake_with_words_and_no_message_amid_its_data(self) -> None:
        listener = self.listener(encryption=encryption(implicit=True))
        _, wire = listener.connect()
        listener.factory.shut_down()
        self.assertEqual((wire.said(), wire.aborted), ("", True))

    def test_who_comes_while_the_server_leaves_hears_421(self) -> None:
        for filters in ([], [BoundFilter("peers", Says(Pass()))]):
            listener = self.listener(filters=filters)
            listener.greeted()
            listener.factory.shut_down()
            _, wire = listener.connect()
            self.assertEqual(wire.codes()[-1:], [421])
            self.assertTrue(wire.disconnecting)

    def test_a_pause_and_a_stopping_server_end_together(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=0)))
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"X\r\n")
        listener.factory.shut_down()
        self.assertEqual(wire.said(), "", "its reply waits")
        listener.clock.advance(1)
        self.assertEqual(wire.codes(), [500, 421])

    def test_who_has_said_quit_hears_its_goodbye_and_no_other(self) -> None:
        listener = self.listener()
        listener.store.hold = True
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE + b"QUIT\r\n")
        wire.clear()
        listener.factory.shut_down()
        listener.store.waiting.pop().callback(None)
        self.assertEqual(wire.codes(), [250, 221])


class Reloads(Case):
    def test_tls_that_a_reload_has_taken_away_is_refused_to_who_was_offered_it(self) -> None:
        listener = self.listener(encryption=encryption())
        protocol, wire = listener.greeted()
        without = self.listener()
        listener.factory.profile = without.profile
        self.assertEqual(self.say(protocol, wire, b"MAIL FROM:<>\r\nRSET\r\nSTARTTLS\r\nNOOP\r\n"), [250, 250, 454, 250])
        self.assertEqual(protocol.errors, 1)
        self.assertIsNone(wire.creator)

    def test_a_peer_that_was_judged_uses_nothing_until_it_speaks(self) -> None:
        for verdict in (Pass(), Refuse("no"), None):
            listener = self.listener(filters=[BoundFilter("peers", Says(verdict))])  # type: ignore[arg-type]
            listener.connect()
            self.assertEqual(listener.profile.generation.uses, 0, verdict)

    @settings(max_examples=40)
    @given(st.data())
    def test_whatever_is_said_in_whatever_order_nothing_that_began_outlives_its_peer(self, data: st.DataObject) -> None:
        answers = [WRONG, ALICE, Challenge(b"more"), Challenge(b"more")] * 10
        authenticator = Authenticator(*data.draw(st.permutations(answers)))
        authenticator.mechanisms = lambda peer: ("PLAIN", "LOGIN")  # type: ignore[method-assign]
        says = Says(Pass())
        listener = self.listener(
            filters=[BoundFilter("names", says)], authenticator=authenticator, encryption=encryption(), failures_per_connection=20,
            limits=ConnectionLimits(messages_per_connection=3, patience=Patience(soft_errors=5, hard_errors=30)), relays=True,
        )  # fmt: skip
        listener.store.hold = True
        protocol, _ = listener.greeted()
        held = protocol._hold_profile
        began: list[object] = []

        def hold_profile() -> bool:
            began.append(protocol.uses)
            return held()

        with mock.patch.object(type(protocol), "_hold_profile", lambda _: hold_profile()):
            for octets in data.draw(st.lists(st.sampled_from(SAID), max_size=25)):
                says.verdict = data.draw(st.sampled_from([Pass(), Pass(), Pass(), Refuse("x"), Defer("x"), Quarantine("x")]))
                protocol.dataReceived(octets)
                if data.draw(st.booleans()):
                    listener.clock.advance(1)
                    if listener.store.waiting:
                        listener.store.waiting.pop().callback(None)
        self.assertEqual(set(began) - {None}, set(), "one thing at a time")
        protocol.connectionLost(Failure(ConnectionDone()))
        for commit in listener.store.waiting:
            commit.callback(None)
        self.assertEqual(listener.profile.generation.uses, 0)
