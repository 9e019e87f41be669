"""A TCP connection whose packets are really dropped, as by a firewall that has forgotten it: no answer, no reset, no end."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from tests.requires import require_root

__all__ = ["Forwarding", "drop_packets"]

SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: none of the packet's octets are kept


def drop_packets(sock: socket.socket) -> None:
    """The kernel drops all that comes for this socket, acknowledgements too."""
    code = ctypes.create_string_buffer(DROP_ALL)
    program = struct.pack("HxxxxxxP" if struct.calcsize("P") == 8 else "HxxP", 1, ctypes.addressof(code))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except PermissionError:  # some kernels let nobody but root
        require_root("to drop packets")
        raise


class _Forwarder(ProxyServer):  # type: ignore[misc]
    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.transports.append(self.transport)


class Forwarding(ProxyFactory):  # type: ignore[misc]
    """Hands connections on to a port of this host, until `forget`."""

    protocol = _Forwarder
    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.transports: list[ITransport] = []

    def forget(self) -> int:
        """Drop the packets of all connections that there are; how many that were.  New ones are handed on."""
        transports: list[Any] = self.transports
        for transport in transports:
            drop_packets(transport.getHandle())
        return len(transports)

    def close(self) -> None:
        """End them."""
        transports: list[Any] = self.transports
        for transport in transports:
            transport.abortConnection()
