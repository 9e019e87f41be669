"""Accounts in a database: an SQLite file, and a real PostgreSQL."""

from __future__ import annotations

import atexit
import datetime
import functools
import os
import signal
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, cast

import apsw
import psycopg
from pydantic import ValidationError
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.accounts import sql, sql_sources
from mailserver.accounts.sql import SqlDirectory, SqlDirectoryFactory, SqlDirectoryOptions, app_password_of
from mailserver.accounts.sql_sources import AccountSource, DatabaseBusy, PostgresSource, SqliteSource
from mailserver.authentication.app_passwords import hash_app_password, new_app_password
from mailserver.authentication.checkers import PasswordCredentials
from mailserver.authentication.passwords import verify_password
from mailserver.interfaces import (
    CannotTell,
    IAccountList,
    ICertificateAccounts,
    IComponentFactory,
    IDirectory,
    IScramAccounts,
    ISenderGrants,
    Services,
)
from mailserver.mail.answers import Mailbox
from mailserver.plugins.threads import Threads
from mailserver.sasl.scram_keys import ScramForm, derive_scram_keys, encode_scram_keys
from tests.accounts.postgres import Postgres
from tests.scenarios.support import wait_until

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


class Here:
    """Stands for threads."""

    run = staticmethod(maybeDeferred)

    def stop(self) -> None: ...


