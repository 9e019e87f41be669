"""A small process that is kept running, with a clock of the test's and a process that is a socket pair."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.processes import frames, kept
from mailserver.processes.kept import KeptProcess
from mailserver.processes.spawning import OtherVersion, ProcessStart, begin
from mailserver.processes.version import version
from mailserver.processes.watching import Watch


class Readers(Clock):
    """The reactor: what is ready is read when `turn` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def turn(self) -> None:
        for reader in select.select(self.readers, [], [], 0)[0]:
            reader.doRead()


class KeptCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Readers()
        self.ends: list[socket.socket] = []  # of the processes
        self.fault: OSError | None = None
        self.kept = KeptProcess(name="courier", begin=self.begin, seconds=self.reactor.seconds)
        self.addCleanup(lambda: [end.close() for end in self.ends])
        self.addCleanup(self.kept.close)

    def begin(self) -> tuple[None, socket.socket]:
        if self.fault is not None:
            raise self.fault
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        return None, ours

    def die(self) -> None:
        self.ends[-1].close()

    def revive(self) -> None:
        if (end := self.kept.revive()) is not None:
            end.close()

    def send(self) -> bytes:
        """What the process of now receives."""
        self.kept.send(b"request", [])
        return frames.receive(self.ends[-1])[0]


class Sending(KeptCase):
    def test_a_request_goes_to_the_one_that_runs(self) -> None:
        self.assertEqual(self.send(), b"request")
        self.die()
        self.assertEqual(self.send(), b"request")
        self.assertEqual((len(self.ends), self.kept.missing, self.kept.deaths), (2, "", 1))

    def test_one_that_dies_again_and_again_has_to_wait_longer_each_time(self) -> None:
        waits = []
        for _ in range(10):
            self.die()
            self.revive()
            waits.append(self.kept.seconds_to_next_start())
            if waits[-1]:
                self.assertRaises(OSError, self.send)
                self.assertEqual(self.kept.missing, "it has died")
            self.reactor.advance(waits[-1])
            self.assertEqual(self.send(), b"request")
        self.assertEqual(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.assertEqual(len(self.ends), 11)

    def test_one_that_has_lived_for_a_while_is_replaced_at_once(self) -> None:
        for _ in range(5):
            self.die()
            self.revive()
            self.reactor.advance(self.kept.seconds_to_next_start())
            self.revive()
        self.reactor.advance(kept.STEADY_SECONDS)
        self.die()
        self.assertEqual(self.send(), b"request")

    def test_one_that_does_not_start_is_missing_with_the_reason_until_it_does(self) -> None:
        self.fault = OSError("restart the server")
        self.die()
        for seconds in (0, 1, 2, 4):
            self.reactor.advance(seconds)
            self.assertIn("restart the server", str(self.assertRaises(OSError, self.send)))
            self.assertEqual(self.kept.missing, "restart the server")
        self.fault = None
        self.reactor.advance(self.kept.seconds_to_next_start())
        self.assertEqual((self.send(), self.kept.missing), (b"request", ""))

    def test_one_that_takes_nothing_any_more_is_replaced(self) -> None:
        """It was stopped, say: half a request may be on its way, so nothing can follow it."""
        self.patch(kept, "SEND_SECONDS", 0.05)
        self.die()
        self.send()  # one that has the shorter time
        large = b"x" * frames.FRAME_OCTETS
        with self.assertRaises(OSError):
            for _ in range(100):
                self.kept.send(large, [])
        self.assertIn("takes no request", self.kept.missing)
        self.assertEqual(self.kept.deaths, 2)
        self.reactor.advance(1)
        self.assertEqual(self.send(), b"request")

    def test_a_request_that_is_too_long_hurts_only_itself(self) -> None:
        self.assertRaises(OSError, self.kept.send, b"x" * (frames.FRAME_OCTETS + 1), [])
        self.assertEqual((self.send(), len(self.ends)), (b"request", 1))

    def test_after_the_end_nothing_is_started(self) -> None:
        self.kept.close()
        self.assertEqual(self.ends[0].recv(1), b"")
        self.assertRaises(OSError, self.send)
        self.assertEqual(len(self.ends), 1)


class Ends(SynchronousTestCase):
    def test_one_that_does_not_end_is_killed(self) -> None:
        self.patch(kept, "END_SECONDS", 0.0)
        process = subprocess.Popen(["sleep", "1000"])
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        one = KeptProcess(name="courier", begin=lambda: (process, ours), seconds=Clock().seconds)
        one.send(b"request", [])
        one.close()
        self.assertEqual(process.poll(), -signal.SIGKILL)


class Watching(KeptCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines: list[tuple[str, str]] = []
        with capturedLogs() as self.at_first:
            self.watch = Watch(self.kept, reactor=self.reactor, run_in_thread=maybeDeferred)
        self.watch.log = self  # type: ignore[assignment]
        self.addCleanup(self.watch.stop)

    def critical(self, text: str, **values: Any) -> None:
        self.lines.append(("critical", text.format(**values)))

    def warn(self, text: str, **values: Any) -> None:
        self.lines.append(("warn", text.format(**values)))

    def test_a_death_is_told_and_a_successor_started_though_nobody_sends(self) -> None:
        self.reactor.turn()
        self.assertEqual(self.lines, [])
        self.die()
        self.reactor.turn()
        self.assertEqual((len(self.ends), self.kept.missing), (2, ""))
        self.assertEqual([level for level, _ in self.lines], ["critical", "warn"])
        self.assertIn("the courier has died", self.lines[0][1])

    def test_a_sender_may_have_been_quicker(self) -> None:
        self.die()
        self.send()
        self.reactor.turn()
        self.assertEqual(len(self.ends), 2)
        self.assertIn("the courier has died", self.lines[0][1])
        self.die()
        self.reactor.turn()
        self.reactor.advance(2)
        self.assertEqual((len(self.ends), self.kept.missing), (3, ""))

    def test_a_reason_is_told_once(self) -> None:
        self.fault = OSError("restart the server")
        self.die()
        self.reactor.turn()
        for _ in range(300):
            self.reactor.advance(1)
        self.assertEqual(
            [text for _, text in self.lines],
            [
                "the courier has died, and what it serves is put off until it runs again",
                "the courier is missing, and what it serves is put off: restart the server",
            ],
        )
        self.fault = None
        self.reactor.advance(61)
        self.assertEqual(self.lines[2:], [("warn", "the courier runs again")])
        self.assertEqual(self.kept.missing, "")

    def test_one_that_others_are_sending_to_is_looked_at_again(self) -> None:
        """And not by the reactor itself, which would wait for them."""
        self.patch(kept, "SEND_SECONDS", 0.01)
        self.die()
        with self.kept._mine():
            self.reactor.turn()
        self.assertEqual((len(self.ends), self.reactor.readers), (1, []))
        self.reactor.advance(1.0)
        self.assertEqual((len(self.ends), len(self.reactor.readers)), (2, 1))

    def test_a_start_that_fails_as_nobody_foresaw_waits_like_any_other(self) -> None:
        self.fault = RuntimeError("what nobody foresaw")  # type: ignore[assignment]
        self.die()
        self.reactor.turn()
        self.assertEqual(self.kept.missing, "what nobody foresaw")
        self.fault = None
        self.reactor.advance(1.1)
        self.assertEqual((len(self.ends), self.kept.missing), (2, ""))

    def test_where_no_thread_can_be_had_there_is_another_look(self) -> None:
        self.watch._run_in_thread = lambda _: 1 // 0  # type: ignore[assignment,return-value]
        self.die()
        self.reactor.turn()
        self.assertIn(("failure", "the courier could not be looked after"), self.lines)
        self.watch._run_in_thread = maybeDeferred
        self.reactor.advance(1.1)
        self.assertEqual((len(self.ends), self.kept.missing), (2, ""))

    def failure(self, text: str, failure: Any, **values: Any) -> None:
        self.lines.append(("failure", text.format(**values)))

    def test_an_end_that_we_wanted_is_not_told(self) -> None:
        late = self.kept.revive()
        self.kept.close()
        self.reactor.turn()
        self.watch._look(late)  # a look that was under way
        self.assertEqual((self.lines, self.reactor.readers, self.reactor.getDelayedCalls()), ([], [], []))
        self.assertEqual(late.fileno(), -1)

    def test_of_one_that_was_never_missing_nobody_says_that_it_runs_again(self) -> None:
        self.assertEqual((len(self.ends), self.lines, self.at_first), (1, [], []))


class Beginning(SynchronousTestCase):
    def test_a_program_of_another_version_is_not_taken(self) -> None:
        start = ProcessStart("mailserver.delivery.launcher")
        process, control = begin(start, version())
        control.close()
        self.assertEqual(process.wait(10), 0)
        error = self.assertRaises(OtherVersion, begin, start, b"0" * 64)
        self.assertIn("restart the server", str(error))

    def test_one_that_ends_before_it_has_named_its_version_has_not_started(self) -> None:
        self.patch(sys, "executable", "/bin/true")
        self.assertIn("does not start", str(self.assertRaises(OSError, begin, ProcessStart("mailserver.delivery.launcher"), version())))

    def test_one_that_says_nothing_has_not_started_either_and_is_gone(self) -> None:
        from mailserver.processes import spawning

        script = os.path.abspath(self.mktemp())
        with open(script, "w") as file:
            file.write(f"#!/bin/sh\necho $$ > {script}.pid\nexec sleep 100\n")
        os.chmod(script, 0o755)
        self.patch(sys, "executable", script)
        self.patch(spawning, "START_SECONDS", 0.3)
        self.assertIn("does not start", str(self.assertRaises(OSError, begin, ProcessStart("mailserver.delivery.launcher"), version())))
        with open(f"{script}.pid") as file:
            self.assertRaises(ProcessLookupError, os.kill, int(file.read()), 0)

    def test_the_version_is_that_of_the_source(self) -> None:
        self.assertEqual((len(version()), version()), (64, version()))
