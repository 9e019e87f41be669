"""Accepts the connections of a Unix socket that was bound elsewhere.

Twisted's `adoptStreamPort` sets the socket's mode to 0666, or fails where another user owns it.  At the end it removes the path,
even systemd's.
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
    """Takes over `bound`, a listening socket.  `removes`: its path is removed at the end, where we may remove it."""

    def __init__(self, bound: socket.socket, factory: Any, reactor: Any, *, removes: bool) -> None:
        super().__init__(bound.getsockname(), factory, reactor=reactor)
        self._bound = bound
        self._starting = factory
        self._removes = removes
        self._shouldShutdown = removes  # shutdown(2) would also end systemd's socket, which ours duplicates

    def startListening(self) -> None:
        """As in Twisted, without a change to the path."""
        tcp._reservedFD.reserve()
        self._starting.doStart()
        self.socket = self._bound
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as Twisted's
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        """As in Twisted.  In root's folder the path stays; the next program that binds it removes it."""
        name = self.getHost().name
        if self._removes and name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        tcp.Port.connectionLost(self, reason)


def listen_on(bound: socket.socket, factory: Any, reactor: Any, *, removes: bool) -> UnixPort:
    """Accept the connections of a listening socket with `factory`."""
    bound.setblocking(False)
    port = UnixPort(bound, factory, reactor, removes=removes)
    port.startListening()
    return port
