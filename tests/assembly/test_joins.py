"""What becomes of single keys of a configuration."""

from __future__ import annotations

import gc
import io
import math
import os
import socket
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly import host, sandbox
from mailserver.assembly.certificates import make_certificates
from mailserver.assembly.listeners import connection_limits, proxies_of
from mailserver.assembly.logins import Logins, lets_anybody_in, offers_logins
from mailserver.assembly.resolver import make_resolver
from mailserver.assembly.routing import make_router
from mailserver.assembly.steps import _mail_folders
from mailserver.assembly.submission import make_submission
from mailserver.config import Configuration, parse
from mailserver.plugins.life import StartError
from mailserver.plugins.pools import Pools
from mailserver.testing.state import MemoryStore
from tests.at_once import at_once

TEXT = """
hostname = "mx.example.org"
data = "/var/lib/mailserver"
[[listen]]
service = "{service}"
endpoint = "{endpoint}"
{more}
[domain."example.org"]
"""


def configuration(more: str = "", *, service: str = "mx", endpoint: str = "tcp:25", after: str = "") -> Configuration:
    return parse(TEXT.format(service=service, endpoint=endpoint, more=more) + after, file="mailserver.toml", directory=".")


class Listeners(SynchronousTestCase):
    def test_logins_are_offered_to_users_and_where_that_is_asked_for(self) -> None:
        for service, more, offers in (
            ("mx", "", False), ("submission", "", True), ("lmtp", "", False),
            ("mx", "authentication = true", True), ("submission", "authentication = false", False),
        ):  # fmt: skip
            made = configuration(more, service=service)
            self.assertEqual((offers_logins(made.listen[0]), lets_anybody_in(made)), (offers, offers), (service, more))
        self.assertTrue(lets_anybody_in(configuration(after='[authentication]\nsocket = "auth.sock"\n')))

    def test_only_who_has_to_log_in_has_a_time_for_it(self) -> None:
        made = configuration(after="[authentication]\nlogin_seconds = 7\n")
        self.assertEqual(connection_limits(made, logs_in=True).pace.login_seconds, 7)
        self.assertEqual(connection_limits(made, logs_in=False).pace.login_seconds, math.inf)

    def test_a_proxy_is_believed_on_a_proxied_listener_alone(self) -> None:
        self.assertIsNone(proxies_of(configuration().listen[0]))
        here = proxies_of(configuration(endpoint="haproxy:tcp:25").listen[0])
        assert here is not None
        self.assertEqual(("127.0.0.1" in here, "192.0.2.1" in here), (True, False))
        there = proxies_of(configuration('proxies = ["192.0.2.0/24"]', endpoint="haproxy:tcp:25").listen[0])
        assert there is not None
        self.assertEqual(("127.0.0.1" in there, "192.0.2.1" in there), (False, True))

    def test_a_certificate_is_wanted_where_a_listener_encrypts(self) -> None:
        server: Any = SimpleNamespace(data=self.mktemp(), reactor=Clock(), pools=Pools(print))
        self.assertIsNone(make_certificates(configuration(), server))
        for tls in ("starttls", "implicit"):
            self.assertIsNotNone(make_certificates(configuration(f'tls = "{tls}"'), server))


class Parts(SynchronousTestCase):
    def test_a_name_server_is_trusted_on_this_host_or_where_it_is_said_to_validate(self) -> None:
        for validating, trusted in (("false", [True, True, False]), ("true", [True] * 3)):
            made = configuration(after=f'[dns]\nservers = ["127.0.0.1", "::1", "192.0.2.53"]\nvalidating = {validating}\n')
            resolver = make_resolver(made, Clock())
            self.assertEqual([one.trusted for one in resolver.servers], trusted)

    def test_aliases_that_go_round_and_patterns_that_cannot_be_stop_the_start(self) -> None:
        for after in (
            '[domain."example.org".aliases]\na = "b"\nb = "a"\n',
            '[[domain."example.org".pattern]]\nmatch = "{user}{tag}"\n',
        ):
            self.assertRaises(StartError, make_router, configuration(after=after), object())

    def test_senders_are_held_to_their_own_addresses_unless_any_will_do_or_nobody_logs_in(self) -> None:
        server: Any = SimpleNamespace(reactor=Clock(), state=MemoryStore(Clock()), pools=Pools(print))
        router: Any = SimpleNamespace(route=None)
        somebody: Any = SimpleNamespace(granted_senders=None)
        for senders, authenticator, has in (("own", somebody, True), ("any", somebody, False), ("own", None, False)):
            made = configuration(after=f'[submission]\nsenders = "{senders}"\n')
            self.assertEqual(make_submission(made, server, router, authenticator).rights is not None, has)

    def test_paths_name_users_below_the_folders_of_the_mail(self) -> None:
        def folders(path: Any, data: str = "/var/lib/mailserver") -> list[str]:
            made: Any = SimpleNamespace(
                data=data, delivery=SimpleNamespace(options=SimpleNamespace(path=path)), relay=SimpleNamespace(options=None)
            )
            return _mail_folders(made)

        self.assertEqual(folders("{data}/mail/{domain}/{user}")[1:], ["/var/lib/mailserver/mail"])
        self.assertEqual(folders("{data}/mail/{user}", "/srv/"), ["/srv/mail", "/srv/mail"])
        self.assertEqual(folders("/srv/mail/of-{user}")[1:], ["/srv/mail"])
        self.assertEqual(folders("{home}/Maildir")[1:], [])
        self.assertEqual(folders("/{user}")[1:], [])
        self.assertEqual(folders(None)[1:], [])


