"""Packets made of a dialogue that was not seen as packets, and the file for them.

What a server says and hears inside TLS has never been on a wire in that form.  So that other programs can read it, it becomes
segments of TCP between the two hosts, each acknowledging all that came before it.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from mailserver.capture.files import BYTE_ORDER, ENHANCED_PACKET, INTERFACE, SECTION, TIME_RESOLUTION, CapturedFrame
from mailserver.capture.segments import ACK, FIN, SYN

__all__ = ["BuiltConnection", "file_header", "packet_block"]

LINK = 101  # raw IP
SEGMENT_OCTETS = 32_768  # of payload
WINDOW = 65_535
COMMENT, END_OF_OPTIONS = 1, 0
NANOSECONDS = 9  # 10^-9 is the unit of time
PUSH = 0x08
TCP = 6

Host = IPv4Address | IPv6Address


class BuiltConnection:
    """A connection of TCP whose segments are made as it goes.  Both hosts are of one family.

    `start` is the number of the client's first octet: two connections between the same ports must not begin alike.
    """

    def __init__(self, client: Host, client_port: int, server: Host, server_port: int, *, start: int = 0) -> None:
        if client.version != server.version:
            raise ValueError("two families in one connection")
        self._ends = ((client.packed, client_port), (server.packed, server_port))
        self._next = [start, start + (1 << 30)]  # the numbers of the next octets of client and server

    def opened(self, time: int) -> list[CapturedFrame]:
        """The three segments of the beginning; `time` in nanoseconds since 1970."""
        return [self._frame(time, True, SYN), self._frame(time, False, SYN | ACK), self._frame(time, True, ACK)]

    def said(self, time: int, is_client: bool, octets: bytes) -> list[CapturedFrame]:
        """What one of them says."""
        starts = range(0, len(octets), SEGMENT_OCTETS)
        return [self._frame(time, is_client, ACK | PUSH, octets[at : at + SEGMENT_OCTETS]) for at in starts]

    def missed(self, is_client: bool, count: int) -> None:
        """One of them has said so many octets that are not known: no segment has them."""
        self._next[0 if is_client else 1] += count

    def closed(self, time: int) -> list[CapturedFrame]:
        """Both ends close."""
        return [self._frame(time, True, FIN | ACK), self._frame(time, False, FIN | ACK), self._frame(time, True, ACK)]

    def _frame(self, time: int, is_client: bool, flags: int, payload: bytes = b"") -> CapturedFrame:
        mine, other = (0, 1) if is_client else (1, 0)
        (source, source_port), (destination, destination_port) = self._ends[mine], self._ends[other]
        acknowledged = self._next[other] if flags & ACK else 0
        numbers = (self._next[mine] % 2**32, acknowledged % 2**32)
        header = struct.pack("!HHIIBBHHH", source_port, destination_port, *numbers, 5 << 4, flags, WINDOW, 0, 0)
        length = len(header) + len(payload)
        pseudo = source + destination + struct.pack("!II", length, TCP)
        checksum = _checksum(pseudo + header + payload)
        segment = header[:16] + struct.pack("!H", checksum) + header[18:] + payload
        self._next[mine] += len(payload) + bool(flags & SYN) + bool(flags & FIN)
        octets = _packet(source, destination, segment)
        return CapturedFrame(time, LINK, octets, len(octets))


def file_header() -> bytes:
    """The beginning of a file of pcapng with one interface, which counts nanoseconds."""
    section = struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)
    options = struct.pack("<HHB3x", TIME_RESOLUTION, 1, NANOSECONDS) + struct.pack("<HH", END_OF_OPTIONS, 0)
    return _block(SECTION, section) + _block(INTERFACE, struct.pack("<HHI", LINK, 0, 0) + options)


def packet_block(frame: CapturedFrame, comment: str = "") -> bytes:
    """A frame in a file of pcapng, with a comment that other programs show."""
    numbers = (0, frame.time >> 32, frame.time & 0xFFFFFFFF, len(frame.octets), frame.length)
    body = struct.pack("<IIIII", *numbers) + _padded(frame.octets)
    if comment:
        text = comment.encode()[:1000]
        body += struct.pack("<HH", COMMENT, len(text)) + _padded(text) + struct.pack("<HH", END_OF_OPTIONS, 0)
    return _block(ENHANCED_PACKET, body)


def _packet(source: bytes, destination: bytes, segment: bytes) -> bytes:
    """RFC 791 section 3.1, RFC 8200 section 3."""
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(segment), TCP, 64) + source + destination + segment
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, TCP, 0) + source + destination
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + segment


def _checksum(octets: bytes) -> int:
    """RFC 1071: the one's complement of the sum in one's complement; a remainder by 2^16 - 1 is such a sum."""
    total = int.from_bytes(octets + b"\0" * (len(octets) % 2), "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)
