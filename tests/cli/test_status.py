"""``mailserver status``: the figures of the server's own answer."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.control.server import ControlServer
from tests.cli.support import CommandCase, run

FIGURES = {
    "hostname": "mail.example.org",
    "pid": 4711,
    "connections": 3,
    "listeners": [{"service": "mx", "endpoint": "tcp:25", "connections": 2}],
    "queue": {"depth": 7, "committed": 100},
    "dnssec": {"127.0.0.1": "believed: validates (. is authenticated)"},
    "steps_dropped": 0,
    "processes": {},
    "relay": {"hosts": {"slow": 1.5}},
}


class Status(CommandCase, TestCase):
    async def test_the_figures_are_told_and_a_missing_process_makes_the_answer_no(self) -> None:
        self.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")
        figures: dict[str, Any] = dict(FIGURES)

        async def status(_: dict[str, Any]) -> dict[str, Any]:
            return figures

        server = ControlServer(str(self.data / "control.sock"), {"status": status})
        server.start(reactor)
        self.addCleanup(server.stop)
        said = await deferToThread(run, "status", "--config", str(self.config))
        self.assertEqual((said.code, said.err), (0, ""))
        lines = [line.split() for line in said.out.splitlines()]
        self.assertEqual(said.out.splitlines()[0], "mail.example.org, process 4711, 3 connections")
        for row in (["mx", "tcp:25", "2"], ["127.0.0.1", *"believed: validates (. is authenticated)".split()], ["queue", "depth", "7"], ["committed", "100"], ["relay", "hosts.slow", "1.5"]):
            self.assertIn(row, lines)
        self.assertEqual((await deferToThread(run, "status", "--json", "--config", str(self.config))).json, FIGURES)
        figures["dkim"] = {"domains": 1, "records_missing": 0}
        self.assertNotIn("does not show", (await deferToThread(run, "status", "--config", str(self.config))).out)
        figures["dkim"] = {"domains": 1, "records_missing": 2}
        said = await deferToThread(run, "status", "--config", str(self.config))
        self.assertEqual(said.code, 0)
        self.assertIn("Mail is signed with keys that the DNS does not show", said.out)
        figures["domains"] = {"looked_at": 2, "faults": {"example.org": 3}}
        said = await deferToThread(run, "status", "--config", str(self.config))
        self.assertIn("The DNS needs attention: mailserver dns example.org --try says what mends it.", said.out)
        figures["processes"] = {"root": "", "courier": "it died \x1b twice"}
        said = await deferToThread(run, "status", "--config", str(self.config))
        self.assertEqual(said.code, 1)
        self.assertIn("The courier process is missing: it died ? twice", said.out)

    def test_without_a_server_there_are_none(self) -> None:
        said = self.command("status")
        self.assertEqual((said.code, said.out), (69, ""))
        self.assertIn("no server runs on", said.err)
