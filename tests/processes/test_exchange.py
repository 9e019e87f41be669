"""Questions over a socket, their answers, and the frames that they travel in."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.processes import frames
from mailserver.processes.answer import REPLY_OCTETS, PendingAnswer
from mailserver.processes.exchange import ProcessExchange
from mailserver.processes.frames import DESCRIPTORS, FRAME_OCTETS, LENGTH

LARGE = b"q" * (4 << 20)  # more than a socket takes at once


class Sides:
    """The reactor, without turns of its own."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard


class EndsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Sides()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)


class Questions(EndsCase):
    def setUp(self) -> None:
        super().setUp()
        self.exchange = ProcessExchange(self.reactor, self.ours)

    def test_one_after_the_other_has_its_own_answer(self) -> None:
        for question, reply in ((b"who?", b"alice"), (b"", b""), (b"and?", b"bob")):
            answer = self.exchange.ask(question)
            self.assertEqual(frames.receive(self.theirs)[0], question)
            frames.send(self.theirs, reply)
            self.exchange.doRead()
            self.assertEqual(self.successResultOf(answer), reply)
            self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))

    def test_an_answer_may_come_octet_by_octet(self) -> None:
        answer = self.exchange.ask(b"who?")
        for octet in LENGTH.pack(5) + b"alice":
            self.assertNoResult(answer)
            self.theirs.send(bytes([octet]))
            self.exchange.doRead()
        self.assertEqual(self.successResultOf(answer), b"alice")

    def test_what_the_socket_does_not_take_at_once_follows(self) -> None:
        self.exchange.ask(LARGE)
        found = b""
        self.theirs.setblocking(False)
        while len(found) < len(LARGE) + LENGTH.size:
            self.assertTrue(self.reactor.writers or self.exchange._unsent.nbytes == 0)
            for writer in list(self.reactor.writers):
                writer.doWrite()
            found += self.theirs.recv(len(LARGE))
        self.assertEqual(found, LENGTH.pack(len(LARGE)) + LARGE)
        self.assertEqual(self.reactor.writers, set())

    def test_a_second_question_waits_for_the_answer_to_the_first(self) -> None:
        self.exchange.ask(b"who?")
        self.assertRaises(ValueError, self.exchange.ask, b"who else?")

    def test_a_question_that_is_given_up_ends_the_exchange_at_once_whoever_else_has_the_socket(self) -> None:
        with self.ours.dup():
            answer = self.exchange.ask(b"who?")
            frames.receive(self.theirs)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            self.theirs.setblocking(False)
            self.assertEqual(self.theirs.recv(1), b"")
        self.exchange.close()
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))
        self.assertRaises(ValueError, self.exchange.ask, b"who else?")

    def test_where_the_other_end_closes_there_is_no_answer_and_no_question_any_more(self) -> None:
        answer = self.exchange.ask(b"who?")
        self.theirs.close()
        self.exchange.doRead()
        self.failureResultOf(answer, EOFError)
        self.exchange.connectionLost(None)  # told twice
        self.assertRaises(ValueError, self.exchange.ask, b"who else?")


class Answers(EndsCase):
    def test_it_is_all_that_comes_until_the_other_end_closes(self) -> None:
        coming = (answer := PendingAnswer(self.reactor, self.ours)).within(1, Clock())
        for piece in (b"ali", b"ce"):
            self.theirs.send(piece)
            answer.doRead()
            self.assertNoResult(coming)
        self.theirs.close()
        answer.doRead()
        self.assertEqual((self.successResultOf(coming), self.reactor.readers), (b"alice", set()))

    def test_one_that_does_not_end_is_cut_off(self) -> None:
        coming = (answer := PendingAnswer(self.reactor, self.ours)).within(1, Clock())
        while self.reactor.readers:
            self.theirs.send(b"x" * 30_000)
            answer.doRead()
        self.assertLessEqual(len(self.successResultOf(coming)), 2 * REPLY_OCTETS)


class Frames(EndsCase):
    def test_what_is_no_frame_is_an_end_and_its_descriptors_are_closed(self) -> None:
        too_large = LENGTH.pack(FRAME_OCTETS + 1)
        for octets in (too_large, LENGTH.pack(3) + b"ab", b"\0\0"):
            reading, writing = os.pipe()
            with open(reading, "rb") as file:
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    socket.send_fds(theirs, [octets], [writing])
                    os.close(writing)
                    theirs.shutdown(socket.SHUT_WR)
                    self.assertRaises(EOFError, frames.receive, ours)
                    os.set_blocking(reading, False)
                    self.assertEqual(file.read(), b"", "the writing end is closed here too")

    def test_the_end_is_told_as_such(self) -> None:
        self.theirs.close()
        self.assertRaises(EOFError, frames.receive, self.ours)

    def test_one_of_the_greatest_length_with_as_many_descriptors_as_may_be_is_taken(self) -> None:
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * FRAME_OCTETS)
        frames.send(self.ours, b"x" * FRAME_OCTETS, [0] * DESCRIPTORS)
        octets, descriptors = frames.receive(self.theirs)
        for one in descriptors:
            os.close(one)
        self.assertEqual((octets, len(descriptors)), (b"x" * FRAME_OCTETS, DESCRIPTORS))
