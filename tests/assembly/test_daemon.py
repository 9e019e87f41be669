"""Who waits for a daemon, and what it hears: small programs that become one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import FailTest, SynchronousTestCase

START = """
import os, signal, subprocess, sys, time
from pathlib import Path
from mailserver.assembly.daemon import detached
from mailserver.processes.streams import fill_streams
fill_streams()
before = set(os.listdir("/proc/self/fd"))
said = Path(sys.argv[1])
daemon = detached()
"""
SECONDS = 20.0


class Waiting(SynchronousTestCase):
    def ended(self, program: str) -> subprocess.CompletedProcess[str]:
        """What became of the command that was typed."""
        self.said = Path(self.mktemp()).absolute()
        command = [sys.executable, "-bb", "-W", "error", "-c", START + program, str(self.said)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)

    def word(self) -> str:
        """What the daemon has written since."""
        end = time.monotonic() + SECONDS
        while not self.said.exists():
            if time.monotonic() > end:
                raise FailTest("the daemon says nothing")
            time.sleep(0.005)
        return self.said.read_text()

    def test_the_command_ends_with_0_when_the_daemon_has_started_and_that_goes_on(self) -> None:
        ended = self.ended(
            "print('coming'); sys.stdout.flush(); daemon.has_started(); daemon.has_started()\n"
            "print('unheard'); print('unheard', file=sys.stderr); sys.stdout.flush(); time.sleep(0.2)\n"
            "draft = said.with_suffix('.new'); draft.write_text(f'{os.getsid(0)} {os.getpid()} {os.getppid()}'); draft.rename(said)"
        )
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "coming\n", ""))
        session, daemon, _ = map(int, self.word().split())
        self.assertNotIn(session, (daemon, os.getsid(0)), "it leads none, and has not ours")

    def test_it_ends_as_a_daemon_that_ends_before_it_has_started(self) -> None:
        for end, status in (("os._exit(78)", 78), ("os._exit(0)", 0), ("os._exit(1)", 1), ("os.kill(os.getpid(), 9)", 137), ("raise SystemExit(3)", 3)):
            self.assertEqual(self.ended(end).returncode, status, end)
        ended = self.ended("raise OSError('nothing works')")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("OSError: nothing works", ended.stderr)

    def test_words_of_its_start_are_heard_and_those_of_its_children_are_not(self) -> None:
        ended = self.ended("print('a'); print('b', file=sys.stderr); subprocess.run(['sh', '-c', 'echo child; echo child >&2; cat'], check=True); os._exit(5) if sys.stdout.flush() else sys.exit(5)")
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (5, "a\n", "b\n"))

    def test_no_descriptor_of_who_has_typed_the_command_stays(self) -> None:
        self.ended(
            "daemon.has_started()\n"
            "left = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')}\n"
            "null = {n for n, path in left.items() if path == '/dev/null'}\n"
            "children = subprocess.run(['ls', '/proc/self/fd'], stdout=subprocess.PIPE, text=True, close_fds=False).stdout.split()\n"
            "text = f'{len(null)} {sorted(left.keys() - null - before)} {len(children)}'\n"
            "draft = said.with_suffix('.new'); draft.write_text(text); draft.rename(said)"
        )
        self.assertEqual(self.word(), "5 [] 4", "its three, and two that it wrote to; a child has three, and the folder that it lists")

    def test_what_was_closed_before_is_there_for_its_children(self) -> None:
        self.said = Path(self.mktemp()).absolute()
        program = (
            "print('coming'); sys.stdout.flush()\n"
            "ended = subprocess.run(['cat'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
            "daemon.has_started()\n"
            "draft = said.with_suffix('.new'); draft.write_text(f'{ended.returncode} {os.readlink(\"/proc/self/fd/0\")}'); draft.rename(said)"
        )
        command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-bb", "-W", "error", "-c", START + program, str(self.said)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "coming\n", ""))
        self.assertEqual(self.word(), "0 /dev/null")

    def test_a_daemon_for_whom_nobody_waits_any_more_goes_on(self) -> None:
        program = (
            "os.kill(int(Path('/proc/self/stat').read_text().rpartition(')')[2].split()[1]), 9)\n"
            "end = time.monotonic() + 10\n"
            "while os.getppid() != 1 and time.monotonic() < end and Path(f'/proc/{os.getppid()}/cmdline').read_bytes() == Path('/proc/self/cmdline').read_bytes(): time.sleep(0.005)\n"
            "daemon.has_started()\n"
            "draft = said.with_suffix('.new'); draft.write_text('goes on'); draft.rename(said)"
        )
        self.assertEqual(self.ended(program).returncode, 137)
        self.assertEqual(self.word(), "goes on")