class Passwords(SynchronousTestCase):
    def logins(self, made: Configuration, state: Any = None) -> Logins:
        reactor: Any = Clock()
        reactor.callFromThread = None
        return Logins(made, reactor=reactor, state=state or MemoryStore(Clock()), note=print, next_id=str)

    def test_the_library_is_loaded_once_and_only_where_somebody_may_log_in(self) -> None:
        nobody, somebody = configuration(), configuration(service="submission")
        for first, then, warmed in ((nobody, nobody, 0), (somebody, somebody, 1), (nobody, somebody, 1), (somebody, nobody, 1)):
            logins = self.logins(first)
            with mock.patch.object(logins, "_threads") as threads:
                logins.start()
                self.assertEqual(threads.warm_up.call_count, int(first is somebody))
                logins.change(then)
                logins.change(then)
            self.assertEqual(threads.warm_up.call_count, warmed)

    def test_where_nobody_may_log_in_nobody_is_asked(self) -> None:
        self.assertIsNone(self.logins(configuration()).authenticator(configuration(), object()))

    def test_false_keys_are_made_with_the_same_secret_over_restarts(self) -> None:
        state = MemoryStore(Clock())
        secret = at_once(self.logins(configuration(), state)._secret())
        self.assertEqual(len(secret), 32)
        self.assertEqual(at_once(self.logins(configuration(), state)._secret()), secret)
        self.assertNotEqual(at_once(self.logins(configuration(), MemoryStore(Clock()))._secret()), secret)


class Host(SynchronousTestCase):
    def made(self, **more: Any) -> tuple[Any, Path]:
        work = Path(self.mktemp()).absolute()
        work.mkdir()
        accounts = SimpleNamespace(options=SimpleNamespace(**more))
        return SimpleNamespace(data=str(work / "data"), keys_path=str(work / "keys"), accounts=accounts, by_acme=None), work

    def test_the_data_folder_is_made_for_its_owner_alone_and_one_that_is_there_stays(self) -> None:
        made, work = self.made()
        host.make_folders(made, (-1, -1))
        self.assertEqual(stat.S_IMODE((work / "data").stat().st_mode), 0o700)
        (work / "data").chmod(0o750)
        with mock.patch.object(os, "chown") as chown:
            host.make_folders(made, (5, 6))
        self.assertEqual((chown.call_count, stat.S_IMODE((work / "data").stat().st_mode)), (0, 0o750))

    def test_root_gives_it_to_the_server_and_nobody_else_could(self) -> None:
        for euid, owner, gives in ((0, (5, 6), True), (0, (-1, -1), False), (1000, (5, 6), False)):
            made, work = self.made()
            with mock.patch.object(os, "geteuid", return_value=euid), mock.patch.object(os, "chown") as chown:
                host.make_folders(made, owner)
            self.assertEqual(chown.mock_calls, [mock.call(str(work / "data"), 5, 6, follow_symlinks=False)] if gives else [])

    def test_the_folder_of_the_keys_is_made_by_root_where_passwords_can_be_read_again(self) -> None:
        for euid, more, makes in ((0, {"recoverable": True}, True), (0, {"recoverable": False}, False), (0, {}, False), (1000, {"recoverable": True}, False)):
            made, work = self.made(**more)
            (work / "data").mkdir()
            with mock.patch.object(os, "geteuid", return_value=euid), mock.patch.object(host, "make_folder") as make:
                host.make_folders(made, (5, 6))
            self.assertEqual([one.args[1:] for one in make.mock_calls], [(5, 6)] if makes else [], (euid, more))

    def test_a_python_that_the_server_may_not_run_stops_the_start(self) -> None:
        with mock.patch.object(sys, "executable", "/nowhere/python"):
            self.assertRaises(StartError, host.look_at_privileges, in_sandbox=False)
        for euid, in_sandbox, told in ((0, False, 1), (0, True, 0), (1000, False, 0)):
            with mock.patch.object(os, "geteuid", return_value=euid), capturedLogs() as events:
                host.look_at_privileges(in_sandbox=in_sandbox)
            self.assertEqual(len(events), told, (euid, in_sandbox))

    def test_what_the_start_has_made_is_left_to_itself_by_the_collector(self) -> None:
        with mock.patch.multiple(gc, collect=mock.DEFAULT, freeze=mock.DEFAULT, set_threshold=mock.DEFAULT) as did:
            host.settle_memory()
        self.assertEqual([did[name].mock_calls for name in ("collect", "freeze")], [[mock.call()]] * 2)
        self.assertEqual(did["set_threshold"].mock_calls, [mock.call(*host.COLLECTOR_THRESHOLDS)])


