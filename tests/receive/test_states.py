"""The states of a connection, and what a connection in one of them may not be brought to do."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import IRecipientContentFilter
from mailserver.mail.answers import Pass, Refuse, Verdict
from mailserver.receive.judging import BoundFilter
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.states import MOVES, ConnectionState, Move
from mailserver.receive.throttle import Pace, Patience
from tests.receive.connections import Listener
from tests.receive.test_protocol import ENVELOPE, MESSAGE, ConnectionCase

TO_ALL = b"MAIL FROM:<>\r\n" + b"RCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\n" * 13
BODY = b"DATA\r\nSubject: x\r\n\r\n.\r\n"


@implementer(IRecipientContentFilter)
class Not:
    """Refuses the message for everyone at example.org but those who are named."""

    def __init__(self, *but: str) -> None:
        self.but = but

    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Verdict:
        return Pass() if recipient.address.local in self.but else Refuse("not wanted")


class Moves(SynchronousTestCase):
    def test_there_is_a_row_for_each_state_and_a_way_into_each(self) -> None:
        self.assertEqual(set(MOVES), set(ConnectionState))
        self.assertEqual({state for row in MOVES.values() for state in row.values()}, set(ConnectionState))

    def test_every_state_can_come_to_its_end_and_none_comes_back_from_it(self) -> None:
        for state, row in MOVES.items():
            self.assertIs(row[Move.END], ConnectionState.ENDED, state)
        self.assertEqual(set(MOVES[ConnectionState.ENDED]), {Move.END})

    def test_only_its_answer_ends_the_wait_for_an_answer(self) -> None:
        self.assertEqual(set(MOVES[ConnectionState.ASKED]), {Move.ANSWER, Move.END})
        for state in set(ConnectionState) - {ConnectionState.ASKED}:
            self.assertNotIn(Move.ANSWER, MOVES[state])

    def test_a_penalty_begins_only_where_nothing_is_awaited_and_ends_once(self) -> None:
        self.assertEqual([state for state, row in MOVES.items() if Move.PENALISE in row], [ConnectionState.OPEN])
        self.assertEqual([state for state, row in MOVES.items() if Move.FORGIVE in row], [ConnectionState.PENALTY])


class RefusedInPart(ConnectionCase):
    """What speaks LMTP is a mail system: one message's refusals are one error."""

    def lmtp(self, *but: str, **patience: Any) -> Listener:
        limits = ConnectionLimits(patience=Patience(**patience), pace=Pace(command_seconds=300))
        return self.listener(service="lmtp", filters=[BoundFilter("not", Not(*but))], limits=limits)

    def test_more_refusals_than_errors_are_allowed_do_not_end_the_connection(self) -> None:
        listener = self.lmtp()
        protocol, wire = listener.greeted("unix")
        protocol.dataReceived(TO_ALL + BODY)
        self.assertEqual(wire.codes(), [250] * 27 + [354] + [550] * 26)
        self.assertEqual(protocol.errors, 1)
        self.assertFalse(wire.disconnecting)

    def test_unknown_recipients_of_one_message_do_not_end_it_and_the_known_one_gets_it(self) -> None:
        listener = self.lmtp("alice")
        protocol, wire = listener.greeted("unix")
        unknown = b"RCPT TO:<nobody@example.org>\r\n" * 30
        protocol.dataReceived(b"MAIL FROM:<>\r\n" + unknown + b"RCPT TO:<alice@example.org>\r\n" + BODY)
        self.assertEqual(wire.codes(), [250] + [550] * 30 + [250, 354, 250])
        self.assertEqual(len(listener.store.taken), 1)

    def test_what_one_recipient_takes_makes_errors_forgotten_and_what_one_refuses_is_an_error_whichever_comes_first(self) -> None:
        for names in ((b"alice", b"bob"), (b"bob", b"alice")):
            protocol, wire = self.lmtp("alice").greeted("unix")
            protocol.dataReceived(b"X\r\nX\r\nMAIL FROM:<>\r\n" + b"".join(b"RCPT TO:<%s@example.org>\r\n" % one for one in names) + BODY)
            self.assertEqual(sorted(wire.codes()[-2:]), [250, 550])
            self.assertEqual(protocol.errors, 1, names)

    def test_messages_that_are_refused_one_after_the_other_do_end_it(self) -> None:
        protocol, wire = self.lmtp(hard_errors=3, soft_errors=100).greeted("unix")
        for _ in range(3):
            protocol.dataReceived(TO_ALL + BODY)
        self.assertEqual(wire.codes()[-1], 421)
        self.assertTrue(wire.disconnecting)

    def test_several_refusals_begin_one_pause_and_its_end_leaves_an_open_question_alone(self) -> None:
        listener = self.lmtp("alice", soft_errors=0, hard_errors=100)
        protocol, wire = listener.greeted("unix")
        bobs = b"MAIL FROM:<>\r\n" + b"RCPT TO:<bob@example.org>\r\n" * 3 + BODY
        listener.store.hold = True
        protocol.dataReceived(bobs + b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\n" + BODY)
        self.assertEqual(wire.said(), "")
        self.assertEqual(len(listener.clock.getDelayedCalls()), 2, "the look at the clock, and one pause")
        listener.clock.advance(1)
        self.assertEqual(wire.codes(), [250] * 4 + [354] + [550] * 3 + [250, 250, 354])
        self.assertIs(protocol.state, ConnectionState.ASKED)
        listener.clock.pump([10] * 60)
        self.assertEqual(wire.said(), "", "the commit takes its time, and nobody hears 421 for that")
        listener.store.waiting.pop().callback(None)
        self.assertEqual(wire.codes(), [250])

    def test_a_peer_that_goes_while_its_message_is_committed_takes_nothing_with_it(self) -> None:
        listener = self.lmtp("alice", soft_errors=0, hard_errors=100)
        protocol, _ = listener.greeted("unix")
        bobs = b"MAIL FROM:<>\r\n" + b"RCPT TO:<bob@example.org>\r\n" * 3 + BODY
        listener.store.hold = True
        protocol.dataReceived(bobs + b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\n" + BODY)
        listener.clock.advance(1)
        transaction = protocol.transaction
        abandoned: list[None] = []
        self.patch(type(transaction), "abandon", lambda _: abandoned.append(None))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(abandoned, [])


class Errors(ConnectionCase):
    def test_refused_messages_are_not_forgotten_like_accepted_ones(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=100, hard_errors=3), header_octets=50))
        protocol, wire = listener.greeted()
        for _ in range(3):
            protocol.dataReceived(ENVELOPE + b"DATA\r\nSubject: " + b"x" * 60 + b"\r\n\r\n.\r\n")
        self.assertEqual(wire.codes()[-1], 421)

    def test_an_error_behind_a_message_that_is_committed_waits_its_turn(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=0, hard_errors=100)))
        listener.store.hold = True
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE + b"X\r\nX\r\n")
        wire.clear()
        listener.clock.advance(5)
        self.assertEqual(wire.said(), "")
        listener.store.waiting.pop().callback(None)
        self.assertEqual(wire.codes(), [])
        listener.clock.advance(1)
        self.assertEqual(wire.codes(), [250, 500])
        listener.clock.advance(1)
        self.assertEqual(wire.codes(), [500])


