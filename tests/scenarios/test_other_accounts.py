"""The whole server with accounts that stand elsewhere: in a database, in a directory; and what is made of them at the start."""

from __future__ import annotations

import smtplib
from importlib import resources

import apsw

from mailserver.accounts.kept_password import keep_password
from tests.accounts.slapd import BASE, Slapd
from tests.scenarios.support import ScenarioCase, Server, wait_until
from tests.scenarios.test_login import ALICE, AUTHORITY, MESSAGE, PASSWORD, SUBMISSION, LoginCase

FILE = 'use = "file"\npath = "{work}/accounts.toml"\n'


class Start(ScenarioCase):
    def test_a_mailbox_is_made_for_each_account_whatever_its_capitals(self) -> None:
        server = self.prepare(accounts=("Alice@Example.org", "bob@example.org"))
        server.start()
        self.assertEqual(sorted(path.name for path in server.mail.iterdir()), ["alice", "bob"])


class Elsewhere(LoginCase):
    def begin(self, accounts: str) -> Server:
        server = self.prepare(SUBMISSION.replace(FILE, accounts))
        AUTHORITY.leaf("mx.example.org").write(str(server.work))
        return server

    def code(self, server: Server, password: str = PASSWORD) -> int:
        with self.client(server) as client:
            try:
                client.login(ALICE, password)
                client.sendmail(ALICE, ["bob@elsewhere.example"], MESSAGE)
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code
            return 250

    def test_a_database(self) -> None:
        server = self.begin('use = "sql"\npath = "{work}/accounts.db"\n')
        words = keep_password(PASSWORD, ALICE)
        with apsw.Connection(str(server.work / "accounts.db")) as connection:
            connection.execute((resources.files("mailserver.accounts") / "accounts.sql").read_text())
            for row in ((ALICE, words.hash, words.scram), ("no address", None, None)):
                connection.execute("INSERT INTO account VALUES (?, ?, ?)", row)
        server.start()
        self.assertTrue((server.mail / "alice").is_dir())
        wait_until(lambda: "no address cannot be an account" in server.log(), server.log)
        self.assertEqual([self.code(server), self.code(server, "wrong")], [250, 535])
        with connection:
            connection.execute("UPDATE account SET password = NULL")
        self.assertEqual(self.code(server), 535)
        connection.close()
        (server.work / "accounts.db").unlink()
        self.assertEqual(self.code(server), 454)

    def test_a_directory(self) -> None:
        server = self.begin(FILE)
        entries = (
            f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n\n"
            f"dn: cn=alice,{BASE}\nobjectClass: inetOrgPerson\ncn: alice\nsn: x\nmail: {ALICE}\nuserPassword: {PASSWORD}\n"
        )
        folder = server.work / "slapd"
        folder.mkdir()
        AUTHORITY.leaf("localhost").write(str(folder))
        slapd = Slapd(folder, entries, anybody_reads=True)
        server.configure(SUBMISSION.replace(FILE, f'use = "ldap"\nurl = "ldap://127.0.0.1:{slapd.port}"\nbase = "{BASE}"\n'))
        slapd.start()
        self.addCleanup(slapd.kill)
        server.start()
        self.assertEqual([self.code(server), self.code(server, "wrong")], [250, 535])
        slapd.kill()
        self.assertEqual(self.code(server), 454)
