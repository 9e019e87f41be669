"""A metrics listener of a whole server: figures, health, who may ask, reloads."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from tests.assembly.in_process import BASIC, Running, WholeCase
from tests.requires import require_tool

LISTENER = '[[listen]]\nservice = "metrics"\nendpoint = "tcp:0:interface=127.0.0.2"\n'
WATCHED = BASIC.replace("[accounts]", LISTENER + "\n[accounts]")


class MonitoringCase(WholeCase):
    async def get(self, service: Running, path: str, number: int = 1, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.2:{self.port(service, number)}{path}", headers=headers)

        def answer() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(request, timeout=20) as found:
                    return int(found.status), found.read().decode()
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.code, refused.read().decode()

        return await deferToThread(answer)

    async def figures(self, service: Running) -> dict[str, float]:
        status, text = await self.get(service, "/metrics")
        self.assertEqual(status, 200)
        self.text = text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}


class Figures(MonitoringCase):
    async def test_counters_are_what_was_sent_exactly_and_promtool_accepts_them(self) -> None:
        service = await self.serve(WATCHED)
        self.patch(service._server.steps, "_waiting_max", 5)  # most steps are dropped: they count all the same
        bodies = [b"Subject: x\r\n\r\n" + b"y" * n + b"\r\n" for n in range(40)]
        await gatherResults([self._sent(service, body) for body in bodies])
        await self.say(service, "EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<nobody@example.org>")
        found = await self.figures(service)
        self.assertGreater(found["mailserver_steps_dropped_total"], 0)
        self.assertEqual(found['mailserver_messages_received_total{service="mx"}'], 40)
        self.assertEqual(found['mailserver_recipients_received_total{service="mx"}'], 40)
        self.assertEqual(found['mailserver_connections_total{service="mx"}'], 41)
        self.assertEqual(found['mailserver_refusals_total{code="550",service="mx",stage="rcpt"}'], 1)
        self.assertEqual(found["mailserver_commit_batch_messages_sum"], 40)
        self.assertEqual(found["mailserver_ready"], 1)
        done = subprocess.run([require_tool("promtool"), "check", "metrics"], input=self.text, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def _sent(self, service: Running, body: bytes) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(self.send(service, body))

    def series(self, found: Any) -> int:
        """How many; without those of the DNS, which begin once the server has found out whom to believe there."""
        return len([one for one in found if not one.startswith("mailserver_dns_seconds")])

    async def test_ten_thousand_domains_make_no_more_series(self) -> None:
        service = await self.serve(WATCHED)
        note = service._server.steps.note
        before = 0
        for n in range(10_000):
            if n == 10:
                before = self.series(await self.figures(service))
            note(f"C{n}", "refused", stage="rcpt", reply="550 x", recipient=f"a@d{n}.example", peer=f"192.0.2.{n % 250}")
            note(f"C{n}", "deferred", recipient=f"a@d{n}.example", reply="450 x")
        after = await self.figures(service)
        self.assertEqual(after['mailserver_deliveries_total{outcome="delayed"}'], 10_000)
        self.assertEqual(self.series(after), before)

    async def test_openmetrics_is_given_to_who_asks_for_it(self) -> None:
        service = await self.serve(WATCHED)
        status, text = await self.get(service, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        self.assertEqual((status, text[-6:]), (200, "# EOF\n"))

    async def test_nothing_is_counted_where_nobody_asks(self) -> None:
        service = await self.serve()
        self.assertIsNone(service._server.steps.meter)


class Health(MonitoringCase):
    async def test_readiness_turns_with_the_disk_and_back(self) -> None:
        service = await self.serve(WATCHED)
        self.assertEqual(await self.get(service, "/health/live"), (200, '{"live": true}\n'))
        self.assertEqual(await self.get(service, "/health/ready"), (200, '{"ready": true, "reasons": []}\n'))
        room = service._server.queue.room
        before, room.minimum_free_bytes = room.minimum_free_bytes, 1 << 62
        status, text = await self.get(service, "/health/ready")
        self.assertEqual((status, json.loads(text)["ready"], len(json.loads(text)["reasons"])), (503, False, 1))
        self.assertEqual((await self.figures(service))["mailserver_ready"], 0)
        room.minimum_free_bytes, room._shut_until = before, 0.0
        self.assertEqual((await self.get(service, "/health/ready"))[0], 200)

    async def test_other_paths_and_methods_are_refused(self) -> None:
        service = await self.serve(WATCHED)
        for path in ("/", "/metrics/", "/health", "/../etc/passwd"):
            self.assertEqual((await self.get(service, path))[0], 404, path)


class WhoAsks(MonitoringCase):
    async def test_a_token_is_wanted_where_the_table_says_so_and_is_read_anew(self) -> None:
        (self.work / "token").write_text("secret\n")
        service = await self.serve(WATCHED.replace("\n[accounts]", f'token_file = "{self.work}/token"\n\n[accounts]'))
        self.assertEqual((await self.get(service, "/metrics"))[0], 401)
        self.assertEqual((await self.get(service, "/health/ready", Authorization="Bearer wrong"))[0], 401)
        self.assertEqual((await self.get(service, "/metrics", Authorization="Bearer secret"))[0], 200)
        (self.work / "token").write_text("another\n")
        self.assertEqual((await self.get(service, "/metrics", Authorization="bearer another"))[0], 200)
        (self.work / "token").unlink()
        self.assertEqual((await self.get(service, "/metrics", Authorization="Bearer another"))[0], 401)
        (self.work / "third").write_text("third\n")
        self.configure(WATCHED.replace("\n[accounts]", f'token_file = "{self.work}/third"\n\n[accounts]'))
        await self.ask("reload")
        self.assertEqual((await self.get(service, "/metrics", Authorization="Bearer third"))[0], 200)

    async def test_a_reload_opens_and_closes_it(self) -> None:
        service = await self.serve(BASIC)
        self.configure(WATCHED)
        await self.ask("reload")
        await self.send(service)
        self.assertEqual((await self.figures(service))['mailserver_messages_received_total{service="mx"}'], 1)
        self.configure(BASIC)
        await self.ask("reload")
        self.assertEqual([one["service"] for one in (await self.ask("status"))["listeners"]], ["mx"])
