"""The directory of the accounts file."""

from __future__ import annotations

import os
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.accounts.file import FileDirectory, FileDirectoryFactory, FileDirectoryOptions
from mailserver.accounts.table import AccountsFile, Password
from mailserver.authentication.app_passwords import AppPassword
from mailserver.authentication.checkers import PasswordCredentials
from mailserver.authentication.sealing import KeyPlace, read_key, seal
from mailserver.config import ConfigurationError
from mailserver.interfaces import IAccountList, IComponent, IComponentFactory, IDirectory, Services
from mailserver.mail.answers import Mailbox
from mailserver.plugins.awaiting import now_or_later

SCRAM = (
    "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"


class Directory(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.clock = Clock()
        self.reads = 0
        self.file = AccountsFile(self.path)
        self.file.add("Alice@example.org", Password(HASH))
        self.directory = FileDirectory(
            path=self.path, clock=self.clock, run_in_thread=self.run_in_thread, check_password=self.check_password
        )
        self.held: list[tuple[Deferred[Any], Any]] | None = None
        self.result(self.directory.start())

    def run_in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        self.reads += 1
        if self.held is None:
            return maybeDeferred(function, *arguments)
        waiting: Deferred[Any] = Deferred()
        self.held.append((waiting, function))
        return waiting

    async def check_password(self, password: str, hash: str | None) -> bool:
        return hash is not None

    def result(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def find(self, local: str, domain: str = "example.org") -> Any:
        return now_or_later(self.directory.find(local, domain))

    def test_it_is_what_it_says(self) -> None:
        for interface in (IDirectory, IAccountList, IComponent):
            verifyObject(interface, self.directory)
        factory = FileDirectoryFactory()
        verifyObject(IComponentFactory, factory)
        services = Services(self.clock, self.run_in_thread, None, None, "h", os.path.dirname(self.path), "/data")
        made = factory.build(FileDirectoryOptions(path=os.path.basename(self.path)), services)
        self.result(made.start())
        self.assertIsNotNone(now_or_later(made.find("alice", "example.org")))

    def test_an_account_is_found_at_once_and_exactly(self) -> None:
        self.assertEqual(self.find("alice"), Mailbox("alice", "example.org"))
        self.assertIsNone(self.find("alic"))
        self.assertIsNone(self.find("alice", "example.net"))

    def test_a_disabled_account_gets_mail_and_lets_nobody_in_by_any_means(self) -> None:
        fingerprint = "ab" * 32
        self.file.set_password("alice@example.org", Password(HASH, SCRAM, "sealed"))
        self.file.change_certificates("alice@example.org", lambda _: (fingerprint,))
        self.file.change_senders("alice@example.org", lambda _: ("sales@example.org",))
        self.file.add_app_password("alice@example.org", AppPassword("phone", HASH, ("smtp",), None))

        def login() -> Any:
            return self.directory.requestAvatarId(PasswordCredentials("alice@example.org", "x", "submission"))

        directory, name = self.directory, "alice@example.org"
        self.assertEqual(self.successResultOf(login()), name)
        self.assertIsNotNone(self.result(directory.scram_keys(name)))
        self.assertEqual(self.result(directory.account_of_certificate(fingerprint, ())), name)
        self.assertTrue(self.file.set_disabled(name, True))
        self.assertFalse(self.file.set_disabled(name, True))
        self.failureResultOf(login(), UnauthorizedLogin)
        self.assertIsNone(self.result(directory.scram_keys(name)))
        self.assertIsNone(self.result(directory.secret(name)))
        self.assertIsNone(self.result(directory.account_of_certificate(fingerprint, ())))
        self.assertEqual(self.find("alice"), Mailbox("alice", "example.org"))
        self.assertEqual(self.result(directory.granted_senders(name)), ("sales@example.org",))
        self.assertTrue(self.file.set_disabled(name, False))
        self.assertEqual(self.successResultOf(login()), name)
        self.assertIsNotNone(self.result(directory.scram_keys(name)))

    def test_a_password_that_can_be_read_again_is_given_while_there_is_one(self) -> None:
        name, place = "alice@example.org", KeyPlace(f"{self.path}-keys", os.path.dirname(self.path))
        sealed = seal("word", name, read_key(place, make=True))
        directory = FileDirectory(
            path=self.path, clock=self.clock, run_in_thread=self.run_in_thread, check_password=self.check_password, key_place=place
        )
        self.result(directory.start())
        for password, secret in ((Password(HASH, SCRAM, sealed), b"word"), (Password(HASH), None), (None, None)):
            self.file.set_password(name, password)
            self.clock.advance(2)
            self.assertEqual(self.result(directory.secret(name)), secret)
        self.assertIsNone(self.result(directory.secret("nobody@example.org")))

    def test_what_is_no_truth_value_is_a_fault(self) -> None:
        with open(self.path, "a") as file:
            file.write('[account."bob@example.org"]\ndisabled = "no"\n')
        with self.assertRaisesRegex(ConfigurationError, "disabled: must be true or false"):
            self.file.read()

    def test_names_can_be_asked_for(self) -> None:
        self.assertEqual(self.result(self.directory.accounts()), ["Alice@example.org"])

    def test_nobody_is_unknown_before_a_look(self) -> None:
        self.file.add("bob@example.org")
        self.assertEqual(self.find("bob"), Mailbox("bob", "example.org"))

    def test_who_is_gone_is_gone_after_a_second(self) -> None:
        self.file.remove("alice@example.org")
        self.assertIsNotNone(self.find("alice"))
        self.clock.advance(1)
        self.find("alice")
        self.assertIsNone(self.find("alice"))

    def test_what_was_granted_and_what_was_revoked_counts_at_once(self) -> None:
        # without a look at the clock: the first question after the command is answered from the new file
        def senders() -> Any:
            return self.result(self.directory.granted_senders("alice@example.org"))

        self.file.change_senders("alice@example.org", lambda old: ("@elsewhere.example",))
        self.assertEqual(list(senders()), ["@elsewhere.example"])
        self.file.change_senders("alice@example.org", lambda old: ())
        self.assertEqual(list(senders()), [])

    def test_a_login_waits_for_the_file_that_is_being_read(self) -> None:
        self.held = []
        self.file.set_password("alice@example.org", None)
        asked = [self.login(), self.login()]
        self.assertNoResult(asked[0])
        [(waiting, function)] = self.held
        waiting.callback(function())
        for one in asked:
            self.failureResultOf(one, UnauthorizedLogin)

    def login(self) -> Deferred[Any]:
        return self.directory.requestAvatarId(PasswordCredentials("alice@example.org", "secret", "submission"))

    def test_an_unchanged_file_is_not_read_again(self) -> None:
        for _ in range(10):
            self.clock.advance(1)
            self.find("alice")
        self.assertEqual(self.reads, 1)

    def test_while_it_is_read_those_who_were_known_are_answered(self) -> None:
        self.held = []
        self.file.add("bob@example.org")
        for _ in range(3):
            self.clock.advance(1)
            self.assertEqual(self.find("alice"), Mailbox("alice", "example.org"))
        [(waiting, function)] = self.held
        unknown = Deferred.fromCoroutine(self.directory.find("bob", "example.org"))
        self.assertNoResult(unknown)
        waiting.callback(function())
        self.assertEqual(self.successResultOf(unknown), Mailbox("bob", "example.org"))
        self.assertEqual(self.find("bob"), Mailbox("bob", "example.org"))

    def test_a_file_with_faults_changes_nothing_until_it_is_mended(self) -> None:
        with open(self.path, "a") as file:
            file.write("[[[\n")
        self.clock.advance(1)
        self.assertIsNotNone(self.find("alice"))
        self.assertIsNotNone(self.find("alice"))
        with open(self.path, "w") as file:
            file.write('[account."dora@example.org"]\n')
        self.clock.advance(1)
        self.find("x")
        self.assertIsNotNone(self.find("dora"))
        self.assertIsNone(self.find("alice"))

    def test_a_file_that_vanishes_takes_nobodys_mail(self) -> None:
        os.unlink(self.path)
        self.clock.advance(1)
        self.assertIsNotNone(self.find("alice"))
        self.file.add("eve@example.org")
        self.clock.advance(1)
        self.find("x")
        self.assertIsNotNone(self.find("eve"))

    def test_a_start_with_faults_is_an_error(self) -> None:
        with open(self.path, "w") as file:
            file.write("[account.bob]\n")
        other = FileDirectory(
            path=self.path, clock=self.clock, run_in_thread=self.run_in_thread, check_password=self.check_password
        )
        self.failureResultOf(Deferred.fromCoroutine(other.start()), ConfigurationError)
        gone = FileDirectory(
            path=self.path + ".gone",
            clock=self.clock,
            run_in_thread=self.run_in_thread,
            check_password=self.check_password,
        )
        failure = self.failureResultOf(Deferred.fromCoroutine(gone.start()), FileNotFoundError)
        self.assertIn("`mailserver user add` makes it", failure.getErrorMessage())
