"""The host's own users."""

from __future__ import annotations

import pwd
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.accounts.system import SystemDirectoryFactory, SystemDirectoryOptions
from mailserver.accounts.system_users import SystemDirectory, UserTable
from mailserver.interfaces import IAccountList, IComponentFactory, IDirectory, Services
from mailserver.mail.answers import Mailbox
from mailserver.plugins.awaiting import now_or_later


def user(name: str, uid: int, shell: str = "/bin/bash") -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", shell))


class System(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.table = {
            one.pw_name: one
            for one in (
                user("root", 0),
                user("daemon", 1),
                user("alice", 1000),
                user("robot", 1001, "/usr/sbin/nologin"),
                user("nobody", 65534),
            )
        }
        self.table["alias"] = user("alice", 1000)

    def directory(self, **named: Any) -> SystemDirectory:
        def by_name(name: str) -> pwd.struct_passwd:
            self.asked.append(name)
            return self.table[name]

        return SystemDirectory(
            clock=self.clock,
            run_in_thread=lambda function, *arguments: maybeDeferred(function, *arguments),
            hostname="mx.example.org",
            users=UserTable(by_name, lambda: list(self.table.values())),
            **named,
        )

    def find(self, directory: SystemDirectory, name: str, domain: str = "example.org") -> Mailbox | None:
        return self.successResultOf(Deferred.fromCoroutine(directory.find(name, domain)))

    def test_it_is_what_it_says(self) -> None:
        services = Services(self.clock, maybeDeferred, None, None, "mx.example.org", "/etc", "/data")
        factory = SystemDirectoryFactory()
        verifyObject(IComponentFactory, factory)
        made = factory.build(SystemDirectoryOptions(domains=("example.org",)), services)
        verifyObject(IDirectory, made)
        verifyObject(IAccountList, made)

    def test_a_user_has_a_system_mailbox(self) -> None:
        self.assertEqual(self.find(self.directory(), "alice"), Mailbox("alice", "example.org", (), True))

    def test_root_services_and_nobody_have_none(self) -> None:
        for directory in (self.directory(), self.directory(uid_min=0)):
            for name in ("root", "nobody", "unknown"):
                self.assertIsNone(self.find(directory, name))
        self.assertIsNone(self.find(self.directory(), "daemon"))

    def test_a_name_that_leads_to_another_users_entry_is_nobodys(self) -> None:
        self.assertIsNone(self.find(self.directory(), "alias"))

    def test_users_who_cannot_log_in_can_be_left_out(self) -> None:
        self.assertIsNotNone(self.find(self.directory(), "robot"))
        self.assertIsNone(self.find(self.directory(login_shell=True), "robot"))

    def test_other_domains_have_no_users(self) -> None:
        directory = self.directory(domains=["example.org"])
        self.assertIsNone(self.find(directory, "alice", "other.example"))
        self.assertIsNotNone(self.find(directory, "alice"))

    def test_a_name_that_can_be_no_user_is_never_looked_up(self) -> None:
        directory = self.directory()
        for name in ("", "../alice", "alice\0", "a b", "-x", "Alice", "x" * 65, "jürgen"):
            self.assertIsNone(self.find(directory, name))
        self.assertEqual(self.asked, [])

    def test_an_answer_is_kept_for_a_minute_and_needs_no_thread(self) -> None:
        directory = self.directory()
        for _ in range(3):
            self.find(directory, "alice")
            self.find(directory, "unknown")
        self.assertEqual(self.asked, ["alice", "unknown"])
        self.assertIsInstance(now_or_later(directory.find("alice", "example.org")), Mailbox)
        self.clock.advance(61)
        del self.table["alice"]
        self.assertIsNone(self.find(directory, "alice"))

    def test_an_error_of_the_look_up_passes(self) -> None:
        def broken(name: str) -> pwd.struct_passwd:
            raise OSError("no answer")

        directory = SystemDirectory(
            clock=self.clock, run_in_thread=maybeDeferred, hostname="h", users=UserTable(by_name=broken)
        )
        self.failureResultOf(Deferred.fromCoroutine(directory.find("alice", "example.org")), OSError)

    def test_the_list_holds_those_who_get_mail(self) -> None:
        accounts = self.successResultOf(Deferred.fromCoroutine(self.directory(domains=["example.org"]).accounts()))
        self.assertEqual(accounts, ["alice@example.org", "robot@example.org", "alice@example.org"])
