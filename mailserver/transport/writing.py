"""Writes straight to the socket where nothing waits to be written.

Twisted's transports put octets into a buffer, ask epoll when they can be sent, and send them one turn of the reactor later.
For a reply of forty octets that is two system calls and one turn too many.  With TLS it takes another turn to encrypt them.
Here a TCP or Unix connection whose buffers are empty is written at once, encrypted or not.  Every other transport, and every
remainder, goes through Twisted's buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL.SSL import Error
from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

__all__ = ["hang_up", "let_go", "writer"]

BUFFERS = ("dataBuffer", "_tempDataBuffer", "socket", "disconnecting")
LAYER = ("_tlsConnection", "_handshakeDone", "_lostTLSConnection", "_appSendBuffer", "_aggregator", "disconnecting")
RECORD_OCTETS = 16_384  # the most that one record of TLS holds (RFC 8446 section 5.1)


def writer(transport: Any) -> Callable[[bytes], None]:
    """Return the quickest function that writes octets to `transport`."""
    if isinstance(transport, TLSMemoryBIOProtocol):
        return _encrypted_writer(transport, transport.transport)
    if not _is_bare(transport):
        return transport.write  # type: ignore[no-any-return]
    encrypted: Callable[[bytes], None] | None = None

    def write(data: bytes) -> None:
        nonlocal encrypted
        if transport.TLS:  # since `startTLS`
            if encrypted is None:
                encrypted = _encrypted_writer(transport.protocol, transport)
            encrypted(data)
        elif transport._tempDataBuffer or transport.dataBuffer or transport.disconnecting:
            transport.write(data)
        else:
            _send(transport, data)

    return write


def _encrypted_writer(layer: Any, below: Any) -> Callable[[bytes], None]:
    """A function that writes through a TLS layer to the connection `below` it."""
    if not _is_bare(below) or not all(hasattr(layer, name) for name in LAYER) or not hasattr(layer._aggregator, "_buffer"):
        return lambda data: layer.write(data)  # looked up each time: the layer replaces it at its end

    def write(data: bytes) -> None:
        if (
            not 0 < len(data) <= RECORD_OCTETS
            or not layer._handshakeDone
            or layer._lostTLSConnection
            or layer.disconnecting
            or layer._appSendBuffer
            or getattr(layer._aggregator, "_buffer", True)  # at the end another one takes its place
            or below._tempDataBuffer
            or below.dataBuffer
            or below.disconnecting
        ):
            layer.write(data)
            return
        try:
            taken = layer._tlsConnection.send(data)
        except Error:  # Twisted's own write finds out what it means
            layer.write(data)
            return
        _send(below, layer._tlsConnection.bio_read(2 * RECORD_OCTETS))
        if taken < len(data):  # the client has asked for small records (RFC 6066 section 4)
            layer.write(data[taken:])

    return write


def _is_bare(transport: Any) -> bool:
    """Whether the transport is one of Twisted's own, whose attributes we know."""
    return isinstance(transport, Connection) and all(hasattr(transport, name) for name in BUFFERS)


def _send(transport: Any, octets: bytes) -> None:
    """Send octets as they are.  The transport's buffers must be empty."""
    try:
        sent = transport.socket.send(octets)
    except OSError:  # not now, or never again: Twisted's own write finds out which
        sent = 0
    if sent < len(octets):
        FileDescriptor.write(transport, octets[sent:])


def hang_up(transport: Any) -> None:
    """Wait no longer for the peer's close_notify, which RFC 8446 section 6.1 does not require.  Call it after `loseConnection`.

    What has been written still goes out.  For a connection without TLS it does nothing.
    """
    layer = transport if isinstance(transport, TLSMemoryBIOProtocol) else getattr(transport, "protocol", None)
    below: Any = layer.transport if isinstance(layer, TLSMemoryBIOProtocol) and not layer._appSendBuffer else None
    if below is not None:
        below.loseConnection()


def let_go(transport: Any, reason: Failure) -> None:
    """Break the reference cycles that keep a lost TLS connection in memory until the garbage collector runs: some 60 KiB each.

    Call it at the end of `connectionLost`.  Twisted's TLS layer refers to itself through the methods that STARTTLS has put on its
    transport, through its producer, and through the frames of the failure with which it ended.
    """
    own = getattr(transport, "__dict__", {})
    layer = transport
    if not isinstance(transport, TLSMemoryBIOProtocol):
        layer = getattr(own.pop("getHandle", None), "__self__", None)
        own.pop("getPeerCertificate", None)
    if isinstance(layer, TLSMemoryBIOProtocol):
        layer.unregisterProducer()
        if reason.getTracebackObject() is not None:
            reason.cleanFailure()
