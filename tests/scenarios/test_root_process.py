"""A server that gives root up, and what keeps it beside it: the root process and the small processes that it starts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import smtplib
import socket
import stat
from pathlib import Path
from typing import Any

from mailserver.control.server import ask
from tests.authentication.pam_service import PamService
from tests.requires import require_root, require_tool
from tests.scenarios.support import BASIC, ROOT, RUN, ScenarioCase, Server, Wire, family, wait_until
from tests.scenarios.test_login import AUTHORITY, SUBMISSION, LoginCase
from tests.scenarios.test_unprivileged import USER, python_for_everybody

PIPE = (
    BASIC.replace('use = "maildir"\npath = "{work}/mail/{user}"\n', "")
    + """
[relay]
use = "capture"
path = "{data}/outbound"
networks = ["127.0.0.1"]

[queue]
retry = ["1s"]
"""
).replace(
    "[delivery]\n",
    """[delivery]
use = "pipe"
user = "daemon"
command = ["/bin/sh", "-c", "cat > {work}/out/$1.new && mv {work}/out/$1.new {work}/out/$1", "sh", "{id}"]
""",
)
RELAY_BY_PIPE = (
    BASIC.replace("{work}/mail", "{data}/mail")
    + """
[relay]
use = "pipe"
user = "daemon"
command = ["/bin/cat"]
networks = ["127.0.0.1"]
"""
)
PORT = '\n[[listen]]\nservice = "mx"\nendpoint = "tcp:{port}:interface=127.0.0.1"\ntls = "none"\n'
ROOT_PROCESS, LAUNCHER, COURIER, PAM = (
    f"mailserver.{name}" for name in ("processes.root", "delivery.launcher", "delivery.courier", "authentication.pam")
)


class RootProcessCase(ScenarioCase):
    def setUp(self) -> None:
        require_root("a server that gives root up")

    def installed(self, config: str, *, before: tuple[str, ...] = ()) -> Server:
        server = self.prepare(config)
        self.settle(server, *before)
        return server

    def settle(self, server: Server, *before: str) -> None:
        """As after docs/operating.md: the configuration is root's, the data are the server's."""
        for folder in (server.work.parent, server.work):
            folder.chmod(0o711)
        (server.work / "data").mkdir(mode=0o700, exist_ok=True)
        for path in (server.work / "data", *(server.work / "data").rglob("*"), *server.work.glob("accounts.toml")):
            os.chown(path, USER.pw_uid, USER.pw_gid)
        out = server.work / "out"
        out.mkdir()
        shutil.chown(out, "daemon")
        python, path = python_for_everybody()
        server.twistd = [*before, python, "-P", "-c", RUN, "-n", "--uid", str(USER.pw_uid), "--gid", str(USER.pw_gid)]
        server.python_path += path

    def process(self, server: Server, module: str, top: int | None = None) -> int:
        """The one below the server that runs a module of ours; not a child that it has forked for a request."""
        assert top or server.process is not None
        for pid in family(top or server.process.pid):
            with contextlib.suppress(OSError):
                if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        raise self.failureException(f"{module} does not run")

    def kill(self, server: Server, module: str) -> None:
        os.kill(self.process(server, module), signal.SIGKILL)

    def critical(self, server: Server, what: str) -> None:
        wait_until(lambda: re.search(rf"(?i)critical.*{what}", server.log()), server.log)

    def status(self, server: Server) -> dict[str, Any]:
        return server.status()["processes"]

    def delivered(self, server: Server, count: int) -> None:
        wait_until(lambda: len(list((server.work / "out").glob("*[!w]"))) == count, server.log)

    def send(self, server: Server) -> None:
        self.assertEqual(server.send(b"Subject: x\r\n\r\nyes").code, 250, server.log())

    def recipients(self, server: Server, *addresses: str) -> list[int]:
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>")
            return wire.dialogue(*[f"RCPT TO:<{address}>" for address in addresses])


class Launcher(RootProcessCase):
    def test_one_that_was_killed_is_replaced_and_mail_goes_on(self) -> None:
        server = self.installed(PIPE)
        server.start()
        self.send(server)
        self.delivered(server, 1)
        first = self.process(server, LAUNCHER)
        self.kill(server, LAUNCHER)
        self.critical(server, "the launcher has died")
        wait_until(lambda: "the launcher runs again" in server.log(), server.log)
        second = self.process(server, LAUNCHER)
        self.assertNotEqual(first, second)
        root = self.process(server, ROOT_PROCESS)
        self.assertIn(str(second), Path(f"/proc/{root}/task/{root}/children").read_text().split())
        self.assertFalse(os.path.exists(f"/proc/{first}"), "a zombie")
        for pid in (root, second):  # each has its own end and nothing else
            self.assertEqual(len([one for one in Path(f"/proc/{pid}/fd").iterdir() if "socket" in os.readlink(one)]), 1)
        self.send(server)
        self.delivered(server, 2)
        self.assertEqual(self.status(server), {"delivery.launcher": "", "root": ""})

    def test_without_the_root_process_what_runs_goes_on_and_what_is_missing_is_put_off(self) -> None:
        server = self.installed(PIPE)
        server.start()
        launcher = self.process(server, LAUNCHER)
        self.kill(server, ROOT_PROCESS)
        self.critical(server, "the root process has died")
        self.send(server)
        self.delivered(server, 1)
        self.assertEqual(self.recipients(server, "alice@example.org", "x@elsewhere.example"), [250, 250])
        os.kill(launcher, signal.SIGKILL)
        self.critical(server, "the launcher is missing.*restart the server")
        self.assertEqual(self.recipients(server, "alice@example.org", "x@elsewhere.example", "bob@example.org"), [451, 250, 451])
        missing = self.status(server)
        self.assertIn("restart the server", missing["delivery.launcher"])
        self.assertTrue(missing["root"])

    def test_without_the_launcher_of_the_relay_those_elsewhere_are_put_off(self) -> None:
        server = self.installed(RELAY_BY_PIPE)
        server.start()
        self.assertEqual(self.recipients(server, "alice@example.org", "x@elsewhere.example"), [250, 250])
        launcher = self.process(server, LAUNCHER)
        self.kill(server, ROOT_PROCESS)
        self.critical(server, "the root process has died")
        os.kill(launcher, signal.SIGKILL)
        self.critical(server, "the launcher is missing.*restart the server")
        self.assertEqual(self.recipients(server, "alice@example.org", "x@elsewhere.example", "bob@example.org"), [250, 451, 250])

    def test_it_is_the_same_for_a_daemon_and_its_whole_group_may_be_signalled(self) -> None:
        server = self.installed(PIPE + '[log]\npath = "{data}/log"\n')
        server.twistd.remove("-n")
        server.log_path = server.work / "data" / "log"
        server.launch()
        assert server.process is not None
        self.assertEqual(server.process.wait(60), 0, server.log())
        server.process = None
        daemon = int(wait_until(lambda: server.log_path.exists() and (server.work / "pid").read_text(), server.log))
        self.addCleanup(lambda: running(daemon) and os.kill(daemon, signal.SIGKILL))
        wait_until(lambda: self.greets(server), server.log)
        pids = [self.process(server, module, daemon) for module in (ROOT_PROCESS, LAUNCHER)]
        self.assertEqual(len({os.getsid(pid) for pid in (daemon, *pids)}), 3)
        os.kill(pids[1], signal.SIGKILL)
        wait_until(lambda: "the launcher runs again" in server.log(), server.log)
        for number in (signal.SIGHUP, signal.SIGTERM):
            for pid in (pids[0], self.process(server, LAUNCHER, daemon)):
                os.kill(pid, number)
        self.send(server)
        self.delivered(server, 1)
        launcher = self.process(server, LAUNCHER, daemon)
        os.killpg(os.getpgid(daemon), signal.SIGTERM)
        for pid in (daemon, pids[0], launcher):
            wait_until(lambda pid=pid: not running(pid), lambda: f"{pids} run:\n{server.log()}", 40)

    def greets(self, server: Server) -> bool:
        try:
            with Wire(server.port) as wire:
                return wire.greeting.code == 220
        except OSError:
            return False

    def test_all_of_them_end_with_a_server_that_is_killed(self) -> None:
        server = self.installed(PIPE)
        server.start()
        pids = [self.process(server, module) for module in (ROOT_PROCESS, LAUNCHER)]
        server.kill()
        for pid in pids:
            wait_until(lambda pid=pid: not running(pid), lambda: f"they run: {pids}")

    def test_after_an_upgrade_on_the_disk_none_of_another_version_is_started(self) -> None:
        server = self.installed(PIPE)
        server.is_forked = False
        site = server.work / "site"
        for name in ("mailserver", "twisted"):
            shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        server.start()
        changed = site / "mailserver" / "delivery" / "sysexits.py"
        changed.write_text(changed.read_text() + "# newer\n")
        self.kill(server, LAUNCHER)
        self.critical(server, "the launcher is missing.*another version.*restart the server")
        self.assertEqual(self.recipients(server, "alice@example.org", "x@elsewhere.example"), [451, 250])


class Ports(RootProcessCase):
    def reload(self, server: Server) -> dict[str, Any]:
        return ask(str(server.work / "data" / "control.sock"), "reload", timeout_seconds=30)

    def owner(self, port: int) -> int:
        """The user whose right the listening socket was made with."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return int(fields[7])
        raise self.failureException(f"nobody listens on {port}")

    def test_a_reload_adds_one_that_root_has_bound(self) -> None:
        server = self.installed(BASIC.replace("{work}/mail", "{data}/mail"))
        server.start()
        for number, kind in enumerate(("tcp", "haproxy:tcp")):
            config = BASIC.replace("{work}/mail", "{data}/mail") + PORT.replace("{port}", "{newport}").replace("tcp", kind)
            server.ports.pop("newport", None)
            server.configure(config)
            self.assertEqual(self.reload(server), {"reloaded": True, "faults": [], "needs_restart": []})
            self.assertEqual(self.owner(server.ports["newport"]), 0)
            if number == 0:
                with Wire(server.ports["newport"]) as wire:
                    self.assertEqual(wire.greeting.code, 220)
        server.ports.pop("newport")

    def test_a_configuration_that_others_may_write_says_nothing_to_root(self) -> None:
        server = self.installed(BASIC.replace("{work}/mail", "{data}/mail"))
        server.start()
        server.configure(BASIC.replace("{work}/mail", "{data}/mail") + PORT.replace("{port}", "{newport}"))
        server.config_path.chmod(0o666)
        [fault] = self.reload(server)["faults"]
        self.assertIn("may be written by others", fault)
        self.assertEqual(self.owner(server.ports["newport"]), USER.pw_uid)  # our own right suffices for this one


