"""The host's users and their passwords: PAM itself in its process, and what the server makes of its answers."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.accounts import system_logins
from mailserver.accounts.system import SystemDirectoryFactory, SystemDirectoryOptions
from mailserver.accounts.system_logins import SystemLogins
from mailserver.accounts.system_users import SystemDirectory, UserTable
from mailserver.authentication import pam
from mailserver.authentication.checkers import PasswordCredentials
from mailserver.authentication.pam import NOBODY, PAMQuestion, parse_question
from mailserver.interfaces import CannotTell, IComponent, IDirectory, IPrivilegedComponent, Services
from mailserver.processes.privileged import RequestError
from tests.accounts.test_system import user
from tests.authentication.pam_service import PamService

USERS = {one.pw_name: one for one in (user("root", 0), user("daemon", 1), user("alice", 1000))}
USERS["toor"] = user("root", 0)


class Questions(SynchronousTestCase):
    def parse(self, octets: bytes) -> PAMQuestion:
        return parse_question(octets, service="mailserver", uid_min=1000, lookup=USERS.__getitem__)

    def question(self, **members: Any) -> bytes:
        return json.dumps({"user": "alice", "password": "secret", "client": "192.0.2.1", **members}).encode()

    def test_a_user_is_asked_about(self) -> None:
        self.assertEqual(self.parse(self.question()), PAMQuestion("mailserver", "alice", "secret", "192.0.2.1"))

    def test_nobody_is_asked_about_in_place_of_root_of_services_and_of_those_who_are_not_there(self) -> None:
        for name in ("root", "toor", "daemon", "eve", "", "alice ", "../alice"):
            self.assertEqual((name, self.parse(self.question(user=name)).user), (name, NOBODY))

    def test_it_is_never_root_whoever_may_be_asked_about(self) -> None:
        for name in ("root", "toor"):
            found = parse_question(self.question(user=name), service="s", uid_min=0, lookup={**USERS, name: user(name, 0)}.__getitem__)
            self.assertEqual(found.user, NOBODY)

    def test_an_alarm_ends_a_child_that_a_module_of_pam_holds(self) -> None:
        done: list[Any] = []
        handle = types.SimpleNamespace(set_item=lambda *_: None)
        module = types.SimpleNamespace(
            new_simple_password_conv=lambda *_: None,
            pam_start=lambda *_, **__: done.append("start") or handle,
            PAM_AUTHENTICATE=lambda *_: 7, PAM_RHOST=4, PAM_END=lambda *_: None, pam_strerror=lambda *_: "no",
        )  # fmt: skip
        self.patch(signal, "alarm", lambda seconds: done.append(seconds))
        self.patch(pam.resource, "setrlimit", lambda *_: None)
        sys.modules["pamela"], before = module, sys.modules.get("pamela")  # type: ignore[assignment]
        self.addCleanup(lambda: sys.modules.pop("pamela") if before is None else sys.modules.update(pamela=before))
        self.parse(self.question()).run(0, 0)
        self.assertEqual(done, [30, "start"])

    def test_what_is_no_question_is_refused(self) -> None:
        for octets in (
            b"", b"[]", b"{}", b"\xff", b"[" * 100_000,
            self.question(password=""), self.question(password=5), self.question(user=None), self.question(password="a\0b"),
            self.question(password="x" * 5000), self.question(client="x" * 100),
        ):  # fmt: skip
            self.assertRaises(RequestError, self.parse, octets)


class Process:
    """Stands for the process: it answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.replies: list[socket.socket] = []
        self.answer: bytes | None = b'[0, "", 0, "Success"]'
        self.closed = False

    def send(self, request: bytes, descriptors: list[int]) -> None:
        self.asked.append(json.loads(request))
        reply = socket.socket(fileno=os.dup(descriptors[0]))
        if self.answer is None:
            self.replies.append(reply)
            return
        with reply:
            reply.sendall(self.answer)

    def close(self) -> None:
        self.closed = True


class Readers:
    """Stands for the reactor: whatever is waited for has come already."""

    def addReader(self, reader: Any) -> None:
        self.reader = reader
        for _ in range(2):
            if reader.fileno() >= 0:
                reader.doRead()

    def removeReader(self, reader: Any) -> None: ...


