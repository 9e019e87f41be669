"""Yes, no, later, aside and gone for the recipients of one message, by every way in, and the server killed at each step."""

from __future__ import annotations

import contextlib
import json
import os
import random
import smtplib
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from tests.rounds import rounds
from tests.scenarios.support import BASIC, Server, Wire, run_nursed, wait_until
from tests.scenarios.test_login import PASSWORD, LoginCase
from tests.scenarios.verdicts_plugin import FILTER, PLUGIN
from tests.upgrades.smarthost import Smarthost

NAMES = ("yes", "no", "later", "aside", "gone")
FIVE = [f"{name}@example.org" for name in NAMES]
STRANGER, USER = "forged@elsewhere.example", "yes@example.org"
CONFIG = (
    BASIC
    + """
[[listen]]
service = "lmtp"
endpoint = "tcp:{lmtpport}:interface=127.0.0.1"
tls = "none"

[[listen]]
service = "submission"
endpoint = "tcp:{tlsport}:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"

[relay]
use = "smarthost"
host = "127.0.0.1"
port = SINK

[queue]
retry = ["1s"]
"""
    + FILTER
)
KILLS = rounds(3)


class Verdicts(LoginCase):
    def begun(self) -> tuple[Server, Smarthost]:
        sink = Smarthost(kind=True)
        self.addCleanup(sink.close)
        server = self.prepare(CONFIG.replace("SINK", str(sink.port)), accounts=tuple(FIVE))
        self.certify(server)
        (server.work / "data").mkdir()
        server.install_plugin("byname_plugin", PLUGIN)
        self.set_password(server, USER)
        server.start()
        return server, sink

    # --- the ways in ---

    def by_smtp(self, server: Server, subject: str = "smtp") -> list[int]:
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", f"MAIL FROM:<{STRANGER}>", *[f"RCPT TO:<{to}>" for to in FIVE], "DATA")
            wire.send(f"Subject: {subject}\r\n\r\nx\r\n.\r\n".encode())
            return [wire.reply().code]

    def by_lmtp(self, server: Server) -> list[int]:
        with Wire(server.ports["lmtpport"]) as wire:
            wire.dialogue("LHLO client.example", f"MAIL FROM:<{STRANGER}>", *[f"RCPT TO:<{to}>" for to in FIVE], "DATA")
            wire.send(b"Subject: lmtp\r\n\r\nx\r\n.\r\n")
            return [wire.reply().code for _ in FIVE]

    def by_submission(self, server: Server) -> list[int]:
        with smtplib.SMTP_SSL("127.0.0.1", server.ports["tlsport"], context=self.context(), timeout=20) as client:
            client.login(USER, PASSWORD)
            self.assertEqual(client.sendmail(USER, FIVE, f"From: {USER}\r\nSubject: submission\r\n\r\nx\r\n"), {})
        return [250]

    def by_pickup(self, server: Server) -> list[int]:
        program = str(Path(sys.executable).parent / "mailserver")
        command = [program, "sendmail", "-C", str(server.config_path), "-i", "-f", USER, *FIVE]
        said = run_nursed(command, cwd=os.getcwd(), env=server._environment(), timeout=30, input=b"Subject: pickup\n\nx\n")
        self.assertEqual(said.returncode, 0, said.stderr)
        return [250]

    # --- what became of it ---

    def subjects(self, server: Server, name: str, folder: str = "") -> Counter[str]:
        return Counter(one.header("Subject") or "" for one in server.messages(name, folder))

    def waiting(self, server: Server) -> Counter[tuple[str, str]]:
        """(recipient, state) of all that is still in the queue."""
        entries: list[dict[str, Any]] = json.loads(server.command("queue", "list", "--json").stdout or "[]")
        found = [(one["recipient"].partition("@")[0], one["state"]) for entry in entries for one in entry["destinations"]]
        return Counter([(name, state) for name, state in found if state in ("held", "undecided")])

    def test_each_has_his_own_by_every_way_in_over_kills_and_a_forged_sender_gets_nothing(self) -> None:
        server, sink = self.begun()
        for way, codes in (
            (self.by_smtp, [250]),
            (self.by_submission, [250]),
            (self.by_lmtp, [250, 550, 450, 250, 250]),
            (self.by_pickup, [250]),
        ):
            self.assertEqual(way(server), codes)
            if way == self.by_pickup:
                wait_until(lambda: "pickup" in self.subjects(server, "yes"), server.log)
            server.kill()
            server.restart()
        ways = {"smtp": 1, "submission": 1, "lmtp": 1, "pickup": 1}
        reports = {"Your message was not delivered": 2}  # to the user, by submission and pickup
        wait_until(lambda: self.subjects(server, "yes") == Counter(ways | reports), lambda: str(self.subjects(server, "yes")))
        wait_until(lambda: self.subjects(server, "aside", ".Junk") == Counter(ways), lambda: str(self.subjects(server, "aside", ".Junk")))
        wait_until(
            lambda: self.waiting(server) == Counter({("no", "held"): 1, ("later", "undecided"): 3}),
            lambda: str(self.waiting(server)),
        )
        (server.work / "data" / "changed").write_text("yes")
        later = Counter(["smtp", "submission", "pickup"])
        wait_until(lambda: self.subjects(server, "later") == later, lambda: str(self.subjects(server, "later")))
        wait_until(lambda: self.waiting(server) == Counter({("no", "held"): 1}), lambda: str(self.waiting(server)))
        self.assertEqual(self.subjects(server, "no") + self.subjects(server, "gone") + self.subjects(server, "aside"), Counter())
        for report in server.messages("yes"):
            if (report.header("Subject") or "").startswith("Your"):
                self.assertIn(b"no@example.org", report.body)
                self.assertNotIn(b"later@example.org", report.body)
        self.by_smtp(server)
        wait_until(lambda: " discarded " in server.log(), server.log)
        self.assertEqual(sink.taken, [])

    def test_what_was_acknowledged_has_all_its_verdicts_wherever_the_kill_falls(self) -> None:
        server, sink = self.begun()
        acknowledged: set[str] = set()
        for number in range(KILLS):
            subject = f"kill-{number}"
            kill = threading.Timer(random.random() * 0.2, server.kill)
            kill.start()
            with contextlib.suppress(OSError, EOFError, AssertionError, IndexError, ValueError):
                if self.by_smtp(server, subject) == [250]:
                    acknowledged.add(subject)
            kill.join()
            server.restart()
        (server.work / "data" / "changed").write_text("no")
        held = Counter[str]()

        def is_settled() -> bool:
            held.clear()
            held.update({name: count for (name, state), count in self.waiting(server).items() if state == "held"})
            undecided = sum(self.waiting(server).values()) - sum(held.values())
            return undecided == 0 and held["no"] == held["later"] == len(self.subjects(server, "yes"))

        wait_until(is_settled, lambda: f"{held} {self.subjects(server, 'yes')}", 60)
        found = self.subjects(server, "yes")
        self.assertEqual(found, self.subjects(server, "aside", ".Junk"))
        self.assertEqual(self.subjects(server, "aside"), Counter())
        self.assertLessEqual(acknowledged, found.keys())
        self.assertEqual(set(found.values()) - {1}, set())
        self.assertEqual(sink.taken, [])