class UnixSockets(RootProcessCase):
    """They have the owner and the mode that they would have after a restart."""

    def reload(self, server: Server, endpoint: str) -> list[str]:
        text = BASIC.replace("{work}/mail", "{data}/mail")
        server.configure(f'{text}\n[[listen]]\nservice = "lmtp"\nendpoint = "{endpoint}"\n')
        faults: list[str] = ask(str(server.work / "data" / "control.sock"), "reload", timeout_seconds=30)["faults"]
        return faults

    def facts(self, path: Path) -> tuple[int, int, int]:
        found = path.lstat()
        return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

    def greets(self, path: Path) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            try:
                client.connect(str(path))
            except ConnectionRefusedError:
                return False
            return client.recv(100).startswith(b"220 ")

    def test_a_reload_adds_one_as_a_start_does(self) -> None:
        server = self.installed(BASIC.replace("{work}/mail", "{data}/mail"))
        server.start()
        own = server.work / "own"  # as below /run
        own.mkdir(0o755)
        os.chown(own, USER.pw_uid, USER.pw_gid)
        for folder in ("own", "."):
            path = server.work / folder / "lmtp.sock"
            self.assertEqual(self.reload(server, f"unix:{path}:mode=660"), [])
            self.assertEqual((self.facts(path), self.greets(path)), ((0, 0, 0o660), True))
        self.assertEqual(self.reload(server, f"unix:{path}:mode=600"), [])  # which is another endpoint at the same path
        self.assertEqual((self.facts(path), self.greets(path)), ((0, 0, 0o600), True))
        server.stop()
        server.start()
        self.assertEqual((self.facts(path), self.greets(path)), ((0, 0, 0o600), True))
        self.assertNotIn("Traceback", server.log())

    def test_where_others_could_lead_root_astray_it_waits_for_the_restart(self) -> None:
        server = self.installed(BASIC.replace("{work}/mail", "{data}/mail"))
        server.start()
        (server.work / "data" / "sub").mkdir(0o777)
        path = server.work / "data" / "sub" / "lmtp.sock"
        [fault] = self.reload(server, f"unix:{path}")
        self.assertIn("root binds it at a restart, not now", fault)
        self.assertFalse(path.exists())
        self.send(server)