class Logins(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.process = Process()
        self.patch(system_logins, "SERVICE_FOLDERS", (os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())))
        os.mkdir(system_logins.SERVICE_FOLDERS[1])
        self.service = Path(system_logins.SERVICE_FOLDERS[1]) / "mailserver"
        self.service.touch()
        self.directory = SystemLogins(
            service="mailserver",
            reactor=Readers(),
            keep=lambda kind, start: self.process,  # type: ignore[arg-type,return-value]
            identity=lambda: 0,
            clock=self.clock,
            run_in_thread=maybeDeferred,
            hostname="mx.example.org",
            domains=("example.org",),
            users=UserTable(USERS.__getitem__, lambda: list(USERS.values())),
        )
        self.directory.start_privileged()

    def ask(self, name: str = "alice", password: str = "secret", domain: str = "example.org") -> Deferred[Any]:
        credentials = PasswordCredentials(f"{name}@{domain}", password, "submission", "192.0.2.1")
        return self.directory.requestAvatarId(credentials)

    def denied_after(self, asked: Deferred[Any]) -> float:
        self.assertNoResult(asked)
        [call] = self.clock.getDelayedCalls()
        seconds = call.getTime() - self.clock.seconds()
        self.clock.advance(seconds)
        self.failureResultOf(asked, UnauthorizedLogin)
        return float(seconds)

    def test_it_is_what_it_says(self) -> None:
        for interface in (IDirectory, ICredentialsChecker, IComponent, IPrivilegedComponent):
            verifyObject(interface, self.directory)
        services = Services(self.clock, maybeDeferred, None, None, "mx.example.org", "/etc", "/data")
        made = SystemDirectoryFactory().build(SystemDirectoryOptions(pam="mailserver", domains=("example.org",)), services)
        self.assertIsInstance(made, SystemLogins)
        made = SystemDirectoryFactory().build(SystemDirectoryOptions(), services)
        self.assertIs(type(made), SystemDirectory)
        self.assertFalse(ICredentialsChecker.providedBy(made))

    def test_pam_without_domains_would_let_users_in_as_anybody_of_their_name(self) -> None:
        self.assertRaises(ValidationError, SystemDirectoryOptions, pam="mailserver")
        self.assertRaises(ValidationError, SystemDirectoryOptions, pam="../x", domains=("example.org",))

    def test_a_right_password_is_the_account(self) -> None:
        self.assertEqual(self.successResultOf(self.ask()), "alice@example.org")
        self.assertEqual(self.process.asked, [{"user": "alice", "password": "secret", "client": "192.0.2.1"}])

    def test_a_wrong_one_is_denied_at_a_whole_second(self) -> None:
        self.process.answer = b'[0, "", 7, "Authentication failure"]'
        self.assertEqual(self.denied_after(self.ask()), 1.0)
        for code in pam.NO:
            self.process.answer = json.dumps([0, "", code, "no"]).encode()
            self.denied_after(self.ask())

    def test_a_slow_denial_comes_at_the_next_whole_second(self) -> None:
        waiting: list[Any] = []

        def later(function: Any, *arguments: Any) -> Deferred[Any]:
            done: Deferred[Any] = Deferred()
            waiting.append((done, function, arguments))
            return done

        self.successResultOf(Deferred.fromCoroutine(self.directory.find("alice", "example.org")))  # is remembered
        self.directory._hand_over = later
        self.process.answer = b'[0, "", 7, "no"]'
        asked = self.ask()
        self.clock.advance(2.25)
        [(done, function, arguments)] = waiting
        maybeDeferred(function, *arguments).chainDeferred(done)
        self.assertEqual(self.denied_after(asked), 0.75)

    def test_those_who_may_not_are_denied_whatever_pam_says_and_pam_hears_of_nobody(self) -> None:
        for name, domain in (("root", "example.org"), ("daemon", "example.org"), ("eve", "example.org"), ("alice", "example.net"), ("", "")):
            self.assertEqual(self.denied_after(self.ask(name, domain=domain)), 1.0)
            self.assertEqual(self.process.asked.pop()["user"], NOBODY)

    def test_an_empty_password_and_one_with_a_nul_are_denied_unasked(self) -> None:
        for password in ("", "secret\0more"):
            self.denied_after(self.ask(password=password))
        self.assertEqual(self.process.asked, [])

    def test_any_other_answer_is_cannot_tell(self) -> None:
        for answer in (
            b'[0, "", 9, "Authentication service cannot retrieve authentication info"]',
            b'[0, "", 4, "System error"]', b'[-1, "too many at once"]', b"", b"[0", b"5", b"[0]", b"[]", b"null", b'[0, "", [], ""]',
        ):  # fmt: skip
            self.process.answer = answer
            self.failureResultOf(self.ask(), CannotTell)

    def test_no_answer_is_cannot_tell_in_the_end_and_nothing_stays_open(self) -> None:
        self.process.answer = None
        self.patch(Readers, "addReader", lambda *_: None)
        asked = self.ask()
        self.clock.advance(system_logins.WAIT_SECONDS)
        self.failureResultOf(asked, CannotTell)
        [theirs] = self.process.replies
        with theirs:
            self.assertEqual(theirs.recv(1), b"")

    def test_one_user_has_four_turns_and_more_than_can_wait_are_cannot_tell(self) -> None:
        self.process.answer = None
        self.patch(Readers, "addReader", lambda *_: None)
        asked = [self.ask() for _ in range(system_logins.WAITING_MOST)]
        self.assertEqual(len(self.process.asked), system_logins.AT_ONCE_FOR_A_USER)
        self.failureResultOf(self.ask(), CannotTell)
        while any(not one.called for one in asked):
            self.clock.advance(system_logins.WAIT_SECONDS)
        for one in asked:
            self.failureResultOf(one, CannotTell)
        for reply in self.process.replies:
            reply.close()

    def test_a_process_that_cannot_be_reached_is_cannot_tell(self) -> None:
        def send(request: bytes, descriptors: list[int]) -> None:
            raise OSError("it has died")

        self.process.send = send  # type: ignore[method-assign]
        self.failureResultOf(self.ask(), CannotTell)

    def test_a_host_without_the_service_stops_the_start(self) -> None:
        self.service.unlink()
        failure = self.failureResultOf(Deferred.fromCoroutine(self.directory.start()), CannotTell)
        self.assertIn("there is no PAM service mailserver", failure.getErrorMessage())

    def test_a_host_without_pamela_stops_the_start(self) -> None:
        self.patch(system_logins.importlib.util, "find_spec", lambda name: None)
        failure = self.failureResultOf(Deferred.fromCoroutine(self.directory.start()), CannotTell)
        self.assertIn("mailserver[pam]", failure.getErrorMessage())

    def test_the_process_ends_with_the_directory(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.directory.stop()))
        self.assertTrue(self.process.closed)
        self.failureResultOf(self.ask(), CannotTell)


