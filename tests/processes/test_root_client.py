"""The server's end of the root process, with a root process that is a socket."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.processes import frames, root_client
from mailserver.processes.root_client import RootClient, RootGone, start_root_process


class LinkCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.waited: list[float] = []
        self.pid = os.getpid()
        self.clock = Clock()
        self.ours, self.theirs = socket.socketpair()
        self.link = RootClient(self, self.ours, self.clock.seconds)  # type: ignore[arg-type]
        self.addCleanup(self.theirs.close)
        self.addCleanup(lambda: self.waited or self.link.close())

    def wait(self, seconds: float) -> None:
        """For the end of the process."""
        self.waited.append(seconds)

    def say(self, *members: Any, descriptors: tuple[int, ...] = ()) -> None:
        frames.send(self.theirs, json.dumps(members).encode(), descriptors)

    def asked(self) -> Any:
        return json.loads(frames.receive(self.theirs)[0])

    def fails(self, words: str, error: type[OSError] = OSError) -> None:
        self.assertIn(words, str(self.assertRaises(error, self.link.read)))


class Questions(LinkCase):
    def test_each_has_its_number_and_its_words(self) -> None:
        for number in (1, 2, 3):
            self.say(number, "")
        self.link.read()
        for ask in (self.link.start, self.link.bind):
            self.assertIn("gave no socket", str(self.assertRaises(OSError, ask, "x")))
        self.assertEqual([self.asked() for _ in range(3)], [[1, "read", ""], [2, "start", "x"], [3, "bind", "x"]])

    def test_an_answer_brings_a_socket(self) -> None:
        one, other = socket.socketpair()
        with one, other:
            self.say(1, "", descriptors=(other.fileno(),))
            with self.link.bind("tcp:25") as bound:
                one.send(b"x")
                self.assertEqual(bound.recv(1), b"x")

    def test_an_answer_to_a_question_that_was_given_up_is_passed_over(self) -> None:
        self.patch(root_client, "ANSWER_SECONDS", 0.05)
        self.fails("does not answer")
        self.say(1, "")
        self.say(2, "no")
        self.assertEqual(str(self.assertRaises(OSError, self.link.read)), "no")
        self.say(3, "")
        self.link.read()

    def test_what_came_with_an_answer_that_is_of_no_use_is_closed(self) -> None:
        one, other = socket.socketpair()
        with one:
            with other:
                self.say(0, "", descriptors=(other.fileno(),))
                self.say(1, "no", descriptors=(other.fileno(),))
            self.fails("no")
            one.settimeout(20)
            self.assertEqual(one.recv(1), b"")

    def test_other_answers_before_it_earn_no_time(self) -> None:
        left: list[float | None] = []
        receive = frames.receive

        def received(end: socket.socket) -> Any:
            left.append(end.gettimeout())
            self.clock.advance(25)
            return receive(end)

        self.patch(frames, "receive", received)
        for number in (0, 0, 0, 1):
            self.say(number, "")
        self.link.read()
        self.assertEqual(left, [60.0, 35.0, 10.0, 0.01])

    def test_a_question_that_the_root_process_does_not_even_take_is_given_up(self) -> None:
        self.patch(root_client, "ANSWER_SECONDS", 0.05)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        error = self.assertRaises(OSError, self.link.bind, "x" * 100_000)
        self.assertIn("does not answer", str(error))

    def test_one_at_a_time_is_asked_and_who_waits_too_long_for_its_turn_is_told(self) -> None:
        self.patch(root_client, "ANSWER_SECONDS", 0.05)
        with self.link._lock:
            self.fails("busy with another question")
        self.say(1, "")
        self.link.read()

    def test_what_is_no_answer_is_none(self) -> None:
        for octets in (b"", b"[1]", b"\xff", b"[1, 2, 3]"):
            frames.send(self.theirs, octets)
            self.fails("gave no answer")


class Ends(LinkCase):
    def test_one_that_has_died_is_gone(self) -> None:
        self.theirs.close()
        for _ in range(2):
            self.fails("restart the server", RootGone)

    def test_to_close_it_is_to_let_it_end_and_to_wait_for_that(self) -> None:
        self.link.close()
        self.assertEqual(self.theirs.recv(1), b"")
        self.assertEqual(self.waited, [10.0])
        self.assertRaises(OSError, os.fstat, self.link.ending)

    def test_one_that_cannot_read_its_configuration_is_closed_again(self) -> None:
        ours, theirs = socket.socketpair()
        self.patch(root_client, "begin", lambda start, expected: (self, ours))
        with theirs:
            frames.send(theirs, b'[1, "may be written by others"]')
            error = self.assertRaises(OSError, start_root_process, "/etc/mailserver/mailserver.toml", b"")
            self.assertIn("written by others", str(error))
            self.assertEqual(frames.receive(theirs)[0], b'[1, "read", ""]')
            self.assertEqual((theirs.recv(1), self.waited), (b"", [10.0]))
        self.link.close()
