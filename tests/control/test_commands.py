"""The commands of the control socket by name: who answers, and from when on."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.control.commands import all_commands
from mailserver.control.parts import ListenerFigures
from mailserver.control.server import CommandRefused, NotStarted
from mailserver.control.status import StatusCommands
from mailserver.plugins.code_on_disk import CodeOnDisk
from mailserver.plugins.threads import ThreadCounts
from mailserver.queue.counts import QueueCounts


class Commands(SynchronousTestCase):
    def setUp(self) -> None:
        self.has_started = False
        self.looked: list[str] = []
        self.faults: list[Exception] = []
        server: Any = SimpleNamespace(
            admission=SimpleNamespace(connections=3),
            components=SimpleNamespace(code=CodeOnDisk()),
            queue=SimpleNamespace(counts=QueueCounts(), depth=0),
            relay=None,
            daily_look=SimpleNamespace(figures=lambda: {"looked_at": 2, "faults": {"example.org": 1}}),
            acme=SimpleNamespace(figures=dict),
            resolver=SimpleNamespace(counts=QueueCounts(), beliefs={"127.0.0.1": "believed: validates"}),
            steps=SimpleNamespace(counts={"mail": 2}, steps=(), dropped=1),
            processes=SimpleNamespace(missing=dict),
            reactor=Clock(),
            pools=SimpleNamespace(counts=lambda: {"spool": ThreadCounts(1, 2, 3), "state": ThreadCounts(1, 0, 0)}),
            register=SimpleNamespace(described=self.described, left_behind=lambda: {"filter slow": 2}),
            logins=SimpleNamespace(lockout=None, hanging=lambda: {"checker file": 1}),
            local=None,
            remote=None,
            recordings=None,
        )
        status = StatusCommands(
            server,
            hostname=lambda: "mx.example.org",
            listeners=lambda: [ListenerFigures("mx", "tcp:25", 3)],
            reload=self.reload,
            look_for_files=lambda: self.looked.append("look"),
        )
        self.commands = all_commands(server, lambda: None, status, has_started=lambda: self.has_started)  # type: ignore[arg-type,return-value]

    async def reload(self) -> dict[str, Any]:
        if self.faults:
            raise self.faults.pop()
        return {"reloaded": True}

    def ask(self, name: str, **arguments: Any) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(self.commands[name](arguments))  # type: ignore[arg-type]

    def described(self) -> list[dict[str, Any]]:
        return [
            {
                "kind": "filter",
                "circuits": {"content": {"circuit": "open"}, "peer": {"circuit": "closed"}},
                "threads": {"hanging": 1},
                "calls_hanging": 3,
                "observer": {"lost": 7},
                "periodic": {"failures": 4},
                "blocks": {"count": 5},
            },
            {"kind": "delivery", "circuits": {}, "threads": {"hanging": 0}, "calls_hanging": 0, "blocks": {"count": 0}},
        ]

    def test_every_subject_has_its_commands(self) -> None:
        self.assertEqual(
            sorted(self.commands),
            [
                "certificate.list", "certificate.renew", "certificate.revoke", "certificate.rollover", "component.commands", "component.follow", "component.run", "components", "domains", "drop.look", "explain", "lockouts.clear", "lockouts.list", "pickup.look", "probe", "quarantine.list", "queue.change", "queue.destinations",
                "queue.list", "queue.select", "queue.show", "record.fetch", "record.start", "record.stop", "reload", "route", "route.tls", "selftest.login",
                "selftest.relay", "status",
                "tls-override.add", "tls-override.list", "tls-override.remove",
            ],
        )  # fmt: skip

    def test_a_server_that_is_starting_says_how_it_does_and_refuses_all_else(self) -> None:
        self.assertEqual(self.successResultOf(self.ask("status"))["pid"], os.getpid())
        for name in self.commands.keys() - {"status"}:
            self.failureResultOf(self.ask(name), NotStarted)
        self.assertEqual(self.looked, [])
        self.has_started = True
        self.assertEqual(self.successResultOf(self.ask("pickup.look")), {})
        self.assertEqual(self.looked, ["look"])

    def test_the_status_says_what_hangs_and_what_is_wrong_with_components(self) -> None:
        status = self.successResultOf(self.ask("status"))
        self.assertEqual(status["threads"], {"running": 2, "waiting": 2, "hanging": 3, "hanging.spool": 3})
        self.assertEqual(
            status["components"],
            {
                "running": 2, "circuits_open": 1, "threads_hanging": 3, "calls_hanging": 4, "steps_lost": 7, "periodic_failures": 4,
                "reactor_blocks": 5,
            },
        )  # fmt: skip

    def test_the_status_has_a_figure_for_each_listener(self) -> None:
        status = self.successResultOf(self.ask("status"))
        self.assertEqual((status["hostname"], status["connections"], status["steps_dropped"]), ("mx.example.org", 3, 1))
        self.assertEqual(status["listeners"], [{"service": "mx", "endpoint": "tcp:25", "connections": 3}])
        self.assertNotIn("relay", status, "there is none")
        self.assertEqual(status["domains"], {"looked_at": 2, "faults": {"example.org": 1}})

    def test_a_reload_that_fails_is_refused_in_its_own_words(self) -> None:
        self.has_started = True
        self.faults.append(CommandRefused("a reload is under way"))
        self.assertIn("under way", str(self.failureResultOf(self.ask("reload"), CommandRefused).value))
        self.assertEqual(self.successResultOf(self.ask("reload")), {"reloaded": True})
