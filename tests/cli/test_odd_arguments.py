"""Arguments that are no text: octets that are not UTF-8 reach a program as lone surrogates."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.cli import queue_orders
from mailserver.control.server import ControlServer
from mailserver.observe import RoadStore
from tests.cli.support import CommandCase, Said, run
from tests.cli.test_queue import entry

ODD = ("al\udcffce@example.org", "abcdef\udcff", "\ud800", "ABCDEF\ud7ff", "ABCDEF\U0010ffff")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("route",),
    ("explain",),
    ("queue", "show"),
    ("queue", "list", "--sender"),
    ("queue", "list", "--id"),
    ("queue", "retry"),
    ("queue", "drop", "--yes", "--domain"),
    ("queue", "redirect", "--all", "--to"),
    ("user", "add", "--no-password"),
    ("user", "remove"),
    ("lockouts", "list", "--account"),
)


class OddArguments(CommandCase, TestCase):
    async def ask(self, *arguments: str) -> Said:
        return await deferToThread(run, *arguments, "--config", str(self.config))

    def test_without_a_server_each_command_has_an_answer(self) -> None:
        roads = RoadStore(str(self.data / "explain.db"))
        roads.add('[["06ABCDEFGHJKMNPQ", 1.0, [[1.0, "accepted", {}]]]]', 1, 1.0)
        roads.close()
        for command in COMMANDS:
            for odd in ODD:
                said = self.command(*command, odd)
                self.assertLess(said.code, 3, (command, odd, said))

    async def test_with_one_each_command_has_an_answer(self) -> None:
        self.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")

        async def answer(arguments: dict[str, Any]) -> dict[str, Any]:
            odd = "\ud800"
            return {
                "entry": None, "steps": [], "entries": [entry("06ABCDEFGHJK0001", sender=odd)], "next": None, "more": 0,
                "done": [{"id": "06ABCDEFGHJK0001", "recipients": [odd]}], "left": [], "scanned": 1, "depth": 1,
                "address": odd, "from": "", "hops": [], "ends": [], "reply": odd, "accepted": True,
            }  # fmt: skip

        names = ("route", "explain", "queue.show", "queue.list", "queue.select", "queue.change")
        server = ControlServer(str(self.data / "control.sock"), dict.fromkeys(names, answer))
        server.start(reactor)
        self.addCleanup(server.stop)
        for command in COMMANDS:
            if command[0] in ("user", "lockouts"):
                continue
            for more in ((), ("--json",)):
                said = await self.ask(*command, ODD[0], *more)
                self.assertLess(said.code, 3, (command, said))

    def test_who_asks_is_text_that_a_store_takes(self) -> None:
        self.patch(os, "environ", {**os.environ, "LOGNAME": "al\udcffce"})
        self.assertEqual(queue_orders.who(), "al\\udcffce")

    def test_a_terminal_of_another_character_set_gets_what_it_can_show(self) -> None:
        for arguments in (["route", b"al\xffce@example.org"], ["route", "alice@example.org"], ["queue", "list", "--json"]):
            ended = subprocess.run(
                [sys.executable, "-m", "mailserver.cli", *arguments, "--config", self.config],
                env={**os.environ, "PYTHONIOENCODING": "ascii"},
                capture_output=True,
                timeout=60,
            )
            self.assertIn(ended.returncode, (0, 1))
            self.assertNotIn(b"Traceback", ended.stderr)


class Rights(CommandCase):
    def test_a_network_may_relay_where_all_of_it_may(self) -> None:
        config = self.config.read_text()
        self.configure(f'{config}[relay]\nuse = "mx"\nnetworks = ["192.0.2.0/26", "192.0.2.192/26"]\n')
        ends = self.command("route", "bob@example.net", "--from", "192.0.2.0/24")
        self.assertEqual(ends.code, 1)
        self.assertIn("some addresses of that network may send there, others may not", ends.out)
        self.assertEqual(self.command("route", "bob@example.net", "--from", "192.0.2.0/27").code, 0)
        other = self.command("route", "bob@example.net", "--from", "198.51.100.0/24")
        self.assertEqual(other.code, 1)
        self.assertNotIn("some addresses", other.out)
