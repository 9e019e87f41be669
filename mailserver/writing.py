"""Writes straight to the socket where nothing is waiting to be written.

Twisted's transports put octets into a buffer, ask epoll for the moment when they can be sent and send them a turn later: two
system calls and a turn more than needed for a reply of forty octets.  A plain TCP or Unix connection whose buffer is
empty is written at once; every other transport, and every remainder, takes Twisted's way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.tcp import Connection

__all__ = ["writer"]

BUFFERS = ("dataBuffer", "_tempDataBuffer", "socket", "disconnecting")


def writer(transport: Any) -> Callable[[bytes], None]:
    """Return the quickest way to write to `transport`."""
    if not isinstance(transport, Connection) or not all(hasattr(transport, name) for name in BUFFERS):
        return transport.write  # type: ignore[no-any-return]
    if getattr(transport, "TLS", False):
        return transport.write

    def write(data: bytes) -> None:
        if transport._tempDataBuffer or transport.dataBuffer or transport.disconnecting or transport.TLS:
            transport.write(data)
            return
        try:
            sent = transport.socket.send(data)
        except OSError:  # not now, or never again: Twisted's own write finds out which
            sent = 0
        if sent < len(data):
            transport.write(data[sent:])

    return write
