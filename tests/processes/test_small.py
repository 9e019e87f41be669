"""Who starts the server's small processes."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.launcher import Launch
from mailserver.processes import small
from mailserver.processes.small import SmallProcesses
from tests.processes.test_kept import Readers

START = Launch(("/bin/true",), "nobody", "", 1, "/", {}, 1.0, 1).start()


class Root:
    """Stands for the root process."""

    pid = 1

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ends: list[socket.socket] = []
        self.ending, self.alive = os.pipe()
        self.fault: OSError | None = None

    def start(self, kind: str) -> socket.socket:
        self.asked.append(kind)
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        return ours

    def read(self) -> None:
        if self.fault is not None:
            raise self.fault

    def die(self) -> None:
        os.close(self.alive)

    def close(self) -> None:
        self.asked.append("close")


class Reactor(Readers):
    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class Small(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.root = Root()
        self.addCleanup(os.close, self.root.ending)
        self.patch(small, "start_root_process", lambda path, ours: self.root)
        self.processes = SmallProcesses(reactor=Reactor())
        self.processes._run_in_thread = maybeDeferred
        self.processes.log = self  # type: ignore[assignment]

    def tearDown(self) -> None:
        self.result(self.processes.stop())
        for end in self.root.ends:
            end.close()

    def result(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def warn(self, text: str, **values: Any) -> None:
        self.lines.append(("warn", text.format(**values)))

    def error(self, text: str, **values: Any) -> None:
        self.lines.append(("error", text.format(**values)))

    def critical(self, text: str, **values: Any) -> None:
        self.lines.append(("critical", text.format(**values)))

    def turn(self) -> None:
        self.processes._reactor.turn()

    def test_the_root_process_is_asked_by_section_and_kind_and_for_nothing_else(self) -> None:
        self.processes.start_root("/etc/mailserver/mailserver.toml")
        kept = self.processes.keep("relay", "launcher", START)
        self.assertEqual(self.root.asked, ["relay.launcher"])
        self.addCleanup(kept.close)
        self.assertEqual(dict(self.processes.missing()), {"relay.launcher": "", "root": ""})

    def test_what_needs_no_root_is_our_own_child_and_so_is_all_where_there_is_none(self) -> None:
        for has_root in (False, True):
            if has_root:
                self.processes.start_root("/etc/mailserver/mailserver.toml")
            kept = self.processes.keep("delivery", "launcher", START, privileged=not has_root)
            self.assertIsNotNone(kept._process)
            kept.close()
            self.turn()  # its end is seen
        self.assertEqual(self.root.asked, [])

    def test_its_death_is_told_and_known(self) -> None:
        self.processes.start_root("/etc/mailserver/mailserver.toml")
        self.turn()
        self.assertNotIn("critical", dict(self.lines))
        self.root.die()
        self.turn()
        self.assertIn("restart the server", dict(self.lines)["critical"])
        self.assertEqual(dict(self.processes.missing()), {"root": "it has died"})
        self.assertIsNone(self.processes.endpoint("tcp:25"))

    def test_an_end_that_we_wanted_is_not_told(self) -> None:
        self.processes.start_root("/etc/mailserver/mailserver.toml")
        reactor = self.processes._reactor
        self.assertEqual(len(reactor.readers), 1)
        self.result(self.processes.stop())
        self.assertEqual(reactor.readers, [])
        self.root.die()

    def test_who_is_root_binds_for_himself_and_who_has_given_it_up_lets_the_root_process(self) -> None:
        self.processes.start_root("/etc/mailserver/mailserver.toml")
        for uid, by_root in ((0, False), (1000, True)):
            self.patch(os, "geteuid", lambda uid=uid: uid)
            self.assertIs(self.processes.endpoint("tcp:25") is not None, by_root)

    def test_what_it_objects_to_at_a_reload_is_told_and_stops_nothing(self) -> None:
        self.assertEqual(self.result(self.processes.read_again()), [])
        self.processes.start_root("/etc/mailserver/mailserver.toml")
        self.addCleanup(self.root.die)
        self.assertEqual(self.result(self.processes.read_again()), [])
        self.root.fault = OSError("may be written by others")
        [fault] = self.result(self.processes.read_again())
        self.assertIn("may be written by others", fault)
        self.assertIn(("error", fault), self.lines)

    def test_a_program_that_others_may_change_is_told(self) -> None:
        self.addCleanup(self.root.die)
        self.patch(small, "why_not_of", lambda path: "/opt belongs to user 54321")
        self.processes.start_root("/etc/mailserver/mailserver.toml")
        self.assertIn("/opt belongs to user 54321", dict(self.lines)["warn"])
