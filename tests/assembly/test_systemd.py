"""What systemd is told, at a socket of the test's own."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.systemd import Systemd
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until


class Listener:
    """A NOTIFY_SOCKET."""

    def __init__(self, case: SynchronousTestCase, name: str = "") -> None:
        folder = tempfile.TemporaryDirectory()
        case.addCleanup(folder.cleanup)
        self.name = name or os.path.join(folder.name, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self.socket.close)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else self.name)
        self.socket.setblocking(False)
        self.unread: list[dict[str, str]] = []

    def words(self) -> list[dict[str, str]]:
        """What has come since the last look."""
        found = []
        while True:
            try:
                octets = self.socket.recv(4096)
            except BlockingIOError:
                return found
            found.append(dict(line.split("=", 1) for line in octets.decode().split("\n")))


class Words(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.listener = Listener(self)

    def systemd(self, **more: str) -> Systemd:
        self.environment = {"NOTIFY_SOCKET": self.listener.name, "HOME": "/", **more}
        return Systemd(self.clock, self.environment)

    def test_its_variables_are_not_for_children(self) -> None:
        self.systemd(WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
        self.assertEqual(self.environment, {"HOME": "/"})

    def test_a_start_that_takes_long_is_waited_for_until_it_is_ready(self) -> None:
        systemd = self.systemd()
        systemd.starting()
        self.clock.pump([10] * 5)
        self.assertEqual(self.listener.words(), [{"EXTEND_TIMEOUT_USEC": "60000000"}] * 6)
        systemd.ready("serves")
        self.assertEqual(self.listener.words(), [{"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "serves"}])
        self.clock.pump([10] * 5)
        self.assertEqual(self.listener.words(), [])

    def test_the_watchdog_hears_us_twice_in_its_time_from_the_moment_of_being_ready_until_the_reactor_ends(self) -> None:
        systemd = self.systemd(WATCHDOG_USEC="8000000", WATCHDOG_PID=str(os.getpid()))
        self.clock.pump([4] * 5)
        self.assertEqual(self.listener.words(), [])
        systemd.ready("serves")
        systemd.ready("serves")
        self.listener.words()
        self.clock.pump([4] * 5)
        told = self.listener.words()  # the socket holds ten or so
        systemd.stopping()
        self.clock.pump([4] * 5)
        told += self.listener.words()
        self.assertEqual(told.count({"WATCHDOG": "1"}), 10)
        others = [one for one in told if "WATCHDOG" not in one]
        self.assertEqual(others, [{"STOPPING": "1"}] + [{"EXTEND_TIMEOUT_USEC": "60000000"}] * 3)

    def test_a_watchdog_of_another_process_or_none_hears_nothing(self) -> None:
        odd: list[Mapping[str, str]] = [{"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"}, {}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "²"}]
        for variables in odd:
            systemd = self.systemd(**variables)
            systemd.ready("serves")
            self.listener.words()
            self.clock.pump([4] * 5)
            self.assertEqual(self.listener.words(), [])

    def test_a_status_is_one_bounded_line(self) -> None:
        self.systemd().ready("a\nREADY=0\r\n" + "x" * 5000)
        [told] = self.listener.words()
        self.assertEqual(told["READY"], "1")
        self.assertTrue(told["STATUS"].startswith("a READY=0 xxx"))
        self.assertLess(len(told["STATUS"]), 1000)

    def test_a_reload_says_when_it_began_by_the_clock_that_systemd_compares(self) -> None:
        systemd = self.systemd()
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        systemd.reloading()
        [told] = self.listener.words()
        self.assertEqual(told["RELOADING"], "1")
        self.assertTrue(before <= int(told["MONOTONIC_USEC"]) / 1e6 + 1e-6 <= time.clock_gettime(time.CLOCK_MONOTONIC) + 1e-3)

    def test_the_socket_may_be_one_without_a_file(self) -> None:
        self.listener = Listener(self, f"@mailserver-test-{os.getpid()}")
        self.systemd().ready("serves")
        self.assertEqual(len(self.listener.words()), 1)

    def test_nobody_who_listens_is_no_trouble(self) -> None:
        for name in ("", "/nowhere/notify", "x" * 200, "@"):
            systemd = Systemd(self.clock, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "8000000"})
            systemd.starting()
            systemd.ready("serves")
            systemd.reloading()
            self.clock.pump([4] * 3)
            systemd.stopping()

    def test_the_unit_asks_for_what_we_say(self) -> None:
        unit = (Path(__file__).parents[2] / "etc" / "mailserver.service").read_text()
        for line in ("Type=notify", "NotifyAccess=main", "RestartPreventExitStatus=78"):
            self.assertRegex(unit, f"(?m)^{re.escape(line)}$")
        self.assertRegex(unit, r"(?m)^WatchdogSec=\d+")
        self.assertNotIn("--pidfile", unit)


class Life(ScenarioCase):
    def started(self) -> tuple[Server, Listener]:
        listener = Listener(self)
        server = self.prepare(BASIC)
        self.patch(server, "_environment", lambda of=server._environment: {**of(), "NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "200000"})
        server.launch()
        return server, listener

    def until(self, server: Server, listener: Listener, word: str) -> dict[str, str]:
        """The next message with this word."""

        def heard() -> dict[str, str] | None:
            listener.unread += listener.words()
            while listener.unread:
                if word in (one := listener.unread.pop(0)):
                    return one
            return None

        told: dict[str, str] = wait_until(heard, lambda: f"no {word}:\n{server.log()}")
        return told

    def test_a_life_is_told_from_the_start_over_reloads_to_the_stop(self) -> None:
        server, listener = self.started()
        assert server.process is not None
        self.assertEqual(self.until(server, listener, "READY"), {"READY": "1", "MAINPID": str(server.process.pid), "STATUS": "serves"})
        self.assertEqual(server.send(b"Subject: x\r\n\r\nyes").code, 250)
        server.signal(signal.SIGHUP)
        self.assertIn("MONOTONIC_USEC", self.until(server, listener, "RELOADING"))
        self.assertEqual(self.until(server, listener, "READY")["STATUS"], "serves")
        server.configure(BASIC + "nonsense = 1\n")
        server.signal(signal.SIGHUP)
        self.until(server, listener, "RELOADING")
        self.assertIn("a reload failed", self.until(server, listener, "READY")["STATUS"])
        server.signal(signal.SIGTERM)
        self.until(server, listener, "STOPPING")
        self.assertEqual(server.ended(), 0)

    def test_a_reactor_that_is_held_feeds_no_watchdog(self) -> None:
        server, listener = self.started()
        self.until(server, listener, "READY")
        self.until(server, listener, "WATCHDOG")
        assert server.process is not None
        pid = server.process.pid
        server.signal(signal.SIGSTOP)
        self.addCleanup(server.signal, signal.SIGCONT)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", server.log)
        listener.words()
        listener.unread = []
        listener.socket.settimeout(0.5)
        self.assertRaises(TimeoutError, listener.socket.recv, 4096)
        listener.socket.setblocking(False)
        server.signal(signal.SIGCONT)
        self.until(server, listener, "WATCHDOG")
