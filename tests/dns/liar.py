"""A name server that calls everything authenticated."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import DatagramProtocol

__all__ = ["Liar"]


class Liar(DatagramProtocol):
    """Passes every question on to another server, and sets the AD bit in every answer."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self.upstream = host, int(port)
        self.asking: dict[bytes, Any] = {}

    def datagramReceived(self, data: bytes, peer: Any) -> None:
        if peer != self.upstream:
            self.asking[data[:2]] = peer
            self.transport.write(data, self.upstream)
        elif data[:2] in self.asking:
            self.transport.write(data[:3] + bytes([data[3] | 0x20]) + data[4:], self.asking.pop(data[:2]))
