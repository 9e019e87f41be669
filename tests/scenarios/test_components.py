"""Components that behave badly in a server that runs: nobody else waits for them, and people see who it is."""

from __future__ import annotations

import json
from typing import Any

from mailserver.control.client import ask
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until

PLUGIN = '''
import threading

from zope.interface import implementer

from mailserver.api import (
    IComponentFactory, IContentFilter, IObserver, IPeriodic, Options, Pass
)


class RudeOptions(Options):
    """A change makes another component of it."""

    turn: int = 0


@implementer(IContentFilter, IObserver, IPeriodic)
class Rude:
    interval_seconds = 0.2
    deadline_seconds = 5.0

    def __init__(self, services):
        self.services = services

    async def judge_content(self, envelope, content):
        wanted = content.headers.get("X-Do")
        self.services.metrics.count("messages", wanted=wanted or "nothing")
        if wanted == "block":
            threading.Event().wait(2)
        if wanted == "fill":
            for _ in range(2000):
                self.services.run_in_thread(threading.Event().wait).addErrback(lambda failure: None)
        if wanted == "hang":
            await self.services.run_in_thread(threading.Event().wait, 3600)
        return Pass()

    def observe(self, step):
        name = self.services.in_reactor(lambda: self.services.name).result(timeout=30)
        self.services.metrics.count("steps", step=step["step"], name=name)
        raise SystemExit(1)

    async def run_periodically(self):
        raise ValueError("nothing to do")


@implementer(IComponentFactory)
class RudeFactory:
    name = "rude"
    summary = "Blocks and hangs."
    api_version = "1.0"
    provides = (IContentFilter, IObserver)
    options = RudeOptions

    def build(self, options, services):
        return Rude(services)


rude = RudeFactory()
'''
FILTER = """
[[filter]]
use = "rude"
deadline = "1s"
on_error = "skip"
"""


class RudeComponent(ScenarioCase):
    def serve(self) -> Server:
        server = self.prepare(BASIC + FILTER)
        server.install_plugin("rude_plugin", PLUGIN)
        server.start()
        return server

    def components(self, server: Server) -> dict[str, Any]:
        return ask(str(server.work / "data" / "control.sock"), "components")

    def seen(self, server: Server) -> dict[str, Any]:
        answer = self.components(server)
        [found] = [one for one in answer["components"] if one["name"] == "rude"]
        return dict(found)

    def test_one_that_holds_the_reactor_is_told_by_name_with_its_stack(self) -> None:
        server = self.serve()
        server.send(b"X-Do: block\r\n\r\nx")
        wait_until(lambda: "the filter rude holds the reactor for more than 0.5 s" in server.log(), server.log)
        self.assertIn("threading.Event().wait(2)", server.log())
        blocks = self.seen(server)["blocks"]
        self.assertEqual(blocks["count"], 1)
        self.assertGreater(blocks["longest_seconds"], 0.5)
        self.assertIn("held the reactor 1 time(s)", server.command("plugins").stdout)

    def test_its_threads_steps_periodic_runs_and_metrics_are_seen(self) -> None:
        server = self.serve()
        self.assertEqual(server.send(b"X-Do: hang\r\n\r\nx").code, 250)

        def after_a_failure() -> dict[str, Any] | None:
            seen = self.seen(server)
            return seen if seen["periodic"]["failures"] and seen["observer"]["failures"] else None

        seen = wait_until(after_a_failure, server.log)
        self.assertEqual(seen["threads"]["hanging"], 1)
        self.assertEqual(seen["metrics"]['messages{wanted="hang"}'], 1)
        self.assertIn("ValueError: nothing to do", seen["periodic"]["last_error"])
        wait_until(lambda: self.seen(server)["metrics"].get('steps{name="rude",step="delivered"}'), server.log)
        self.assertEqual(
            [one["name"] for one in json.loads(server.command("plugins", "--json").stdout)["running"]["components"]],
            [one["name"] for one in self.components(server)["components"]],
        )
        told = server.command("plugins").stdout
        self.assertIn("1 thread(s) hang", told)
        self.assertIn("periodic runs failed, the last time: ValueError: nothing to do", told)
        status = server.status()["components"]
        self.assertEqual((status["threads_hanging"], status["steps_lost"]), (1, 0))
        self.assertEqual(server.send(b"Subject: x\r\n\r\nx").code, 250)

    def test_one_that_fills_its_pool_and_its_queue_holds_up_nobody(self) -> None:
        server = self.serve()
        self.assertEqual(server.send(b"X-Do: fill\r\n\r\nx").code, 250)
        threads = self.seen(server)["threads"]
        self.assertEqual((threads["running"], threads["waiting"]), (8, 1000))
        large = b"Subject: large\r\n\r\n" + b"x" * 70 + (b"\r\n" + b"x" * 70) * 40_000  # through a file of the spool
        self.assertEqual(server.send(large).code, 250)
        for stored in server.wait_for_mail("alice", 2):
            self.assertIn(stored.header("Subject"), ("large", None))
        self.assertEqual(server.command("explain", server.log().partition(" accepted ")[0].split()[-1]).returncode, 0)
        self.assertEqual(server.status()["threads"]["hanging"], 0)

    def test_threads_that_hang_over_reloads_are_counted(self) -> None:
        server = self.serve()
        for n in range(3):
            self.assertEqual(server.send(b"X-Do: hang\r\n\r\nx").code, 250)
            server.configure(BASIC + FILTER + f"turn = {n + 1}")
            ask(str(server.work / "data" / "control.sock"), "reload")

        self.assertEqual(server.send(b"Subject: x\r\n\r\nx").code, 250)
        server.configure(BASIC + FILTER.replace('"1s"', '"2s"') + "turn = 3")  # which is no matter of the component's
        ask(str(server.work / "data" / "control.sock"), "reload")
        self.assertEqual(self.seen(server)["metrics"]['messages{wanted="nothing"}'], 1)

        def left() -> object:
            return self.components(server)["left_behind"]

        wait_until(lambda: left() == {"filter rude": 3}, lambda: f"{left()}\n{server.log()}")
        self.assertEqual(server.status()["components"]["threads_hanging"], 3)
