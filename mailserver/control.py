"""The control socket: how the command line speaks with the running server.

Twisted's AMP over a Unix socket in the data directory.  The socket has mode 0600: who may open it may command the server.
There is one AMP command, ``Ask``: a name, and a JSON object as its arguments; the answer is a JSON object.  AMP bounds a value
to 65,535 octets, so a long JSON text goes into several values of the same box (`LongJSON`).  A lock file beside the socket,
held as long as the server lives, keeps a second server away and tells a stale socket from a living one, also after a
``kill -9``.

`ask` is the other side, without a reactor: it blocks, as a command line may.
"""

# mypy: disallow-untyped-calls=False
# (twisted.protocols.amp has no annotations)

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from mailserver.config.endpoints import SOCKET_PATH_OCTETS

__all__ = ["AnotherServer", "Ask", "CommandRefused", "ControlError", "ControlServer", "NoServer", "NotStarted", "ask"]

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
VALUE_OCTETS = 65535  # AMP's length prefix has two octets
ANSWER_OCTETS = 256 * 1024 * 1024
CONNECTIONS = 32
IDLE_SECONDS = 300


class ControlError(Exception):
    """The server could not be asked, or gave no answer in time."""


class NoServer(ControlError):
    """No server runs on this data directory."""


class CommandRefused(ControlError):
    """The server's answer is no; the words are for the person who asked."""


class NotStarted(ControlError):
    """The server is starting: it can be asked in a moment."""


class AnotherServer(Exception):
    """Another server runs on the same data directory."""


class LongJSON(amp.Argument):
    """A JSON object of any length: the values ``name``, ``name.1``, ``name.2`` … of one box, put together."""

    def fromBox(self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: Any) -> None:
        text, number = strings.pop(name, b"{}"), 1
        while (more := strings.pop(b"%s.%d" % (name, number), None)) is not None:
            text, number = text + more, number + 1
        objects[name.decode()] = json.loads(text)

    def toBox(self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: Any) -> None:
        text = json.dumps(objects.pop(name.decode()), ensure_ascii=False).encode()
        for number, start in enumerate(range(0, len(text), VALUE_OCTETS)):
            strings[b"%s.%d" % (name, number) if number else name] = text[start : start + VALUE_OCTETS]


class Ask(amp.Command):
    """The one command on the wire."""

    arguments = [(b"command", amp.Unicode()), (b"arguments", LongJSON())]  # noqa: RUF012
    response = [(b"answer", LongJSON())]  # noqa: RUF012
    errors = {CommandRefused: b"REFUSED", NotStarted: b"STARTING"}  # noqa: RUF012


