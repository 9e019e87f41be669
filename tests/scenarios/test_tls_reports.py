"""TLS reports from one server of ours to another: a session is counted, reported when its day is over, and the report is read."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from mailserver.control.client import ask
from tests.dns.unbound import Unbound
from tests.requires import require_tool
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until
from tests.trust.tls_reports import faults_by_tls_schema

ZONES = {
    "far.example": [
        "far.example. 300 IN MX 10 mx.far.example.",
        "mx.far.example. 300 IN A 127.0.0.1",
        '_smtp._tls.far.example. 300 IN TXT "v=TLSRPTv1; rua=mailto:tls-reports@far.example"',
    ],
    "example.org": [
        'example.org. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"',
        '_dmarc.example.org. 300 IN TXT "v=DMARC1; p=reject"',
    ],
}
FAR = BASIC.replace('[domain."example.org"]', '[domain."far.example"]').replace("mx.example.org", "mx.far.example")
READING = """
[[filter]]
use = "spf"
networks = []

[[filter]]
use = "dkim"

[[filter]]
use = "dmarc"
networks = []

[[filter]]
use = "tls_reports"
"""
SENDING = """
[[filter]]
use = "dkim_signing"

[[filter]]
use = "tls_reports"
sender = "tls-reports@example.org"
spread = "1s"
"""


class BetweenServers(ScenarioCase):
    def asked(self, server: Server, command: str, /, **arguments: Any) -> Any:
        question = {"name": "tls_reports", "command": command, "arguments": arguments}
        return ask(str(server.work / "data" / "control.sock"), "component.run", question)["answer"]

    def test_a_session_is_reported_when_its_day_is_over_and_the_report_is_read_and_in_no_report(self) -> None:
        names = Unbound(ZONES).start()
        self.addCleanup(names.stop)
        dns = f'[dns]\nservers = ["{names.address}"]\n'
        far = self.serve(FAR + dns + READING, accounts=("alice@far.example",))
        relay = f'[relay]\nuse = "mx"\nport = {far.port}\nnetworks = ["127.0.0.0/8"]\n'
        front = self.serve(BASIC + relay + dns + SENDING)
        self.assertEqual(front.command("dkim", "new", "example.org").returncode, 0)
        by_the_wall = front.twistd
        front.stop()
        asked = [require_tool("faketime"), "-f", "-25h", "printenv", "LD_PRELOAD"]
        library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        more = [f"LD_PRELOAD={library}", "FAKETIME=-25h", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        front.twistd = ["env", *more, *front.twistd]
        front.restart()
        answer = front.send(b"From: a@example.org\r\n\r\nHello", sender="a@example.org", to="alice@far.example")
        self.assertEqual(answer.code, 250)
        far.wait_for_mail("alice")
        [row] = wait_until(lambda: self.asked(front, "reports"), front.log)
        self.assertEqual((row["domain"], row["state"], row["sessions"]), ("far.example", "collecting", 1))
        front.stop()
        front.twistd = by_the_wall
        front.restart()
        shown = front.command("tlsrpt", "preview", "far.example", "--day", row["day"], "--json")
        preview = json.loads(shown.stdout)
        self.assertEqual((faults_by_tls_schema(preview["document"].encode()), preview["to"]), ([], {"mailto:tls-reports@far.example": "wanted"}))
        self.asked(front, "send")
        wait_until(lambda: self.asked(far, "list"), lambda: far.log() + json.dumps(self.asked(far, "unread")))
        said = far.command("tlsrpt", "show", "far.example").stdout
        self.assertRegex(said, r"(?m)^no-policy-found +far\.example +1 +1$")
        self.assertRegex(said, r"(?m)^starttls-not-supported +mx\.far\.example +1 +example\.org$")
        self.assertEqual([one["reporter"] for one in self.asked(far, "list")], ["example.org"])
        self.asked(front, "send")
        [row] = self.asked(front, "reports")
        self.assertEqual((row["state"], list(row["to"])), ("sent", ["mailto:tls-reports@far.example"]))
