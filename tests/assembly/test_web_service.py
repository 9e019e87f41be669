"""The web process from the server's side: when it is started, and started again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly import web_service
from mailserver.assembly.web_service import WebService
from mailserver.config import Configuration, parse
from mailserver.plugins.life import StartError
from mailserver.processes import frames
from mailserver.processes.version import VERSION_OCTETS
from mailserver.web.wire import QUESTION_OCTETS, said_number
from tests.processes.test_exchange import Sides

TEXT = 'hostname = "mx.example.org"\ndata = "/tmp/x"\n[domain."example.org"]\n[[listen]]\nservice = "{service}"\nendpoint = "tcp:80"\n[web]\nuser = "nobody"\n'


def configuration(service: str = "web", more: str = "") -> Configuration:
    return parse(TEXT.format(service=service) + more, file="mailserver.toml", directory="/etc/mailserver")


class Process:
    """A child that does not really run."""

    def __init__(self) -> None:
        self.killed = False

    def kill(self) -> None:
        self.killed = True

    def wait(self, seconds: float = 0) -> int:
        return 0


class Lives(SynchronousTestCase):
    def setUp(self) -> None:
        self.sides, self.clock, self.begun, self.fault = Sides(), Clock(), list[tuple[Process, socket.socket]](), ""
        self.hold: Deferred[None] | None = None

        async def run(function: Any, *arguments: Any) -> Any:
            if self.hold is not None:
                await self.hold
            return function(*arguments)

        for name in ("seconds", "callLater"):
            setattr(self.sides, name, getattr(self.clock, name))
        data = os.path.abspath(self.mktemp())
        os.mkdir(data)
        self.server: Any = SimpleNamespace(
            reactor=self.sides, pools=SimpleNamespace(of=lambda *_: run), processes=SimpleNamespace(root=None, kept_elsewhere={}),
            data=data, program_version=b"1", begun_with=configuration(),
        )  # fmt: skip
        self.patch(web_service, "begin", self.begin)
        self.not_ready: list[str] = []
        ports: Any = SimpleNamespace(in_use=(), held=dict, host=lambda endpoint: SimpleNamespace(port=80))
        self.service = WebService(self.server, ports, lambda: self.not_ready)
        self.addCleanup(self.service.stop)

    def begin(self, start: Any, expected: bytes) -> tuple[Process, socket.socket]:
        if self.fault:
            raise OSError(self.fault)
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.begun.append((Process(), theirs))
        return self.begun[-1][0], ours

    def take_up(self, configuration: Configuration) -> Deferred[None]:
        return Deferred.fromCoroutine(self.service.take_up(configuration))

    def heard(self) -> dict[str, Any]:
        """What the newest process is told until there is no more; it takes up all of it."""
        members: dict[str, Any] = {}
        end = self.begun[-1][1]
        end.setblocking(False)
        while True:
            try:
                octets, _ = frames.receive(end, octets_most=QUESTION_OCTETS)
            except BlockingIOError:
                return members
            members |= json.loads(octets)
            frames.send(end, said_number(members["number"]))
            for one in list(self.sides.readers):
                one.doRead()

    def die(self) -> None:
        self.begun[-1][1].close()
        for one in list(self.sides.readers):
            one.doRead()

    def test_without_a_web_listener_there_is_no_process(self) -> None:
        self.successResultOf(self.take_up(configuration("mx")))
        self.assertEqual((self.begun, self.server.processes.kept_elsewhere), ([], {}))

    def test_one_is_started_and_told_all_and_health_each_five_seconds(self) -> None:
        self.successResultOf(self.take_up(configuration()))
        told = self.heard()
        self.assertEqual((told["hostname"], list(told["policies"]), told["not_ready"]), ("mx.example.org", ["example.org"], []))
        self.assertIn("BEGIN CERTIFICATE", told["certificate"][0])
        self.not_ready = ["the disk has no room"]
        self.clock.advance(5)
        self.assertEqual(self.heard()["not_ready"], ["the disk has no room"])
        self.not_ready = None  # type: ignore[assignment]
        self.clock.advance(5)
        self.assertEqual(self.heard()["not_ready"], ["the server's health could not be found out: TypeError"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.not_ready = []
        self.clock.advance(5)
        self.assertEqual(self.heard()["not_ready"], [])
        self.assertEqual(self.server.processes.kept_elsewhere["web"](), "")
        self.successResultOf(self.take_up(configuration(more='mta_sts = "enforce"\n')))
        self.assertIn("mode: enforce", self.heard()["policies"]["example.org"])
        self.successResultOf(self.take_up(configuration("mx")))
        self.assertEqual(self.begun[0][1].recv(1), b"")
        self.assertEqual((self.clock.getDelayedCalls(), self.server.processes.kept_elsewhere), ([], {}))

    def test_one_that_dies_again_and_again_waits_longer_each_time_and_a_steady_one_not(self) -> None:
        self.successResultOf(self.take_up(configuration()))
        for pause in (0, 1, 2, 4):
            with capturedLogs():
                self.die()
            self.assertIn("it has died", self.server.processes.kept_elsewhere["web"]())
            count = len(self.begun)
            self.clock.advance(max(0, pause - 0.01))
            self.assertEqual(len(self.begun), count if pause else count + 1)
            self.clock.advance(0.02)
            self.assertEqual(len(self.begun), count + 1)
            self.heard()
        self.assertTrue(all(process.killed for process, _ in self.begun[:-1]))
        for _ in range(20):
            self.clock.advance(4)
            self.heard()
        self.die()
        self.clock.advance(0)
        self.assertEqual(len(self.begun), 6)

    def test_what_a_ca_has_issued_is_not_shown_once_nobody_renews_it(self) -> None:
        self.successResultOf(self.take_up(configuration(more="[acme]\n")))
        self.service.hand_over.change_certificate("issued", "key")
        self.assertEqual(self.heard()["certificate"], ["issued", "key"])
        self.successResultOf(self.take_up(configuration()))
        self.assertIn("BEGIN CERTIFICATE", self.heard()["certificate"][0])

    def test_a_unit_whose_process_dies_again_and_again_is_looked_at_later_each_time(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.server.program_version = b"1" * VERSION_OCTETS
        self.successResultOf(self.take_up(configuration(more=f'socket = "{folder}/web"\n')))
        process = self.unit(f"{folder}/web")
        self.assertEqual(self.service.missing, "")
        for pause in (0, 1, 2, 4):
            process.close()
            self.turn()
            process = self.unit(f"{folder}/web")
            self.clock.advance(max(0, pause - 0.01))
            self.turn()
            self.assertEqual(self.service.missing, "it has died" if pause else "")
            self.clock.advance(0.02)
            self.turn()
            self.assertEqual(self.service.missing, "")
        process.close()

    def unit(self, path: str) -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        self.addCleanup(found.close)
        found.connect(path)
        found.sendall(self.server.program_version)
        self.turn()
        return found

    def turn(self) -> None:
        for one in list(self.sides.readers):
            one.doRead()

    def test_one_that_does_not_start_is_told_once_and_tried_again(self) -> None:
        self.fault = "it is of another version: restart the server"
        with capturedLogs() as told:
            self.successResultOf(self.take_up(configuration()))
            for _ in range(5):
                self.clock.advance(20)
        self.assertEqual(sum("does not start" in str(one.get("log_format")) for one in told), 1)
        self.assertEqual(self.server.processes.kept_elsewhere["web"](), self.fault)
        self.fault = ""
        self.clock.advance(60)
        self.assertEqual(len(self.begun), 1)

    def test_a_start_that_fails_leaves_nothing_behind_and_the_next_reload_may_do_it(self) -> None:
        self.patch(web_service.os, "geteuid", lambda: 0)
        without = configuration(more="").model_copy(update={"web": configuration().web.model_copy(update={"user": "nobody-has-it"})})
        self.failureResultOf(self.take_up(without), StartError)
        self.assertEqual((self.clock.getDelayedCalls(), self.server.processes.kept_elsewhere, self.begun), ([], {}, []))
        self.successResultOf(self.take_up(configuration()))
        self.assertEqual(len(self.begun), 1)

    def test_a_stop_while_a_certificate_is_read_starts_nothing(self) -> None:
        self.hold = Deferred()
        taken = self.take_up(configuration())
        self.service.stop()
        self.hold.callback(None)
        self.successResultOf(taken)
        self.assertEqual((self.begun, self.clock.getDelayedCalls()), ([], []))

    def test_a_stop_while_the_process_starts_sees_it_off(self) -> None:
        taken = self.take_up(configuration())
        self.successResultOf(taken)
        with capturedLogs():
            self.die()
        self.hold = Deferred()
        self.clock.advance(0)
        self.service.stop()
        count = len(self.begun)
        self.hold.callback(None)
        self.assertEqual(len(self.begun), count)
        self.assertEqual(self.clock.getDelayedCalls(), [])
