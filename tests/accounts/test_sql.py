"""Accounts in a database: an SQLite file, and a real PostgreSQL."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import apsw
import psycopg
from pydantic import ValidationError
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.accounts.app_passwords import hash_app_password, new_app_password
from mailserver.accounts.passwords import verify_password
from mailserver.accounts.realm import PasswordCredentials
from mailserver.accounts.sql import SqlDirectory, SqlDirectoryFactory, SqlDirectoryOptions
from mailserver.accounts.sql_sources import DatabaseTrouble, PostgresSource, Source, SqliteSource
from mailserver.interfaces import (
    IAccountList,
    ICertificateAccounts,
    IComponentFactory,
    IDirectory,
    IScramAccounts,
    ISenderGrants,
    Services,
)
from mailserver.mail.answers import Mailbox
from mailserver.sasl.scram_keys import derive_scram_keys, encode_scram_keys
from tests.accounts.postgres import Postgres

SCHEMA = Path(__file__).parents[2] / "mailserver" / "accounts" / "accounts.sql"
HASH = "$2b$04$5lIeglYhRZFsTCeWyzrAqOEGiwVMQ8KAoIK3RkTzNEo.Eod2Oz9pC"
KEYS = derive_scram_keys("secret", salt=b"s" * 16, iterations=4096)
APP = new_app_password()
ROWS = {
    "account": [("alice@example.org", "HASH", encode_scram_keys(KEYS)), ("bob@example.org", None, None)],
    "sender": [("alice@example.org", "@example.net")],
    "certificate": [("ab" * 32, "alice@example.org"), ("al@id.example", "alice@example.org")],
    "app_password": [
        ("alice@example.org", "phone", hash_app_password(APP), "smtp", None),
        ("bob@example.org", "old", hash_app_password(APP), "smtp imap", "2020-01-01"),
    ],
}


class SqlCase(SynchronousTestCase):
    """What both databases do alike."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.source = self.make_source()
        self.addCleanup(self.source.close)
        self.used: list[tuple[str, str]] = []
        self.directory = self.make(SqlDirectoryOptions(path="x"))

    def make_source(self) -> Source:
        self.path = os.path.abspath(self.mktemp())
        with apsw.Connection(self.path) as connection:
            connection.execute(SCHEMA.read_text())
            for table, rows in ROWS.items():
                for row in rows:
                    connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
        connection.close()
        return SqliteSource(self.path)

    def make(self, options: SqlDirectoryOptions) -> SqlDirectory:
        async def check(password: str, hash: str | None) -> bool:
            return hash == "HASH" and password == "secret"

        return SqlDirectory(
            source=self.source,
            options=options,
            clock=self.clock,
            run_in_thread=maybeDeferred,
            check_password=check,
            used=lambda account, one: self.used.append((account, one.name)),
            today=lambda: datetime.date(2026, 11, 26),
        )

    def result(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def log_in(self, account: str, password: str, service: str = "submission") -> Any:
        found: list[Any] = []
        self.directory.requestAvatarId(PasswordCredentials(account, password, service)).addBoth(found.append)
        return found[0] if isinstance(found[0], str) else found[0].check(UnauthorizedLogin)

    def test_it_is_what_it_says(self) -> None:
        for interface in (
            IDirectory,
            IAccountList,
            ICredentialsChecker,
            IScramAccounts,
            ICertificateAccounts,
            ISenderGrants,
        ):
            verifyObject(interface, self.directory)
        verifyObject(IComponentFactory, SqlDirectoryFactory())
        services = Services(self.clock, maybeDeferred, None, None, "mx.example.org", "/etc", "/data")
        self.assertIsInstance(SqlDirectoryFactory().build(SqlDirectoryOptions(path="/x"), services), SqlDirectory)

    def test_a_wrong_query_stops_the_start(self) -> None:
        self.result(self.directory.start())
        for name in ("account", "senders", "certificate", "app_passwords"):
            directory = self.make(SqlDirectoryOptions(path="x", **{f"query_{name}": "SELECT nothing FROM nowhere"}))
            self.failureResultOf(Deferred.fromCoroutine(directory.start()), DatabaseTrouble)
        empty = dict.fromkeys(("query_senders", "query_certificate", "query_app_passwords"), "")
        self.result(self.make(SqlDirectoryOptions(path="x", **empty)).start())

    def test_an_account_is_found_exactly(self) -> None:
        self.assertEqual(self.result(self.directory.find("alice", "example.org")), Mailbox("alice", "example.org"))
        self.assertIsNone(self.result(self.directory.find("alice", "example.net")))
        for name in ("' OR 1=1 --", "%", "alice@example.org'; DROP TABLE account; --", ":address", "a\0b"):
            self.assertIsNone(self.result(self.directory.find(name, "example.org")))
        self.assertEqual(self.result(self.directory.accounts()), ["alice@example.org", "bob@example.org"])

    def test_passwords_keys_certificates_and_grants(self) -> None:
        self.assertEqual(self.log_in("alice@example.org", "secret"), "alice@example.org")
        self.assertIs(self.log_in("alice@example.org", "guess"), UnauthorizedLogin)
        self.assertIs(self.log_in("bob@example.org", "secret"), UnauthorizedLogin)
        self.assertIs(self.log_in("nobody@example.org", "secret"), UnauthorizedLogin)
        self.assertEqual(self.result(self.directory.scram_keys("alice@example.org")), KEYS)
        self.assertIsNone(self.result(self.directory.scram_keys("bob@example.org")))
        ask = self.directory.account_of_certificate
        self.assertEqual(self.result(ask("ab" * 32, ())), "alice@example.org")
        self.assertEqual(self.result(ask("cd" * 32, ("AL@id.example",))), "alice@example.org")
        self.assertIsNone(self.result(ask("cd" * 32, ())))
        self.assertEqual(self.result(self.directory.granted_senders("alice@example.org")), ["@example.net"])

    def test_app_passwords_have_their_scope_and_their_end(self) -> None:
        self.assertEqual(self.log_in("alice@example.org", APP), "alice@example.org")
        self.assertEqual(self.used, [("alice@example.org", "phone")])
        self.assertIs(self.log_in("alice@example.org", APP, "imap"), UnauthorizedLogin)
        self.assertIs(self.log_in("bob@example.org", APP), UnauthorizedLogin)

    def test_a_query_of_ones_own_is_asked_and_an_empty_one_is_not(self) -> None:
        options = SqlDirectoryOptions(
            path="x",
            query_account="SELECT password FROM account WHERE address = :address AND '100%' LIKE '1%'",
            query_senders="",
            query_app_passwords="",
            query_certificate="",
            query_accounts="",
        )
        self.directory = self.make(options)
        self.assertEqual(self.log_in("alice@example.org", "secret"), "alice@example.org")
        self.assertIs(self.log_in("alice@example.org", APP), UnauthorizedLogin)
        self.assertEqual(self.result(self.directory.granted_senders("alice@example.org")), [])
        self.assertEqual(self.result(self.directory.accounts()), [])
        self.assertIsNone(self.result(self.directory.account_of_certificate("ab" * 32, ())))
        self.result(self.directory.start())

    def test_whether_somebody_exists_is_remembered_for_ten_seconds(self) -> None:
        self.result(self.directory.find("carol", "example.org"))
        self.change("INSERT INTO account VALUES ('carol@example.org', NULL, NULL)")
        self.assertIsNone(self.result(self.directory.find("carol", "example.org")))
        self.clock.advance(10)
        self.assertEqual(self.result(self.directory.find("carol", "example.org")), Mailbox("carol", "example.org"))

    def change(self, statement: str) -> None:
        with apsw.Connection(self.path) as connection:
            connection.execute(statement)
        connection.close()

    def test_the_source_cannot_write(self) -> None:
        self.assertRaises(DatabaseTrouble, self.source.rows, "DELETE FROM account", {})


class Sqlite(SqlCase):
    def test_who_was_listed_need_not_be_asked_about(self) -> None:
        self.result(self.directory.accounts())
        self.patch(self.directory, "_rows", None)
        self.assertIsNotNone(self.result(self.directory.find("bob", "example.org")))

    def test_a_file_that_is_gone_is_nobody_can_tell_and_a_new_one_is_found(self) -> None:
        self.result(self.directory.accounts())
        os.rename(self.path, self.path + ".away")
        self.failureResultOf(Deferred.fromCoroutine(self.directory.granted_senders("alice@example.org")), DatabaseTrouble)
        os.rename(self.path + ".away", self.path)
        self.assertEqual(len(self.result(self.directory.accounts())), 2)

    def test_options_name_one_place(self) -> None:
        for options in ({}, {"path": "x", "dsn": "y"}):
            self.assertRaises(ValidationError, SqlDirectoryOptions, **options)

    def test_the_hashes_of_other_servers_are_compared(self) -> None:
        self.assertFalse(verify_password("something", HASH))


class PostgreSQL(SqlCase):
    server: Postgres | None = None

    def make_source(self) -> Source:
        server = self.server = Postgres()
        self.addCleanup(server.stop)
        server.start()
        with psycopg.connect(server.dsn) as connection:
            connection.execute(SCHEMA.read_text())
            for table, rows in ROWS.items():
                for row in rows:
                    connection.execute(f"INSERT INTO {table} VALUES ({','.join(['%s'] * len(row))})", row)
        return PostgresSource(server.dsn)

    def change(self, statement: str) -> None:
        assert self.server is not None
        with psycopg.connect(self.server.dsn) as connection:
            connection.execute(statement)

    def test_a_server_that_is_gone_is_nobody_can_tell_and_comes_back(self) -> None:
        assert self.server is not None
        self.result(self.directory.accounts())
        self.server.halt()
        self.failureResultOf(Deferred.fromCoroutine(self.directory.granted_senders("alice@example.org")), DatabaseTrouble)
        self.server.go_on()
        self.assertEqual(len(self.result(self.directory.accounts())), 2)


del SqlCase
