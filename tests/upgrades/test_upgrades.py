"""This release on the data folders of earlier ones: all that they had acknowledged arrives, once, and their accounts log in."""

from __future__ import annotations

import json
import smtplib
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

from tests.proofs.letters import MARK, look
from tests.scenarios.support import ScenarioCase, Server, wait_until
from tests.tls.authority import Authority
from tests.upgrades.make import CONFIG, PASSWORD, USERS, trusting
from tests.upgrades.smarthost import Smarthost

HERE = Path(__file__).parent
LATE = """
[queue]
expire = "3650d"
warn = "3650d"

[log]
retention_days = 3660
"""
LAST = [f"last-{number}" for number in range(6)]
LOCAL = {
    "alice": ["delivered", "mixed", *LAST],
    "bob": ["mixed", *LAST],
    "carol": ["local", "mixed", "spooled", "parameters", "unicode", "held"],
}
REMOTE = {
    "dora@elsewhere.example": ["remote", "mixed", "spooled", "held"],
    "dörte@elsewhere.example": ["unicode"],
    "nobody@elsewhere.example": ["untold"],  # a person has it tried again
}


class OfC4f531c(ScenarioCase):
    """Killed under load: its logs of SQLite stand beside its files, and part of what it has delivered is not settled."""

    archive = HERE / "of_c4f531c.tar.xz"

    def test_all_that_waits_is_delivered_once_and_accounts_and_roads_are_still_known(self) -> None:
        host = Smarthost(kind=True)
        self.addCleanup(host.close)
        server = self.prepare(CONFIG.replace("SMARTHOST", str(host.port)) + LATE)
        Authority().leaf("mx.example.org").write(str(server.work))
        with tarfile.open(self.archive) as packed:
            packed.extractall(server.work, filter="data")
        expected = json.loads((server.work / "expected.json").read_text())
        ids = expected["ids"]
        server.start()

        held = self.waiting(server, "--state", "held")
        self.assertEqual([entry["id"] for entry in held], [ids["held"]])
        failed = self.waiting(server, "--state", "failed")
        self.assertEqual([entry["id"] for entry in failed], [ids["untold"]])
        self.order(server, "release", ids["held"])
        server.command("queue", "retry", "--all")  # 1 where some of it is on its way by itself
        wait_until(lambda: server.status()["queue"]["depth"] == 0, lambda: f"{self.waiting(server)}\n{server.log()}", 60)

        found = look({user: server.mail / user for user in USERS})
        self.assertEqual(found.torn, [])
        self.assertEqual(found.letters, Counter((number, user) for user, numbers in LOCAL.items() for number in numbers))
        self.assertEqual(found.reports, Counter(["told"]))
        self.assertEqual(self.sent(host), Counter((number, to) for to, numbers in REMOTE.items() for number in numbers))
        self.assertEqual(list((server.work / "data" / "spool").iterdir()), [])
        self.assertKnows(server, ids["local"])
        self.assertLogsIn(server, expected["app_password"])
        server.stop()
        state = apsw.Connection(str(server.work / "data" / "state.db"), flags=apsw.SQLITE_OPEN_READONLY)
        self.addCleanup(state.close)
        spaces = {space for (space,) in state.execute("SELECT space FROM fact")}
        self.assertLessEqual({"app-password", "lockout.known"}, spaces, "what was remembered is where it was")

    def waiting(self, server: Server, *filters: str) -> list[dict[str, Any]]:
        said = server.command("queue", "list", "--json", *filters)
        self.assertEqual(said.returncode, 0, said.stderr)
        found: list[dict[str, Any]] = json.loads(said.stdout)
        return found

    def order(self, server: Server, *words: str) -> None:
        said = server.command("queue", *words)
        self.assertEqual(said.returncode, 0, said.stderr)

    def sent(self, host: Smarthost) -> Counter[tuple[str, str]]:
        """(number, recipient) of all that the other side has taken."""
        found: Counter[tuple[str, str]] = Counter()
        for recipients, content in host.taken:
            mark = MARK.search(content.replace(b"\r\n", b"\n"))
            found.update((mark[1].decode() if mark else "", to) for to in recipients)
        return found

    def assertKnows(self, server: Server, id: str) -> None:
        """The road begins with the old release's steps and ends with ours."""
        said = server.command("explain", id, "--json")
        self.assertEqual(said.returncode, 0, said.stderr)
        steps = [step["step"] for step in json.loads(said.stdout)]
        self.assertEqual((steps[0] != "delivered", steps.count("delivered")), (True, 1), steps)
        self.assertIn("deferred", steps)

    def assertLogsIn(self, server: Server, app_password: str) -> None:
        """By the password, by what is kept readable of it, and by a program's own password, whose last use is known."""
        listed = json.loads(server.command("user", "app-password", "list", "alice@example.org", "--json").stdout)
        self.assertTrue(listed[0]["last_used"], listed)
        for method, password in (("PLAIN", PASSWORD), ("CRAM-MD5", PASSWORD), ("PLAIN", app_password)):
            with smtplib.SMTP_SSL("127.0.0.1", server.ports["tlsport"], context=trusting()) as client:
                client.ehlo()
                client.user, client.password = "alice@example.org", password
                name = "auth_" + method.lower().replace("-", "_")
                self.assertEqual(client.auth(method, getattr(client, name), initial_response_ok=method == "PLAIN")[0], 235, f"{method}")


class OfBbc5a6d(OfC4f531c):
    """The same: sizes in the names of Maildir files, one copy for each mailbox, a mark beside the queue."""

    archive = HERE / "of_bbc5a6d.tar.xz"


class Of9cd95f3(OfC4f531c):
    """The same: the third schema of the queue, a state store with a clock of its own, records."""

    archive = HERE / "of_9cd95f3.tar.xz"
