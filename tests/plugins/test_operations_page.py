"""docs/plugins/operations.md: its example serves in a real server as the page says."""

from __future__ import annotations

import json
from typing import Any

from mailserver.control.client import ask
from tests.documents import blocks, page_text
from tests.scenarios.support import BASIC, ScenarioCase, Wire, wait_until

PAGE = page_text("plugins/operations.md")


class Example(ScenarioCase):
    def test_it_serves_as_the_page_says(self) -> None:
        server = self.prepare(BASIC + blocks(PAGE, "toml")[0])
        server.install_plugin("slowlist_plugin", blocks(PAGE, "python")[0])
        server.start()

        def said(*words: str, code: int = 0) -> str:
            done = server.command("slowlist", *words)
            self.assertEqual(done.returncode, code, done)
            return done.stdout + done.stderr

        self.assertEqual(said("add", "ads@example.net"), "")
        self.assertEqual(said("list"), "SENDER           MINUTES\nads@example.net  2880\n")
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            self.assertEqual(wire.command("MAIL FROM:<ads@example.net>").code, 450)
            self.assertEqual(wire.command("MAIL FROM:<bob@example.net>").code, 250)

        def metrics() -> Any:
            components = ask(str(server.work / "data" / "control.sock"), "components")["components"]
            return next(one["metrics"] for one in components if one["name"] == "slowlist")

        wait_until(lambda: metrics().get("entries") == 1, server.log)
        self.assertEqual(metrics(), {"entries": 1, 'senders{listed="no"}': 1, 'senders{listed="yes"}': 1})
        self.assertEqual(said("remove", "ads@example.net"), "")
        self.assertEqual(said("remove", "ads@example.net", code=1), "mailserver: ads@example.net is not on the list\n")
        said("add", "x@example.net", "--hours", "1")
        self.assertEqual(json.loads(said("list", "--json")), [{"sender": "x@example.net", "minutes": 60}])
        self.assertIn("hours: invalid int value: 'many'", said("add", "x@example.net", "--hours", "many", code=2))
        self.assertIn("put a sender on the list", said("--help"))
        self.assertIn("the address in MAIL FROM", said("add", "--help"))
        self.assertIn("invalid choice: 'forget'", said("forget", code=2))
        server.stop()
        self.assertIn("a component can have it, while the server runs: no server runs on", said("list", code=69))
