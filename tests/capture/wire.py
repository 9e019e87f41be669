"""Frames and capture files made for tests."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from mailserver.capture.files import CapturedFrame

CLIENT, SERVER = ("192.0.2.1", 40000), ("192.0.2.25", 25)
SYN, ACK, FIN, RST = 2, 16, 1, 4
ETHERNET = 1
SECOND = 1_000_000_000


def tcp(source: int, destination: int, sequence: int, acknowledged: int, flags: int, payload: bytes) -> bytes:
    """A TCP segment (RFC 9293 section 3.1), with options as Linux has them."""
    header = struct.pack("!HHIIBBHHH", source, destination, sequence % 2**32, acknowledged % 2**32, 8 << 4, flags, 65535, 0, 0)
    return header + b"\x01\x01\x08\x0a" + bytes(8) + payload


def ipv4(source: str, destination: str, content: bytes, protocol: int = 6) -> bytes:
    """RFC 791 section 3.1."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0x4000, 64, protocol, 0)
    return header + socket.inet_aton(source) + socket.inet_aton(destination) + content


def ipv6(source: str, destination: str, content: bytes, following: int = 6) -> bytes:
    """RFC 8200 section 3."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28, len(content), following, 64) + addresses + content


def ethernet(content: bytes, kind: int = 0x0800, tags: bytes = b"") -> bytes:
    """With the filling of a frame that is too short for the link."""
    octets = bytes(12) + tags + struct.pack("!H", kind) + content
    return octets + bytes(max(0, 60 - len(octets)))


class Connection:
    """A connection whose ends say things; each is a frame, a millisecond after the one before it."""

    def __init__(
        self, client: tuple[str, int] = CLIENT, server: tuple[str, int] = SERVER, start: int = 0, at: int = SECOND
    ) -> None:
        self.ends = (client, server)
        self.next = [start % 2**32, (start + 7_000_000) % 2**32]
        self.at = at

    def frame(self, is_client: bool, flags: int, payload: bytes = b"", sequence: int | None = None) -> CapturedFrame:
        """One segment; its number is the next one unless it is given."""
        (source, source_port), (destination, destination_port) = self.ends if is_client else self.ends[::-1]
        mine, others = (0, 1) if is_client else (1, 0)
        number = self.next[mine] if sequence is None else sequence
        octets = tcp(source_port, destination_port, number, self.next[others], flags, payload)
        if sequence is None:
            self.next[mine] += len(payload) + bool(flags & SYN) + bool(flags & FIN)
        self.at += SECOND // 1000
        if ":" in source:
            octets = ethernet(ipv6(source, destination, octets), 0x86DD)
        else:
            octets = ethernet(ipv4(source, destination, octets))
        return CapturedFrame(self.at, ETHERNET, octets, len(octets))

    def opened(self) -> list[CapturedFrame]:
        """The three segments in which a connection begins."""
        return [self.frame(True, SYN), self.frame(False, SYN | ACK), self.frame(True, ACK)]

    def client(self, octets: bytes) -> CapturedFrame:
        """The client says this."""
        return self.frame(True, ACK, octets)

    def server(self, octets: bytes) -> CapturedFrame:
        """The server says this."""
        return self.frame(False, ACK, octets)

    def closed(self) -> list[CapturedFrame]:
        """Both ends close."""
        return [self.frame(True, ACK | FIN), self.frame(False, ACK | FIN), self.frame(True, ACK)]

    def said(self, *lines: bytes) -> list[CapturedFrame]:
        """A dialogue: `C: ` is the client, `S: ` the server; line ends as they are given."""
        return [(self.client if one[:3] == b"C: " else self.server)(one[3:]) for one in lines]


def pcap(frames: Iterable[CapturedFrame], order: str = "<", magic: int = 0xA1B23C4D, unit: int = 1) -> bytes:
    """A file of pcap; `unit` is the nanoseconds of its second field of time."""
    frames = list(frames)
    link = frames[0].link if frames else ETHERNET
    octets = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    for one in frames:
        seconds, rest = divmod(one.time, SECOND)
        octets += struct.pack(order + "IIII", seconds, rest // unit, len(one.octets), one.length) + one.octets
    return octets


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block of pcapng."""
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(order: str = "<") -> bytes:
    """The block that begins a section."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int = ETHERNET, options: bytes = b"", order: str = "<", snapshot: int = 0) -> bytes:
    """The description of an interface."""
    return block(1, struct.pack(order + "HHI", link, 0, snapshot) + options, order)


def packet(one: CapturedFrame, number: int = 0, units: int | None = None, order: str = "<") -> bytes:
    """A frame in an enhanced packet block; `units` of time in place of its microseconds."""
    time = one.time // 1000 if units is None else units
    head = struct.pack(order + "IIIII", number, time >> 32, time & 0xFFFFFFFF, len(one.octets), one.length)
    return block(6, head + one.octets, order)


def pcapng(frames: Iterable[CapturedFrame]) -> bytes:
    """A file of pcapng with one interface."""
    return section() + interface() + b"".join([packet(one) for one in frames])
