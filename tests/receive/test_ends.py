"""How each transaction and each connection ends is told, once (`ITransactionEnd`, `IPeerEnd`)."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import (
    IContentFilter,
    IPeerEnd,
    IRecipientFilter,
    ISenderFilter,
    ITransactionEnd,
    TransactionEnd,
)
from mailserver.mail.answers import Finding, Pass, Refuse, Verdict
from mailserver.mail.envelope import Envelope, Peer
from mailserver.mail.faults import StorageBroken
from mailserver.plugins.generation import Generation
from mailserver.receive import ends as module
from mailserver.receive.ends import ends_for
from mailserver.receive.judging import BoundFilter
from tests.receive.connections import Listener
from tests.receive.test_protocol import ENVELOPE, MESSAGE, ConnectionCase

ACCEPTED, REFUSED, RESET, LOST = TransactionEnd.ACCEPTED, TransactionEnd.REFUSED, TransactionEnd.RESET, TransactionEnd.LOST


def told_failures(events: Any) -> list[dict[str, Any]]:
    """What the log has of failures of components."""
    return [event for event in events if event.get("log_namespace") == "mailserver.plugins.failure_log"]


@implementer(ITransactionEnd, IPeerEnd)
class Notes:
    """Remembers what it is told; `answer` is made anew for each call."""

    def __init__(self, answer: Any = None) -> None:
        self.told: list[tuple[list[str], TransactionEnd]] = []
        self.gone: list[Peer] = []
        self.findings: tuple[Finding, ...] = ()
        self.answer = answer

    async def ended(self, envelope: Envelope, how: TransactionEnd) -> None:
        self.told.append(([str(one.address) for one in envelope.recipients], how))
        self.findings = envelope.findings
        if self.answer is not None:
            await self.answer()

    async def disconnected(self, peer: Peer) -> None:
        self.gone.append(peer)
        if self.answer is not None:
            await self.answer()


@implementer(ISenderFilter, IRecipientFilter, IContentFilter)
class Waits:
    """Waits at one stage."""

    def __init__(self, stage: str, verdict: Verdict = Pass()) -> None:
        self.stage, self.verdict = stage, verdict
        self.waiting: Deferred[None] = Deferred()

    async def judge_sender(self, envelope: Any) -> Verdict:
        return await self.at("sender")

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Verdict:
        return await self.at("recipient")

    async def judge_content(self, envelope: Any, content: Any) -> Verdict:
        return await self.at("content")

    async def at(self, stage: str) -> Verdict:
        if stage != self.stage:
            return Pass()
        await self.waiting
        return self.verdict


class EndCase(ConnectionCase):
    def noting(self, *filters: object, answer: Any = None, service: str = "mx", **options: Any) -> tuple[Listener, Notes]:
        notes = Notes(answer)
        self.generation = Generation()
        bounds = [BoundFilter("notes", notes, deadline_seconds=5)]
        clock_of: list[Any] = []

        class Clock:  # the listener's, which is made a moment later
            def callLater(self, *arguments: Any) -> Any:
                return clock_of[0].callLater(*arguments)

            def seconds(self) -> float:
                return float(clock_of[0].seconds())

        ends = ends_for(bounds, service=service, clock=Clock(), generation=self.generation)
        listener = self.listener(
            filters=[BoundFilter("filter", one) for one in filters], service=service, ends=ends, generation=self.generation, **options
        )
        clock_of.append(listener.clock)
        return listener, notes

    def ways(self, octets: bytes, *filters: object, **options: Any) -> list[tuple[list[str], TransactionEnd]]:
        """What was told after the peer has said this and the connection was lost."""
        listener, notes = self.noting(*filters, **options)
        protocol, _ = listener.greeted()
        protocol.dataReceived(octets)
        protocol.connectionLost(Failure(ConnectionLost()))
        return notes.told


class Transactions(EndCase):
    def test_a_message_that_is_accepted(self) -> None:
        self.assertEqual(self.ways(MESSAGE), [(["alice@example.org"], ACCEPTED)])
        self.assertEqual(self.ways(MESSAGE + MESSAGE + b"QUIT\r\n"), [(["alice@example.org"], ACCEPTED)] * 2)

    def test_a_sender_that_is_refused(self) -> None:
        waits = Waits("sender", Refuse("no"))
        waits.waiting.callback(None)
        self.assertEqual(self.ways(ENVELOPE, waits), [([], REFUSED)])

    def test_a_message_that_is_refused(self) -> None:
        waits = Waits("content", Refuse("no"))
        waits.waiting.callback(None)
        self.assertEqual(self.ways(MESSAGE, waits), [(["alice@example.org"], REFUSED)])
        waits = Waits("content", Refuse("no", findings=(Finding("odd"),)))
        waits.waiting.callback(None)
        listener, notes = self.noting(waits)
        protocol, _ = listener.greeted()
        protocol.dataReceived(MESSAGE)
        self.assertEqual([one.name for one in notes.findings], ["odd"])
        big = MESSAGE.replace(b"hello", b"x" * 2000)
        from mailserver.receive.profile import ConnectionLimits

        self.assertEqual(self.ways(big, limits=ConnectionLimits(message_octets=1000)), [(["alice@example.org"], REFUSED)])

    def test_a_commit_that_fails(self) -> None:
        listener, notes = self.noting()
        listener.store.answer = StorageBroken("no")
        protocol, _ = listener.greeted()
        protocol.dataReceived(MESSAGE)
        self.assertEqual(notes.told, [(["alice@example.org"], REFUSED)])

    def test_data_that_are_refused(self) -> None:
        listener, notes = self.noting()
        protocol, _ = listener.greeted()
        protocol.dataReceived(ENVELOPE)
        listener.store.writable = False
        protocol.dataReceived(b"DATA\r\n")
        self.assertEqual(notes.told, [(["alice@example.org"], REFUSED)])

    def test_rset_another_hello_and_quit(self) -> None:
        for octets in (b"RSET\r\n", b"EHLO again.example\r\n", b"QUIT\r\n", b"BDAT 3\r\nabcRSET\r\n", b"RSET\r\nQUIT\r\n"):
            self.assertEqual(self.ways(ENVELOPE + octets), [(["alice@example.org"], RESET)], octets)

    def test_a_connection_that_is_lost(self) -> None:
        for octets in (b"", b"DATA\r\nSubject: x\r\n", b"BDAT 100\r\nabc"):
            self.assertEqual(self.ways(ENVELOPE + octets), [(["alice@example.org"], LOST)], octets)
        self.assertEqual(self.ways(b"MAIL FROM:<a@b.example>\r\n"), [([], LOST)])
        self.assertEqual(self.ways(b"NOOP\r\n"), [])

    def test_a_connection_that_is_lost_while_a_filter_is_asked(self) -> None:
        self.assertEqual(self.ways(ENVELOPE, Waits("sender")), [([], LOST)])
        self.assertEqual(self.ways(ENVELOPE, Waits("recipient")), [([], LOST)])

    def test_a_message_that_is_being_judged_or_committed_when_the_connection_is_lost_ends_as_it_ends(self) -> None:
        waits = Waits("content")
        listener, notes = self.noting(waits)
        protocol, _ = listener.greeted()
        protocol.dataReceived(MESSAGE)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(notes.told, [])
        waits.waiting.callback(None)
        self.assertEqual(notes.told, [(["alice@example.org"], ACCEPTED)])
        self.assertEqual(self.generation.uses, 0)

    def test_lmtp_is_accepted_where_one_recipient_is(self) -> None:
        self.assertEqual(self.ways(MESSAGE, service="lmtp"), [(["alice@example.org"], ACCEPTED)])


class Connections(EndCase):
    def test_the_peer_is_told_as_it_was_last(self) -> None:
        listener, notes = self.noting()
        protocol, _ = listener.greeted()
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([(one.address, one.hello) for one in notes.gone], [("203.0.113.9", "client.example")])

    def test_the_policy_in_force_is_told_of_connections_that_are_older(self) -> None:
        listener, former = self.noting()
        protocol, _ = listener.greeted()
        other, now = self.noting()
        listener.factory.profile = other.profile
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((len(former.gone), len(now.gone)), (0, 1))


class Misbehaviour(EndCase):
    def test_nothing_that_it_does_reaches_the_peer(self) -> None:
        async def cancelled() -> None:
            raise asyncio.CancelledError

        async def cancelled_by_twisted() -> None:
            raise CancelledError

        async def leaves() -> None:
            raise SystemExit(1)

        async def recursion() -> None:
            await recursion()

        for answer in (cancelled, cancelled_by_twisted, leaves, recursion):
            listener, notes = self.noting(answer=answer)
            protocol, wire = listener.greeted()
            with capturedLogs() as logged:
                protocol.dataReceived(MESSAGE + MESSAGE)
                self.assertEqual(wire.codes(), [250, 250, 354, 250] * 2)
                protocol.connectionLost(Failure(ConnectionLost()))
            self.assertEqual(len(told_failures(logged)), 1)  # once a minute
            self.assertEqual((len(notes.told), len(notes.gone)), (2, 1))
            self.assertEqual(self.generation.uses, 0)

    def test_a_method_that_is_no_coroutine_may_raise_or_answer_anything(self) -> None:
        @implementer(ITransactionEnd)
        class Odd:
            def ended(self, envelope: Any, how: Any) -> Any:
                return None

        generation = Generation()
        ends = ends_for([BoundFilter("odd", Odd())], service="mx", clock=self.listener().clock, generation=generation)
        assert ends is not None
        envelope: Any = None
        with capturedLogs() as logged:
            ends.transaction(envelope, ACCEPTED)
        self.assertEqual(generation.uses, 0)
        self.assertEqual(len(told_failures(logged)), 1)

    def test_one_that_hangs_is_cancelled_at_its_deadline_and_held_by_a_reload_until_then(self) -> None:
        hangs: list[Deferred[None]] = []

        def hang() -> Deferred[None]:
            hangs.append(Deferred())
            return hangs[-1]

        listener, _ = self.noting(answer=hang)
        protocol, wire = listener.greeted()
        protocol.dataReceived(MESSAGE)
        self.assertEqual(wire.codes(), [250, 250, 354, 250])
        self.assertEqual(self.generation.uses, 1)
        with capturedLogs() as logged:
            listener.clock.advance(5)
        self.assertEqual(self.generation.uses, 0)
        self.assertTrue(hangs[0].called)
        self.assertEqual([event["error"] for event in told_failures(logged)], ["DeadlineExceeded: it has not ended within 5 s"])
        protocol.connectionLost(Failure(ConnectionLost()))
        listener.clock.advance(5)

    def test_calls_that_hang_are_bounded_and_what_is_left_out_is_told(self) -> None:
        self.patch(module, "UNDER_WAY_MOST", 2)
        listener, notes = self.noting(answer=Deferred)
        protocol, _ = listener.greeted()
        protocol.dataReceived(MESSAGE * 5)
        self.assertEqual(len(notes.told), 2)
        listener.clock.advance(5)
        protocol.dataReceived(MESSAGE)
        self.assertEqual(len(notes.told), 3)
        listener.clock.advance(5)

    def test_a_service_that_it_does_not_serve_has_nothing_to_tell(self) -> None:
        bound = BoundFilter("notes", Notes(), services=frozenset({"lmtp"}))
        self.assertIsNone(ends_for([bound], service="mx", clock=self.listener().clock, generation=Generation()))
