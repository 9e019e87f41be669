"""``mailserver selftest``: the probes arrive, have a timeline, and nothing is left of them, whatever becomes of them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until

BIN = Path(sys.executable).parent
CONFIGURATION = BASIC + """
[domain."example.org".aliases]
sales = ["alice@example.org"]

[[listen]]
service = "lmtp"
endpoint = "unix:{work}/lmtp.sock"

[[listen]]
service = "submission"
endpoint = "tcp:{subport}:interface=127.0.0.1"
tls = "starttls"

[[listen]]
service = "submission"
endpoint = "tcp:{tlsport}:interface=127.0.0.1"
tls = "implicit"

[relay]
use = "mx"

[log]
addresses = "none"
"""
ROADS = ["pickup", "relay", "lmtp", "submission", "submission"]


class Selftest(ScenarioCase):
    def run_selftest(self, server: Server, *more: str, code: int) -> Any:
        said = server.command("selftest", "--json", *more)
        self.assertEqual(said.returncode, code, said.stderr + said.stdout)
        return json.loads(said.stdout) if said.stdout else said.stderr

    def left(self, server: Server) -> list[Path]:
        """Files of mail that are anywhere."""
        return [path for folder in ("mail", "data/drop") for path in (server.work / folder).rglob("*") if path.is_file()]

    def test_probes_arrive_and_are_removed_and_one_that_cannot_arrive_is_taken_back(self) -> None:
        server = self.serve(CONFIGURATION)
        self.assertIn("mailserver user add --no-password selftest@example.org", self.run_selftest(server, code=1))
        self.assertIn("must not reach a person", self.run_selftest(server, "--to", "sales@example.org", code=1))
        self.assertEqual(server.command("user", "add", "--no-password", "selftest@example.org").returncode, 0)
        wait_until(lambda: server.command("route", "selftest@example.org").returncode == 0, server.log)
        server.send(b"Subject: of somebody\r\n\r\nhi\r\n", to="selftest@example.org")
        server.wait_for_mail("selftest")
        killed = server.work / "mail" / "selftest" / "new" / "1000000000.AAAAAAAAAAAAAAAA_1.host"  # before it took it back
        killed.write_text("Subject: selftest\nMailserver-Selftest: ab\n\n")
        found = self.run_selftest(server, code=0)
        self.assertEqual((found["address"], found["arrived"]), ("selftest@example.org", True))
        self.assertEqual([(one["road"], one["arrived"], one["removed"], one["fault"] + one["skipped"]) for one in found["roads"]],
            [(road, True, True, "") for road in ROADS])  # fmt: skip
        for one in found["roads"]:
            steps = [step["step"] for step in one["steps"]]
            self.assertLess(steps.index("accepted"), steps.index("delivered"))
            self.assertTrue(all(0 <= step["after_ms"] < 60_000 for step in one["steps"]))
        self.assertEqual([path.read_bytes().count(b"of somebody") for path in self.left(server)], [1])
        self.assertEqual(server.log().count(" login "), 2)
        with open(server.work / "data" / "selftest.lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertIn("another mailserver selftest runs", self.run_selftest(server, "--seconds", "1", code=75))
        shutil.rmtree(server.work / "mail" / "selftest")
        (server.work / "mail" / "selftest").write_text("no folder")
        found = self.run_selftest(server, "--seconds", "2", code=1)
        self.assertEqual([one["removed"] for one in found["roads"]], [True] * len(ROADS))
        for one in found["roads"]:
            self.assertIn("not there after 2 seconds; its last step: deferred", one["fault"])
        self.assertEqual(json.loads(server.command("queue", "list", "--json").stdout), [])
        self.assertEqual([path.read_text() for path in self.left(server)], ["no folder"])
        server.stop()
        self.assertIn("no server runs", self.run_selftest(server, code=69))

    def test_what_is_said_when_something_is_broken_is_shown_by_a_sandbox_that_goes_again(self) -> None:
        folder = self.mktemp()
        Path(folder).mkdir()
        done = subprocess.run([BIN / "mailserver", "selftest", "--break", "dns", "--json"],
            capture_output=True, text=True, timeout=120, env={**os.environ, "TMPDIR": os.path.abspath(folder)}, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual(os.listdir(folder), [])
        self.assertIn("deferred 451 4.4.3 ", said["queue"][0])
        self.assertIn("does not answer", "".join(said["log"]))
        self.assertIn("content: 250 ", said["at_smtp"][-1])
