"""What `mailserver check` and `mailserver dns` say of the daily looks at the DNS."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from twisted.internet.task import Clock

from mailserver.assembly.daily_look import SPACE
from mailserver.cli import dns as command
from mailserver.cli.last_look import clean_day_lines
from mailserver.cli.without_server import finished, in_place
from mailserver.queue.clock_watch import boot_seconds
from mailserver.state_store import StateStore, StoppedState
from tests.cli.support import CONFIGURATION, CommandCase

OPEN = CONFIGURATION.replace("tcp:0:interface=127.0.0.1", "tcp:0")


class LastLook(CommandCase):
    def kept(self, **values: Any) -> None:
        path = os.path.join(self.data, "state.db")
        if not os.path.exists(path):
            store = StateStore(path=path, clock=Clock(), new_threads=in_place)
            finished(store.start())
            finished(store.stop())
        with StoppedState.opened(path, steady=boot_seconds) as state:
            assert state is not None
            for key, value in values.items():
                finished(state.space(SPACE).put(key, json.dumps(value).encode(), 86_400.0))

    def said(self) -> list[str]:
        return [line for line in self.command("check").out.splitlines() if "look" in line]

    def test_check_tells_when_the_last_look_was_and_what_it_has_found(self) -> None:
        self.assertEqual(self.said(), [])  # nobody can connect from outside, so nobody looks
        self.configure(OPEN)
        self.assertEqual(self.said(), ["note: dns: nobody has looked yet at what the DNS shows for the domains: mailserver dns DOMAIN"])
        self.kept(last={"at": time.time() - 7300, "faults": {"example.org": 0}})
        self.assertRegex(self.said()[0], r"^note: dns: the last look at the DNS of the domains was 2h 1m ago, and found nothing to be done$")
        self.kept(last={"at": time.time() - 7300, "faults": {f"{name}.example": n for n, name in enumerate("abcde")}})
        self.assertRegex(self.said()[0], r"^warning: .* found 10 to be done: b.example \(1\), c.example \(2\), d.example \(3\) and 1 more domains \(mailserver dns b.example --try\)$")
        self.kept(last={"at": time.time() - 3 * 86_400, "faults": {"example.org": 0}})
        self.assertRegex(self.said()[0], r"^warning: .* 3d ago, and found nothing")
        self.kept(last={"at": time.time() + 9_999, "faults": {"example.org": 0}})
        self.assertIn("was before the clock was set", self.said()[0])
        for nonsense in ("nonsense", {"at": "x", "faults": {}}, {"at": 1.0, "faults": 3}, {"at": 1.0, "faults": {"a": "b"}}, [1]):
            self.kept(last=nonsense)
            self.assertRegex(self.said()[0], "nobody has looked yet|the last look")
        self.kept(last="nonsense")
        self.assertIn("nobody has looked yet", self.said()[0])
        (self.data / "state.db").write_bytes(b"no database" * 1000)
        self.assertIn("nobody has looked yet", self.said()[0])

    def test_dns_says_where_it_stands_with_stricter_policies(self) -> None:
        self.configure(OPEN + '[dns]\nservers = ["127.0.0.1:1"]\n')
        self.kept(last={"at": 1.0, "faults": {"example.org": 0}})
        with StoppedState.opened(os.path.join(self.data, "state.db"), steady=boot_seconds) as state:
            assert state is not None
            counts = {"DMARC": {"stage": "none", "days": 12}, "MTA-STS": {"stage": "testing", "days": 31, "waits": "no report"}}
            finished(state.space(SPACE).put("clean example.org", json.dumps(counts).encode(), 86_400.0))
        self.patch(command, "ANSWER_SECONDS", 0.1)
        said = self.command("dns", "example.org")
        self.assertTrue(said.out.endswith(
            "DMARC none: day 12 of 30 without a fault, then quarantine is proposed\n"
            "MTA-STS testing: 31 days without a fault: enforce can come; no report\n"), said.out)  # fmt: skip
        self.assertEqual(self.command("dns", "example.org", "--json").json["clean_days"]["DMARC"]["days"], 12)
        self.assertEqual(clean_day_lines({"DMARC": {"stage": "reject", "days": 40}, "other": 3}), [])