class HelloAgain(ConnectionCase):
    def test_it_is_junk(self) -> None:
        listener = self.listener(limits=ConnectionLimits(patience=Patience(soft_errors=100, hard_errors=3, junk_commands=5)))
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"EHLO again.example\r\n" * 20)
        self.assertEqual(wire.codes(), [250] * 8 + [421])
        self.assertTrue(wire.disconnecting)

    def test_amid_a_transaction_it_is_junk_once(self) -> None:
        protocol, _ = self.listener().greeted()
        protocol.dataReceived(ENVELOPE + b"EHLO again.example\r\n")
        self.assertEqual(protocol.junk, 1)
        protocol.dataReceived(ENVELOPE + b"RSET\r\n")
        self.assertEqual(protocol.junk, 2)

    def test_the_first_one_is_none_nor_is_the_first_after_the_handshake(self) -> None:
        protocol, _ = self.listener().greeted()
        self.assertEqual(protocol.junk, 0)

    def test_it_earns_no_time(self) -> None:
        listener = self.listener(limits=ConnectionLimits(pace=Pace(command_seconds=300)))
        protocol, wire = listener.greeted()
        for _ in range(4):
            listener.clock.pump([1] * 80)
            if not wire.disconnecting:
                protocol.dataReceived(b"EHLO again.example\r\n")
        self.assertEqual(wire.codes()[-1], 421)

    def test_it_earns_none_where_a_filter_takes_its_time_and_the_filter_costs_none(self) -> None:
        from mailserver.interfaces import IPeerFilter

        waiting: list[Deferred[Verdict]] = []

        @implementer(IPeerFilter)
        class Slow:
            def judge_peer(self, peer: Any) -> Deferred[Verdict]:
                waiting.append(Deferred())
                return waiting[-1]

        slow = BoundFilter("slow", Slow(), deadline_seconds=1000)
        listener = self.listener(filters=[slow], limits=ConnectionLimits(pace=Pace(command_seconds=300)))
        protocol, wire = listener.connect()
        waiting.pop().callback(Pass())
        protocol.dataReceived(b"EHLO a.example\r\n")
        waiting.pop().callback(Pass())
        wire.clear()
        listener.clock.pump([1] * 200)
        protocol.dataReceived(b"EHLO a.example\r\n")
        listener.clock.pump([1] * 200)
        waiting.pop().callback(Pass())
        self.assertEqual(wire.codes(), [250])
        listener.clock.pump([1] * 98)
        self.assertEqual(wire.said(), "")
        listener.clock.pump([1] * 3)
        self.assertEqual(wire.codes(), [421])

    def test_work_earns_time_anew(self) -> None:
        listener = self.listener(limits=ConnectionLimits(pace=Pace(command_seconds=300)))
        protocol, wire = listener.greeted()
        for _ in range(4):
            listener.clock.pump([1] * 200)
            protocol.dataReceived(b"EHLO again.example\r\n" + MESSAGE)
        self.assertNotIn(421, wire.codes())
