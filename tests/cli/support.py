"""Run the command in this process: its exit code, what it says, what it complains about."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli import main

__all__ = ["CONFIGURATION", "CommandCase", "Said", "run"]

CONFIGURATION = """\
hostname = "mail.example.org"
data = "data"
[[listen]]
service = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
[accounts]
path = "accounts.toml"
[domain."example.org"]
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str, stdin: str = "") -> Said:
    """Run ``mailserver`` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as ended:  # argparse
                code = int(ended.code or 0)
    finally:
        sys.stdin = before
    return Said(code, out.getvalue(), err.getvalue())


class CommandCase(SynchronousTestCase):
    """A folder with a configuration; `self.command` adds ``--config``."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.config = self.folder / "mailserver.toml"
        self.accounts = self.folder / "accounts.toml"
        self.data = self.folder / "data"
        self.configure(CONFIGURATION)
        self.accounts.write_text("")
        os.mkdir(self.data, 0o700)

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def command(self, *arguments: str, stdin: str = "") -> Said:
        return run(*arguments, "--config", str(self.config), stdin=stdin)

    def lines(self, said: Said) -> Sequence[str]:
        self.assertEqual(said.err, "")
        return said.out.splitlines()
