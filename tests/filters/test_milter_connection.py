"""A connection to a milter that says whatever it likes: an answer comes of it or a failure, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.milter_connection import MilterConnection, MilterFailed
from mailserver.filters.milter_dialogue import Position
from mailserver.filters.milter_wire import FRAME_OCTETS_MOST, MilterStep, frame
from tests.any_octets import any_octets
from tests.filters.fake_milter import PROGRESS, negotiates, said

LETTERS = [bytes([one]) for one in b"cartyfpdshibmeqO4+2-?"]
STEPS = (MilterStep.CONNECT, MilterStep.HELO, MilterStep.MAIL, MilterStep.RCPT, MilterStep.DATA, MilterStep.END_OF_HEADER, MilterStep.END)


class AnyOctets(SynchronousTestCase):
    def connected(self) -> tuple[MilterConnection, Any, Clock]:
        clock = Clock()
        connection, transport = MilterConnection(clock), StringTransport()
        transport.abortConnection = transport.loseConnection  # type: ignore[attr-defined]
        connection.makeConnection(transport)
        agreeing = Deferred.fromCoroutine(connection.agree(5))
        connection.dataReceived(negotiates())
        self.assertIsNone(self.successResultOf(agreeing))
        return connection, transport, clock

    def asked(self, connection: MilterConnection, step: MilterStep) -> Any:
        for one in STEPS:
            connection.write(connection.dialogue.say(one, b"x"))
            answer = Deferred.fromCoroutine(connection.answer(5))
            if one is step:
                return answer
            connection.dataReceived(said(b"c"))
            self.successResultOf(answer)
        return None

    @given(
        st.sampled_from(STEPS),
        st.lists(
            st.one_of(any_octets(max_size=30), st.builds(frame, st.sampled_from(LETTERS), any_octets(max_size=30)), st.just(PROGRESS)),
            max_size=6,
        ),
        st.booleans(),
    )
    def test_whatever_comes_there_is_an_answer_a_failure_or_the_time_is_over(
        self, step: MilterStep, pieces: list[bytes], closes: bool
    ) -> None:
        connection, transport, clock = self.connected()
        answer = self.asked(connection, step)
        for piece in pieces:
            connection.dataReceived(piece)
        if closes:
            connection.connectionLost(Failure(ConnectionDone()))
        clock.advance(5)
        found: list[Any] = []
        answer.addBoth(found.append)
        ((result),) = found
        if isinstance(result, Failure):
            self.assertIsNotNone(result.check(MilterFailed), result)
            self.assertFalse(connection.is_open)
        self.assertEqual(clock.getDelayedCalls(), [])
        if not connection.is_open:
            self.assertTrue(transport.disconnecting or closes)

    def test_more_than_is_looked_at_is_not_read(self) -> None:
        connection, transport, _ = self.connected()
        answer = self.asked(connection, MilterStep.END)
        connection.dataReceived(said(b"b", b"x" * 60_000) * 20)
        self.successResultOf(answer)
        self.assertEqual(transport.producerState, "paused")
        for _ in range(19):
            self.successResultOf(Deferred.fromCoroutine(connection.answer(5)))
        last = Deferred.fromCoroutine(connection.answer(5))
        self.assertEqual(transport.producerState, "producing")
        connection.dataReceived(said(b"c"))
        self.successResultOf(last)
        self.assertLess(connection.dialogue.buffered, FRAME_OCTETS_MOST)

    def test_an_answer_counts_although_the_connection_ends_with_it(self) -> None:
        connection, _, _ = self.connected()
        answer = self.asked(connection, MilterStep.MAIL)
        connection.dataReceived(said(b"r"))
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(str(self.successResultOf(answer)), "reject")
        self.assertIs(connection.dialogue.position, Position.OVER)