class Logins(RootProcessCase, LoginCase):
    def code(self, server: Server, user: str, password: str) -> int:
        with self.client(server) as client:
            try:
                return client.login(user, password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code

    def test_while_pam_cannot_be_asked_its_users_hear_454_and_those_of_others_log_in(self) -> None:
        system = 'use = "system"\ndomains = ["example.org"]\nuid_min = 1\nuid_max = 70000\npam = "%s"\n'
        config = SUBMISSION.replace("{work}/mail", "{data}/mail").replace("{work}/outbound", "{data}/outbound")
        server = self.prepare(config)
        AUTHORITY.leaf("mx.example.org").write(str(server.work))
        service = PamService(server.work, {"nobody": "secret"})
        self.addCleanup(service.remove)
        (server.work / "others").write_text("alice@example.org:swordfish\n")
        server.configure(
            config.replace('use = "file"\npath = "{work}/accounts.toml"\n', system % service.name)
            + '\n[authentication]\ncheckers = ["file:{work}/others"]\n'
        )
        self.settle(server)
        server.start()
        self.assertEqual(self.code(server, "nobody@example.org", "secret"), 235, server.log())
        self.kill(server, PAM)
        self.critical(server, "the process that asks PAM has died")
        wait_until(lambda: "the process that asks PAM runs again" in server.log(), server.log)
        self.assertEqual(self.code(server, "nobody@example.org", "secret"), 235, server.log())
        pam = self.process(server, PAM)
        self.kill(server, ROOT_PROCESS)
        self.critical(server, "the root process has died")
        os.kill(pam, signal.SIGKILL)
        self.critical(server, "the process that asks PAM is missing.*restart the server")
        self.assertEqual(self.code(server, "nobody@example.org", "secret"), 454)
        self.assertEqual(self.code(server, "alice@example.org", "swordfish"), 235)


class Homes(RootProcessCase):
    def test_a_courier_that_was_killed_is_replaced_and_homes_get_their_mail(self) -> None:
        config = BASIC.replace('use = "file"\npath = "{work}/accounts.toml"', 'use = "system"').replace("{work}/mail/{user}", "{home}/Maildir")
        server = self.prepare(config)
        users, home = server.work / "passwd", server.work / "carol"
        users.write_text(Path("/etc/passwd").read_text() + f"carol:x:54399:54399::{home}:/bin/sh\n")
        home.mkdir()
        os.chown(home, 54399, 54399)
        script = 'mount --bind "$0" /etc/passwd && exec "$@"'  # in a world of its own
        self.settle(server, require_tool("unshare"), "--mount", "sh", "-c", script, str(users))
        server.start()
        for count in (1, 2):
            self.assertEqual(server.send(b"Subject: x\r\n\r\nyes", to="carol@example.org").code, 250, server.log())
            wait_until(lambda count=count: len(list((home / "Maildir" / "new").glob("*"))) == count, server.log)
            if count == 1:
                self.kill(server, COURIER)
                self.critical(server, "the courier has died")
                wait_until(lambda: "the courier runs again" in server.log(), server.log)
        for path in (home / "Maildir" / "new").glob("*"):
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (54399, 54399))


class Unprivileged(ScenarioCase):
    """As under a unit with User=."""

    def test_users_of_the_host_are_refused_at_the_start(self) -> None:
        require_root("a server that was never root")
        for config, why in (
            (PIPE, "pipe: to run commands as daemon the server needs root at the start"),
            (BASIC.replace("{work}/mail/{user}", "{home}/Maildir"), "mail into the homes of the host's users needs root at the start"),
        ):
            server = self.prepare(config)
            for folder in (server.work.parent, server.work):
                folder.chmod(0o711)
            (server.work / "data").mkdir()
            os.chown(server.work / "data", USER.pw_uid, USER.pw_gid)
            os.chown(server.work, USER.pw_uid, USER.pw_gid)
            python, path = python_for_everybody()
            server.python_path += path
            change = f"import os; os.setgroups([]); os.setgid({USER.pw_gid}); os.setuid({USER.pw_uid}); import sys; {RUN}"
            server.twistd = [python, "-P", "-c", change, "-n"]
            error = self.assertRaises(self.failureException, server.start)
            self.assertIn(why, str(error))


def running(pid: int) -> bool:
    """Not ended, not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
