"""``mailserver quarantine``: what filters hold, with a server that runs and after it has stopped."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until

PLUGIN = '''
from zope.interface import implementer

from mailserver.api import Finding, IComponentFactory, IRecipientContentFilter, Options, Pass, Quarantine, Refuse


@implementer(IRecipientContentFilter)
class Wants:
    """Holds, or refuses, what the field named like it says."""

    def __init__(self, name):
        self.name = name

    async def judge_content_for(self, envelope, content, recipient):
        said = content.headers.get("X-" + self.name) or ""
        if recipient.address.local not in said:
            return Pass()
        found = (Finding("seen", 3.5, f"{self.name} has seen it"),)
        if "refuse" in said:
            return Refuse(f"{self.name} says no", findings=found)
        return Quarantine(f"{self.name} says wait", hold=True, findings=found)


@implementer(IComponentFactory)
class WantsFactory:
    name = "wants"
    summary = "Holds."
    api_version = "1.0"
    provides = IRecipientContentFilter
    options = Options

    def build(self, options, services):
        return Wants(services.name)


wants = WantsFactory()
'''
CONFIG = BASIC + """
[relay]
use = "capture"
networks = ["127.0.0.0/8"]

[[filter]]
use = "wants"
name = "new"

[[filter]]
use = "wants"
name = "virus"
after = ["new"]
"""


class Quarantine(ScenarioCase):
    def server(self) -> Server:
        server = self.prepare(CONFIG)
        server.install_plugin("wants_plugin", PLUGIN)
        server.start()
        return server

    def post(self, server: Server, fields: str, *recipients: str) -> str:
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<s@example.net>")
            for to in recipients:
                wire.command(f"RCPT TO:<{to}>")
            wire.command("DATA")
            return wire.command(f"{fields}From: Sam <s@example.net>\r\nSubject: hello\r\n\r\nx\r\n.".encode()).id

    def held(self, server: Server, *words: str) -> list[dict[str, Any]]:
        said = server.command("quarantine", "list", "--json", *words)
        self.assertEqual((said.returncode, said.stderr), (0, ""), said)
        found: list[dict[str, Any]] = json.loads(said.stdout)
        return found

    def until_held(self, server: Server, count: int, *words: str) -> None:
        wait_until(lambda: len(self.held(server, *words)) == count, lambda: f"{self.held(server)}\n{server.log()}")

    def test_what_is_held_is_found_by_user_and_released_past_what_held_it_alone(self) -> None:
        server = self.server()
        both = self.post(server, "X-new: alice bob\r\n", "alice@example.org", "bob@example.org")
        virus = self.post(server, "X-new: alice\r\nX-virus: alice refuse\r\n", "alice@example.org", "bob@example.org")
        server.wait_for_mail("bob")
        self.assertEqual({one["message"] for one in self.held(server, "--user", "alice@example.org")}, {both, virus})
        self.assertEqual([one["held_by"] for one in self.held(server, "--user", "bob@example.org")], [["new"]])
        self.assertEqual([one["message"] for one in self.held(server, "--held-by", "virus")], [virus])
        self.assertEqual(self.held(server, "--sender", "*@elsewhere.example") + self.held(server, "--older", "1h"), [])
        shown = server.command("quarantine", "show", both).stdout
        for words in ("Sam <s@example.net>", "hello", "new says wait", "new/seen", "3.5", "new has seen it", "127.0.0.1"):
            self.assertIn(words, shown)
        self.assertIn(both, server.command("quarantine", "list").stdout)
        said = server.command("quarantine", "release", "--user", "alice@example.org", "--held-by", "new", "--dry-run")
        self.assertIn("would be released", said.stdout)
        (copy,) = [one["id"] for one in self.held(server, "--user", "alice@example.org") if one["message"] == both]
        said = server.command("quarantine", "release", copy)
        self.assertEqual((said.returncode, said.stderr), (0, ""), said)
        server.wait_for_mail("alice")
        road = json.loads(server.command("explain", both, "--json").stdout)
        (released,) = [step for step in road if step["step"] == "released"]
        self.assertEqual(released["recipients"], ["alice@example.org"])
        self.assertTrue(released["by"])
        self.assertEqual(len(self.held(server, "--user", "bob@example.org")), 1)
        self.assertEqual(server.command("quarantine", "release", copy).returncode, 1)

    def test_it_works_while_no_server_runs_and_for_another_host(self) -> None:
        server = self.server()
        far = self.post(server, "X-new: carol dora\r\n", "carol@elsewhere.example", "dora@elsewhere.example")
        near = self.post(server, "X-new: alice\r\n", "alice@example.org", "bob@example.org")
        server.wait_for_mail("bob")
        self.until_held(server, 3)
        server.stop()
        self.assertEqual(len(self.held(server)), 3)
        self.assertEqual(server.command("quarantine", "junk", "--all").returncode, 1)  # two are for another host
        self.assertEqual(server.command("quarantine", "drop", "--user", "carol@elsewhere.example", "--yes").returncode, 0)
        self.assertEqual(server.command("quarantine", "release", far).returncode, 0)
        self.assertEqual([one["message"] for one in self.held(server)], [])
        server.restart()
        outbound = server.work / "data/outbound/new"
        wait_until(lambda: outbound.is_dir() and len(os.listdir(outbound)) == 1, server.log)
        server.wait_for_mail("alice", folder=".Junk")
        self.assertIn("dropped", server.command("explain", far).stdout)
        self.assertIn("junk", server.command("explain", near).stdout)

    def test_a_wrong_line_is_told_and_changes_nothing(self) -> None:
        server = self.server()
        id = self.post(server, "X-new: alice\r\n", "alice@example.org", "bob@example.org")
        for words, code in (
            (("release",), 2), (("release", "--all", id), 2), (("release", f"{id}/x"), 2), (("drop", id), 2),
            (("release", "IIII"), 2), (("release", "--older", "soon", "--all"), 2), (("show", "0" * 16), 1),
            (("release", "--held-by", "nobody"), 1),
        ):  # fmt: skip
            said = server.command("quarantine", *words)
            self.assertEqual(said.returncode, code, (words, said))
        self.until_held(server, 1)
