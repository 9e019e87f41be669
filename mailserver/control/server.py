"""The control socket: how the command line speaks with the running server.

Twisted's AMP over a Unix socket in the data directory.  The socket has mode 0600: who may open it may command the
server. Another of its kind, with few commands, a group and narrower bounds, is the authentication socket
(`mailserver.control.password_socket`). There is one AMP command, ``Ask``: a name, and a JSON object as its arguments;
the answer is a JSON object.  AMP bounds a value to 65,535 octets, so a long JSON text goes into several values of the
same box (`LongJSON`).  A lock file beside the socket, held as long as the server lives, keeps a second server away and
tells a stale socket from a living one, also after a ``kill -9``.

`mailserver.control.client` is the other side.
"""

# mypy: disallow-untyped-calls=False
# (twisted.protocols.amp has no annotations)

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from mailserver.control.client import (
    CommandRefused,
    ControlError,
    NoServer,
    NotStarted,
    ask,
    cut,
    joined,
    socket_address,
)
from mailserver.mail.outcomes import clean_text

__all__ = ["AnotherServer", "Ask", "Bounds", "CommandRefused", "ControlError", "ControlServer", "NoServer", "NotStarted", "ask"]

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
CONNECTIONS = 32
IDLE_SECONDS = 300
NO_BOX = (amp.AmpError, AssertionError, LookupError, TypeError, ValueError)  # what AMP raises for malformed boxes


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a socket: connections at once, seconds that one may be silent, octets that one may send in all (None: any number)."""

    connections: int = CONNECTIONS
    idle_seconds: float = IDLE_SECONDS
    octets: int | None = None


class AnotherServer(Exception):
    """Another server runs on the same data directory."""


class LongJSON(amp.Argument):
    """A JSON object of any length: the values ``name``, ``name.1``, ``name.2`` … of one box, put together."""

    def fromBox(self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: Any) -> None:
        try:
            found = joined(name, strings)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):  # an answer to who asks, not a fault of ours for the log
            raise amp.RemoteAmpError(b"REFUSED", f"{name.decode()}: no JSON object")
        objects[name.decode()] = found

    def toBox(self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: Any) -> None:
        strings.update(cut(name, objects.pop(name.decode())))


class Ask(amp.Command):
    """The one command on the wire."""

    arguments = [(b"command", amp.Unicode()), (b"arguments", LongJSON())]  # noqa: RUF012
    response = [(b"answer", LongJSON())]  # noqa: RUF012
    errors = {CommandRefused: b"REFUSED", NotStarted: b"STARTING"}  # noqa: RUF012


class ControlServer:
    """Answers on the socket `path` with `commands`: a name, and what takes the arguments and returns the answer.

    `mode` is the socket's, and `group` the number of its group, -1 for that of the process.

    A command says no by raising `CommandRefused`, not yet by `NotStarted`; any other error is logged, and told without details.
    """

    def __init__(
        self, path: str, commands: Mapping[str, Command], *, mode: int = 0o600, group: int = -1, bounds: Bounds | None = None
    ) -> None:
        self._path = path
        self._commands = commands
        self._mode = mode
        self._group = group
        self._bounds = bounds or Bounds()
        self._port: Any = None
        self._closing = ExitStack()

    def start(self, reactor: Any) -> None:
        """Take the lock and listen.  Raises `AnotherServer`, or OSError: where the folder cannot be written, and where the group
        cannot have the socket, which is there until `stop` then.
        """
        lock = os.open(self._path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._closing.callback(os.close, lock)  # which unlocks; the file stays, else two servers could lock two files
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnotherServer(f"another server runs on {os.path.dirname(self._path)}") from None
            _remove_stale_socket(self._path)
            address = self._closing.enter_context(socket_address(self._path))
            # The mode is set between bind and listen, so there is no moment in which others could connect.
            factory = _ControlFactory(self._commands, self._bounds)
            self._port = reactor.listenUNIX(address, factory, self._bounds.connections, 0o600)
        except BaseException:
            self._closing.close()
            raise
        if self._group >= 0 or self._mode != 0o600:
            self._open_to_group(address)

    def _open_to_group(self, address: str) -> None:
        """The group first: with the mode alone, the group of the process could connect for a moment."""
        try:
            os.chown(address, -1, self._group, follow_symlinks=False)
            os.chmod(address, self._mode)
        except PermissionError as error:
            why = "only a member may give it to its group, and the server's user is none"
            raise PermissionError(error.errno, why, self._path) from error

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
    """Bounds connections, so that a loop in a script cannot take all descriptors.

    One more than there are places takes that of the one that has waited longest with no question under way.
    """

    noisy = False

    def __init__(self, commands: Mapping[str, Command], bounds: Bounds) -> None:
        self.commands = commands
        self.bounds = bounds
        self.connections: dict[_ControlProtocol, None] = {}  # those that were heard last stand last

    def buildProtocol(self, addr: Any) -> _ControlProtocol | None:
        if len(self.connections) >= self.bounds.connections:
            idle = next((one for one in self.connections if not one.questions), None)
            if idle is None:
                return None
            idle.give_way()
        return _ControlProtocol(self)

    def heard(self, connection: _ControlProtocol) -> None:
        self.connections.pop(connection, None)
        self.connections[connection] = None


class _ControlProtocol(amp.AMP, TimeoutMixin):
    log = Logger()

    def __init__(self, factory: _ControlFactory) -> None:
        super().__init__()
        self._owner = factory
        self.questions = 0  # under way
        self._octets = 0  # that have come

    def makeConnection(self, transport: Any) -> None:
        """AMP's own tells the log of each command that somebody types."""
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionMade(self) -> None:
        super().connectionMade()
        self._owner.heard(self)
        self.setTimeout(self._owner.bounds.idle_seconds)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.connections.pop(self, None)
        self.setTimeout(None)
        amp.BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None  # as AMP does

    def dataReceived(self, data: bytes) -> None:
        self.resetTimeout()
        self._octets += len(data)
        most = self._owner.bounds.octets
        if most is not None and self._octets > most:
            self.log.warn("a control connection sent more than {most} octets", most=most)
            self.give_way()
            return
        if self in self._owner.connections:
            self._owner.heard(self)
        try:
            super().dataReceived(data)
        except NO_BOX as error:  # only one who may use the socket can send it: a line for him, not a fault of ours
            # Without the error's words, which repeat what came: a password, say.
            self.log.warn("a control connection sent what is no question: {why}", why=type(error).__name__)
            transport: Any = self.transport
            transport.abortConnection()

    def give_way(self) -> None:
        """End, for another one."""
        self._owner.connections.pop(self, None)
        transport: Any = self.transport
        transport.abortConnection()

    def dispatchCommand(self, box: Any) -> Deferred[Any]:
        """Answer `Ask` alone, not the commands that AMP itself brings, one of which begins TLS.

        A malformed question is refused; who asks is at fault, so the log has nothing to mend.
        """
        if box[amp.COMMAND] != Ask.commandName:
            return fail(_refusal(f"this server knows no command {box[amp.COMMAND]!r}"))
        answered: Deferred[Any] = super().dispatchCommand(box)
        return answered.addErrback(_as_refusal)

    def unhandledError(self, failure: Failure) -> None:
        """Of a box that wants no answer, or of an answer that could not be sent."""
        if failure.check(amp.RemoteAmpError):
            self.log.debug("a control connection sent what is no question: {why}", why=failure.getErrorMessage())
            self.give_way()
        else:
            super().unhandledError(failure)

    @Ask.responder
    def answer(self, command: str, arguments: dict[str, Any]) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(self._answer(command, arguments))

    async def _answer(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.questions += 1
        try:
            return await self._answer_now(name, arguments)
        finally:
            self.questions -= 1

    async def _answer_now(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        command = self._owner.commands.get(name)
        if command is None:
            raise CommandRefused(clean_text(f"this server knows no command {name!r}"))
        try:
            answer = await command(arguments)
            json.dumps(answer)  # what JSON cannot hold must fail here, not when the box is written
        except (CommandRefused, NotStarted) as error:
            raise type(error)(clean_text(str(error))) from error  # AMP cannot send every text
        except Exception as error:
            self.log.failure("control command {command} failed", command=name)
            raise CommandRefused(
                f"the server failed at {name!r} ({type(error).__name__}); its log says more"
            ) from error
        return {"answer": answer}


def _refusal(words: str) -> amp.RemoteAmpError:
    return amp.RemoteAmpError(b"REFUSED", clean_text(words[:200]))


def _as_refusal(failure: Failure) -> Failure:
    """Of arguments that are missing or are no text."""
    return Failure(_refusal("that is no question")) if failure.check(LookupError, ValueError) else failure


def _remove_stale_socket(path: str) -> None:
    """Only for the holder of the lock: whoever made the socket is dead."""
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "is there and is no socket", path)
        os.unlink(path)
