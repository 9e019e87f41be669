"""Taking the connections of a Unix socket that somebody else has bound.

Twisted's own way to adopt one (`adoptStreamPort`) sets its mode to 0666, or fails where the socket is another user's, and
removes its path at the end, systemd's too.
"""

# mypy: disallow-untyped-calls=False
# mypy: disallow-untyped-defs=False
# (Twisted's port has no annotations)

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from twisted.internet import tcp, unix

__all__ = ["UnixPort", "listen_on"]


class UnixPort(unix.Port):
    """`bound`, which listens, is this port's from now on; `removes`: its path goes with it, where we may remove it."""

    def __init__(self, bound: socket.socket, factory: Any, reactor: Any, *, removes: bool) -> None:
        super().__init__(bound.getsockname(), factory, reactor=reactor)
        self._bound = bound
        self._starting = factory
        self._removes = removes
        self._shouldShutdown = removes  # shutdown(2) would end systemd's socket, too, which is the same

    def startListening(self) -> None:
        """As Twisted's, without touching the path."""
        tcp._reservedFD.reserve()
        self._starting.doStart()
        self.socket = self._bound
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as Twisted's
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        """As Twisted's; where the folder is root's the path stays, and the next to bind it takes it away."""
        name = self.getHost().name
        if self._removes and name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        tcp.Port.connectionLost(self, reason)


def listen_on(bound: socket.socket, factory: Any, reactor: Any, *, removes: bool) -> UnixPort:
    """Take the connections of a socket that listens."""
    bound.setblocking(False)
    port = UnixPort(bound, factory, reactor, removes=removes)
    port.startListening()
    return port