class Sandbox(SynchronousTestCase):
    LISTENERS = (("mx", "127.0.0.1", 2525, "STARTTLS"), ("submission", "127.0.0.1", 2587, "STARTTLS"), ("lmtp", "127.0.0.1", 2424, ""))

    def words(self, listeners: Any = LISTENERS, password: str = "pass-word") -> str:
        return sandbox.what_to_type(listeners, "/play/data/mail", "/play/data/outbound", password, "/bin/mail server", "/play/x y.toml")

    def test_it_says_where_it_listens_and_what_to_type(self) -> None:
        words = self.words()
        self.assertIn("  mx          127.0.0.1:2525  STARTTLS\n", words)
        self.assertIn("  lmtp        127.0.0.1:2424\n", words)
        self.assertIn('smtplib.SMTP("127.0.0.1", 2525).sendmail(', words)
        self.assertIn('smtplib.SMTP("127.0.0.1", 2587); s.starttls(); s.login("alice@example.test", "pass-word")', words)
        self.assertIn("  '/bin/mail server' explain ID --config '/play/x y.toml'\n", words)

    def test_without_a_listener_for_users_or_their_password_nobody_is_told_to_log_in(self) -> None:
        for words in (self.words(password=""), self.words((self.LISTENERS[2],))):
            self.assertNotIn("Log in", words)
        self.assertIn('smtplib.SMTP("127.0.0.1", 2424)', self.words((self.LISTENERS[2],)), "the only one that there is")

    def test_the_words_are_on_the_screen_at_once(self) -> None:
        screen = io.BufferedWriter(seen := io.BytesIO())  # type: ignore[arg-type]
        folder = Path(self.mktemp()).absolute()
        path = sandbox.prepare(str(folder))
        self.patch(sys, "__stdout__", io.TextIOWrapper(screen))
        made: Any = SimpleNamespace(
            data=str(folder / "data"),
            listen=[SimpleNamespace(endpoint="tcp:2525", service="mx", tls="starttls"), SimpleNamespace(endpoint="unix:x", service="lmtp", tls="none")],
        )
        sandbox.say_what_to_type(made, path, {"tcp:2525": SimpleNamespace(host="127.0.0.1", port=2525), "unix:x": "x"}.__getitem__)
        words = seen.getvalue().decode()
        self.assertIn("  mx          127.0.0.1:2525  STARTTLS\n  lmtp        x:0\n", words)
        self.assertIn(f"{folder}/data/mail/example.test/alice/new", words)
        self.assertTrue(words.endswith("Stop the server with Ctrl-C.\n"))
        self.patch(sys, "__stdout__", None)
        sandbox.say_what_to_type(made, path, str)

    def test_a_second_start_changes_nothing(self) -> None:
        folder = Path(self.mktemp()).absolute()
        path = sandbox.prepare(str(folder))
        self.assertEqual(path, str(folder / "mailserver.toml"))
        before = {one.name: one.read_bytes() for one in folder.iterdir()}
        self.assertEqual(sandbox.prepare(str(folder)), path)
        self.assertEqual({one.name: one.read_bytes() for one in folder.iterdir()}, before)
        self.assertEqual(sandbox.sandbox_password(str(folder)) + "\n", before["password.txt"].decode())
        self.assertEqual(sandbox.sandbox_password("/nowhere"), "")

    def test_accounts_that_are_there_stay_and_their_password_is_nobodys_to_say(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "accounts.toml").write_text("# mine\n")
        sandbox.prepare(str(folder))
        self.assertEqual(((folder / "accounts.toml").read_text(), (folder / "password.txt").exists()), ("# mine\n", False))

    def test_a_port_that_somebody_has_is_not_free(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertFalse(sandbox._is_free(port))
        self.assertTrue(sandbox._is_free(port))

    def test_each_listener_has_a_port_of_its_own_that_nobody_has(self) -> None:
        with mock.patch.object(sandbox, "_is_free", lambda port: port not in (2525, 2526, 2587)):
            ports = sandbox._free_ports()
        self.assertEqual(ports, {"mx": 2527, "submission": 2588, "submissions": 2465, "lmtp": 2424, "https": 8443, "http": 8080})
        with mock.patch.object(sandbox, "FIRST_PORTS", {"mx": 2525, "lmtp": 2525}), mock.patch.object(sandbox, "_is_free", lambda port: True):
            self.assertEqual(sandbox._free_ports(), {"mx": 2525, "lmtp": 2526})
