"""Daemon mode: who has typed the command learns how the start went, and nothing is lost of what it says."""

from __future__ import annotations

import contextlib
import os
import pwd
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.requires import require_root
from tests.scenarios.nursery import nursed
from tests.scenarios.support import BASIC, ROOT, RUN, ScenarioCase, Server, Wire, wait_until
from tests.scenarios.test_unprivileged import python_for_everybody

LOGGED = BASIC + '\n[log]\npath = "{work}/data/the.log"\n'


class DaemonCase(ScenarioCase):
    def prepared(self, config: str = LOGGED) -> Server:
        server = self.prepare(config)
        server.twistd = [sys.executable, "-c", RUN]
        (server.work / "data").mkdir()
        return server

    def typed(self, server: Server, *options: str) -> subprocess.CompletedProcess[str]:
        """``twistd mailserver``, with its output read until nobody holds it open any more: not the daemon either."""
        words = [*options, "mailserver", "--config", str(server.config_path)]
        environment = server._environment() | {"PYTHONPATH": f"{ROOT}:{':'.join(server.python_path)}"}
        if nursery := server.nursery():
            python, beginning = nursery
            done = self.forked(python, [*beginning, *words], str(server.work), environment)
        else:
            done = subprocess.run(
                [*server.twistd, *words], cwd=server.work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
            )
        if done.returncode == 0:
            self.addCleanup(self.end, server)
        return done

    def forked(self, python: str, command: list[str], folder: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        with contextlib.ExitStack() as files:
            ends = [os.pipe(), os.pipe()]
            process = nursed(command, cwd=folder, env=environment, output=ends[0][1], errors=ends[1][1], python=python)
            said = [files.enter_context(open(reading)) for reading, _ in ends]
            for _, writing in ends:
                os.close(writing)
            status = process.wait(60)
            for one in said:
                pieces = selectors.DefaultSelector()
                self.addCleanup(pieces.close)
                pieces.register(one, selectors.EVENT_READ)
                self.assertTrue(pieces.select(60), "somebody holds the output open")
            return subprocess.CompletedProcess(command, status, *[one.read() for one in said])

    def end(self, server: Server) -> None:
        pid = server.status()["pid"]
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text(), server.log)

    def log(self, server: Server) -> str:
        path = server.work / "data" / "the.log"
        return path.read_text() if path.exists() else ""


