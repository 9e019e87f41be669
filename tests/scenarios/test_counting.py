"""What the metrics listener counts is what smtp-source has sent, exactly; also where a process of the server is killed meanwhile."""

from __future__ import annotations

import subprocess
import urllib.request

from tests.ports import free_port
from tests.requires import require_tool
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until

CONFIGURATION = BASIC + """
[[listen]]
service = "metrics"
endpoint = "tcp:METRICS:interface=127.0.0.1"
"""
RECEIVED, DELIVERED = 'mailserver_messages_received_total{service="mx"}', 'mailserver_deliveries_total{outcome="delivered"}'


class Counting(ScenarioCase):
    def figures(self, server: Server) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=20) as found:
            lines = [line.rpartition(" ") for line in found.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def sent(self, server: Server, count: int) -> None:
        source = [require_tool("smtp-source"), "-s", "5", "-m", str(count), "-f", "a@b.example", "-t", "alice@example.org"]
        subprocess.run([*source, f"127.0.0.1:{server.port}"], check=True, timeout=60)

    def test_counters_are_what_was_sent_over_a_kill_of_the_server_too(self) -> None:
        self.metrics = free_port()
        server = self.serve(CONFIGURATION.replace("METRICS", str(self.metrics)))
        self.sent(server, 60)
        wait_until(lambda: self.figures(server).get(DELIVERED) == 60, server.log)
        found = self.figures(server)
        self.assertEqual((found[RECEIVED], found['mailserver_recipients_received_total{service="mx"}']), (60, 60))
        self.assertEqual(found["mailserver_commit_batch_messages_sum"], 60)
        self.assertEqual(found["mailserver_delivery_seconds_count"], 60)
        server.kill()
        server.start()
        self.assertNotIn(RECEIVED, self.figures(server))  # as Prometheus expects of a process that has begun anew
        self.sent(server, 40)
        self.assertEqual(self.figures(server)[RECEIVED], 40)
        self.assertEqual(len(server.wait_for_mail("alice", 100)), 100)
