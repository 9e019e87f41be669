"""``mailserver queue`` and ``mailserver route`` with a server that runs, and after it has stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from mailserver.queue.lock import lock_directory
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until

RELAY = (
    BASIC
    + """
catch_all = "bob@example.org"
[domain."example.org".aliases]
sales = ["alice@example.org", "dora@elsewhere.example"]

[relay]
use = "smarthost"
host = "127.0.0.1"
port = 1
networks = ["127.0.0.0/8"]

[queue]
retry = ["1h"]
"""
)


class Verbs(ScenarioCase):
    def waiting(self, server: Server, *filters: str) -> list[dict[str, Any]]:
        said = server.command("queue", "list", "--json", *filters)
        self.assertEqual(said.returncode, 0, said.stderr)
        found: list[dict[str, Any]] = json.loads(said.stdout)
        return found

    def deferred(self, server: Server, *recipients: str) -> list[str]:
        """Messages that the relay could not bring on their way; their ids."""
        ids = [server.send(b"Subject: %d\r\n\r\nx" % n, to=to).id for n, to in enumerate(recipients)]
        wait_until(
            lambda: len(self.waiting(server, "--state", "deferred")) >= len(ids),
            lambda: f"{self.waiting(server)}\n{server.log()}",
        )
        return ids

    def steps(self, server: Server, id: str) -> list[str]:
        return [step["step"] for step in json.loads(server.command("explain", id, "--json").stdout)]

    def test_a_message_is_read_while_the_server_runs_and_bounced_to_its_sender(self) -> None:
        server = self.serve(RELAY)
        id = server.send(b"Subject: odd\r\n\r\nbody", to="carol@one.example", sender="alice@example.org").id
        wait_until(lambda: self.waiting(server, "--state", "deferred"), server.log)
        self.assertIn("Subject: odd\r\n\r\nbody\r\n", server.command("queue", "cat", id).stdout)
        self.assertRegex(server.command("status").stdout, r"(?m)^ +depth +1$")
        said = server.command("queue", "bounce", id, "--yes")
        self.assertEqual(said.returncode, 0, said.stderr)
        wait_until(lambda: not self.waiting(server), lambda: str(self.waiting(server)))
        self.assertIn(b"Returned by the postmaster of this host", server.messages("alice")[0].data)

    def test_a_backup_of_a_running_server_comes_back_held_elsewhere(self) -> None:
        server = self.serve(RELAY)
        ids = self.deferred(server, "carol@one.example", "dave@two.example")
        large = server.send(b"Subject: large\r\n\r\n" + b"x" * 70 * 10 + b"\r\n" * 300_000, to="carol@one.example").id
        folder = self.mktemp()
        said = server.command("backup", os.path.abspath(folder))
        self.assertEqual((said.returncode, said.stderr), (0, ""), said)
        self.assertIn("3 messages are in", said.stdout)
        self.assertIn("accounts.toml", os.listdir(folder))
        said = server.command("restore", os.path.abspath(folder))
        self.assertEqual((said.returncode, said.stdout), (69, ""))
        self.assertIn("stop the server first", said.stderr)
        server.stop()
        data = server.work / "data"
        data.rename(server.work / "old")
        data.mkdir(mode=0o700)
        said = server.command("restore", os.path.abspath(folder))
        self.assertEqual((said.returncode, said.stderr), (0, ""), said)
        self.assertIn("3 messages of", said.stdout)
        server.restart()
        self.assertEqual({one["id"] for one in self.waiting(server, "--state", "held")}, {*ids, large})
        self.assertTrue(server.command("queue", "cat", large).stdout.endswith("\r\n" * 300))
        self.assertEqual(server.command("queue", "redirect", "--all", "--to", "alice@example.org").returncode, 0)
        server.command("queue", "release", "--all")
        wait_until(lambda: len(server.messages("alice")) == 3, server.log)

    def test_a_server_that_starts_waits_for_a_command_and_answers_none_before(self) -> None:
        server = self.serve(RELAY)
        (carol,) = self.deferred(server, "carol@one.example")
        server.stop()
        lock = lock_directory(str(server.work / "data"))  # as a command does while no server runs
        starting = threading.Thread(target=server.restart)
        starting.start()
        try:
            wait_until(lambda: "the server waits for it" in server.log(), server.log)
            for command in (("queue", "list"), ("queue", "retry", "--all")):
                said = server.command(*command)
                self.assertIn("the server is starting", said.stderr)
                self.assertEqual((said.returncode, said.stdout), (69, ""), command)
            self.assertEqual(server.command("check").returncode, 0)
        finally:
            os.close(lock)
            starting.join()
        self.assertEqual([one["id"] for one in self.waiting(server)], [carol])

    def test_a_server_that_is_stopped_while_it_starts_ends_without_a_complaint(self) -> None:
        server = self.serve(RELAY)
        server.stop()
        lock = lock_directory(str(server.work / "data"))
        server.ports = {}  # it does not greet
        server.restart()
        wait_until(lambda: "the server waits for it" in server.log(), server.log)
        self.assertEqual(server.stop(), 0)
        os.close(lock)
        self.assertNotIn("cannot start", server.log())

    def test_hold_release_redirect_drop_while_the_server_runs(self) -> None:
        server = self.serve(RELAY)
        carol, dave, erin = self.deferred(server, "carol@one.example", "dave@two.example", "erin@two.example")
        self.assertEqual([one["id"] for one in self.waiting(server, "--domain", "two.example")], [dave, erin])
        self.assertEqual(server.command("queue", "hold").returncode, 2, "every message only with --all")
        self.assertEqual(server.command("queue", "hold", "--all", "--dry-run").returncode, 0)
        self.assertEqual(self.waiting(server, "--state", "held"), [])
        held = server.command("queue", "hold", "--domain", "two.example", "--json")
        self.assertEqual([one["id"] for one in json.loads(held.stdout)["done"]], [dave, erin])
        self.assertEqual([one["id"] for one in self.waiting(server, "--state", "held")], [dave, erin])
        self.assertEqual(server.command("queue", "drop", erin).returncode, 2, "asks, and there is no terminal")
        self.assertEqual(server.command("queue", "drop", erin, "--yes").returncode, 0)
        self.assertEqual(server.command("queue", "show", erin).returncode, 1)
        self.assertEqual(server.command("queue", "release", dave).returncode, 0)
        self.assertEqual(server.command("queue", "redirect", carol, "--to", "nobody@elsewhere").returncode, 0)
        said = server.command("queue", "redirect", carol, "--to", "alice@example.org")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn("redirected", said.stdout)
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.header("Subject"), "0")
        self.assertIn("dropped", self.steps(server, erin))
        self.assertEqual(
            [step for step in self.steps(server, dave) if step in ("held", "released")], ["held", "released"]
        )
        wait_until(lambda: [one["id"] for one in self.waiting(server)] == [dave], lambda: str(self.waiting(server)))

    def test_retry_tries_at_once(self) -> None:
        server = self.serve(RELAY)
        (id,) = self.deferred(server, "carol@one.example")
        self.assertEqual(server.command("queue", "retry", id[:8]).returncode, 0)
        wait_until(lambda: self.steps(server, id).count("deferred") == 2, lambda: str(self.steps(server, id)))
        self.assertEqual(server.command("queue", "retry", "0000").returncode, 1)

    def test_without_a_server_the_verbs_work_on_the_files(self) -> None:
        server = self.serve(RELAY)
        carol, dave = self.deferred(server, "carol@one.example", "dave@two.example")
        self.assertEqual(server.stop(), 0)
        said = server.command("queue", "redirect", carol, "--to", "alice@example.org")
        self.assertEqual((said.returncode, said.stderr), (0, ""))
        self.assertEqual(server.command("queue", "hold", dave).returncode, 0)
        self.assertEqual([one["id"] for one in self.waiting(server, "--state", "held")], [dave])
        self.assertIn("redirected", self.steps(server, carol))
        server.restart()
        server.wait_for_mail("alice")
        self.assertEqual([one["id"] for one in self.waiting(server, "--state", "held")], [dave])


class Route(ScenarioCase):
    def route(self, server: Server, address: str, *more: str, code: int = 0) -> dict[str, Any]:
        said = server.command("route", address, "--json", *more)
        self.assertEqual(said.returncode, code, said.stderr)
        answer: dict[str, Any] = json.loads(said.stdout)
        return answer

    def check(self, server: Server, running: bool) -> None:
        self.assertEqual(self.route(server, "alice@example.org")["ends"][0]["mailbox"], "alice@example.org")
        sales = self.route(server, "Sales@example.org")
        self.assertEqual(
            [(hop["how"], hop["leads_to"]) for hop in sales["hops"]],
            [("alias", ["alice@example.org", "dora@elsewhere.example"]), ("account", []), ("elsewhere", [])],
        )
        self.assertEqual([end["kind"] for end in sales["ends"]], ["local", "remote"])
        if running:
            self.assertEqual(sales["ends"][1]["hosts"][0]["addresses"], ["127.0.0.1"])
        self.assertEqual(self.route(server, "who@example.org")["hops"][0]["how"], "catch-all")
        self.assertEqual(self.route(server, "alice+lists@example.org")["ends"][0]["folder"], "lists")
        self.assertIn("Relaying denied", self.route(server, "x@far.example", code=1)["reply"])
        self.assertIn("Relaying denied", self.route(server, "x@far.example", "--from", "0.0.0.0/0", code=1)["reply"])
        self.assertTrue(self.route(server, "x@far.example", "--from", "127.0.0.1")["accepted"])
        self.assertEqual(server.command("route", "not an address").returncode, 1)
        self.assertIn("by [relay] to 127.0.0.1", server.command("route", "sales@example.org").stdout)

    def test_a_file_that_is_named_is_tried_whatever_the_running_server_has_read(self) -> None:
        server = self.serve(RELAY)
        other = server.work / "other.toml"
        other.write_text(server.config_path.read_text().replace('aliases]\n', 'aliases]\nnews = "alice@example.org"\n'))
        tried = server.work / "mailserver.toml"
        asked = dict(server._environment(), MAILSERVER_CONFIG=str(tried))
        server.config_path = other
        self.assertEqual(self.route(server, "news@example.org")["hops"][0]["how"], "alias")
        said = subprocess.run(
            [str(Path(sys.executable).parent / "mailserver"), "route", "news@example.org", "--json"],
            env=asked, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self.assertEqual(json.loads(said.stdout)["hops"][0]["how"], "catch-all", said.stderr)
        server.config_path = tried

    def test_where_mail_would_go_with_and_without_a_server(self) -> None:
        server = self.serve(RELAY)
        self.check(server, running=True)
        self.assertEqual(server.stop(), 0)
        self.check(server, running=False)
