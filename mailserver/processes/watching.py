"""Watches the small processes in the reactor: notices a death at once and starts a successor."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.processes.kept import KeptProcess

__all__ = ["Ending", "Watch"]

MARGIN_SECONDS = 0.01  # two clocks are compared, and may differ a little
BUSY_SECONDS = 1.0  # where others were sending to it, or nobody could look


@implementer(IReadDescriptor)
class Ending:
    """Calls `ended` once, when the descriptor is readable or has hung up.  `close` closes the descriptor."""

    def __init__(self, reactor: Any, descriptor: int, close: Callable[[], None], ended: Callable[[], None]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._close = close
        self._ended = ended
        reactor.addReader(self)

    def forget(self) -> None:
        """Do not call."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            self._descriptor = -1
            self._close()

    def fileno(self) -> int:
        """As Twisted wants it."""
        return self._descriptor

    def logPrefix(self) -> str:
        """As Twisted wants it."""
        return "process"

    def doRead(self) -> None:
        """It has ended."""
        self.connectionLost(None)

    def connectionLost(self, reason: Failure | None) -> None:
        """It has ended."""
        if self._descriptor >= 0:
            self.forget()
            self._ended()


class Watch:
    """Keeps `kept` running.  Works in the reactor's thread; `run_in_thread` runs what blocks.  Made before the reactor runs."""

    log = Logger()

    def __init__(self, kept: KeptProcess, *, reactor: Any, run_in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._kept = kept
        self._reactor = reactor
        self._run_in_thread = run_in_thread
        self._ending: Ending | None = None
        self._timer: Any = None
        self._told = ""
        self._look(kept.revive())

    def stop(self) -> None:
        """Watch no longer."""
        self._kept.is_closed = True
        if self._ending is not None:
            self._ending.forget()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, end: socket.socket | None) -> None:
        kept = self._kept
        if kept.is_closed:
            if end is not None:
                end.close()
            return
        if end is not None:
            if self._told:
                self._told = ""
                self.log.warn("the {name} runs again", name=kept.name)
            self._ending = Ending(self._reactor, end.fileno(), end.close, self._has_ended)
            return
        if kept.missing and kept.missing != self._told:
            self._told = kept.missing
            self.log.critical(
                "the {name} is missing, and what it serves is put off: {why}", name=kept.name, why=kept.missing
            )
        seconds = kept.seconds_to_next_start()
        self._timer = self._reactor.callLater(seconds + MARGIN_SECONDS if seconds else BUSY_SECONDS, self._revive)

    def _has_ended(self) -> None:
        self._ending = None
        if not self._kept.is_closed:
            self._told = "it has died"
            self.log.critical(
                "the {name} has died, and what it serves is put off until it runs again", name=self._kept.name
            )
            self._revive()

    def _revive(self) -> None:
        self._timer = None
        revived: Deferred[Any] = maybeDeferred(self._run_in_thread, self._kept.revive)
        revived.addErrback(self._cannot_look).addCallback(self._look)

    def _cannot_look(self, failure: Failure) -> None:
        self.log.failure("the {name} could not be looked after", failure, name=self._kept.name)