class ControlServer:
    """Answers on the socket `path` with `commands`: a name, and what takes the arguments and returns the answer.

    A command says no by raising `CommandRefused`, not yet by `NotStarted`; any other error is logged, and told without details.
    """

    def __init__(self, path: str, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._port: Any = None
        self._closing = ExitStack()

    def start(self, reactor: Any) -> None:
        """Take the lock and listen.  Raises `AnotherServer`, or OSError where the folder cannot be written."""
        lock = os.open(self._path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._closing.callback(os.close, lock)  # which unlocks; the file stays, else two servers could lock two files
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnotherServer(f"another server runs on {os.path.dirname(self._path)}") from None
            _remove_stale_socket(self._path)
            address = self._closing.enter_context(_socket_address(self._path))
            # The mode is set between bind and listen, so there is no moment in which others could connect.
            self._port = reactor.listenUNIX(address, _ControlFactory(self._commands), CONNECTIONS, 0o600)
        except BaseException:
            self._closing.close()
            raise

    def stop(self) -> Deferred[None]:
        """Listen no more; fires when the socket is gone."""
        if self._port is None:
            return maybeDeferred(lambda: None)
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening).addBoth(self._close)

    def _close(self, result: Any) -> Any:
        self._closing.close()
        return result


class _ControlFactory(Factory):
    """Counts connections, so that a loop in a script cannot take all descriptors."""

    noisy = False

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self.commands = commands
        self.connections = 0

    def buildProtocol(self, addr: Any) -> _ControlProtocol | None:
        return _ControlProtocol(self) if self.connections < CONNECTIONS else None


class _ControlProtocol(amp.AMP, TimeoutMixin):
    log = Logger()

    def __init__(self, factory: _ControlFactory) -> None:
        super().__init__()
        self._owner = factory

    def connectionMade(self) -> None:
        super().connectionMade()
        self._owner.connections += 1
        self.setTimeout(IDLE_SECONDS)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.connections -= 1
        self.setTimeout(None)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        self.resetTimeout()
        super().dataReceived(data)

    @Ask.responder
    def answer(self, command: str, arguments: dict[str, Any]) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(self._answer(command, arguments))

    async def _answer(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        command = self._owner.commands.get(name)
        if command is None:
            raise CommandRefused(f"this server knows no command {name!r}")
        try:
            answer = await command(arguments)
            json.dumps(answer)  # what JSON cannot hold must fail here, not when the box is written
        except (CommandRefused, NotStarted):
            raise
        except Exception as error:
            self.log.failure("control command {command} failed", command=name)
            raise CommandRefused(
                f"the server failed at {name!r} ({type(error).__name__}); its log says more"
            ) from error
        return {"answer": answer}


def ask(
    path: str, command: str, arguments: Mapping[str, Any] | None = None, timeout_seconds: float = 30.0
) -> dict[str, Any]:
    """Ask the server behind the socket `path` and wait for its answer.

    Raises `NoServer` where none runs, `CommandRefused` or `NotStarted` with the server's words, `ControlError` for anything else.
    """
    deadline = time.monotonic() + timeout_seconds
    box = amp.Box({amp.COMMAND: Ask.commandName, amp.ASK: b"1", b"command": command.encode()})
    LongJSON().toBox(b"arguments", box, {"arguments": dict(arguments or {})}, None)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_seconds)
        try:
            with _socket_address(path) as address:
                connection.connect(address)
            connection.sendall(box.serialize())
            strings = _read_box(connection, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoServer(f"no server runs on {os.path.dirname(path)}") from None
        except TimeoutError:
            raise ControlError(f"the server gave no answer within {timeout_seconds:g} s") from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from error
    if amp.ERROR in strings:
        kind = NotStarted if strings.get(amp.ERROR_CODE) == Ask.errors[NotStarted] else CommandRefused
        raise kind(strings.get(amp.ERROR_DESCRIPTION, b"").decode("utf-8", "replace"))
    objects: dict[str, Any] = {}
    LongJSON().fromBox(b"answer", strings, objects, None)
    answer: dict[str, Any] = objects["answer"]
    return answer


def _read_box(connection: socket.socket, deadline: float) -> dict[bytes, bytes]:
    """One AMP box: pairs of strings, each behind its length in two octets; a key of length 0 ends it."""
    stream = _Stream(connection, deadline)
    strings: dict[bytes, bytes] = {}
    while key := stream.string():
        strings[key] = stream.string()
    return strings


class _Stream:
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._octets = 0

    def string(self) -> bytes:
        return self._exactly(int.from_bytes(self._exactly(2), "big"))

    def _exactly(self, octets: int) -> bytes:
        self._octets += octets
        if self._octets > ANSWER_OCTETS:
            raise ControlError("the answer is too long")
        pieces = bytearray()
        while len(pieces) < octets:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            piece = self._connection.recv(octets - len(pieces))
            if not piece:
                raise ControlError("the server closed the connection before it had answered")
            pieces += piece
        return bytes(pieces)


def _remove_stale_socket(path: str) -> None:
    """Only for the holder of the lock: whoever made the socket is dead."""
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "is there and is no socket", path)
        os.unlink(path)


@contextmanager
def _socket_address(path: str) -> Iterator[str]:
    """`path`, or another name of the same place where the path is too long for a socket address."""
    if len(os.fsencode(path)) <= SOCKET_PATH_OCTETS:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
