"""250 means durable: a program that commits under load is killed at any moment, again and again."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.queue.reader import list_entries
from tests.rounds import rounds

ROOT = str(Path(__file__).parents[2])
ROUNDS = rounds(3)


class Program:
    """The program of `tests.queue.committing`, its lines as they come."""

    def __init__(self, directory, *what):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.queue.committing", directory, *what], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def line(self):
        return self.process.stdout.readline().decode().split()

    def rest(self):
        with self.process:
            return [line.decode().split() for line in self.process.stdout]


def delivered(directory):
    """What the delivery was handed: id, digest, again."""
    text = Path(directory, "delivered").read_text()
    return [tuple(line.split()) for line in text.splitlines()]


class KillNine(SynchronousTestCase):
    def setUp(self):
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def drain(self, what="drain"):
        program = Program(self.directory, what)
        lines = program.rest()
        self.assertEqual(program.process.returncode, 0)
        self.assertEqual(lines[-1], ["stopped", "0"])

    def killed_after(self, acknowledgements, by_itself=False, what="commit"):
        """Run, kill after so many; what was acknowledged, id to digest.

        From outside the kill falls anywhere; `by_itself`, into the very moment of an acknowledgement.
        """
        program = Program(self.directory, what, str(acknowledgements) if by_itself else "-1")
        acknowledged = {}
        while not by_itself and len(acknowledged) < acknowledgements:
            line = program.line()
            self.assertTrue(line, "the program ended by itself")
            if line[0] == "ok":
                acknowledged[line[1]] = line[2]
        program.process.send_signal(signal.SIGKILL if not by_itself else 0)
        for line in program.rest():
            if line[0] == "ok" and len(line) == 3 and len(line[2]) == 64:
                acknowledged[line[1]] = line[2]
        self.assertEqual(program.process.returncode, -signal.SIGKILL)
        return acknowledged

    def test_no_acknowledged_message_is_lost_or_torn(self):
        acknowledged = {}
        for number in range(ROUNDS):
            acknowledged |= self.killed_after(random.randint(1, 1000), by_itself=number % 2 == 0)
        self.drain()
        lines = delivered(self.directory)
        found = {id: digest for id, digest, _ in lines}
        missing = acknowledged.keys() - found.keys()
        self.assertEqual(missing, set(), f"{len(missing)} of {len(acknowledged)} lost")
        self.assertEqual([id for id, digest in acknowledged.items() if found[id] != digest], [], "torn")
        times = Counter(id for id, _, _ in lines)
        first = {}
        for id, _, again in lines:
            if id in first:
                self.assertEqual(again, "1", "a second delivery says that it comes again")
            first.setdefault(id, again)
        self.assertLessEqual(max(times.values()), ROUNDS + 1)
        self.assertEqual(list_entries(os.path.join(self.directory, "data")), [])
        self.assertEqual(os.listdir(os.path.join(self.directory, "data", "spool")), [])

    def test_every_failure_is_told_to_its_sender_whatever_is_killed(self):
        acknowledged = set()
        for number in range(ROUNDS - 1):
            acknowledged |= self.killed_after(random.randint(1, 400), by_itself=number % 2 == 0, what="bounce").keys()
        self.drain("drain-bounces")
        reports = {}
        for about, report, _ in delivered(self.directory):
            reports.setdefault(about, set()).add(report)
        self.assertEqual(acknowledged - reports.keys(), set(), "not told")
        self.assertEqual([about for about, made in reports.items() if len(made) > 1], [], "told twice")
        self.assertEqual(list_entries(os.path.join(self.directory, "data")), [])
        self.assertEqual(os.listdir(os.path.join(self.directory, "data", "spool")), [])

    def test_a_kill_during_the_recovery_loses_nothing(self):
        acknowledged = self.killed_after(800)
        for _ in range(4):
            program = Program(self.directory, "drain")
            self.assertEqual(program.line()[0], "started")
            program.process.send_signal(signal.SIGKILL)
            program.rest()
        self.drain()
        found = {id: digest for id, digest, _ in delivered(self.directory)}
        self.assertEqual({id: found.get(id) for id in acknowledged}, acknowledged)
