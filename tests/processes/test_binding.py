"""Binding the path of a Unix socket, and taking its connections."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.processes.binding import bound_unix_socket
from mailserver.processes.bound import bound_here, handed_over, path_bound_here


class Folder:
    def make_folder(self, case: Any) -> None:
        folder = tempfile.TemporaryDirectory()
        case.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "x.sock"


class Binding(SynchronousTestCase, Folder):
    def setUp(self) -> None:
        self.make_folder(self)

    def bound(self, mode: int = 0o660, *, replaces: bool = True) -> socket.socket:
        bound = bound_unix_socket(str(self.path), mode, replaces=replaces)
        self.addCleanup(bound.close)
        return bound

    def test_its_mode_is_the_one_that_was_asked_for_whatever_the_umask(self) -> None:
        for umask in (0o000, 0o077):
            for mode in (0o600, 0o660, 0o666):
                before = os.umask(umask)
                try:
                    self.bound(mode)
                    self.assertEqual(os.umask(umask), umask)
                finally:
                    os.umask(before)
                self.assertEqual(stat.S_IMODE(self.path.lstat().st_mode), mode)
                self.path.unlink()

    def test_as_root_nothing_that_stands_at_the_path_by_then_gets_another_mode(self) -> None:
        other = self.path.with_name("other")
        other.touch(0o600)

        class Swapping(socket.socket):
            def bind(self, address: Any) -> None:  # a folder of others: they put a link in its place
                super().bind(address)
                os.unlink(address)
                os.symlink(other, address)

        self.patch(socket, "socket", Swapping)
        self.patch(os, "geteuid", lambda: 0)
        self.bound(0o666)
        self.assertEqual(stat.S_IMODE(other.stat().st_mode), 0o600)

    def test_a_socket_on_which_nobody_listens_any_more_is_replaced_if_that_is_wanted(self) -> None:
        self.bound().close()
        self.assertRaises(OSError, self.bound, replaces=False)
        self.bound()
        self.assertTrue(stat.S_ISSOCK(self.path.lstat().st_mode))

    def test_one_on_which_somebody_listens_stays_his(self) -> None:
        theirs = self.bound()
        theirs.listen(0)
        number = self.path.lstat().st_ino
        calling = []
        for _ in range(4):  # until its backlog is full
            self.assertIn("in use", str(self.assertRaises(OSError, self.bound)))
            calling.append(socket.socket(socket.AF_UNIX))
            calling[-1].setblocking(False)
            calling[-1].connect_ex(str(self.path))
        for one in calling:
            one.close()
        self.assertEqual(self.path.lstat().st_ino, number)

    def test_what_is_no_socket_stays(self) -> None:
        self.path.write_text("precious")
        self.assertIn("no socket", str(self.assertRaises(OSError, self.bound)))
        self.path.rename(self.path.with_name("y"))
        self.path.symlink_to("y")
        self.assertIn("no socket", str(self.assertRaises(OSError, self.bound)))
        self.assertEqual(self.path.read_text(), "precious")


class Greeting(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(b"220\r\n")
        self.transport.loseConnection()


class Listening(TestCase, Folder):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.make_folder(self)
        self.factory = Factory.forProtocol(Greeting)

    def call(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.path))
            return client.recv(10)

    @inlineCallbacks
    def greets(self) -> Any:
        from twisted.internet.threads import deferToThread

        self.assertEqual((yield deferToThread(self.call)), b"220\r\n")

    @inlineCallbacks
    def test_connections_wait_from_the_bind_on_and_the_path_goes_with_the_port(self) -> Any:
        bound = path_bound_here(self.reactor, f"unix:{self.path}:mode=640")
        assert bound is not None
        bound.open()
        self.assertRaises(OSError, bound_here, self.reactor, f"haproxy:unix:{self.path}")
        port = yield bound.listen(self.factory)
        yield self.greets()
        self.assertEqual(stat.S_IMODE(self.path.lstat().st_mode), 0o640)
        self.assertEqual(port.getHost().name, str(self.path).encode())
        yield port.stopListening()
        self.assertFalse(self.path.exists())

    @inlineCallbacks
    def test_a_path_that_cannot_be_removed_does_not_stop_the_stop(self) -> Any:
        bound = bound_here(self.reactor, f"unix:{self.path}")
        assert bound is not None
        port = yield bound.listen(self.factory)
        self.path.unlink()
        yield port.stopListening()

    def test_one_that_is_not_taken_up_leaves_nothing(self) -> None:
        bound = bound_here(self.reactor, f"unix:{self.path}")
        assert bound is not None
        bound.close()
        self.assertFalse(self.path.exists())
        self.assertIsNone(path_bound_here(self.reactor, "tcp:25"))

    @inlineCallbacks
    def test_a_socket_of_systemds_keeps_its_mode_and_its_path(self) -> Any:
        theirs = bound_unix_socket(str(self.path), 0o600, replaces=False)
        self.addCleanup(theirs.close)
        theirs.listen()
        for _ in range(2):  # a reload may take it away and bring it back
            made = handed_over(self.reactor, AdoptedStreamServerEndpoint(self.reactor, theirs.fileno(), socket.AF_UNIX))
            port = yield made.listen(self.factory)
            yield self.greets()
            yield port.stopListening()
            self.assertEqual(stat.S_IMODE(self.path.lstat().st_mode), 0o600)

    def test_other_endpoints_stay_what_they_are(self) -> None:
        endpoint = TCP4ServerEndpoint(self.reactor, 0)
        self.assertIs(handed_over(self.reactor, endpoint), endpoint)