class RealPAM(TestCase):
    """A PAM service of the test's own, whose passwords stand in a file.  Users are the host's."""

    timeout = 60

    def setUp(self) -> None:
        self.user = pwd.getpwnam("nobody")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.service = PamService(folder, dict.fromkeys(("nobody", "root", NOBODY), "secret"))
        self.addCleanup(self.service.remove)
        self.directory = SystemLogins(
            service=self.service.name,
            reactor=installed_reactor,
            clock=installed_reactor,  # type: ignore[arg-type]
            run_in_thread=deferToThread,
            hostname="mx.example.org",
            domains=("example.org",),
            uid_min=1,
            uid_max=70_000,
        )
        self.directory.start_privileged()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.directory.stop()))

    def login(self, name: str, password: str) -> Deferred[Any]:
        credentials = PasswordCredentials(f"{name}@example.org", password, "submission", "2001:db8::1")
        return self.directory.requestAvatarId(credentials)

    async def is_denied(self, name: str, password: str) -> bool:
        try:
            await self.login(name, password)
        except UnauthorizedLogin:
            return True
        return False

    async def test_passwords_are_right_or_wrong_also_without_the_privileges(self) -> None:
        os.seteuid(self.user.pw_uid)
        self.addCleanup(os.seteuid, 0)
        self.assertEqual(await self.login("nobody", "secret"), "nobody@example.org")
        for name, password in (("nobody", "Secret"), ("nobody", "secre"), ("root", "secret"), (NOBODY, "secret"), ("eve", "secret")):
            self.assertTrue(await self.is_denied(name, password), name)

    async def test_many_at_once_are_answered(self) -> None:
        found = await gatherResults([self.login("nobody", "secret") for _ in range(40)])
        self.assertEqual(set(found), {"nobody@example.org"})
        self.assertEqual(self.directory._slots_of, {})

    async def test_an_expired_account_is_denied(self) -> None:
        self.service.write("auth required pam_permit.so\naccount required pam_deny.so\n")
        self.assertTrue(await self.is_denied("nobody", "secret"))

    async def test_a_service_that_is_broken_is_cannot_tell(self) -> None:
        self.service.write("auth required /no/such/module.so\naccount required pam_permit.so\n")
        await self.assertFailure(self.login("nobody", "secret"), CannotTell)

    async def test_a_process_that_was_killed_is_started_again_while_the_privileges_are_there(self) -> None:
        process = self.directory._process
        assert process is not None
        process._process.send_signal(signal.SIGKILL)
        process._process.wait()
        self.assertEqual(await self.login("nobody", "secret"), "nobody@example.org")

    def test_a_server_that_is_not_root_does_not_start_with_them(self) -> None:
        self.directory._identity = lambda: 1000
        self.assertIn("need root at the start", str(self.assertRaises(CannotTell, self.directory.start_privileged)))

    async def test_without_them_it_is_cannot_tell(self) -> None:
        process = self.directory._process
        assert process is not None
        process._process.send_signal(signal.SIGKILL)
        process._process.wait()
        os.seteuid(self.user.pw_uid)
        self.addCleanup(os.seteuid, 0)
        failure = await self.assertFailure(self.login("nobody", "secret"), CannotTell)
        self.assertIn("restart the server", str(failure))
