"""A taken-over account in a whole server: stopped by what comes of its mail, over a kill, and unlocked by a person."""

from __future__ import annotations

import json
import smtplib
from typing import Any

from mailserver.authentication.app_passwords import hash_app_password, new_app_password
from mailserver.testing import CaptureServer
from tests.scenarios.support import BASIC, ID, ScenarioCase, Server, wait_until
from tests.scenarios.test_login import LoginCase

ALICE, BOB = "alice@example.org", "bob@example.org"
LATER, BAD = "later@elsewhere.example", ("bad1@elsewhere.example", "bad2@elsewhere.example")
NOBODY = ("nobody1@example.org", "nobody2@example.org")
CONFIG = (
    BASIC
    + """
postmaster = "bob@example.org"

[[listen]]
service = "submission"
endpoint = "tcp:{tlsport}:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"

[relay]
use = "smarthost"
host = "127.0.0.1"
port = SMARTHOST
tls = "none"

[[filter]]
use = "account_guard"
learning = "0s"
networks = 0
recipients = 0
unknown = 2
refusals = 2
"""
)


class TakenOver(LoginCase, ScenarioCase):
    def begun(self) -> Server:
        self.sink = CaptureServer()
        self.sink.start()
        self.addCleanup(self.sink.stop)
        self.sink.refuse("rcpt", 451, "4.2.1 Later", times=None, address=LATER)
        for one in BAD:
            self.sink.refuse("rcpt", 550, "5.7.1 Spam", times=None, address=one)
        server = self.prepare(CONFIG.replace("SMARTHOST", str(self.sink.port)))
        server.changed = {"mailserver.filters.account_guard:AccountGuard.interval_seconds": 0.2}
        self.certify(server)
        (server.work / "data").mkdir()
        self.password = new_app_password()
        lines = [f'[account."{one}".app_password."phone"]\npassword = "{hash_app_password(self.password)}"\n' for one in (ALICE, BOB)]
        (server.work / "accounts.toml").write_text("".join(lines))
        server.start()
        return server

    def submit(self, server: Server, user: str, *to: str, subject: str = "x") -> list[tuple[int, str]]:
        """What each command has heard, from MAIL on, up to the first no to MAIL or the data."""
        heard: list[tuple[int, bytes]] = []
        with smtplib.SMTP_SSL("127.0.0.1", server.ports["tlsport"], context=self.context(), timeout=20) as client:
            client.login(user, self.password)
            heard.append(client.mail(user))
            if heard[0][0] == 250:
                heard += [client.rcpt(one) for one in to]
                if any(code == 250 for code, _ in heard[1:]):
                    heard.append(client.data(f"From: {user}\r\nSubject: {subject}\r\n\r\nx\r\n"))
        return [(code, text.decode()) for code, text in heard]

    def codes(self, *arguments: Any, **named: Any) -> list[int]:
        return [code for code, _ in self.submit(*arguments, **named)]

    def queue(self, server: Server, *words: str) -> list[Any]:
        found: list[Any] = json.loads(server.command("queue", "list", "--json", *words).stdout)
        return found

    def states(self, server: Server) -> list[str]:
        return sorted([one["state"] for entry in self.queue(server, "--login", ALICE) for one in entry["destinations"]])

    def is_stopped(self, server: Server, user: str = ALICE) -> bool:
        return server.command("user", "show", user).returncode == 1

    def test_it_is_stopped_told_of_kept_over_a_kill_and_unlocked(self) -> None:
        server = self.begun()
        self.assertEqual(self.codes(server, ALICE, LATER, subject="waits"), [250, 250, 250])
        self.assertEqual(self.codes(server, BOB, LATER, subject="of bob"), [250, 250, 250])
        self.assertEqual(self.codes(server, ALICE, *BAD), [250, 250, 250, 250])
        wait_until(lambda: server.log().count("failed ") >= 2, server.log)
        self.assertEqual(self.codes(server, ALICE, BOB, subject="one sign is none"), [250, 250, 250])
        server.wait_for_mail("bob")  # else it might be held with the others
        self.assertFalse(self.is_stopped(server))
        self.assertEqual(self.codes(server, ALICE, *NOBODY), [250, 550, 550])
        wait_until(lambda: "is stopped: " in server.log(), server.log)
        self.assertTrue(self.is_stopped(server))
        ((code, words),) = self.submit(server, ALICE, BOB)
        self.assertEqual((code, words.splitlines()[0]), (450, "4.7.1 Sending is stopped for this account: it looks as if others used it."))
        self.assertEqual(self.codes(server, BOB, ALICE), [250, 250, 250])
        self.assertEqual(server.send(b"Subject: in\r\n\r\nx").code, 250)
        wait_until(lambda: "messages are held" in server.log(), server.log)
        wait_until(lambda: self.states(server) == ["held"], server.log)  # what is for a mailbox may be on its way still
        (entry,) = self.queue(server, "--login", ALICE)
        self.assertIn("held by account_guard: the account is stopped", entry["destinations"][0]["note"])
        # His other message goes to a mailbox: it may be on its way still.
        wait_until(lambda: [one["state"] for one in self.queue(server, "--login", BOB)] == ["deferred"], server.log)
        note = next(one.data.decode() for one in wait_until(lambda: self.notes(server, "alice"), server.log))
        for text in ("app password phone", "2 recipients here who do not exist", "bad1@elsewhere.example", "postmaster"):
            self.assertIn(text, note)
        wait_until(lambda: self.notes(server, "bob"), server.log)
        self.assertIn("stopped", next(line for line in server.command("user", "list").stdout.splitlines() if ALICE in line))
        road = server.command("explain", (ID.search(words) or [""])[0]).stdout
        self.assertIn("recipients here who do not exist (nobody1@example.org; nobody2@example.org)", road)

        server.kill()
        server.restart()
        self.assertEqual(self.codes(server, ALICE, BOB), [450])
        self.assertEqual(self.states(server), ["held"])
        self.sink.heal()
        said = server.command("user", "unlock", ALICE)
        self.assertEqual((said.returncode, said.stderr), (0, ""))
        wait_until(lambda: "waits" in self.subjects(), server.log)
        self.assertEqual(self.codes(server, ALICE, BOB), [250, 250, 250])
        self.assertEqual(len(self.notes(server, "alice")), 1)

    def notes(self, server: Server, user: str) -> list[Any]:
        return [one for one in server.messages(user) if "can send no mail" in (one.header("Subject") or "")]

    def subjects(self) -> list[str]:
        return [one.email["Subject"] for one in self.sink.messages]

    def test_one_that_a_person_stops_while_no_server_runs_is_held_by_the_next(self) -> None:
        server = self.begun()
        self.assertEqual(self.codes(server, ALICE, LATER, subject="waits"), [250, 250, 250])
        wait_until(lambda: "deferred " in server.log(), server.log)
        server.kill()
        self.assertEqual(server.command("user", "lock", ALICE, "--why", "stolen").returncode, 0)
        server.restart()
        self.assertEqual(self.codes(server, ALICE, BOB), [450])
        wait_until(lambda: "messages are held" in server.log(), server.log, 40)
        self.assertEqual(self.states(server), ["held"])

    def test_one_that_is_stopped_is_so_by_its_new_name_and_its_mail_waits_until_that_is_unlocked(self) -> None:
        server = self.begun()
        smith = "smith@example.org"
        self.assertEqual(self.codes(server, ALICE, LATER, subject="waits"), [250, 250, 250])
        wait_until(lambda: "deferred " in server.log(), server.log)
        for words in (("lock", ALICE), ("rename", ALICE, smith)):
            said = server.command("user", *words)
            self.assertEqual((said.returncode, said.stderr), (0, ""), words)
        self.assertEqual((self.is_stopped(server), self.is_stopped(server, smith)), (False, True))
        self.assertEqual(self.states(server), ["held"])
        server.kill()
        server.restart()
        self.assertEqual(self.codes(server, smith, BOB), [450])
        self.assertEqual(self.states(server), ["held"])
        self.sink.heal()
        self.assertEqual(server.command("user", "unlock", smith).returncode, 0)
        wait_until(lambda: "waits" in self.subjects(), server.log)
        self.assertEqual(self.codes(server, smith, BOB), [250, 250, 250])