class Daemon(DaemonCase):
    def test_the_command_ends_when_the_server_takes_connections(self) -> None:
        server = self.prepared()
        done = self.typed(server)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        with Wire(server.port) as wire:  # at once: nobody has to wait for it
            self.assertEqual(wire.greeting.code, 220)
        wait_until(lambda: "listens on" in self.log(server), lambda: self.log(server))
        status = Path(f"/proc/{server.status()['pid']}/stat").read_text().rpartition(")")[2].split()
        self.assertEqual(status[4], "0")  # it has no terminal
        self.assertNotEqual(status[3], str(server.status()["pid"]))  # and leads no session, so it never gets one
        self.assertEqual(server.send(b"Subject: x\r\n\r\nyes").code, 250)
        wait_until(lambda: " delivered " in self.log(server), lambda: self.log(server))

    def test_streams_that_whoever_typed_the_command_had_closed_change_nothing(self) -> None:
        server = self.prepared()
        server.twistd = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *server.twistd]
        self.assertEqual(self.typed(server).returncode, 0)
        self.assertEqual(server.send(b"Subject: x\r\n\r\nyes").code, 250)
        server.wait_for_mail("alice")
        folder = Path(f"/proc/{server.status()['pid']}/fd")
        self.assertEqual([os.readlink(folder / str(number)) for number in range(3)], [os.devnull] * 3)
        server.config_path.write_text("hostname = 5\n")
        self.assertEqual(self.typed(server).returncode, 78)

    def test_without_being_asked_it_writes_no_pid_file(self) -> None:
        server = self.prepared()
        self.assertEqual(self.typed(server).returncode, 0)
        self.assertEqual(list(server.work.glob("*pid*")), [])

    def test_a_pid_file_that_is_named_has_the_daemons_number(self) -> None:
        server = self.prepared()
        self.assertEqual(self.typed(server, "--pidfile", "twistd.pid").returncode, 0)
        self.assertEqual(int((server.work / "twistd.pid").read_text()), server.status()["pid"])

    def test_a_busy_port_ends_it_with_1_and_is_told_to_who_has_typed_it(self) -> None:
        server = self.prepared()
        with socket.create_server(("127.0.0.1", server.port)):
            done = self.typed(server)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(f"cannot listen on tcp:{server.port}:interface=127.0.0.1: Address already in use", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertIn("Address already in use", self.log(server))

    def test_a_busy_socket_of_the_file_system_is_told_in_the_same_way(self) -> None:
        server = self.prepared(LOGGED.replace("tcp:{port}:interface=127.0.0.1", "unix:{work}/nowhere/lmtp.sock").replace('"mx"', '"lmtp"'))
        done = self.typed(server)
        self.assertEqual(done.returncode, 1)
        self.assertIn("lmtp.sock", done.stderr)

    def test_a_start_that_fails_after_the_ports_are_bound_ends_it_with_1_and_nobody_was_let_in(self) -> None:
        server = self.prepared()
        (server.work / "data" / "queue.db").mkdir()
        done = self.typed(server)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("mailserver cannot start", done.stderr)
        self.assertNotIn("listens on", self.log(server))

    def test_faults_of_the_configuration_end_it_with_78(self) -> None:
        for config, told in (
            (LOGGED + "[limits]\nrecipients = -1\n", "limits.recipients"),
            (BASIC, "a daemon has no standard output"),
            (LOGGED.replace("[domain.", '[[filter]]\nuse = "denylist"\nnetworks = ["absent.example"]\n[domain.'), "filter"),
        ):
            with self.subTest(told):
                done = self.typed(self.prepared(config))
                self.assertEqual(done.returncode, 78, done.stderr)
                self.assertIn(told, done.stderr)

    def test_what_is_wrong_with_the_accounts_ends_it_with_78(self) -> None:
        server = self.prepared()
        (server.work / "accounts.toml").write_text("nonsense = [")
        done = self.typed(server)
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn("accounts.toml", done.stderr)

    def test_a_daemon_that_is_killed_before_it_has_started_is_not_waited_for_for_ever(self) -> None:
        server = self.prepared(LOGGED + '[[filter]]\nuse = "slow"\n')
        server.install_plugin("slow", SLOW.replace('open(GO + ".asked", "w").close()', "os.kill(os.getpid(), 9)"))
        self.assertEqual(self.typed(server).returncode, 128 + signal.SIGKILL)


class Foreground(DaemonCase):
    def test_a_port_is_bound_from_the_beginning_and_lets_nobody_in_before_the_queue_is_open(self) -> None:
        server = self.prepared(LOGGED + '[[filter]]\nuse = "slow"\n')
        server.install_plugin("slow", SLOW.replace("GO", repr(str(server.work / "go"))))
        server.twistd += ["-n"]
        server.launch()
        self.addCleanup(lambda: server.process is not None and server.stop())
        wait_until(lambda: (server.work / "go.asked").exists(), server.log)
        with self.assertRaises(ConnectionRefusedError):
            Wire(server.port)
        with socket.socket() as other, self.assertRaises(OSError):
            other.bind(("127.0.0.1", server.port))
        (server.work / "go").touch()
        server.wait_until_it_greets()

    def test_connections_to_a_socket_of_systemd_wait_until_the_queue_is_open(self) -> None:
        endpoint = "systemd:domain=INET:name=mx"
        server = self.prepared(LOGGED.replace("tcp:{port}:interface=127.0.0.1", endpoint) + '[[filter]]\nuse = "slow"\n')
        server.install_plugin("slow", SLOW.replace("GO", repr(str(server.work / "go"))))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server.ports["port"] = listening.getsockname()[1]
            activated = 'exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=mx exec "$@"'
            command = ["sh", "-c", activated, "sh", *server.twistd, "-n", "mailserver", "--config", str(server.config_path)]
            process = subprocess.Popen(
                command, cwd=ROOT, env=server._environment(), stdin=listening, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.terminate)
        wait_until(lambda: (server.work / "go.asked").exists(), lambda: self.log(server))
        with Wire(server.port, greet=False) as wire:
            (server.work / "go").touch()
            self.assertEqual(wire.reply().code, 220)

    def test_a_socket_that_systemd_has_not_handed_over_ends_it_with_1_and_is_told(self) -> None:
        for which in ("name=mx", "index=0"):
            endpoint = f"systemd:domain=INET:{which}"
            server = self.prepared(LOGGED.replace("tcp:{port}:interface=127.0.0.1", endpoint))
            done = self.typed(server)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(f"cannot listen on {endpoint}: systemd has handed over no such socket", done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def test_it_ends_with_78_where_to_start_it_again_is_no_use(self) -> None:
        server = self.prepared()
        (server.work / "accounts.toml").write_text("nonsense = [")
        self.assertEqual(self.typed(server, "-n").returncode, 78)


class GivenUp(DaemonCase):
    def setUp(self) -> None:
        require_root("a server that gives root up")

    def test_the_port_is_bound_with_roots_rights_and_the_log_is_the_servers(self) -> None:
        user = pwd.getpwnam("nobody")
        server = self.prepared()
        python, path = python_for_everybody()
        for folder in (server.work.parent, server.work):
            folder.chmod(0o711)
        for path_ in (server.work / "data", server.work / "accounts.toml"):
            os.chown(path_, user.pw_uid, user.pw_gid)
        server.mail.mkdir()
        os.chown(server.mail, user.pw_uid, user.pw_gid)
        server.twistd = [python, "-P", "-c", RUN]
        server.python_path += path
        done = self.typed(server, "--uid", str(user.pw_uid), "--gid", str(user.pw_gid))
        self.assertEqual(done.returncode, 0, done.stderr + self.log(server))
        self.assertEqual((server.work / "data" / "the.log").stat().st_uid, user.pw_uid)
        self.assertEqual(Path(f"/proc/{server.status()['pid']}").stat().st_uid, user.pw_uid)


SLOW = '''
import contextlib
import os
from twisted.internet import reactor, task
from zope.interface import implementer
from mailserver.interfaces import IComponent, IPeerFilter
from mailserver.mail.answers import Pass
from mailserver.plugins.catalogue import Shipped
from mailserver.config import Options

@implementer(IPeerFilter, IComponent)
class Slow:
    async def judge_peer(self, peer):
        return Pass()
    async def start(self):
        open(GO + ".asked", "w").close()
        while not os.path.exists(GO):
            await task.deferLater(reactor, 0.01)
    async def stop(self):
        pass

class Factory:
    name = "slow"
    summary = "slow"
    options = Options
    provides = (IPeerFilter,)
    def build(self, options, services):
        return Slow()

from mailserver.interfaces import IComponentFactory
from twisted.plugin import IPlugin
slow = implementer(IPlugin, IComponentFactory)(Factory)()
'''
