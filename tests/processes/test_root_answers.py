"""What the root process answers, and what it keeps of what it has started."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.processes import frames, root
from mailserver.processes.root import Root, RootRefusal
from mailserver.processes.spawning import ProcessStart

COURIER, PAM = "delivery.courier", "accounts.pam"


class RootCase(SynchronousTestCase):
    """With processes that do nothing, and whose end of the socket is the test's."""

    def setUp(self) -> None:
        self.root = Root(path="/etc/mailserver/mailserver.toml", ours=b"ours")
        self.begun: list[tuple[ProcessStart, bytes, subprocess.Popen[bytes], socket.socket]] = []
        self.says = b""  # what a process says that reads the configuration
        self.patch(root, "begin", self.begin)
        self.addCleanup(self.end_all)

    def begin(self, start: ProcessStart, expected: bytes) -> tuple[subprocess.Popen[bytes], socket.socket]:
        process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
        ours, theirs = socket.socketpair()
        self.begun.append((start, expected, process, theirs))
        if start.module == root.READING:
            theirs.sendall(self.says)
            theirs.shutdown(socket.SHUT_WR)
        return process, ours

    def end_all(self) -> None:
        for _, _, process, theirs in self.begun:
            theirs.close()
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        for _, ended in self.root._started.values():
            os.close(ended)

    def plan(self, **members: Any) -> bytes:
        return json.dumps({"why": "", "addresses": {}, "paths": {}, "unsafe": {}, "starts": {}} | members).encode()

    def read(self, says: bytes) -> None:
        self.says = says
        self.assertIsNone(self.root.answer("read", ""))

    def start(self, kind: str) -> subprocess.Popen[bytes]:
        control = self.root.answer("start", kind)
        assert control is not None
        control.close()
        return self.begun[-1][2]


class Starting(RootCase):
    def setUp(self) -> None:
        super().setUp()
        self.read(self.plan(starts={COURIER: [["{home}/Maildir", 1000], "told"], PAM: [[], ""]}))

    def test_a_process_is_started_as_the_configuration_has_it_and_its_socket_is_the_answer(self) -> None:
        control = self.root.answer("start", COURIER)
        assert control is not None
        start, expected, _, theirs = self.begun[-1]
        self.assertEqual(start, ProcessStart("mailserver.delivery.courier", ("{home}/Maildir", "1000"), b"told"))
        self.assertEqual(expected, b"ours")
        with control:
            theirs.send(b"x")
            self.assertEqual(control.recv(1), b"x")

    def test_the_one_before_of_its_kind_is_ended_first_and_no_other(self) -> None:
        courier, pam = self.start(COURIER), self.start(PAM)
        again = self.start(COURIER)
        self.assertEqual((courier.returncode, pam.poll(), again.poll()), (-9, None, None))
        self.assertEqual(set(self.root._started), {COURIER, PAM})

    def test_one_that_has_ended_is_taken_from_the_list_and_its_descriptor_is_closed(self) -> None:
        courier = self.start(COURIER)
        self.start(PAM)
        _, ended = self.root._started[COURIER]
        self.root._reap()
        self.assertEqual(set(self.root._started), {COURIER, PAM})
        courier.kill()
        os.waitid(os.P_PID, courier.pid, os.WEXITED | os.WNOWAIT)
        self.root._reap()
        self.assertEqual(set(self.root._started), {PAM})
        self.assertRaises(OSError, os.fstat, ended)


class Reading(RootCase):
    def test_the_addresses_are_the_last_ones_and_how_processes_start_the_first(self) -> None:
        self.read(self.plan(addresses={"tcp:1": ["127.0.0.1", 1]}, starts={PAM: [["first"], ""]}))
        self.read(self.plan(addresses={"tcp:2": ["127.0.0.1", 2]}, starts={PAM: [["second"], ""], COURIER: [[], ""]}))
        plan = self.root._plan
        assert plan is not None
        self.assertEqual(plan.addresses, {"tcp:2": ("127.0.0.1", 2)})
        self.assertRaises(RootRefusal, self.root.answer, "start", COURIER)
        self.start(PAM)
        self.assertEqual(self.begun[-1][0].arguments, ("first",))
        reading = self.begun[0][0]
        self.assertEqual((reading.module, reading.arguments), ("mailserver.assembly.root_plan", ("/etc/mailserver/mailserver.toml",)))

    def test_a_configuration_that_was_refused_changes_nothing(self) -> None:
        self.read(self.plan(addresses={"tcp:1": ["127.0.0.1", 1]}))
        before = self.root._plan
        for says, why in (
            (json.dumps({"why": "may be written by others"}).encode(), "may be written by others"),
            (b"", "the configuration could not be read: the program that reads it has died"),
            (self.plan()[:-1], "the configuration could not be read: the program that reads it has died"),
        ):
            self.says = says
            self.assertEqual(str(self.assertRaises(RootRefusal, self.root.answer, "read", "")), why)
        self.assertIs(self.root._plan, before)

    def test_the_program_that_reads_is_ended_whatever_it_has_said(self) -> None:
        self.read(self.plan())
        self.says = b""
        self.assertRaises(RootRefusal, self.root.answer, "read", "")
        self.assertEqual([process.returncode for _, _, process, _ in self.begun], [-9, -9])

    def test_a_plan_that_comes_in_pieces_is_read_to_its_end(self) -> None:
        self.read(b" " * 100_000 + self.plan(addresses={"tcp:1": ["127.0.0.1", 1]}))
        assert self.root._plan is not None
        self.assertEqual(set(self.root._plan.addresses), {"tcp:1"})

    def test_a_plan_without_end_is_none(self) -> None:
        self.patch(root, "PLAN_OCTETS", 1000)
        self.read(self.plan())
        self.says = b" " * 100_000 + self.plan()
        self.assertIn("has died", str(self.assertRaises(RootRefusal, self.root.answer, "read", "")))

    def test_a_program_that_says_nothing_has_its_time_and_is_ended(self) -> None:
        self.patch(root, "READ_SECONDS", 0.01)
        self.root._reading = "silent"
        self.assertRaises(TimeoutError, self.root.answer, "read", "")
        self.assertEqual(self.begun[0][2].returncode, -9)


