"""The control socket: the real server side on a real Unix socket, the blocking client in a thread."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.amp import RemoteAmpError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.control import client as control_client
from mailserver.control.server import (
    CONNECTIONS,
    AnotherServer,
    Bounds,
    CommandRefused,
    ControlError,
    ControlServer,
    NoServer,
    _ControlFactory,
    ask,
)


async def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"heard": arguments}


async def long_answer(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"rows": ["é" * 70] * arguments["rows"]}


async def refuse(arguments: dict[str, Any]) -> dict[str, Any]:
    raise CommandRefused("there is no message with this id")


async def refuse_oddly(arguments: dict[str, Any]) -> dict[str, Any]:
    raise CommandRefused(f"there is no {arguments['id']} \ud800" + "x" * 70_000)


async def fail(arguments: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("a secret path")


async def unfit(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"bytes": b"JSON cannot hold this"}


COMMANDS = {"echo": echo, "long": long_answer, "refuse": refuse, "odd": refuse_oddly, "fail": fail, "unfit": unfit}


def without_bytes_warning(case: TestCase) -> None:
    """Under ``-bb`` Twisted 26.10 cannot listen on a Unix socket: it compares the path with bytes and with str."""
    case.patch(unix, "_inFilesystemNamespace", lambda path: path[:1] != b"\0")


def spoken(connection: socket.socket, command: bytes) -> None:
    """Ask, and wait for the answer's beginning."""
    pairs = ((b"_command", b"Ask"), (b"_ask", b"1"), (b"command", command), (b"arguments", b"{}"))
    connection.sendall(b"".join(len(one).to_bytes(2, "big") + one for pair in pairs for one in pair) + b"\0\0")
    assert connection.recv(65536)


