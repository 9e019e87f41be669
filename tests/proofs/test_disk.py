"""The disk of the proofs: it keeps what was synced, and only that is sure."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proofs.disk import Disk, Style
from tests.proofs.trace import Event, Said, encode, events, record
from tests.requires import require_tool
from tests.scenarios.support import ROOT

STYLES = [Style(names, content) for names in ("none", "all", "journal", "loose") for content in ("none", "all", "first", "pieces")]
OPENING = """
import os, socket
ours, theirs = socket.socketpair()
def put(name, data, *, sync=False, flags=os.O_WRONLY | os.O_CREAT):
    file = os.open(at(name), flags)
    os.write(file, data)
    if sync:
        os.fsync(file)
    os.close(file)
def sync(name):
    file = os.open(at(name), os.O_RDONLY)
    os.fsync(file)
    os.close(file)
"""


class DiskCase(SynchronousTestCase):
    def setUp(self) -> None:
        require_tool("strace")
        self.top = Path(tempfile.mkdtemp(prefix="disk")).resolve()
        self.addCleanup(shutil.rmtree, self.top)
        self.root = self.top / "root"
        self.root.mkdir()

    def run_it(self, program: str, *inject: str) -> list[Event]:
        """Record a program that runs in the root; the model and the folder have to agree at its end."""
        before = Disk(self.root)
        text = OPENING + f"at = lambda name: os.path.join({str(self.root)!r}, name)\n" + textwrap.dedent(program)
        status = record([sys.executable, "-S", "-c", text], self.top / "trace", cwd=ROOT, inject=inject)
        self.assertEqual(status, 0)
        found = list(events(self.top / "trace", self.root))
        self.disk = before
        return found

    def states(self, found: list[Event], rounds: int = 12) -> list[dict[str, bytes]]:
        """What may stand on the disk after these events, in every style, several times."""
        for event in found:
            self.disk.apply(event)
        chance = random.Random(1)
        states = []
        for number, style in enumerate(STYLES * rounds):
            to = self.top / f"state-{number}"
            self.disk.write_down(to, style, chance)
            states.append({str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()})
            shutil.rmtree(to)
        return states


class WhatIsSure(DiskCase):
    def test_what_was_synced_with_its_name_is_there_in_every_state(self) -> None:
        found = self.run_it("put('a', b'whole' * 3000, sync=True); sync('.'); put('b', b'gone?' * 3000)")
        states = self.states(found)
        self.assertEqual({state["a"] for state in states}, {b"whole" * 3000})
        others = {state.get("b") for state in states}
        self.assertIn(None, others)
        self.assertIn(b"gone?" * 3000, others)
        self.assertIn(b"", others)
        self.assertGreater(len(others), 5, "torn in many ways")

    def test_a_name_whose_folder_was_not_synced_may_be_gone(self) -> None:
        states = self.states(self.run_it("put('a', b'whole', sync=True)"))
        self.assertEqual({state.get("a") for state in states}, {None, b"whole"})

    def test_a_rename_is_whole_or_has_not_been(self) -> None:
        found = self.run_it("put('.a', b'whole', sync=True); sync('.'); os.rename(at('.a'), at('a'))")
        self.assertEqual({tuple(state.items()) for state in self.states(found)}, {((".a", b"whole"),), (("a", b"whole"),)})

    def test_a_file_in_a_folder_that_may_be_gone_may_be_gone(self) -> None:
        states = self.states(self.run_it("os.mkdir(at('d')); put('d/a', b'whole', sync=True); sync('d')"))
        self.assertEqual({state.get("d/a") for state in states}, {None, b"whole"})

    def test_syncing_the_file_system_covers_all(self) -> None:
        found = self.run_it("os.mkdir(at('d')); put('d/a', b'whole'); os.sync(); put('d/a', b'other')")
        for state in self.states(found):
            self.assertIn(state["d/a"], (b"whole", b"other"))

    def test_a_removal_that_was_not_synced_may_not_have_been(self) -> None:
        (self.root / "a").write_bytes(b"old")
        self.assertEqual({state.get("a") for state in self.states(self.run_it("os.unlink(at('a'))"))}, {None, b"old"})

    def test_what_a_failed_sync_did_not_write_a_later_one_does_not_either(self) -> None:
        program = """
            file = os.open(at('a'), os.O_WRONLY | os.O_CREAT)
            os.write(file, b'one')
            try:
                os.fsync(file)
            except OSError:
                pass
            os.fsync(file)
            os.write(file, b'two')
            os.fsync(file)
            sync('.')
        """
        states = self.states(self.run_it(program, "fsync:error=EIO:when=1"))
        self.assertEqual({state["a"] for state in states}, {b"onetwo", b"\0\0\0two"})

    def test_what_was_written_and_synced_over_a_failed_sync_is_there(self) -> None:
        program = """
            file = os.open(at('a'), os.O_WRONLY | os.O_CREAT)
            os.write(file, b'0123456789')
            try:
                os.fsync(file)
            except OSError:
                pass
            os.pwrite(file, b'new', 3)
            os.fsync(file)
            sync('.')
        """
        states = self.states(self.run_it(program, "fsync:error=EIO:when=1"))
        self.assertEqual({state["a"][3:6] for state in states}, {b"new"})
        self.assertIn(b"012new6789", {state["a"] for state in states})
        self.assertEqual(self.disk.differences(), [])

    def test_offsets_follow_the_descriptor(self) -> None:
        program = """
            file = os.open(at('a'), os.O_RDWR | os.O_CREAT)
            os.write(file, b'0123456789')
            os.lseek(file, 3, os.SEEK_SET)
            os.write(file, b'abc')
            os.pwrite(file, b'X', 0)
            os.ftruncate(file, 8)
            put('a', b'+', flags=os.O_WRONLY | os.O_APPEND)
            os.fsync(file)
            sync('.')
        """
        self.assertEqual({state["a"] for state in self.states(self.run_it(program))}, {b"X12abc67+"})
        self.assertEqual(self.disk.differences(), [])

    def test_positive_replies_and_ends_of_processes_have_their_place(self) -> None:
        program = """
            put('a', b'x', sync=True)
            ours.send(b'250-no, a line\\r\\n250 2.0.0 taken as 42\\r\\n451 not this one\\r\\n')
            put('b', b'x', sync=True)
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        """
        found = self.run_it(program)
        said = [event for event in found if isinstance(event, Said)]
        self.assertEqual([one.text for one in said], [b"250-no, a line\r\n", b"250 2.0.0 taken as 42\r\n", b"exit 0", b"exit 0"])
        self.assertLess(found.index(said[0]), len(found) - 4)

    def test_a_kind_of_writing_that_is_not_understood_is_no_silence(self) -> None:
        programs = [
            "put('a', b'x'); os.copy_file_range(os.open(at('a'), 0), os.open(at('c'), 66), 1)",
            "os.chdir(at('.'))",
            "os.symlink('a', at('b'))",
        ]
        for program in programs:
            with self.assertRaises(ValueError):
                self.run_it(program)


class Differences(DiskCase):
    def test_a_call_whose_process_was_killed_in_it_may_have_done_its_work(self) -> None:
        found = self.run_it("put('a', b'x'); put('b', b'x')")
        lines = (self.top / "trace").read_bytes().splitlines(keepends=True)
        name = encode(os.fsencode(self.root / "b"))
        [at] = [n for n, line in enumerate(lines) if b" write(" in line and name in line]
        for broken in (lines[at].rpartition(b") = ")[0] + b") = ?\n", lines[at].rpartition(b") = ")[0].rstrip() + b" <unfinished ...>\n"):
            (self.top / "trace").write_bytes(b"".join([*lines[:at], broken, *lines[at + 1 :]]))
            self.disk = Disk(self.top / "nothing")
            self.disk.root = os.fsencode(self.root)
            for event in events(self.top / "trace", self.root):
                self.disk.apply(event)
            self.assertEqual(self.disk.differences(), [])
            self.disk.unsure.clear()
            self.assertEqual(len(self.disk.differences()), 1)
        self.assertTrue(found)

    def test_a_folder_that_is_not_what_the_record_says_is_found_out(self) -> None:
        found = self.run_it("put('a', b'x')")
        for event in found:
            self.disk.apply(event)
        self.assertEqual(self.disk.differences(), [])
        (self.root / "a").write_bytes(b"y" * 2)
        os.mkdir(self.root / "d")
        (self.root / "d" / "other").touch()
        self.assertEqual(len(self.disk.differences()), 2)
