"""What the DNS has told the filters of a real server is on the roads, and nowhere where addresses are not kept."""

from __future__ import annotations

import json

from mailserver.observe.roads import DnsOfThen
from tests.ports import free_port
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until

CONFIG = BASIC + """
[dns]
servers = ["127.0.0.1:{dnsport}"]
give_up = "1s"
timeout = "500ms"
attempts = 1

[[filter]]
use = "null_mx"
on_error = "skip"

[[filter]]
use = "scores"
junk = 6
"""


class Replay(ScenarioCase):
    def answer(self, server: Server) -> object:
        dns = DnsOfThen(str(server.work / "data" / "explain.db"))
        try:
            return dns.answer("example.net", "MX", 4e9)
        finally:
            dns.close()

    def test_answers_are_on_the_roads_and_mail_is_weighed_anew_beside_a_running_server(self) -> None:
        server = self.serve(CONFIG.replace("{dnsport}", str(free_port())))
        id = server.send(b"From: s@example.net\r\nSubject: x\r\n\r\nx").id
        server.wait_for_mail("alice")
        wait_until(lambda: server.command("explain", id).returncode == 0, server.log)
        wait_until(lambda: self.answer(server), server.log)
        self.assertEqual(self.answer(server), {"name": "example.net", "type": "MX", "fails": True})
        self.assertNotIn("dns example.net", server.log())
        said = server.command("replay", "--since", "1h", "--json")
        found = json.loads(said.stdout)
        self.assertEqual((said.returncode, found["messages"], found["changes"]), (0, 1, []), said)

    def test_names_are_not_kept_where_addresses_are_not(self) -> None:
        server = self.serve(CONFIG.replace("{dnsport}", str(free_port())) + '\n[log]\naddresses = "domain"\n')
        id = server.send(b"From: s@example.net\r\nSubject: x\r\n\r\nx").id
        server.wait_for_mail("alice")
        wait_until(lambda: server.command("explain", id).returncode == 0, server.log)
        self.assertIsNone(self.answer(server))