class Serving(RootCase):
    def setUp(self) -> None:
        super().setUp()
        self.read(self.plan(starts={COURIER: [[], ""]}, addresses={"tcp:0": ["127.0.0.1", 0]}))
        self.link, self.theirs = socket.socketpair()
        self.link.settimeout(20)
        self.thread = threading.Thread(target=self.root.serve, args=(self.theirs,))
        self.addCleanup(self.theirs.close)
        self.addCleanup(self.thread.join)
        self.addCleanup(self.link.close)
        self.thread.start()

    def ask(self, *members: Any, descriptors: tuple[int, ...] = ()) -> tuple[Any, list[int]]:
        frames.send(self.link, json.dumps(members).encode(), descriptors)
        octets, found = frames.receive(self.link)
        return json.loads(octets), found

    def test_what_it_hands_over_it_does_not_keep(self) -> None:
        answer, [descriptor] = self.ask(7, "start", COURIER)
        self.assertEqual(answer, [7, ""])
        os.close(descriptor)
        theirs = self.begun[-1][3]
        theirs.settimeout(20)
        self.assertEqual(theirs.recv(1), b"", "nobody has the other end")

    def test_descriptors_that_come_with_a_question_are_closed(self) -> None:
        one, other = socket.socketpair()
        with one:
            with other:
                self.assertEqual(self.ask(1, "read", "", descriptors=(other.fileno(),)), ([1, ""], []))
            one.settimeout(20)
            self.assertEqual(one.recv(1), b"")

    def test_every_refusal_has_its_words_in_bounds_and_none_is_empty(self) -> None:
        for error, why in (
            (RootRefusal("no"), "no"), (OSError(2, "No such file"), "[Errno 2] No such file"), (KeyError("x"), "KeyError: 'x'"),
            (OSError(), "OSError"), (RootRefusal("x" * 5000), "x" * 4096),
        ):  # fmt: skip
            self.patch(self.root, "_bind", _raises(error))
            self.assertEqual(self.ask("a", "bind", "tcp:0"), (["a", why], []))

    def test_the_end_of_a_process_is_seen_without_a_question_and_stops_nothing(self) -> None:
        blind: list[str] = []
        seen, again = threading.Event(), threading.Event()
        receive, end, poll = frames.receive, self.root._end, select.poll

        def received(link: socket.socket) -> Any:
            if link is self.theirs and not select.select([link], [], [], 0)[0]:
                blind.append("it would wait for a question alone")
                again.set()
            return receive(link)

        def ended(kind: str) -> None:
            end(kind)
            seen.set()

        def polls() -> Any:
            if seen.is_set():
                again.set()
            return poll()

        self.patch(frames, "receive", received)
        self.patch(self.root, "_end", ended)
        _, descriptors = self.ask(1, "start", COURIER)
        for descriptor in descriptors:
            os.close(descriptor)
        seen.clear()
        self.patch(select, "poll", polls)
        self.begun[-1][2].kill()
        self.assertTrue(seen.wait(20) and again.wait(20))
        self.assertEqual(self.root._started, {})
        self.assertEqual(self.ask(2, "read", ""), ([2, ""], []))
        self.assertEqual(blind, [])

    def test_it_ends_when_the_server_is_gone_also_amid_an_answer(self) -> None:
        self.patch(self.root, "_bind", lambda endpoint: self.link.close())
        frames.send(self.link, json.dumps([1, "bind", "tcp:0"]).encode())
        self.thread.join(20)
        self.assertFalse(self.thread.is_alive())


def _raises(error: Exception) -> Any:
    def raising(endpoint: str) -> Any:
        raise error

    return raising