class SqlCase(SynchronousTestCase):
    """What both databases do alike."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.source = self.make_source()
        self.addCleanup(self.source.close)
        self.used: list[tuple[str, str]] = []
        self.directory = self.make(SqlDirectoryOptions(path="x"))

    def make_source(self) -> AccountSource:
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
            threads=cast(Threads, Here()),
            check_password=check,
            used=lambda account, one: self.used.append((account, one.name)),
            today=lambda: datetime.date(2026, 11, 26),
        )

    def result(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def login(self, account: str, password: str, service: str = "submission") -> Any:
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
        services = Services(self.clock, maybeDeferred, None, None, "mx.example.org", "/etc", "/data", new_threads=lambda *_: Here())
        self.assertIsInstance(SqlDirectoryFactory().build(SqlDirectoryOptions(path="/x"), services), SqlDirectory)

    def test_a_wrong_query_stops_the_start(self) -> None:
        self.result(self.directory.start())
        for name in ("account", "senders", "certificate", "app_passwords"):
            directory = self.make(SqlDirectoryOptions(path="x", **{f"query_{name}": "SELECT nothing FROM nowhere"}))
            self.failureResultOf(Deferred.fromCoroutine(directory.start()), CannotTell)
        empty = dict.fromkeys(("query_senders", "query_certificate", "query_app_passwords"), "")
        self.result(self.make(SqlDirectoryOptions(path="x", **empty)).start())

    def test_an_account_is_found_exactly(self) -> None:
        self.assertEqual(self.result(self.directory.find("alice", "example.org")), Mailbox("alice", "example.org"))
        self.assertIsNone(self.result(self.directory.find("alice", "example.net")))
        for name in ("' OR 1=1 --", "%", "alice@example.org'; DROP TABLE account; --", ":address", "a\0b"):
            self.assertIsNone(self.result(self.directory.find(name, "example.org")))
        self.assertEqual(self.result(self.directory.accounts()), ["alice@example.org", "bob@example.org"])

    def test_passwords_keys_certificates_and_grants(self) -> None:
        self.assertEqual(self.login("alice@example.org", "secret"), "alice@example.org")
        self.assertIs(self.login("alice@example.org", "guess"), UnauthorizedLogin)
        self.assertIs(self.login("bob@example.org", "secret"), UnauthorizedLogin)
        self.assertIs(self.login("nobody@example.org", "secret"), UnauthorizedLogin)
        self.assertEqual(self.result(self.directory.scram_keys("alice@example.org")), KEYS)
        self.assertIsNone(self.result(self.directory.scram_keys("bob@example.org")))
        ask = self.directory.account_of_certificate
        self.assertEqual(self.result(ask("ab" * 32, ())), "alice@example.org")
        self.assertEqual(self.result(ask("cd" * 32, ("AL@id.example",))), "alice@example.org")
        self.assertIsNone(self.result(ask("cd" * 32, ())))
        self.assertEqual(self.result(self.directory.granted_senders("alice@example.org")), ["@example.net"])

    def test_app_passwords_have_their_scope_and_their_end(self) -> None:
        self.assertEqual(self.login("alice@example.org", APP), "alice@example.org")
        self.assertEqual(self.used, [("alice@example.org", "phone")])
        self.assertIs(self.login("alice@example.org", APP, "imap"), UnauthorizedLogin)
        self.assertIs(self.login("bob@example.org", APP), UnauthorizedLogin)

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
        self.assertEqual(self.login("alice@example.org", "secret"), "alice@example.org")
        self.assertIs(self.login("alice@example.org", APP), UnauthorizedLogin)
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

    def test_after_a_reload_it_is_asked_again_and_a_wrong_query_is_told(self) -> None:
        self.result(self.directory.find("carol", "example.org"))
        self.change("INSERT INTO account VALUES ('carol@example.org', NULL, NULL)")
        self.result(self.directory.reload())
        self.assertEqual(self.result(self.directory.find("carol", "example.org")), Mailbox("carol", "example.org"))
        self.change("ALTER TABLE account RENAME TO other")
        self.failureResultOf(Deferred.fromCoroutine(self.directory.reload()), CannotTell)

    def change(self, statement: str) -> None:
        with apsw.Connection(self.path) as connection:
            connection.execute(statement)
        connection.close()

    def test_the_source_cannot_write(self) -> None:
        for statement in ("DELETE FROM sender", "INSERT INTO account VALUES ('x@example.org', NULL, NULL) RETURNING address"):
            self.assertRaises(CannotTell, self.source.ask, statement, {})
        self.assertEqual(len(self.source.ask("SELECT address FROM account", {}).rows), 2)

    def test_queries_with_the_wrong_columns_stop_the_start(self) -> None:
        for name, columns in (("account", "address, 1, 2"), ("senders", "1, 2"), ("app_passwords", "address"), ("accounts", "address, 1")):
            where = "" if name == "accounts" else " WHERE address = :address"
            directory = self.make(SqlDirectoryOptions(path="x", **{f"query_{name}": f"SELECT {columns} FROM account{where}"}))
            failure = self.failureResultOf(Deferred.fromCoroutine(directory.start()), CannotTell)
            self.assertIn(f"query_{name} finds", str(failure.value))

    def test_a_row_that_cannot_be_used_stops_no_account_and_is_told_once(self) -> None:
        self.change("UPDATE account SET scram = 'SCRAM-SHA-256$nonsense' WHERE address = 'alice@example.org'")
        self.change("INSERT INTO app_password VALUES ('alice@example.org', 'tablet', 'x', 'smtp', 'next year')")
        with capturedLogs() as events:
            for _ in range(2):
                self.assertIsNone(self.result(self.directory.scram_keys("alice@example.org")))
                self.assertEqual(self.login("alice@example.org", "secret"), "alice@example.org")
                self.assertEqual(self.login("alice@example.org", APP), "alice@example.org")
        self.assertEqual(sorted(event["what"] for event in events), ["SCRAM keys", "app password"])

    def test_of_what_is_no_text_nothing_is_granted(self) -> None:
        asked = "SELECT NULL UNION ALL SELECT '@example.net'"
        self.directory = self.make(SqlDirectoryOptions(path="x", query_senders=asked))
        self.assertEqual(self.result(self.directory.granted_senders("alice@example.org")), ["@example.net"])

    def test_the_end_of_an_app_password_may_be_a_date_or_a_time(self) -> None:
        zone = datetime.timezone(datetime.timedelta(hours=-5))
        day = datetime.date(2027, 1, 2)
        for value in (
            day, "2027-01-02", "2027-01-02 10:00:00", datetime.datetime(2027, 1, 2, 3), datetime.datetime(2027, 1, 1, 23, tzinfo=zone)
        ):  # fmt: skip
            self.assertEqual(app_password_of(("a", "h", None, value)).expires, day)
        self.assertEqual(app_password_of(("a", "h", ["smtp", "imap"], None)).scopes, ("smtp", "imap"))

    def test_false_keys_get_the_form_of_those_in_the_database(self) -> None:
        self.assertIsNone(self.result(self.directory.usual_scram_form()))
        self.result(self.directory.start())
        self.assertEqual(self.result(self.directory.usual_scram_form()), ScramForm(4096, 16))

    def test_accounts_whose_capitals_nobody_will_ask_for_are_told(self) -> None:
        self.change("INSERT INTO account VALUES ('Carol@example.org', NULL, NULL)")
        with capturedLogs() as events:
            self.result(self.directory.start())
        self.assertEqual([event["addresses"] for event in events], ["Carol@example.org"])
        self.result(self.directory.accounts())
        self.assertIsNone(self.result(self.directory.find("carol", "example.org")))

    def test_once_closed_it_opens_no_connection_any_more(self) -> None:
        self.result(self.directory.accounts())
        self.result(self.directory.stop())
        self.failureResultOf(Deferred.fromCoroutine(self.directory.accounts()), CannotTell)


class Sqlite(SqlCase):
    def test_who_was_listed_need_not_be_asked_about(self) -> None:
        self.result(self.directory.accounts())
        self.patch(self.directory, "_ask", None)
        self.assertIsNotNone(self.result(self.directory.find("bob", "example.org")))

    def test_a_file_that_is_gone_is_nobody_can_tell_and_a_new_one_is_found(self) -> None:
        self.result(self.directory.accounts())
        os.rename(self.path, self.path + ".away")
        self.failureResultOf(Deferred.fromCoroutine(self.directory.granted_senders("alice@example.org")), CannotTell)
        os.rename(self.path + ".away", self.path)
        self.assertEqual(len(self.result(self.directory.accounts())), 2)

    def test_a_question_that_takes_too_long_is_cut(self) -> None:
        endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 20000000) SELECT max(n) FROM c"
        with ThreadPool(1) as threads:
            asked = threads.apply_async(self.source.ask, (endless, {}))
            wait_until(lambda: self.source.cut(0.0) or asked.ready(), lambda: "the question goes on")
            self.assertRaises(CannotTell, asked.get)

    def test_one_whom_another_keeps_locked_is_asked_by_one_at_a_time(self) -> None:
        self.patch(sql_sources, "BUSY_MILLISECONDS", 1)
        self.result(self.directory.accounts())
        other = apsw.Connection(self.path)
        other.execute("BEGIN EXCLUSIVE")
        self.failureResultOf(Deferred.fromCoroutine(self.directory.granted_senders("a@b")), DatabaseBusy)
        with self.directory._silence.asking():
            failure = self.failureResultOf(Deferred.fromCoroutine(self.directory.granted_senders("a@b")), DatabaseBusy)
            self.assertIn("another one waits", str(failure.value))
        other.close()
        self.assertEqual(len(self.result(self.directory.accounts())), 2)

    def test_the_end_of_a_short_lock_is_waited_for(self) -> None:
        self.patch(sql_sources, "BUSY_MILLISECONDS", 60_000)
        other = apsw.Connection(self.path)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        with ThreadPool(1) as threads:
            asked = threads.apply_async(self.source.ask, ("SELECT count(*) FROM account", {}))
            asked.wait(0.2)  # who would not wait has answered by now
            other.execute("ROLLBACK")
            self.assertEqual(asked.get().rows, [(2,)])

    def test_options_name_one_place(self) -> None:
        for options in ({}, {"path": "x", "dsn": "y"}):
            self.assertRaises(ValidationError, SqlDirectoryOptions, **options)

    def test_the_hashes_of_other_servers_are_compared(self) -> None:
        self.assertFalse(verify_password("something", HASH))


@functools.cache
def shared_server() -> Postgres:
    """One for all tests of this module: it takes seconds to come up."""
    server = Postgres()
    server.start()
    atexit.register(server.stop)
    return server


class PostgreSQL(SqlCase):
    server: Postgres | None = None

    def make_source(self) -> AccountSource:
        server = self.server = shared_server()
        with psycopg.connect(server.dsn) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
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
        self.failureResultOf(Deferred.fromCoroutine(self.directory.granted_senders("alice@example.org")), CannotTell)
        self.server.go_on()
        self.assertEqual(len(self.result(self.directory.accounts())), 2)

    def ours(self, what: str) -> list[Any]:
        assert self.server is not None
        with psycopg.connect(self.server.dsn) as connection:
            return connection.execute(f"SELECT {what} FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()").fetchall()

    def test_it_goes_through_a_pgbouncer_and_leaves_the_options_of_the_administrator_alone(self) -> None:
        assert self.server is not None and isinstance(self.source, PostgresSource)
        self.source._dsn += " options='-c search_path=theirs'"
        self.assertEqual(self.source.ask("SHOW search_path", {}).rows, [("theirs",)])
        self.assertEqual(self.source.ask("SHOW statement_timeout", {}).rows, [("4s",)])
        for _ in range(10):
            rows = self.source.ask("SELECT count(*) FROM pg_prepared_statements WHERE name <> :address", {"address": "x"}).rows
        self.assertEqual(rows, [(0,)], "the next transaction may be another session's")
        [connection] = self.source._idle
        self.assertEqual(connection.info.get_parameters()["options"], "-c search_path=theirs")
        self.assertEqual(connection.execute("SHOW statement_timeout").fetchall(), [("0",)], "nothing is set for the session")

    def test_a_pgbouncer_that_gives_each_transaction_another_session_may_stand_in_between(self) -> None:
        assert self.server is not None
        bouncer, dsn = self.server.begin_pgbouncer()
        self.addCleanup(bouncer.wait)
        self.addCleanup(bouncer.terminate)
        source = PostgresSource(dsn)
        self.addCleanup(source.close)
        wait_until(lambda: self.answers(source), lambda: f"pgbouncer: {bouncer.poll()}")
        self.directory._source = source
        self.result(self.directory.start())
        with ThreadPool(4) as threads:
            query = "SELECT address, pg_sleep(0.001) FROM account WHERE address = :address"
            found = threads.map(lambda _: source.ask(query, {"address": "bob@example.org"}).rows[0][0], range(100))
        self.assertEqual(found, ["bob@example.org"] * 100)
        self.assertRaises(CannotTell, source.ask, "DELETE FROM sender", {})
        self.assertEqual(source.ask("SHOW statement_timeout", {}).rows, [("4s",)])

    def answers(self, source: AccountSource) -> bool:
        try:
            return source.ask("SELECT 1", {}).rows == [(1,)]
        except CannotTell:
            return False

    def test_a_connection_that_was_lost_while_nobody_used_it_is_made_again_and_a_long_question_ends(self) -> None:
        self.source.ask("SELECT 1", {})
        self.assertEqual(self.ours("pg_terminate_backend(pid)"), [(True,)])
        self.assertEqual(self.source.ask("SELECT 1", {}).rows, [(1,)])
        self.patch(sql_sources, "STATEMENT_SECONDS", 0.05)
        error = self.assertRaises(CannotTell, self.source.ask, "SELECT pg_sleep(60)", {})
        self.assertIn("statement timeout", str(error))
        self.source.ask("SELECT 1", {})
        self.source.close()
        self.assertEqual(self.ours("pid"), [])


class LockedSQLite(TestCase):
    timeout = 60

    async def test_one_that_another_program_locks_holds_nobody_else_and_is_asked_again(self) -> None:
        from twisted.internet import reactor

        path = os.path.abspath(self.mktemp())
        other = apsw.Connection(path)
        self.addCleanup(other.close)
        other.execute("CREATE TABLE account (name TEXT)")
        self.patch(sql_sources, "BUSY_MILLISECONDS", 300)
        options = SqlDirectoryOptions(
            path=path, query_account="SELECT 'x' FROM (SELECT count(*) FROM account) WHERE :address <> ''", query_accounts="",
            query_senders="", query_certificate="", query_app_passwords="",
        )  # fmt: skip
        own = functools.partial(Threads, call_from_thread=reactor.callFromThread)
        services = Services(reactor, deferToThread, None, None, "mx.example.org", "/etc", "/data", new_threads=own)
        directory = SqlDirectoryFactory().build(options, services)
        await directory.start()
        self.assertIsNotNone(await directory.find("a", "example.org"))
        other.execute("BEGIN EXCLUSIVE")
        ended: list[str] = []
        asked = [Deferred.fromCoroutine(directory.find(f"b{n}", "example.org")) for n in range(30)]
        for one in asked:
            one.addErrback(lambda failure: ended.append(failure.trap(CannotTell).__name__))
        await gatherResults([deferToThread(ended.append, "unrelated") for _ in range(15)])
        self.assertIn("unrelated", ended)
        self.assertLess(len(ended), 45, "the first question still waits for the lock: the others have not waited for it")
        await gatherResults(asked)
        self.assertEqual(len(ended), 45, "all of them end")
        other.execute("ROLLBACK")
        while True:
            try:
                self.assertIsNotNone(await directory.find("e", "example.org"))
                break
            except CannotTell:  # the thread of a question that was given up is given back when SQLite looks again
                await deferLater(reactor, 0.05)
        await directory.stop()


class SilentPostgreSQL(TestCase):
    timeout = 60

    async def test_one_that_goes_silent_holds_nobody_else_and_is_asked_again(self) -> None:
        from twisted.internet import reactor

        server = Postgres()
        self.addCleanup(server.stop)
        await deferToThread(server.start)
        self.patch(sql, "QUESTION_SECONDS", 0.5)
        self.patch(sql, "STATEMENT_SECONDS", 0.1)
        options = SqlDirectoryOptions(
            dsn=server.dsn, query_account="SELECT 'x' WHERE :address <> ''", query_accounts="", query_senders="",
            query_certificate="", query_app_passwords="",
        )  # fmt: skip
        own = functools.partial(Threads, call_from_thread=reactor.callFromThread)
        services = Services(reactor, deferToThread, None, None, "mx.example.org", "/etc", "/data", new_threads=own)
        directory = SqlDirectoryFactory().build(options, services)
        await directory.start()
        await gatherResults([Deferred.fromCoroutine(directory.find(f"a{n}", "example.org")) for n in range(8)])
        server.signal(signal.SIGSTOP)
        self.addCleanup(server.signal, signal.SIGCONT)
        ended: list[str] = []
        asked = [Deferred.fromCoroutine(directory.find(f"b{n}", "example.org")) for n in range(30)]
        for one in asked:
            one.addErrback(lambda failure: ended.append(failure.trap(CannotTell).__name__))
        unrelated = gatherResults([deferToThread(ended.append, "unrelated") for _ in range(15)])
        await gatherResults([*asked, unrelated])
        self.assertEqual(ended[:15], ["unrelated"] * 15)
        self.assertEqual(len(ended), 45, "all of them end")
        server.signal(signal.SIGCONT)
        while True:
            try:
                self.assertIsNotNone(await directory.find("e", "example.org"))
                break
            except CannotTell:  # connections that were cut are given back by their threads
                await deferLater(reactor, 0.05)
        await directory.stop()
        with psycopg.connect(server.dsn) as connection:
            left = "SELECT FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
            while connection.execute(left).fetchall():  # what the silence has kept ends by and by
                await deferLater(reactor, 0.05)


del SqlCase
