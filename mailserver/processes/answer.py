"""An answer that is on its way from another process."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import Clock

__all__ = ["REPLY_OCTETS", "PendingAnswer"]

REPLY_OCTETS = 65536


@implementer(IReadDescriptor)
class PendingAnswer:
    """Waits in the reactor for all octets on a socket until the peer closes it.  When we `close`, the peer gives up."""

    def __init__(self, reactor: Any, end: socket.socket) -> None:
        end.setblocking(False)
        self._reactor = reactor
        self._end = end
        self._octets = b""
        self._done: Deferred[bytes] = Deferred(lambda _: self.close())

    def within(self, seconds: float, clock: Clock) -> Deferred[bytes]:
        """The octets that came.  Fails with TimeoutError after `seconds`."""
        self._reactor.addReader(self)
        return self._done.addTimeout(seconds, clock)  # type: ignore[arg-type]

    def close(self) -> None:
        """Wait no longer."""
        if self._end.fileno() >= 0:
            self._reactor.removeReader(self)
            self._end.close()

    def fileno(self) -> int:
        """As Twisted wants it."""
        return self._end.fileno()

    def logPrefix(self) -> str:
        """As Twisted wants it."""
        return "pipe"

    def doRead(self) -> None:
        """Read what has come (`IReadDescriptor`)."""
        try:
            octets = self._end.recv(REPLY_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        self._octets += octets
        if not octets or len(self._octets) > REPLY_OCTETS:
            self.connectionLost(None)

    def connectionLost(self, reason: Failure | None) -> None:
        """The peer has closed its end."""
        self.close()
        if not self._done.called:
            self._done.callback(self._octets)
