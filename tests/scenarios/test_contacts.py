"""Strangers to three users, over SMTP: each decides for himself, by command and by mail, and a server that is killed forgets nothing."""

from __future__ import annotations

import re
import smtplib
from typing import Any

from mailserver.control.client import ask
from tests.scenarios.support import BASIC, Server, Wire, wait_until
from tests.scenarios.test_login import PASSWORD, LoginCase

ALICE, BOB, CAROL = USERS = ("alice@example.org", "bob@example.org", "carol@example.org")
STRANGER, FRIEND = "stranger@elsewhere.example", "friend@elsewhere.example"
SECONDS = 60.0  # the machine has other work
CONFIG = (
    BASIC
    + """
[[listen]]
service = "mx"
endpoint = "haproxy:tcp:{proxiedport}:interface=127.0.0.1"
tls = "none"

[[listen]]
service = "submission"
endpoint = "tcp:{tlsport}:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"

[relay]
use = "capture"
path = "{work}/outbound"

[[filter]]
use = "contacts"
hold = true
"""
)


class Strangers(LoginCase):
    def begun(self, *who: str) -> Server:
        """With passwords for these."""
        server = self.prepare(CONFIG, accounts=USERS)
        server.changed = {"mailserver.filters.contacts:Contacts.interval_seconds": 0.2}
        self.certify(server)
        (server.work / "data").mkdir()
        for user in who:
            self.set_password(server, user)
        server.start()
        return server

    def send(self, server: Server, *recipients: str, sender: str = STRANGER, subject: str = "hello") -> list[int]:
        """From an address of the Internet: what each RCPT and the data have heard."""
        with Wire(server.ports["proxiedport"], greet=False) as wire:
            wire.send(b"PROXY TCP4 11.2.3.4 11.2.3.5 40000 25\r\n")
            self.assertEqual(wire.reply().code, 220)
            codes = wire.dialogue("EHLO client.example", f"MAIL FROM:<{sender}>", *[f"RCPT TO:<{one}>" for one in recipients])
            if 250 not in codes[2:]:
                return codes[2:]
            wire.command("DATA")
            wire.send(f"From: {sender}\r\nSubject: {subject}\r\n\r\nx\r\n.\r\n".encode())
            return [*codes[2:], wire.reply().code]

    def submit(self, server: Server, user: str, *to: str) -> int:
        with smtplib.SMTP_SSL("127.0.0.1", server.ports["tlsport"], context=self.context(), timeout=20) as client:
            client.login(user, PASSWORD)
            try:
                client.sendmail(user, to, f"From: {user}\r\nSubject: re\r\n\r\nx\r\n")
            except smtplib.SMTPRecipientsRefused as refused:
                return next(iter(refused.recipients.values()))[0]
            except smtplib.SMTPDataError as refused:
                return refused.smtp_code
        return 250

    def subjects(self, server: Server, user: str, folder: str = "") -> list[str]:
        found = [one.header("Subject") or "" for one in server.messages(user.partition("@")[0], folder)]
        return sorted([one for one in found if "decision" not in one])

    def wait_for(self, server: Server, user: str, subjects: list[str], folder: str = "") -> None:
        wait_until(
            lambda: self.subjects(server, user, folder) == subjects,
            lambda: f"{user}: {self.subjects(server, user, folder)}\n{server.log()}",
            SECONDS,
        )

    def contacts(self, server: Server, user: str, command: str, **more: str) -> Any:
        """What the server answers to a command of the filter, without a process for the command line."""
        question = {"name": "contacts", "command": command, "arguments": {"user": user, **more}}
        return ask(str(server.work / "data" / "control.sock"), "component.run", question)["answer"]

    def digest_address(self, server: Server, user: str, letter: str) -> str:
        """The newest one-time address that the user's message offers."""

        def found() -> list[str]:
            texts = [one.body.decode() for one in server.messages(user.partition("@")[0]) if "decision" in (one.header("Subject") or "")]
            return [address for text in texts for address in re.findall(rf"decide\+[a-z2-7]{{24}}{letter}@example\.org", text)]

        return str(wait_until(found, server.log, SECONDS)[-1])

    def test_each_decides_for_himself_and_a_kill_between_decision_and_delivery_costs_nothing(self) -> None:
        server = self.begun(BOB, CAROL)
        self.assertEqual(self.send(server, *USERS), [250, 250, 250, 250])
        self.assertEqual([len(self.contacts(server, user, "pending")) for user in USERS], [1, 1, 1])
        server.kill()
        said = server.command("contacts", ALICE, "accept", STRANGER)
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn("waits until a server", said.stdout)  # kept, and not carried out: there is none
        server.restart()
        self.wait_for(server, ALICE, ["hello"])
        self.contacts(server, BOB, "refuse", sender=STRANGER)
        self.wait_for(server, BOB, ["hello"], ".Junk")
        self.assertEqual(self.send(server, *USERS, subject="second"), [250, 550, 250, 250])
        for user in (ALICE, BOB, CAROL):
            self.assertEqual((self.subjects(server, user), self.subjects(server, user, ".Junk")), ([], []) if user == CAROL else
                             ([], ["hello"]) if user == BOB else (["hello"], []))  # fmt: skip
        self.assertEqual([len(self.contacts(server, user, "pending")) for user in USERS], [1, 0, 2])  # nothing shows who he is

        accept = self.digest_address(server, CAROL, "a")
        self.assertEqual(self.send(server, accept, sender=CAROL), [250, 550])
        self.assertEqual(self.submit(server, BOB, accept), 550)
        self.assertEqual(self.submit(server, CAROL, accept), 250)
        self.wait_for(server, CAROL, ["hello", "second"])
        self.assertEqual(self.submit(server, CAROL, accept), 550)
        server.kill()
        server.restart()
        self.assertEqual(self.submit(server, CAROL, accept), 550)
        self.assertEqual(self.send(server, CAROL, subject="third"), [250, 250])
        self.wait_for(server, CAROL, ["hello", "second", "third"])

    def test_an_answer_is_expected_and_so_is_what_somebody_waits_for(self) -> None:
        server = self.begun(ALICE)
        self.assertEqual(self.submit(server, ALICE, FRIEND), 250)
        wait_until(lambda: self.contacts(server, ALICE, "list"), server.log, SECONDS)
        self.assertEqual([row["contact"] for row in self.contacts(server, ALICE, "list")], [FRIEND])
        self.assertEqual(server.command("expect", BOB, "--minutes", "5").returncode, 0)
        self.assertEqual(self.send(server, ALICE, BOB, CAROL), [250, 250, 250, 250])
        self.wait_for(server, BOB, ["hello"])
        self.assertEqual((self.subjects(server, ALICE), self.subjects(server, CAROL)), ([], []))
        self.assertEqual(server.command("expect", BOB, "--end").returncode, 0)
        self.assertEqual(self.send(server, BOB, subject="second"), [250, 250])
        self.assertEqual([row["subject"] for row in self.contacts(server, BOB, "pending")], ["second"])
