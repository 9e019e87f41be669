"""The Unix socket to which the web process of a unit of its own connects.  One is served at a time."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.plugins.life import StartError
from mailserver.processes import frames
from mailserver.processes.binding import bound_unix_socket
from mailserver.processes.version import VERSION_OCTETS

__all__ = ["WebSocket"]

NAMING_SECONDS = 5.0
BACKLOG = 8
OTHER_VERSION_SECONDS = 5.0  # until another is looked at


@implementer(IReadDescriptor)
class WebSocket:
    """Listens from now on.  `serve` is given the socket of a process of our version, where `is_wanted` says that one is.

    Raises OSError, and `StartError` for a group that there is not.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        *,
        group: str | None,
        version: bytes,
        reactor: Any,
        run_in_thread: Callable[..., Awaitable[Any]],
        is_wanted: Callable[[], bool],
        serve: Callable[[socket.socket], None],
    ) -> None:
        self._path = path
        self._version = version
        self._reactor = reactor
        self._run_in_thread = run_in_thread
        self._is_wanted = is_wanted
        self._serve = serve
        self._is_closed = self._is_looking = False
        self._timer: Any = None
        number = _number_of(group)
        self._bound = bound_unix_socket(path, 0o600, replaces=True)
        try:
            if number >= 0:  # the group first: with the mode alone, the group of the process could connect for a moment
                os.chown(path, -1, number, follow_symlinks=False)
                os.chmod(path, 0o660)
            self._bound.setblocking(False)
            self._bound.listen(BACKLOG)
        except PermissionError as error:
            self._bound.close()
            why = "only a member may give it to its group, and the server's user is none"
            raise PermissionError(error.errno, why, path) from error
        reactor.addReader(self)

    def close(self) -> None:
        """Listen no longer."""
        if not self._is_closed:
            self._is_closed = True
            self._reactor.removeReader(self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._bound.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def pause(self, seconds: float) -> None:
        """Look at nobody for so long: one that fails again and again, or wants it so, costs us no more than that."""
        if not self._is_closed:
            self._reactor.removeReader(self)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._reactor.callLater(seconds, self._has_paused)

    def _has_paused(self) -> None:
        self._timer = None
        self._look_at_next()

    def _look_at_next(self) -> None:
        if not self._is_closed and not self._is_looking and self._timer is None:
            self._reactor.addReader(self)

    def fileno(self) -> int:
        """As Twisted wants it."""
        return self._bound.fileno()

    def logPrefix(self) -> str:
        """As Twisted wants it."""
        return "web socket"

    def connectionLost(self, reason: Any) -> None:
        """As Twisted wants it."""
        self.close()

    def doRead(self) -> None:
        """Somebody connects.  The next waits until this one has said who it is, or is late."""
        try:
            end, _ = self._bound.accept()
        except OSError:
            return
        if not self._is_wanted():
            end.close()
            return
        self._reactor.removeReader(self)
        self._is_looking = True
        Deferred.fromCoroutine(self._look_at(end)).addErrback(
            lambda failure: self.log.failure("a web process could not be served", failure)
        )

    async def _look_at(self, end: socket.socket) -> None:
        try:
            said = await self._run_in_thread(_said, end)
        finally:
            self._is_looking = False
            self._look_at_next()
        if said != self._version or self._is_closed:
            end.close()
            if said and not self._is_closed:
                self.log.error("a web process of another version than this server has connected: restart both")
                self.pause(OTHER_VERSION_SECONDS)
            return
        end.settimeout(None)
        self._serve(end)


def _said(end: socket.socket) -> bytes:
    """The version that it names, b"" where it names none in time.  Blocks."""
    end.settimeout(NAMING_SECONDS)
    try:
        return frames.exactly(end, VERSION_OCTETS)
    except (OSError, EOFError):
        return b""


def _number_of(group: str | None) -> int:
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise StartError(f"web.socket_group: there is no group {group}") from None
