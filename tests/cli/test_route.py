"""``mailserver route``: by the file that was named; a running server looks the hosts up."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.cli.without_server import NoAnswers
from mailserver.control.server import ControlServer
from mailserver.mail.dns_records import LookupFailed
from tests.cli.support import CONFIGURATION, CommandCase
from tests.control.test_server import without_bytes_warning

ALIAS = '[domain."example.org".aliases]\nbob = "bob@other.example"\n[relay]\nuse = "mx"\n'
THREAD = """
import threading
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from mailserver.cli import without_server

without_server.ANSWER_SECONDS = 5.0
answer = Deferred()
threading.Thread(target=reactor.callFromThread, args=(answer.callback, 7)).start()
print(without_server.finished(answer))
"""


class Route(CommandCase, TestCase):
    timeout = 30

    async def hosts(self, found: list[dict[str, Any]]) -> Any:
        """Those that are shown for what leads to another host, where the server has found this."""
        without_bytes_warning(self)
        self.configure(CONFIGURATION + ALIAS)

        async def route(arguments: dict[str, Any]) -> dict[str, Any]:
            self.assertEqual(arguments, {"address": "bob@other.example", "from": "", "sender": ""})
            return {"ends": found}

        server = ControlServer(os.path.join(self.data, "control.sock"), {"route": route})
        server.start(reactor)
        try:
            said = await deferToThread(self.command, "route", "bob@example.org", "--json")
        finally:
            await server.stop()
        (end,) = said.json["ends"]
        self.assertEqual((end["kind"], end["address"]), ("remote", "bob@other.example"))
        return end.get("hosts")

    async def test_the_hosts_are_those_that_the_server_has_found(self) -> None:
        end = {"kind": "remote", "address": "bob@other.example", "hosts": [["mx.other.example"]]}
        self.assertEqual(await self.hosts([end]), [["mx.other.example"]])

    async def test_hosts_of_another_address_are_not_shown(self) -> None:
        end = {"kind": "remote", "address": "eve@third.example", "hosts": [["mx.third.example"]]}
        self.assertIsNone(await self.hosts([end]))

    def test_the_route_and_what_it_says_are_shown_for_a_sender(self) -> None:
        self.configure(
            CONFIGURATION
            + ALIAS
            + '[[route]]\nsender = "alice@example.org"\nhost = "smtp.provider.example"\nport = 587\ntls = "verified"\n'
            'username = "alice"\npassword_file = "x"\nsource_ipv4 = "192.0.2.7"\nretry = ["10m", "1h"]\n'
            '[[route]]\ndomain = "closed.example"\nuse = "none"\nreason = "Not from here"\n'
        )
        said = self.command("route", "bob@example.org", "--sender", "Alice@Example.org").out
        self.assertIn(
            "→ bob@other.example, by the route alice@example.org to smtp.provider.example: port 587, TLS verified, "
            "logged in as alice (password), from 192.0.2.7",
            said,
        )
        self.assertIn("tried again after 10m, 1h; the sender is told after 4h, and gets it back after 5d", said)
        usual = self.command("route", "bob@example.org", "--json").json["ends"][0]["way"]
        self.assertEqual((usual["route"], usual["use"], usual["port"]), ("", "mx", 25))
        refused = self.command("route", "x@closed.example", "--from", "127.0.0.1")
        self.assertEqual(refused.code, 1)
        self.assertIn("x@closed.example: the route closed.example sends it nowhere", refused.out)

    def test_mail_for_a_domain_that_this_host_is_second_for_is_taken_from_anybody(self) -> None:
        self.configure(CONFIGURATION + '[relay]\nuse = "mx"\ndomains = ["primary.example", ".below.example"]\n')
        codes = {name: self.command("route", f"x@{name}").code for name in ("primary.example", "a.below.example")}
        self.assertEqual(codes, {"primary.example": 0, "a.below.example": 0})
        for name in ("a.primary.example", "below.example", "other.example"):
            self.assertIn("550 5.7.1 Relaying denied", self.command("route", f"x@{name}").out)

    def test_without_a_server_nobody_can_tell_what_the_dns_has(self) -> None:
        failure = self.failureResultOf(Deferred.fromCoroutine(NoAnswers().query("other.example", "MX")), LookupFailed)
        self.assertIn("looked up by the running server", str(failure.value))

    def test_a_command_waits_for_an_answer_that_a_thread_brings(self) -> None:
        ended = subprocess.run([sys.executable, "-c", THREAD], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((ended.stdout, ended.stderr), ("7\n", ""))