class WithServer(TestCase):
    def setUp(self) -> None:
        without_bytes_warning(self)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "control.sock")
        self.server = ControlServer(self.path, COMMANDS)
        self.server.start(reactor)
        self.addCleanup(lambda: self.server.stop())

    async def ask(self, command: str, arguments: dict[str, Any] | None = None, timeout_seconds: float = 20.0) -> Any:
        return await deferToThread(ask, self.path, command, arguments, timeout_seconds)

    async def test_an_answer_comes_back(self) -> None:
        answer = await self.ask("echo", {"id": "06", "names": ["ä", None, 1.5]})
        self.assertEqual(answer, {"heard": {"id": "06", "names": ["ä", None, 1.5]}})

    async def test_the_log_says_nothing_of_each_command_that_somebody_types(self) -> None:
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        await self.ask("echo")
        await self.server.stop()
        self.assertEqual([formatEvent(event) for event in events if "onnection" in formatEvent(event)], [])

    async def test_questions_and_answers_longer_than_an_amp_value_come_whole(self) -> None:
        answer = await self.ask("long", {"rows": 20_000})
        self.assertEqual(answer, {"rows": ["é" * 70] * 20_000})
        question = {"ids": ["0123456789ABCDEF"] * 30_000}
        self.assertEqual(await self.ask("echo", question), {"heard": question})

    async def test_a_refusal_carries_the_servers_words(self) -> None:
        with self.assertRaisesRegex(CommandRefused, "no message with this id"):
            await self.ask("refuse")

    async def test_text_that_is_no_unicode_goes_both_ways(self) -> None:
        odd = {"id": "al\udcffce", "é": "\ud800"}
        self.assertEqual(await self.ask("echo", odd), {"heard": odd})

    async def test_a_refusal_with_such_text_or_much_of_it_is_told_all_the_same(self) -> None:
        with self.assertRaisesRegex(CommandRefused, r"there is no al\\udcffce \\ud800xxx"):
            await self.ask("odd", {"id": "al\udcffce"})

    async def test_arguments_that_are_no_json_object_are_refused_and_no_fault_for_the_log(self) -> None:
        for arguments in ("[1]", "null", "{", "[" * 100_000):
            def box(_: bytes, value: Any, text: str = arguments) -> dict[bytes, bytes]:
                return {b"arguments": text[:60_000].encode()}

            self.patch(control_client, "cut", box)
            with self.assertRaisesRegex(CommandRefused, "no JSON object"):
                await self.ask("echo")

    async def test_an_unknown_command_is_refused_by_name(self) -> None:
        with self.assertRaisesRegex(CommandRefused, "no command 'queue.burn'"):
            await self.ask("queue.burn")

    async def test_what_is_no_question_hears_so_and_leaves_no_traceback(self) -> None:
        fields: dict[str, bytes]
        for fields in (
            {"_command": b"Burn"}, {"_command": b"StartTLS"}, {"_command": b"ProtocolSwitch"}, {"_command": b"\xff"},
            {"_command": b"Ask"}, {"_command": b"Ask", "command": b"\xff", "arguments": b"{}"},
        ):  # fmt: skip
            for wants_answer in (True, False):
                box = fields | ({"_ask": b"1"} if wants_answer else {})
                octets = await deferToThread(self.raw, box)
                self.assertEqual(b"REFUSED" in octets, wants_answer, (box, octets))
        self.assertEqual(await self.ask("echo"), {"heard": {}})

    def raw(self, box: dict[str, bytes]) -> bytes:
        """What a box is answered with: a whole one, or nothing before the end of the connection."""
        octets = b"".join(
            struct.pack(">H", len(part)) + part for name, value in box.items() for part in (name.encode(), value)
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(self.path)
            client.sendall(octets + b"\0\0")
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while not found.endswith(b"\0\0") and (more := client.recv(4096)):
                    found += more
            return found

    async def test_a_failure_is_logged_and_told_without_its_words(self) -> None:
        with self.assertRaises(CommandRefused) as caught:
            await self.ask("fail")
        self.assertIn("ValueError", str(caught.exception))
        self.assertNotIn("secret", str(caught.exception))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_an_answer_that_json_cannot_hold_is_a_failure_and_not_a_hang(self) -> None:
        with self.assertRaisesRegex(CommandRefused, "TypeError"):
            await self.ask("unfit")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_the_connection_after_a_failed_one_is_served(self) -> None:
        rude = socket.socket(socket.AF_UNIX)
        rude.connect(self.path)
        rude.sendall(b"\x00\x04nonsense")
        rude.close()
        self.assertEqual(await self.ask("echo"), {"heard": {}})

    async def test_connections_are_bounded_and_those_that_idle_give_way(self) -> None:
        idle = []
        for _ in range(CONNECTIONS):
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.settimeout(20)
            one.connect(self.path)
            idle.append(one)
            await deferLater(reactor, 0)
        self.assertEqual(await self.ask("echo"), {"heard": {}})
        self.assertEqual(await deferToThread(idle[0].recv, 1), b"", "who waited longest is gone")
        [factory] = {one._owner for one in self.protocols()}
        self.assertLessEqual(len(factory.connections), CONNECTIONS)

    async def test_connections_with_a_question_under_way_give_way_to_nobody(self) -> None:
        waiting: list[Deferred[dict[str, Any]]] = []

        async def wait(arguments: dict[str, Any]) -> dict[str, Any]:
            waiting.append(Deferred())
            return await waiting[-1]

        self.server._commands["wait"] = wait  # type: ignore[index]
        self.addCleanup(COMMANDS.pop, "wait")
        await self.server.stop()
        self.server = ControlServer(self.path, COMMANDS, bounds=Bounds(connections=2))
        self.server.start(reactor)
        asked = [self.ask("wait") for _ in range(2)]
        answers = gatherResults([Deferred.fromCoroutine(one) for one in asked])
        while sum(one.questions for one in self.protocols()) < 2:
            await deferLater(reactor, 0.01)
        with self.assertRaises(ControlError):
            await self.ask("echo")
        for one in waiting:
            one.callback({})
        self.assertEqual(await answers, [{}, {}])

    async def test_who_was_heard_last_gives_way_last(self) -> None:
        await self.server.stop()
        self.server = ControlServer(self.path, COMMANDS, bounds=Bounds(connections=2))
        self.server.start(reactor)
        first, second = [self.connected() for _ in range(2)]
        await deferLater(reactor, 0.01)
        await deferToThread(spoken, first, b"echo")
        self.assertEqual(await self.ask("echo"), {"heard": {}})
        self.assertEqual(await deferToThread(second.recv, 1), b"", "it has said nothing")
        await deferToThread(spoken, first, b"echo")

    def connected(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        self.addCleanup(one.close)
        one.settimeout(20)
        one.connect(self.path)
        return one

    def test_of_two_that_come_at_once_each_has_a_place_of_its_own(self) -> None:
        factory = _ControlFactory(COMMANDS, Bounds(connections=2))
        transports = []
        for _ in range(4):
            protocol: Any = factory.buildProtocol(None)
            transports.append(StringTransport())  # its end is told later, as by a real one
            protocol.makeConnection(transports[-1])
            self.addCleanup(protocol.setTimeout, None)
        self.assertEqual([one.disconnected for one in transports], [True, True, False, False])
        self.assertEqual(len(factory.connections), 2)

    def test_an_answer_that_cannot_be_sent_is_a_fault_of_ours_and_ends_the_connection(self) -> None:
        protocol: Any = _ControlFactory(COMMANDS, Bounds()).buildProtocol(None)
        protocol.makeConnection(transport := StringTransport())
        self.addCleanup(protocol.setTimeout, None)
        protocol.unhandledError(Failure(ValueError("too long")))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(transport.disconnecting)
        protocol.unhandledError(Failure(RemoteAmpError(b"REFUSED", "its own")))
        self.assertTrue(transport.disconnected)

    def protocols(self) -> list[Any]:
        return [one for one in reactor.getReaders() if hasattr(one, "protocol") for one in [one.protocol] if hasattr(one, "questions")]

    def test_nobody_but_the_owner_may_open_the_socket(self) -> None:
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_a_second_server_on_the_same_folder_does_not_start(self) -> None:
        second = ControlServer(self.path, COMMANDS)
        self.assertRaises(AnotherServer, second.start, reactor)
        self.assertTrue(os.path.exists(self.path))

    async def test_after_stop_the_socket_is_gone_and_another_may_start(self) -> None:
        await self.server.stop()
        self.assertFalse(os.path.exists(self.path))
        with self.assertRaises(NoServer):
            await self.ask("echo")
        self.server = ControlServer(self.path, COMMANDS)
        self.server.start(reactor)
        self.assertEqual(await self.ask("echo"), {"heard": {}})


class WithoutServer(TestCase):
    def setUp(self) -> None:
        without_bytes_warning(self)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "control.sock")

    def leave_a_stale_socket(self) -> None:
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(self.path)
        dead.close()

    def test_no_socket_means_no_server(self) -> None:
        self.assertRaises(NoServer, ask, self.path, "status")

    def test_a_stale_socket_means_no_server(self) -> None:
        self.leave_a_stale_socket()
        self.assertRaises(NoServer, ask, self.path, "status")

    async def test_a_stale_socket_is_replaced_at_start(self) -> None:
        self.leave_a_stale_socket()
        server = ControlServer(self.path, COMMANDS)
        server.start(reactor)
        self.addCleanup(server.stop)
        self.assertEqual(await deferToThread(ask, self.path, "echo"), {"heard": {}})

    def test_a_file_in_the_sockets_place_is_not_removed(self) -> None:
        Path(self.path).write_text("mine")
        server = ControlServer(self.path, COMMANDS)
        self.assertRaises(FileExistsError, server.start, reactor)
        self.assertEqual(Path(self.path).read_text(), "mine")
        os.unlink(self.path)
        server.start(reactor)  # the failed start has given its lock back
        self.addCleanup(server.stop)

    async def test_a_path_longer_than_a_socket_address_works(self) -> None:
        deep = os.path.join(self.folder, *["x" * 60] * 3)
        os.makedirs(deep)
        server = ControlServer(os.path.join(deep, "control.sock"), COMMANDS)
        server.start(reactor)
        self.addCleanup(server.stop)
        self.assertEqual(await deferToThread(ask, os.path.join(deep, "control.sock"), "echo"), {"heard": {}})


class SilentServer(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "control.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(self.path)
        self.listener.listen(1)

    def test_a_server_that_never_answers_is_given_up(self) -> None:
        with self.assertRaisesRegex(ControlError, "no answer within"):
            ask(self.path, "status", timeout_seconds=0.05)

    def test_one_that_takes_no_question_is_given_up_too(self) -> None:
        with self.assertRaisesRegex(ControlError, "no answer within"):
            ask(self.path, "status", {"long": "x" * 5_000_000}, timeout_seconds=0.05)

    def test_one_that_answers_in_drops_has_no_more_time_than_any_other(self) -> None:
        drops = Drops(b"\0\6answer\0\2{}\0\0")
        self.patch(control_client.socket, "socket", lambda family: drops)
        self.patch(control_client.time, "monotonic", lambda: drops.now)
        with self.assertRaisesRegex(ControlError, "no answer within 10 s"):
            ask(self.path, "status", timeout_seconds=10.0)
        self.assertEqual(drops.timeouts, [10.0, 10.0, 7.0, 4.0, 1.0])
        drops = Drops(b"\0\6answer\0\2{}\0\0", seconds=0.5)
        self.assertEqual(ask(self.path, "status", timeout_seconds=10.0), {})

    def test_an_answer_without_a_bound_is_given_up(self) -> None:
        self.patch(control_client, "ANSWER_OCTETS", 13)
        self.patch(control_client.socket, "socket", lambda family: Drops(b"\0\6answer\0\2{}\0\0", seconds=0.0))
        with self.assertRaisesRegex(ControlError, "too long"):
            ask(self.path, "status", timeout_seconds=10.0)
        control_client.ANSWER_OCTETS = 14
        self.assertEqual(ask(self.path, "status", timeout_seconds=10.0), {})


class Drops:
    """The connection to a server that answers octet by octet, so many seconds for each."""

    def __init__(self, answer: bytes, seconds: float = 3.0) -> None:
        self.answer = answer
        self.seconds = seconds
        self.now = 0.0
        self.timeouts: list[float] = []

    def __enter__(self) -> Drops:
        return self

    def __exit__(self, *_: object) -> None: ...

    def connect(self, address: str) -> None: ...

    def sendall(self, octets: bytes) -> None: ...

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def recv(self, octets: int) -> bytes:
        self.now += self.seconds
        octet, self.answer = self.answer[:1], self.answer[1:]
        return octet
