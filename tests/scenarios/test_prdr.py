"""PRDR (draft-hall-prdr) with Exim, in both roles."""

from __future__ import annotations

import json

from tests.scenarios.exim import Exim
from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until
from tests.scenarios.verdicts_plugin import FILTER, PLUGIN

RELAY = '\n[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = PORT\nnetworks = ["127.0.0.0/8"]\n[queue]\nretry = ["1h"]\n'


class WithExim(ScenarioCase):
    def exim(self, to: int = 0, *, chunking: bool = False) -> Exim:
        exim = Exim(to, chunking=chunking)
        self.addCleanup(exim.close)
        return exim

    def test_exim_hears_for_each_recipient_what_became_of_his_copy(self) -> None:
        for chunking in (False, True):
            server = self.prepare(BASIC + FILTER, accounts=("yes@example.org", "no@example.org", "later@example.org"))
            server.install_plugin("byname_plugin", PLUGIN)
            server.start()
            exim = self.exim(server.port, chunking=chunking)
            exim.send(b"Subject: one\n\nhello\n", "yes@example.org", "no@example.org", "later@example.org")
            server.wait_for_mail("yes")
            log = exim.log()
            self.assertRegex(log, r"=> yes@example.org .* PRDR( K)? C=")
            self.assertRegex(log, r"\*\* no@example.org .*PRDR error after .+: 550 5.7.1 Refused by policy")
            self.assertRegex(log, r"== later@example.org .*450 4.7.1 Not now")
            wait_until(lambda server=server: self.waiting(server) == [], server.log)
            self.assertEqual(server.messages("no") + server.messages("later"), [])
            server.stop()

    def test_the_relay_hears_for_each_recipient_what_became_of_his_copy(self) -> None:
        for chunking in (False, True):
            exim = self.exim(chunking=chunking)
            exim.start()
            server = self.serve(BASIC + RELAY.replace("PORT", str(exim.port)))
            wait_until(lambda exim=exim: "daemon started" in exim.log(), exim.log)
            with Wire(server.port) as wire:
                wire.dialogue("EHLO client.example", "MAIL FROM:<alice@example.org>")
                wire.dialogue(*[f"RCPT TO:<{name}@far.example>" for name in ("yes", "no", "later")], "DATA")
                wire.send(b"Subject: one\r\n\r\nhello\r\n.\r\n")
                self.assertEqual(wire.reply().code, 250)
            wait_until(lambda exim=exim: exim.kept(), exim.log)
            self.assertEqual(exim.kept(), ["yes@far.example"])
            (report,) = server.wait_for_mail("alice")
            self.assertIn(b"no@far.example", report.body)
            self.assertNotIn(b"later@far.example", report.body)
            (left,) = wait_until(lambda server=server: len(found := self.waiting(server)) == 1 and found, server.log)
            self.assertEqual([(one["recipient"], one["state"]) for one in left["destinations"] if one["state"] == "deferred"],
                             [("later@far.example", "deferred")])  # fmt: skip
            server.stop()

    def waiting(self, server: Server) -> list[dict]:  # type: ignore[type-arg]
        found: list[dict] = json.loads(server.command("queue", "list", "--json").stdout)  # type: ignore[type-arg]
        return found
