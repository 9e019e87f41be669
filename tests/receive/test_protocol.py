"""A connection from its greeting to its end, in virtual time."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IPeerFilter, ISenderFilter
from mailserver.mail.answers import Defer, Pass, Quarantine, Refuse, Verdict
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.reply import Reply
from mailserver.receive import connection as connection_module
from mailserver.receive.connection import LINGER_SECONDS
from mailserver.receive.judging import BoundFilter
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.throttle import Admission, Pace, Patience
from tests.receive.connections import Listener, Wire

ENVELOPE = b"MAIL FROM:<carol@example.net>\r\nRCPT TO:<alice@example.org>\r\n"
MESSAGE = ENVELOPE + b"DATA\r\nSubject: one\r\n\r\nhello\r\n.\r\n"


@implementer(IPeerFilter, ISenderFilter)
class Says:
    """A filter that says the same of everyone; `after_hello` only once the name is known."""

    def __init__(self, verdict: Verdict, after_hello: bool = False) -> None:
        self.verdict = verdict
        self.after_hello = after_hello

    async def judge_peer(self, peer: Any) -> Verdict:
        return Pass() if self.after_hello and not peer.hello else self.verdict

    async def judge_sender(self, envelope: Any) -> Verdict:
        return self.verdict


class ConnectionCase(SynchronousTestCase):
    def listener(self, **options: Any) -> Listener:
        listener = Listener(self.mktemp(), **options)
        self.addCleanup(listener.factory._stop_checking)
        return listener


class Conversation(ConnectionCase):
    def test_the_greeting_names_the_host_and_no_software(self) -> None:
        _, wire = self.listener().connect()
        self.assertEqual(wire.said(), "220 mx.example.org ESMTP\r\n")

    def test_a_message_is_answered_with_its_id_once_it_is_durable(self) -> None:
        listener = self.listener()
        listener.store.hold = True
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        self.assertEqual(wire.codes(), [250, 250, 354])
        listener.store.waiting.pop().callback(None)
        [(envelope, content, destinations)] = listener.store.taken
        self.assertEqual(wire.said(), f"250 2.0.0 OK, queued as {envelope.id}\r\n")
        self.assertTrue(content.startswith(b"Received: from client.example ([203.0.113.9])\r\n"))
        self.assertTrue(content.endswith(b"\r\nSubject: one\r\n\r\nhello\r\n"))
        self.assertEqual([str(one.recipient.address) for one in destinations], ["alice@example.org"])

    def test_pipelined_commands_are_answered_in_one_write_and_in_order(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE + b"NOOP\r\nQUIT\r\n")
        self.assertEqual(wire.codes(), [250, 250, 354, 250, 250, 221])
        self.assertTrue(wire.disconnecting)

    def test_commands_wait_while_a_recipient_is_looked_up(self) -> None:
        listener = self.listener()
        listener.router.later = later = Deferred()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"RCPT TO:<nobody@example.org>\r\nNOOP\r\n")
        self.assertEqual(wire.codes(), [250])
        later.callback(None)
        self.assertEqual(wire.codes(), [250, 550, 250])

    def test_what_a_peer_sends_meanwhile_is_bounded_by_not_reading(self) -> None:
        listener = self.listener(limits=ConnectionLimits(pipelined_octets=1000, patience=Patience(junk_commands=1000)))
        listener.router.later = later = Deferred()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE)
        protocol.dataReceived(b"NOOP\r\n" * 100)
        self.assertFalse(wire.paused)
        protocol.dataReceived(b"NOOP\r\n" * 100)
        self.assertTrue(wire.paused)
        later.callback(None)
        self.assertFalse(wire.paused)

    def test_a_peer_that_does_not_read_gets_nothing_done(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.pauseProducing()
        self.assertTrue(wire.paused)
        protocol.dataReceived(MESSAGE)
        self.assertEqual(listener.store.taken, [])
        protocol.resumeProducing()
        self.assertEqual(len(listener.store.taken), 1)
        self.assertFalse(wire.paused)

    def test_a_peer_that_closes_its_half_hears_all_its_answers(self) -> None:
        listener = self.listener()
        listener.store.hold = True
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        protocol.readConnectionLost()
        self.assertFalse(wire.disconnecting)
        listener.store.waiting.pop().callback(None)
        self.assertEqual(wire.codes(), [250, 250, 354, 250])
        self.assertTrue(wire.disconnecting)

    def test_vrfy_tells_nothing_and_expn_is_not_offered(self) -> None:
        protocol, wire = self.listener().greeted()
        protocol.dataReceived(b"VRFY alice\r\nVRFY nobody\r\nEXPN team\r\n")
        self.assertEqual(wire.codes(), [252, 252, 502])

    def test_rset_ends_the_transaction(self) -> None:
        protocol, wire = self.listener().greeted()
        protocol.dataReceived(ENVELOPE + b"RSET\r\nDATA\r\n")
        self.assertEqual(wire.codes(), [250, 250, 250, 503])

    def test_lmtp_answers_for_each_recipient(self) -> None:
        listener = self.listener(service="lmtp")
        protocol, wire = listener.greeted("unix")
        protocol.dataReceived(
            b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nRCPT TO:<nobody@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
            b"DATA\r\nSubject: x\r\n\r\n.\r\n"
        )
        self.assertEqual(wire.codes(), [250, 250, 550, 250, 354, 250, 250])

    def test_lmtp_never_relays(self) -> None:
        protocol, wire = self.listener(service="lmtp", relays=True).greeted("192.0.2.7")
        protocol.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<x@elsewhere.example>\r\n")
        self.assertEqual(wire.codes(), [250, 550])

    def test_submission_wants_authentication_from_strangers(self) -> None:
        listener = self.listener(service="submission", relays=True)
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"MAIL FROM:<a@example.org>\r\n")
        self.assertEqual(wire.codes(), [530])
        protocol, wire = listener.greeted("192.0.2.7")
        protocol.dataReceived(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<x@elsewhere.example>\r\n")
        self.assertEqual(wire.codes(), [250, 250])

    def test_bare_line_feeds_become_line_ends_and_are_recorded_where_they_stood_in_the_header(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nhel\nlo\r\n.\r\n")
        self.assertEqual(wire.codes()[-1], 250)
        self.assertTrue(listener.store.taken[0][1].endswith(b"Subject: x\r\n\r\nhel\r\nlo\r\n"))
        self.assertNotIn("mended", [step for _, step, _ in listener.steps])
        protocol.dataReceived(ENVELOPE + b"DATA\r\nSubject: x\n\nhello\r\n.\r\n")
        self.assertTrue(listener.store.taken[1][1].endswith(b"Subject: x\r\n\r\nhello\r\n"))
        self.assertEqual(listener.step("mended")["what"], "stray line ends in the header")

    def test_where_they_are_refused_it_is_after_the_data_but_for_the_networks_named(self) -> None:
        listener = self.listener(limits=ConnectionLimits(stray_line_ends="refuse"))
        for address, code in (("203.0.113.9", 550), ("198.51.100.4", 250)):
            protocol, wire = listener.greeted(address)
            protocol.dataReceived(ENVELOPE + b"DATA\r\nSubject: x\n\nhello\r\n.\r\n")
            self.assertEqual(wire.codes()[-1], code)
        self.assertEqual(len(listener.store.taken), 1)


class Admissions(ConnectionCase):
    """Who comes in."""

    def test_a_connection_too_many_hears_421_and_is_closed(self) -> None:
        listener = self.listener(admission=Admission(connections=1, connections_per_network=1))
        first, _ = listener.connect()
        second, wire = listener.connect()
        self.assertEqual(wire.codes(), [421])
        self.assertTrue(wire.disconnecting)
        second.connectionLost(Failure(ConnectionDone()))
        first.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(listener.admission.connections, 0)

    def test_a_refused_peer_is_greeted_with_554(self) -> None:
        _, wire = self.listener(filters=[BoundFilter("no", Says(Refuse("listed")))]).connect()
        self.assertEqual(wire.codes(), [554])
        self.assertTrue(wire.disconnecting)

    def test_a_deferred_peer_is_greeted_with_421(self) -> None:
        _, wire = self.listener(filters=[BoundFilter("later", Says(Defer("busy")))]).connect()
        self.assertEqual(wire.codes(), [421])

    def test_a_peer_hears_the_words_of_a_filter_that_has_some(self) -> None:
        for verdict, greeting in (
            (Refuse("listed", reply=Reply.of(550, "5.7.0", "Go away,", "and stay there")), "550-Go away,\r\n550 and stay there\r\n"),
            (Defer("busy", reply=Reply.of(451, "4.3.2", "Not now")), "421 Not now\r\n"),
            (Refuse("listed", reply=Reply.of(554, "5.7.0", "Nö")), "554 N?\r\n"),  # nobody has asked for SMTPUTF8 yet
            (Defer("busy", reply=Reply.of(451, "4.3.2", "Später")), "421 Sp?ter\r\n"),
        ):
            _, wire = self.listener(filters=[BoundFilter("no", Says(verdict))]).connect()
            self.assertEqual((wire.said(), wire.disconnecting), (greeting, True))
            greeting = greeting.replace("421", "451")
            protocol, wire = self.listener(filters=[BoundFilter("no", Says(verdict, after_hello=True))]).connect()
            wire.clear()
            protocol.dataReceived(b"EHLO liar.example\r\n")
            self.assertEqual(wire.said(), greeting)

    def test_a_filter_that_breaks_defers_the_peer(self) -> None:
        _, wire = self.listener(filters=[BoundFilter("broken", Says(None))]).connect()  # type: ignore[arg-type]
        self.assertEqual(wire.codes(), [421])

    def test_a_refused_name_may_quit_but_not_send(self) -> None:
        filters = [BoundFilter("no", Says(Refuse("liar"), after_hello=True))]
        protocol, wire = self.listener(filters=filters).connect()
        wire.clear()
        protocol.dataReceived(b"EHLO liar.example\r\nMAIL FROM:<>\r\nQUIT\r\n")
        self.assertEqual(wire.codes(), [550, 503, 221])

    def test_a_greeting_delay_catches_those_who_talk_first(self) -> None:
        listener = self.listener(limits=ConnectionLimits(greeting_delay_seconds=5))
        _, wire = listener.connect()
        early, early_wire = listener.connect()
        early.dataReceived(b"EHLO me\r\n")
        self.assertEqual(wire.said(), "")
        listener.clock.advance(5)
        self.assertEqual(wire.codes(), [220])
        self.assertEqual(early_wire.codes(), [554])
        self.assertTrue(early_wire.disconnecting)

    def test_a_reload_counts_for_new_connections(self) -> None:
        listener = self.listener()
        protocol, wire = listener.connect()
        wire.clear()
        other = self.listener(service="lmtp")
        listener.factory.profile = other.profile
        _, new_wire = listener.connect()
        self.assertIn("LMTP", new_wire.said())
        protocol.dataReceived(b"EHLO a\r\n")
        self.assertEqual(wire.codes(), [421], "it cannot go on as a session of the other service")


class Patiences(ConnectionCase):
    """Time, errors, junk."""

    def pace(self) -> ConnectionLimits:
        return ConnectionLimits(pace=Pace(command_seconds=300, data_seconds=180, data_octets_per_second=500))

    def test_a_peer_that_says_nothing_for_five_minutes_hears_421(self) -> None:
        listener = self.listener(limits=self.pace())
        _, wire = listener.greeted()
        listener.clock.pump([1] * 299)
        self.assertEqual(wire.said(), "")
        listener.clock.pump([1, 1])
        self.assertEqual(wire.codes(), [421])
        self.assertTrue(wire.disconnecting)

    def test_half_a_command_earns_no_time(self) -> None:
        listener = self.listener(limits=self.pace())
        protocol, wire = listener.greeted()
        for _ in range(4):
            listener.clock.pump([1] * 80)
            protocol.dataReceived(b"N")
        self.assertEqual(wire.codes(), [421])

    def test_a_clock_that_is_set_cuts_nobody_off_and_gives_nobody_time(self) -> None:
        steady = Clock()
        for jump in (365 * 86_400, -365 * 86_400):
            listener = self.listener(limits=self.pace(), steady_seconds=steady.seconds)
            (_, idle), (protocol, sending) = listener.greeted(), listener.greeted()
            protocol.dataReceived(ENVELOPE + b"DATA\r\n")
            sending.clear()
            listener.clock.rightNow += jump
            for _ in range(119):
                steady.advance(1)
                listener.factory._check_all()
            self.assertEqual((idle.said(), sending.said()), ("", ""))
            protocol.dataReceived(b"\r\n" * 100_000)
            for _ in range(182):
                steady.advance(1)
                listener.factory._check_all()
            self.assertEqual((idle.codes(), sending.codes()), ([421], [421]))

    def test_our_own_slowness_is_not_the_peers(self) -> None:
        listener = self.listener(limits=self.pace())
        listener.store.hold = True
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        wire.clear()
        listener.clock.pump([10] * 60)
        self.assertEqual(wire.said(), "")
        listener.store.waiting.pop().callback(None)
        listener.clock.pump([10] * 20)
        self.assertEqual(wire.codes(), [250])

    def test_data_that_trickle_are_given_up(self) -> None:
        listener = self.listener(limits=self.pace())
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\n")
        wire.clear()
        for _ in range(200):
            listener.clock.advance(1)
            if not wire.disconnecting:
                protocol.dataReceived(b"x")
        self.assertEqual(wire.codes(), [421])

    def test_a_peer_that_does_not_take_our_last_words_is_cut_off(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"QUIT\r\n")
        listener.clock.pump([1] * 29)
        self.assertFalse(wire.aborted)
        listener.clock.pump([1] * 3)
        self.assertTrue(wire.aborted)

    def test_one_connection_that_cannot_be_looked_at_is_cut_and_the_others_have_their_time(self) -> None:
        listener = self.listener(limits=self.pace())
        (_, first), (broken, wire), (_, last) = [listener.greeted() for _ in range(3)]

        def stumble(*_: object) -> None:
            raise RuntimeError("a fault of ours")

        self.patch(broken, "check", stumble)
        self.patch(wire, "abortConnection", stumble)  # even then
        listener.clock.pump([1] * 301)
        self.assertEqual((first.codes(), last.codes()), ([421], [421]))
        self.assertTrue(self.flushLoggedErrors(RuntimeError))

    def test_one_connection_that_cannot_say_goodbye_keeps_nobody_else_from_it(self) -> None:
        listener = self.listener()
        (_, first), (broken, wire), (_, last) = [listener.greeted() for _ in range(3)]

        def stumble(*_: object) -> None:
            raise RuntimeError("a fault of ours")

        self.patch(broken, "shut_down", stumble)
        listener.factory.shut_down()
        self.assertEqual((first.codes(), last.codes()), ([421], [421]))
        self.assertTrue(wire.aborted)
        self.flushLoggedErrors(RuntimeError)

    def test_after_ten_errors_each_reply_takes_a_second(self) -> None:
        limits = ConnectionLimits(patience=Patience(soft_errors=2, hard_errors=5))
        listener = self.listener(limits=limits)
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"X\r\nX\r\nX\r\nX\r\n")
        self.assertEqual(wire.codes(), [])
        listener.clock.advance(1)
        self.assertEqual(wire.codes(), [500, 500, 500])
        listener.clock.advance(1)
        self.assertEqual(wire.codes(), [500])

    def test_too_many_errors_end_the_connection(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=100, hard_errors=3)))
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"X\r\n" * 10)
        self.assertEqual(wire.codes(), [500, 500, 500, 421])
        self.assertTrue(wire.disconnecting)

    def test_a_lost_connection_in_its_penalty_is_let_go(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=1, hard_errors=50)))
        protocol, _ = listener.greeted()
        protocol.dataReceived(b"X\r\nX\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        listener.clock.advance(2)
        self.assertEqual(listener.factory.connections, 0)

    def test_endless_noops_are_errors(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=100, hard_errors=3, junk_commands=5)))
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"NOOP\r\n" * 20)
        codes = wire.codes()
        self.assertEqual(codes[-1], 421)
        self.assertLess(len(codes), 12)

    def test_an_accepted_message_makes_errors_forgotten(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=100, hard_errors=3)))
        protocol, wire = listener.greeted()
        for _ in range(5):
            protocol.dataReceived(b"X\r\nX\r\n" + MESSAGE)
        self.assertNotIn(421, wire.codes())
        self.assertEqual(len(listener.store.taken), 5)

    def test_messages_on_one_connection_are_bounded(self) -> None:
        listener = self.listener(limits=ConnectionLimits(messages_per_connection=2))
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE * 3)
        self.assertEqual(wire.codes()[-2:], [250, 421])
        self.assertEqual(len(listener.store.taken), 2)

    def test_under_stress_times_are_short(self) -> None:
        admission = Admission(connections=10, connections_per_network=10, stress_percent=10)
        listener = self.listener(admission=admission)
        _, wire = listener.greeted()
        listener.clock.pump([1] * 12)
        self.assertEqual(wire.codes(), [421])


class Ends(ConnectionCase):
    """Goodbye, and losses."""

    def test_a_stopping_server_says_421_to_the_idle(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        gone = listener.factory.shut_down()
        self.assertEqual(wire.codes(), [421])
        self.assertNoResult(gone)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(gone)

    def test_a_stopping_server_waits_two_seconds_for_goodbyes(self) -> None:
        listener = self.listener()
        hung_up: list[Any] = []
        self.patch(connection_module, "hang_up", hung_up.append)
        _, wire = listener.greeted()
        quitting, _ = listener.greeted()
        quitting.dataReceived(b"QUIT\r\n")
        listener.clock.advance(LINGER_SECONDS - 1)
        self.assertEqual(hung_up, [], "as long as the server stays, a peer has its time")
        listener.factory.shut_down()
        listener.clock.advance(1)
        self.assertNotIn(wire, hung_up)
        listener.clock.advance(1)
        self.assertIn(wire, hung_up)
        self.assertFalse(wire.aborted, "what has been said still goes out")

    def test_a_stopping_server_takes_the_message_that_is_under_way(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\nSubject: one\r\n")
        listener.factory.shut_down()
        self.assertNotIn(421, wire.codes())
        protocol.dataReceived(b"\r\nhello\r\n.\r\n")
        self.assertEqual(wire.codes(), [250, 421])
        self.assertEqual(len(listener.store.taken), 1)
        self.assertTrue(wire.disconnecting)

    def test_a_stopping_server_waits_for_the_commit(self) -> None:
        listener = self.listener()
        listener.store.hold = True
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        wire.clear()
        listener.factory.shut_down()
        self.assertEqual(wire.codes(), [])
        listener.store.waiting.pop().callback(None)
        self.assertEqual(wire.codes(), [250, 421])

    def test_when_the_time_is_over_connections_are_cut(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\n")
        gone = listener.factory.shut_down()
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.assertTrue(wire.aborted)

    def test_a_peer_that_goes_amid_its_data_leaves_nothing(self) -> None:
        listener = self.listener()
        protocol, _ = listener.greeted()
        protocol.dataReceived(ENVELOPE + b"DATA\r\nhalf a mess")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(listener.store.taken, [])
        self.assertEqual(listener.profile.spool.octets, 0)

    def test_a_peer_that_goes_during_the_commit_does_not_disturb_it(self) -> None:
        listener = self.listener()
        listener.store.hold = True
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        protocol.connectionLost(Failure(ConnectionDone()))
        wire.clear()
        listener.store.waiting.pop().callback(None)
        self.assertEqual(wire.said(), "")
        self.assertEqual(listener.step("accepted")["sender"], "carol@example.net")

    def test_whatever_a_leaving_peer_meets_with_its_place_is_free_again(self) -> None:
        listener = self.listener()
        protocol, _ = listener.greeted()
        protocol.dataReceived(ENVELOPE)

        def stumble() -> None:
            raise OSError("the disk")

        protocol.transaction = mock.Mock(abandon=stumble)
        with self.assertRaises(OSError):
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((listener.admission.connections, listener.factory.connections), (0, 0))
        listener.step("closed")

    def test_a_fault_of_ours_beside_an_answer_cuts_the_connection(self) -> None:
        listener = self.listener()
        listener.store.hold = True
        protocol, wire = listener.greeted()

        def stumble(_: object) -> None:
            raise RuntimeError("a fault of ours")

        self.patch(protocol, "_content_answered", stumble)
        protocol.dataReceived(MESSAGE)
        self.assertFalse(wire.aborted)
        listener.store.waiting.pop().callback(None)
        self.assertTrue(wire.aborted)
        self.assertTrue(self.flushLoggedErrors(RuntimeError))

    def test_no_octet_is_handled_after_quit(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"QUIT\r\n" + MESSAGE)
        protocol.dataReceived(MESSAGE)
        self.assertEqual(wire.codes(), [221])
        self.assertEqual(listener.store.taken, [])


class Storage(ConnectionCase):
    """A disk that is full or broken is told before the data where it can be known."""

    def answer(self, listener: Listener, octets: bytes) -> list[int]:
        protocol, wire = listener.greeted()
        protocol.dataReceived(octets)
        return wire.codes()

    def test_no_room_is_told_at_mail_when_the_size_is_known(self) -> None:
        listener = self.listener()
        listener.store.room = 1000
        self.assertEqual(self.answer(listener, b"MAIL FROM:<> SIZE=2000\r\n"), [452])

    def test_no_room_is_told_before_the_data(self) -> None:
        listener = self.listener()
        listener.store.room = -1
        self.assertEqual(self.answer(listener, ENVELOPE + b"DATA\r\n"), [250, 250, 452])

    def test_a_broken_store_is_told_at_mail(self) -> None:
        listener = self.listener()
        listener.store.writable = False
        self.assertEqual(self.answer(listener, b"MAIL FROM:<>\r\n"), [451])

    def test_a_failed_commit_is_not_an_acceptance(self) -> None:
        for error, code in ((StorageFull("full"), 452), (StorageBroken("broken"), 451), (RuntimeError("bug"), 451)):
            listener = self.listener()
            listener.store.answer = error
            self.assertEqual(self.answer(listener, MESSAGE), [250, 250, 354, code])
            self.assertNotIn("accepted", [step for _, step, _ in listener.steps])
        self.flushLoggedErrors(RuntimeError)

    def test_quarantine_delivers_to_junk(self) -> None:
        listener = self.listener(filters=[BoundFilter("odd", Says(Quarantine("odd")))])
        self.answer(listener, MESSAGE)
        [(_, _, destinations)] = listener.store.taken
        self.assertEqual([one.route.mailbox.place for one in destinations], [("Junk",)])  # type: ignore[union-attr]


class Writing(ConnectionCase):
    def test_a_wire_of_another_kind_is_written_by_its_own_write(self) -> None:
        from mailserver.transport.writing import writer

        wire = Wire()
        writer(wire)(b"octets")
        self.assertEqual(wire.value(), b"octets")
