"""A good password that comes by is kept in today's way, and nothing else happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts import file as file_module
from mailserver.accounts.entry import Password
from mailserver.accounts.file import FileDirectory
from mailserver.accounts.table import AccountsFile
from mailserver.authentication.checkers import PasswordCredentials
from mailserver.authentication.passwords import hash_password

OLD = "{SSHA}an old hash of the account's"
NEW = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
OTHER = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$b3RoZXJvdGhlcm90aGVy"
SCRAM = (
    "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)


class Renewing(SynchronousTestCase):
    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        self.path = f"{folder}/accounts.toml"
        self.file = AccountsFile(self.path)
        self.clock = Clock()
        self.held: list[tuple[Deferred[Any], Any, Any]] | None = None
        self.under_way = self.under_way_most = 0
        self.made: list[str] = []
        self.keeps = Password(NEW, SCRAM)
        self.patch(file_module, "keep_password", self.keep_password)

    def keep_password(self, password: str, account: str, key: bytes | None = None) -> Password:
        self.made.append(account)
        return self.keeps

    def start(self, *accounts: str, hash: str = OLD) -> None:
        for account in accounts:
            self.file.add(account, Password(hash))
        self.directory = FileDirectory(
            path=self.path, clock=self.clock, run_in_thread=self.run_in_thread, check_password=self.check_password
        )
        self.successResultOf(Deferred.fromCoroutine(self.directory.start()))

    def run_in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        if self.held is None:
            return maybeDeferred(function, *arguments)
        done: Deferred[Any] = Deferred()
        self.held.append((done, function, arguments))
        self.under_way += 1
        self.under_way_most = max(self.under_way, self.under_way_most)
        return done

    def let_threads_run(self) -> None:
        while self.held:
            done, function, arguments = self.held.pop(0)
            self.under_way -= 1
            maybeDeferred(function, *arguments).chainDeferred(done)

    def check_password(self, password: str, hash: str | None) -> Deferred[bool]:
        done: Deferred[bool] = Deferred()
        done.callback(hash is not None and password == "secret")
        return done

    def login(self, account: str, password: str = "secret") -> bool:
        asked = self.directory.requestAvatarId(PasswordCredentials(account, password, "submission"))
        outcomes: list[bool] = []
        asked.addCallback(lambda _: True).addErrback(lambda failure: failure.trap(UnauthorizedLogin) and False)
        asked.addCallback(outcomes.append)
        return outcomes[0]

    def kept(self) -> dict[str, str | None]:
        return {account.address: account.password for account in self.file.list()}

    def test_an_outdated_hash_gives_way_to_a_new_one_and_scram_keys_come_beside(self) -> None:
        self.start("Alice@example.org")
        self.assertTrue(self.login("alice@example.org"))
        (account,) = self.file.list()
        self.assertEqual((account.password, account.scram), (NEW, SCRAM))

    def test_what_is_kept_in_todays_way_is_not_made_anew(self) -> None:
        self.keeps = Password(hash_password("secret"), SCRAM)
        self.start("alice@example.org")
        self.login("alice@example.org")
        made = len(self.made)
        self.assertTrue(self.login("alice@example.org"))
        self.assertEqual((made, len(self.made)), (1, 1))

    def test_a_wrong_password_changes_nothing(self) -> None:
        self.start("alice@example.org")
        self.assertFalse(self.login("alice@example.org", "wrong"))
        self.assertEqual((self.made, self.kept()), ([], {"alice@example.org": OLD}))

    def login_while(self, change: Callable[[], None]) -> None:
        """`change` happens while the new hash is made."""
        self.held = []
        self.login("alice@example.org")
        change()
        self.let_threads_run()
        self.assertEqual(self.made, ["alice@example.org"])

    def test_a_password_that_was_changed_meanwhile_stays_changed(self) -> None:
        self.start("alice@example.org")
        self.login_while(lambda: self.file.set_password("alice@example.org", Password(OTHER)))
        self.assertEqual(self.kept(), {"alice@example.org": OTHER})

    def test_a_password_that_was_taken_away_meanwhile_stays_away(self) -> None:
        self.start("alice@example.org")
        self.login_while(lambda: self.file.set_password("alice@example.org", None))
        self.assertEqual(self.kept(), {"alice@example.org": None})

    def test_a_password_that_scram_cannot_have_is_written_once(self) -> None:
        self.keeps = Password(NEW)
        self.start("alice@example.org", hash=NEW)
        for _ in range(3):
            self.login("alice@example.org")
            self.clock.advance(2)
        self.assertLessEqual(len(self.made), 1)

    def test_what_would_gain_nothing_is_not_written(self) -> None:
        today = hash_password("secret")
        self.keeps = Password(OTHER)  # as of a password that SCRAM cannot have
        self.start("alice@example.org", hash=today)
        self.assertTrue(self.login("alice@example.org"))
        self.assertEqual((self.made, self.kept()), (["alice@example.org"], {"alice@example.org": today}))

    def test_an_account_that_is_gone_keeps_no_other_from_being_renewed(self) -> None:
        self.start("alice@example.org", "bob@example.org")
        self.file.remove("alice@example.org")
        self.login("alice@example.org")
        self.login("bob@example.org")
        self.assertEqual(self.kept(), {"bob@example.org": NEW})

    def test_many_that_log_in_at_once_are_renewed_one_after_the_other(self) -> None:
        names = [f"user{number}@example.org" for number in range(20)]
        self.start(*names)
        self.held = []
        for name in names:
            self.login(name)
        self.assertEqual(self.under_way_most, 1)
        self.let_threads_run()
        self.assertEqual(set(self.kept().values()), {NEW})
        self.assertEqual(self.under_way_most, 1)

    def test_one_that_logs_in_many_times_at_once_is_renewed_once_and_after_a_change_again(self) -> None:
        self.start("alice@example.org", "bob@example.org")
        self.held = []
        for name in ("bob", "alice", "alice", "alice"):  # one waits for the other
            self.login(f"{name}@example.org")
        self.let_threads_run()
        self.assertEqual(self.made, ["bob@example.org", "alice@example.org"])
        self.held = None
        self.file.set_password("alice@example.org", Password(OTHER))
        self.clock.advance(60)
        self.login("alice@example.org")
        self.assertEqual(self.made[2:], ["alice@example.org"])

    def test_where_the_file_cannot_be_written_everybody_logs_in_all_the_same(self) -> None:
        self.start("alice@example.org", "bob@example.org")

        def replace(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(AccountsFile, "_replace", replace)
        self.assertTrue(self.login("alice@example.org"))
        self.assertTrue(self.login("bob@example.org"))
        self.assertTrue(self.login("bob@example.org"))
        self.assertLessEqual(len(self.made), 1)  # it does not try for ever
