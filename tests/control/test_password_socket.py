"""The socket on which other programs ask about passwords: the real one, with an authenticator behind it."""

from __future__ import annotations

import errno
import grp
import os
import shutil
import socket
import stat
import tempfile
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.authentication.authenticator import Authenticator
from mailserver.authentication.lockout.counting import LockoutRules
from mailserver.authentication.lockout.lockout import Lockout
from mailserver.control import password_socket
from mailserver.control.password_socket import PasswordCommands, password_server, question_of
from mailserver.control.server import Bounds, CommandRefused, ControlError, ask
from mailserver.delivery.maildir import MaildirOptions
from mailserver.mail.answers import Mailbox
from mailserver.plugins.generation import Generation
from mailserver.plugins.life import StartError
from mailserver.testing.state import MemoryState
from tests.at_once import AtOnce
from tests.authentication.lockout.test_guarded_network import ALICE, PASSWORD, Accounts, secret_key
from tests.control.test_server import without_bytes_warning

RIGHT = {"user": ALICE, "password": PASSWORD, "service": "imap", "client": "192.0.2.7"}
GROUP = grp.getgrgid(os.getegid()).gr_name


class WithSocket(TestCase):
    def setUp(self) -> None:
        without_bytes_warning(self)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "auth.sock")
        self.clock = Clock()
        self.accounts = Accounts()
        lockout = Lockout(clock=self.clock, spaces=MemoryState(self.clock).space, rules=LockoutRules(delay_seconds=0))
        self.lockout = AtOnce(lockout)
        self.mailboxes: dict[str, Mailbox | None] = {ALICE: Mailbox("alice", "example.org")}
        self.policy = SimpleNamespace(authenticator=self.authenticator(), generation=Generation(), mailbox=self.mailbox)
        self.notes: list[tuple[str, dict[str, Any]]] = []
        server: Any = SimpleNamespace(
            steps=SimpleNamespace(note=lambda _, step, **fields: self.notes.append((step, fields))),
            ids=SimpleNamespace(next=lambda: "id"),
            pools=SimpleNamespace(of=lambda kind: deferToThread),
        )
        self.configuration: Any = SimpleNamespace(
            data="/data",
            delivery=SimpleNamespace(options=MaildirOptions()),
            authentication=SimpleNamespace(socket=self.path, socket_group=GROUP),
        )
        self.questions = PasswordCommands(self.configuration, server, lambda: self.policy)  # type: ignore[arg-type,return-value]
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def authenticator(self) -> Authenticator:
        return Authenticator(
            accounts=self.accounts, checkers=(), lockout=self.lockout._of, clock=self.clock, login_domain="example.org",
            hostname="mx.example.org", secret=secret_key, mechanisms=("SCRAM-SHA-256",),
        )  # fmt: skip

    async def mailbox(self, account: str) -> Mailbox | None:
        return self.mailboxes[account]

    def start(self) -> None:
        server = password_server(self.configuration, self.questions)
        assert server is not None
        self.server = server
        self.addCleanup(server.stop)
        server.start(reactor)

    async def ask(self, command: str = "check_password", **changes: Any) -> Any:
        if not os.path.exists(self.path):
            self.start()
        return await deferToThread(ask, self.path, command, {**RIGHT, **changes}, 20.0)

    async def answer(self, **changes: Any) -> str:
        return str((await self.ask(**changes))["answer"])

    def lines(self) -> str:
        return "\n".join(formatEvent(event) + repr(event) for event in self.logged)

    async def test_the_right_password_brings_the_account_and_where_its_mail_stands(self) -> None:
        self.assertEqual(
            await self.ask(user="ALICE"),
            {
                "answer": "ok", "account": ALICE, "maildir": "/data/mail/example.org/alice", "home": "/data/mail/example.org/alice",
                "uid": os.geteuid(), "gid": os.getegid(),
            },
        )  # fmt: skip
        [(step, fields)] = self.notes
        self.assertEqual((step, fields["peer"], fields["service"]), ("login", "192.0.2.7", "imap"))

    async def test_a_user_of_the_host_has_his_own_home_and_numbers(self) -> None:
        entry = SimpleNamespace(pw_uid=1234, pw_gid=2345, pw_dir="/home/al")
        self.patch(password_socket.pwd, "getpwnam", lambda _: entry)
        self.configuration.delivery.options = MaildirOptions(path="{home}/Maildir")
        self.questions._delivery = self.configuration.delivery.options
        found = await self.ask()
        self.assertEqual([found[key] for key in ("maildir", "home", "uid", "gid")], ["/home/al/Maildir", "/home/al", 1234, 2345])
        entry.pw_uid = 999
        self.assertEqual(await self.answer(), "later")

    async def test_mail_that_goes_elsewhere_has_no_maildir(self) -> None:
        self.questions._delivery = object()
        found = await self.ask()
        self.assertEqual((found["answer"], found["maildir"], found["home"]), ("ok", "", ""))

    async def test_a_wrong_password_and_an_unknown_user_are_no_and_noted_with_the_clients_address(self) -> None:
        for changes in ({"password": "wrong"}, {"user": "nobody"}, {"password": ""}, {"user": "\udcff"}):
            self.assertEqual(await self.answer(**changes), "no")
        step, fields = self.notes[0]
        self.assertEqual((step, fields["peer"], fields["service"], fields["username"]), ("login_failed", "192.0.2.7", "imap", ALICE))

    async def test_a_locked_client_is_locked_with_the_right_password_and_another_is_not(self) -> None:
        for n in range(30):
            self.lockout.failed("192.0.2.7", f"user{n}", b"wrong")
        asked = Deferred.fromCoroutine(self.answer())
        while not asked.called:
            self.clock.advance(1)
            await deferLater(reactor, 0.01)
        self.assertEqual(await asked, "locked")
        self.assertEqual(await self.answer(client="192.0.2.8"), "ok")

    async def test_failures_are_counted_for_the_client(self) -> None:
        for n in range(10):
            self.assertEqual(await self.answer(password=f"wrong{n}", client="::ffff:192.0.2.9"), "no")
        self.assertFalse(self.lockout.standing("192.0.2.9", ALICE).lets_in)
        self.assertTrue(self.lockout.standing("192.0.2.7", ALICE).lets_in)

    async def test_the_service_goes_to_the_accounts_as_the_scope_of_app_passwords(self) -> None:
        seen: list[str] = []
        find = self.accounts.requestAvatarId
        self.accounts.requestAvatarId = lambda asked: (seen.append((asked.service, asked.client)), find(asked))[1]  # type: ignore[method-assign,func-returns-value,arg-type]
        self.policy.authenticator = self.authenticator()
        await self.ask(service="pop3")
        self.assertEqual(seen, [("pop3", "192.0.2.7")])

    async def test_what_cannot_be_told_is_later(self) -> None:
        self.mailboxes[ALICE] = None
        self.assertEqual(await self.answer(), "later")
        self.mailboxes[ALICE] = Mailbox("a:b", "example.org")  # Dovecot would take it for options of the mail location
        self.assertEqual(await self.answer(), "later")
        self.mailboxes.clear()
        self.assertEqual(await self.answer(), "later")
        self.accounts.answer = lambda _: Deferred.fromCoroutine(self.down())
        self.assertEqual(await self.answer(), "later")
        self.policy.authenticator = None  # type: ignore[assignment]
        self.assertEqual(await self.answer(), "later")
        self.assertEqual(self.policy.generation.uses, 0)

    async def down(self) -> Any:
        raise OSError("the database is down")

    async def test_a_client_without_an_address_is_later_and_never_this_host(self) -> None:
        for client in ("", "unix", "local", "proxy:192.0.2.7", "localhost", "0.0.0.0", "::", None, 1, ["127.0.0.1"]):
            self.assertEqual(await self.answer(client=client), "later")
        self.assertEqual(self.accounts.asked, [])

    async def test_a_question_that_is_none_is_later(self) -> None:
        for changes in ({"service": "submission"}, {"service": "smtp"}, {"user": None}, {"password": ["x"]}, {"password": "x" * 513}, {"user": "\ud800"}):
            self.assertEqual(await self.answer(**changes), "later", changes)
        self.assertEqual(self.accounts.asked, [])

    async def test_no_other_command_exists_there(self) -> None:
        for command in ("status", "reload", "queue.list", "queue.change", "explain", "lockouts.clear", ""):
            with self.assertRaisesRegex(CommandRefused, "knows no command"):
                await self.ask(command)

    async def test_no_password_comes_into_the_log(self) -> None:
        self.mailboxes.clear()
        for word in (PASSWORD, "secret-mark"):
            await self.ask(password=word)
            await self.ask(password=word, client="")
        rude = socket.socket(socket.AF_UNIX)
        self.addCleanup(rude.close)
        rude.connect(self.path)
        rude.settimeout(20)
        rude.sendall(b"\0\x08_command\0\x03Ask\0\x04_ask\0\x011\0\x07command\0\x0echeck_password\0\x09arguments\0\x0csecret-mark}\0\0")
        self.assertIn(b"REFUSED", await deferToThread(rude.recv, 100))
        rude.sendall(b"\0\x01a\0\x0bsecret-mark\0\0")
        while await deferToThread(rude.recv, 100):
            pass
        self.assertNotIn("secret-mark", self.lines() + repr(self.notes))
        self.assertIn("no question", self.lines())

    async def test_a_question_longer_than_any_can_be_ends_the_connection(self) -> None:
        with self.assertRaises(ControlError):
            await self.ask(more="x" * 9000)
        self.assertEqual(await self.answer(), "ok")

    async def test_connections_are_bounded(self) -> None:
        self.patch(password_socket, "BOUNDS", Bounds(connections=2, octets=8192))
        self.start()
        idle = []
        for _ in range(3):
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.settimeout(20)
            one.connect(self.path)
            idle.append(one)
            await deferLater(reactor, 0.01)
        self.assertEqual(await deferToThread(idle[0].recv, 1), b"")
        self.assertEqual(await self.answer(), "ok")

    def test_the_group_may_use_it_and_nobody_else(self) -> None:
        self.start()
        found = os.stat(self.path)
        self.assertEqual((stat.S_IMODE(found.st_mode), found.st_gid), (0o660, os.getegid()))

    def test_without_a_group_it_is_the_servers_alone(self) -> None:
        self.configuration.authentication.socket_group = None
        self.start()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_a_group_that_there_is_not_stops_the_start(self) -> None:
        self.configuration.authentication.socket_group = "no-such-group"
        self.assertRaises(StartError, self.start)

    async def test_a_group_that_the_server_is_not_in_stops_the_start_and_leaves_nothing(self) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        patched = self.patch(os, "chown", refuse)
        with self.assertRaisesRegex(PermissionError, "only a member may give it to its group"):
            self.start()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        await self.server.stop()
        self.assertFalse(os.path.exists(self.path))
        patched.restore()
        self.start()  # the failed start has given its lock back

    def test_without_the_setting_there_is_none(self) -> None:
        self.configuration.authentication.socket = None
        self.assertIsNone(password_server(self.configuration, self.questions))


class Questions(SynchronousTestCase):
    def test_an_address_is_written_as_a_listener_writes_it(self) -> None:
        for client, address in (("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:DB8::01", "2001:db8::1"), ("fe80::1%eth0", "fe80::1")):
            question = question_of({**RIGHT, "client": client})
            assert question is not None
            self.assertEqual(question.client, address)
