"""`twistd mailserver` as somebody types it for the first time: nothing of the current folder is believed, the sandbox is asked for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.scenarios.support import ScenarioCase, wait_until

BIN = Path(sys.executable).parent


class Sandbox(ScenarioCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="mail")
        self.addCleanup(folder.cleanup)
        self.here = Path(folder.name)

    def twistd(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name != "MAILSERVER_CONFIG"}
        with (self.here / "said").open("wb") as said:
            process = subprocess.Popen(
                [BIN / "twistd", "-n", "--pidfile=", "mailserver", *arguments],
                cwd=self.here,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def said(self) -> str:
        return (self.here / "said").read_text(errors="replace")

    def test_without_a_configuration_it_says_so_and_ends_with_78(self) -> None:
        (self.here / "sandbox").mkdir()
        (self.here / "sandbox" / "mailserver.toml").write_text("hostname = 5\n")
        (self.here / "mailserver.toml").write_text("hostname = 5\n")
        if os.path.exists("/etc/mailserver/mailserver.toml"):
            return  # this host has a server of its own: the unit test has the rest
        self.assertEqual(self.twistd().wait(60), 78)
        self.assertIn("/etc/mailserver/mailserver.toml:1: is not there; --config FILE", self.said())
        self.assertIn("--sandbox DIR", self.said())

    def test_faults_end_it_with_78(self) -> None:
        (self.here / "x.toml").write_text("hostname = 5\n")
        self.assertEqual(self.twistd("--config", "x.toml").wait(60), 78)
        self.assertIn(f"{self.here}/x.toml:1: hostname: must be text", self.said())

    def test_a_sandbox_comes_up_and_each_command_that_it_prints_works_in_any_folder(self) -> None:
        server = self.twistd("--sandbox", "play")
        wait_until(lambda: "Stop the server" in self.said(), self.said, 60)
        self.assertEqual((self.here / "play").stat().st_mode & 0o777, 0o700)
        lines = [line.strip() for line in self.said().splitlines()]
        (first, login) = [line for line in lines if line.startswith("python3 -c")]
        subprocess.run(first, shell=True, check=True, timeout=60, cwd="/")
        maildir = Path(next(line for line in lines if line.endswith("alice/new")))
        wait_until(lambda: len(list(maildir.glob("*"))) == 1, self.said)
        subprocess.run(login, shell=True, check=True, timeout=60, cwd="/")
        commands = [line for line in lines if "/mailserver " in line]
        self.assertEqual(len(commands), 3)
        id = re.search(rb"id ([0-9A-Z]{16})", next(maildir.glob("*")).read_bytes())
        assert id is not None
        for command in commands:
            typed = command.replace(" ID ", f" {id[1].decode()} ").replace("user add", "user add --no-password")
            said = subprocess.run(typed, shell=True, check=False, timeout=60, cwd="/", capture_output=True)
            self.assertEqual(said.returncode, 0, (typed, said.stderr))
        self.assertIn("bob@example.test", (self.here / "play" / "accounts.toml").read_text())
        server.terminate()
        self.assertEqual(server.wait(60), -signal.SIGTERM)  # twistd's way to say that it was told to end
