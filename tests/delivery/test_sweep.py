"""The Maildir rules: what is older than 36 hours in tmp/ belongs to nobody."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
import time
import warnings
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.sweep import STALE_SECONDS, SweepProcess, sweep
from tests.delivery.messages import files_below


def popen_wait(process: SweepProcess) -> bytes:
    """Wait for the end of what was started."""
    assert process._process is not None and process._process.stdout is not None
    process._process.wait(30)
    process._process.stdout.close()
    return b""


class Sweep(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        self.now = time.time()

    def file(self, path: str, age_seconds: float) -> str:
        full = f"{self.root}/{path}"
        directory = os.path.dirname(full)
        for part in ("tmp", "new", "cur"):
            os.makedirs(os.path.join(os.path.dirname(directory), part), exist_ok=True)
        with open(full, "w"):
            pass
        os.utime(full, (self.now - age_seconds,) * 2)
        return full

    def test_a_draft_older_than_36_hours_is_removed_and_a_younger_one_stays(self) -> None:
        self.file("example.org/alice/tmp/old", STALE_SECONDS + 1)
        self.file("example.org/alice/tmp/young", STALE_SECONDS - 1)
        self.assertEqual(sweep(self.root, depth=2, now=self.now), 1)
        self.assertEqual(files_below(self.root), ["example.org/alice/tmp/young"])

    def test_messages_are_never_touched(self) -> None:
        self.file("example.org/alice/new/old", 10 * STALE_SECONDS)
        self.file("example.org/alice/cur/old:2,S", 10 * STALE_SECONDS)
        self.assertEqual(sweep(self.root, depth=2, now=self.now), 0)
        self.assertEqual(len(files_below(self.root)), 2)

    def test_folders_are_swept_too(self) -> None:
        self.file("example.org/alice/tmp/young", 1)
        self.file("example.org/alice/.lists.python/tmp/old", STALE_SECONDS + 1)
        self.assertEqual(sweep(self.root, depth=2, now=self.now), 1)

    def test_a_user_or_a_domain_named_tmp_is_no_draft(self) -> None:
        self.file("tmp/tmp/cur/old", STALE_SECONDS + 1)
        self.assertEqual(sweep(self.root, depth=2, now=self.now), 0)

    def test_only_maildirs_at_their_depth_are_swept(self) -> None:
        self.file("home/alice/backup/tmp/old", STALE_SECONDS + 1)
        self.assertEqual(sweep(self.root, depth=2, now=self.now), 0)
        self.assertEqual(sweep(f"{self.root}/home/alice/backup", depth=0, now=self.now), 1)

    def test_it_follows_no_links(self) -> None:
        self.file("outside/tmp/old", STALE_SECONDS + 1)
        os.mkdir(f"{self.root}/inside")
        os.symlink(f"{self.root}/outside", f"{self.root}/inside/alice")
        self.assertEqual(sweep(f"{self.root}/inside", depth=1, now=self.now), 0)

    def test_a_link_in_the_place_of_a_tmp_leads_nowhere(self) -> None:
        self.file("outside/tmp/old", STALE_SECONDS + 1)
        os.makedirs(f"{self.root}/inside/alice")
        os.makedirs(f"{self.root}/inside/bob/.folder")
        os.symlink(f"{self.root}/outside/tmp", f"{self.root}/inside/alice/tmp")
        os.symlink(f"{self.root}/outside/tmp", f"{self.root}/inside/bob/.folder/tmp")
        os.symlink(f"{self.root}/inside/alice", f"{self.root}/inside/bob/.alice")
        self.assertEqual(sweep(f"{self.root}/inside", depth=1, now=self.now), 0)

    def test_it_is_broken_off_when_the_server_stops_and_that_is_no_error(self) -> None:
        process = SweepProcess(self.root, 2)
        with mock.patch("subprocess.Popen.communicate", lambda *_, **__: (process.end(), popen_wait(process))):
            self.assertEqual(process.run(), 0)

    def test_one_that_hangs_is_given_up(self) -> None:
        def hang(*_: Any, **__: Any) -> Any:
            raise subprocess.TimeoutExpired("sweep", 1)

        process = SweepProcess(self.root, 2)
        with mock.patch("subprocess.Popen.communicate", hang), self.assertRaisesRegex(OSError, "hangs"):
            process.run()
        popen_wait(process)

    def test_a_root_that_is_not_there_has_nothing_to_sweep(self) -> None:
        self.assertEqual(sweep(self.root + "/none", depth=2, now=self.now), 0)

    def test_the_program_does_the_same(self) -> None:
        self.file("example.org/alice/tmp/old", STALE_SECONDS + 1)
        self.assertEqual(SweepProcess(self.root, 2).run(), 1)

    def test_it_sweeps_where_its_priority_may_not_be_changed(self) -> None:
        self.file("example.org/alice/tmp/old", STALE_SECONDS + 1)
        self.patch(sys, "argv", ["sweep", self.root, "2"])
        self.patch(os, "nice", mock.Mock(side_effect=PermissionError))
        with contextlib.redirect_stdout(io.StringIO()) as said, warnings.catch_warnings(action="ignore"):
            runpy.run_module("mailserver.delivery.sweep", run_name="__main__")
        self.assertEqual(said.getvalue(), "1")
