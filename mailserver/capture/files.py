"""Capture files, pcap and pcapng, read as they come: octets in, frames out.

Both byte orders, times in micro- and nanoseconds, several sections and interfaces with link types of their own.  What is longer
than a frame can be is damage; blocks without packets are passed over unread.  Formats: draft-ietf-opsawg-pcap and
draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from mailserver.mail.quick import maker

__all__ = ["CaptureFault", "CaptureReader", "CapturedFrame"]

FRAME_OCTETS = 1 << 20  # the largest that is believed: libpcap takes no more than 262,144
BLOCK_OCTETS = FRAME_OCTETS + (1 << 16)  # with its options
INTERFACES = 10_000
FILE_HEADER, RECORD_HEADER = 24, 16
ENHANCED_HEADER = 28  # of a block, up to its frame
PCAP_MAGIC = {  # as little-endian numbers: byte order, and the nanoseconds of a unit of the second field of time
    0xA1B2C3D4: ("<", 1000),
    0xD4C3B2A1: (">", 1000),
    0xA1B23C4D: ("<", 1),
    0x4D3CB2A1: (">", 1),
}
SECTION = 0x0A0D0D0A  # reads the same in both byte orders
BYTE_ORDER = 0x1A2B3C4D
INTERFACE, OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 1, 2, 3, 6
PACKETS = (OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET)
TIME_RESOLUTION, TIME_OFFSET = 9, 14  # options of an interface
SECOND = 1_000_000_000
RECORD, BLOCK, ENHANCED, ENHANCED_BLOCK = [
    {order: struct.Struct(order + form) for order in "<>"} for form in ("IIII", "II", "IIIII", "IIIIIII")
]
LATEST = 253_402_300_799 * SECOND  # the end of the year 9999: no calendar goes on behind it


class CaptureFault(ValueError):
    """What is read is not a capture file, or damaged from there on."""


class CapturedFrame(NamedTuple):
    """One frame as it was captured.

    `time` is in nanoseconds since 1970, and not behind the year 9999 whatever the file says; `link` the link type of the
    interface, `length` how many octets it had on the wire; `octets` can be fewer.
    """

    time: int
    link: int
    octets: bytes
    length: int


_frame = maker(CapturedFrame)


class _Interface(NamedTuple):
    link: int
    snapshot: int
    unit: int  # units of time to a second
    offset: int  # seconds
    step: int  # nanoseconds of a unit, 0 where these are no whole ones, or there is an offset

    def time(self, units: int) -> int:
        """So many units, in nanoseconds since 1970."""
        return min(max(units * SECOND // self.unit + self.offset * SECOND, 0), LATEST)


class CaptureReader:
    """Octets of a file in, its frames out; any pieces give the same frames.

    `is_cut` says that the octets so far end within a packet: a capture that was stopped in the middle of a write.
    """

    def __init__(self) -> None:
        self._held = b""
        self._at = 0  # of `_held` in the file, for what is said of damage
        self._skip = 0  # octets of a block without packets that are still to come
        self._order = ""
        self._unit = 0  # 0: pcapng
        self._link = 0
        self._interfaces: list[_Interface] = []

    @property
    def is_cut(self) -> bool:
        """Whether more octets must come."""
        return bool(self._held) or self._skip > 0 or not self._order

    def feed(self, octets: bytes) -> Iterator[CapturedFrame]:
        """The frames that are whole with these octets, one by one.  Exhaust it before the next call.

        Raises CaptureFault where the octets cannot be those of a capture file, after the frames before that place.
        """
        if self._skip:
            passed = min(self._skip, len(octets))
            self._skip -= passed
            self._at += passed
            octets = octets[passed:]
        self._held += octets
        if not self._order and not self._begin():
            return iter(())
        return self._records() if self._unit else self._blocks()

    def _records(self) -> Iterator[CapturedFrame]:
        """Walk over the records of a pcap file."""
        held, unpack, unit, link = self._held, RECORD[self._order].unpack_from, self._unit, self._link
        at, last = 0, len(held) - RECORD_HEADER
        try:
            while at <= last:
                seconds, units, kept, length = unpack(held, at)
                if kept > FRAME_OCTETS:
                    raise self._damaged(at, f"a frame of {kept:,} octets")
                start = at + RECORD_HEADER
                end = start + kept
                if end > len(held):
                    break
                at = end
                yield _frame((seconds * SECOND + units * unit, link, held[start:end], length))
        finally:
            self._pass(at)

    def _blocks(self) -> Iterator[CapturedFrame]:
        """Walk over the blocks of a pcapng file.  Nearly all of them are enhanced packets that are in order: these are read here,
        all others with what may be wrong with them in `_block`."""
        held = self._held
        at, size = 0, len(held)
        try:
            while True:
                unpack, interfaces = ENHANCED_BLOCK[self._order].unpack_from, self._interfaces
                while size - at >= ENHANCED_HEADER:
                    kind, length, number, high, low, kept, on_wire = unpack(held, at)
                    end = at + length
                    if (
                        kind != ENHANCED_PACKET or end > size or length & 3 or length > BLOCK_OCTETS
                        or kept > length - ENHANCED_HEADER - 4 or number >= len(interfaces)
                    ):  # fmt: skip
                        break
                    start, at, interface = at + ENHANCED_HEADER, end, interfaces[number]
                    time = (high << 32 | low) * interface.step
                    if not 0 < time < LATEST:
                        time = interface.time(high << 32 | low)
                    yield _frame((time, interface.link, held[start : start + kept], on_wire))
                found = self._block(at)
                if found is None:
                    break
                frame, at = found
                if frame is not None:
                    yield frame
        finally:
            self._pass(min(at, size))

    def _pass(self, count: int) -> None:
        """So many of the octets that are held have been read."""
        self._held = self._held[count:]
        self._at += count

    def _begin(self) -> bool:
        """Look at the file's first octets; False where there are too few."""
        if len(self._held) < 4:
            return False
        magic = int.from_bytes(self._held[:4], "little")
        if magic == SECTION:
            self._order = "<"  # the section says which
            return True
        if magic not in PCAP_MAGIC:
            raise CaptureFault("neither pcap nor pcapng")
        if len(self._held) < FILE_HEADER:
            return False
        self._order, self._unit = PCAP_MAGIC[magic]
        self._link = struct.unpack_from(self._order + "I", self._held, 20)[0] & 0xFFFF  # above it: the length of a checksum
        self._held = self._held[FILE_HEADER:]
        self._at = FILE_HEADER
        return True

    def _block(self, at: int) -> tuple[CapturedFrame | None, int] | None:
        """The block of a pcapng file that begins there, with its frame if it has one, and where it ends."""
        left = len(self._held) - at
        if left < 12:
            return None
        kind, length = BLOCK[self._order].unpack_from(self._held, at)
        if kind == SECTION:
            order = int.from_bytes(self._held[at + 8 : at + 12], "little")
            if order not in (BYTE_ORDER, 0x4D3C2B1A):
                raise self._damaged(at, "a section without a byte order")
            self._order = "<" if order == BYTE_ORDER else ">"
            length = struct.unpack_from(self._order + "I", self._held, at + 4)[0]
            self._interfaces = []
        if length < 12 or length % 4:
            raise self._damaged(at, f"a block of {length:,} octets")
        if kind not in PACKETS and kind != INTERFACE:
            self._skip = max(0, length - left)
            return None, at + min(length, left)
        if length > BLOCK_OCTETS:
            raise self._damaged(at, f"a block of {length:,} octets")
        if length > left:
            return None
        end = at + length
        try:
            if kind != INTERFACE:
                return self._packet(kind, at + 8, end - 4), end
            self._interface(at + 8, end - 4)
        except struct.error:
            raise self._damaged(at, "a block that is too short") from None
        return None, end

    def _interface(self, at: int, end: int) -> None:
        """Take note of an interface: its link type, and how it counts time."""
        if len(self._interfaces) >= INTERFACES:
            raise self._damaged(at, "too many interfaces")
        if at + 8 > end:
            raise self._damaged(at, "a block that is too short")
        link, _, snapshot = struct.unpack_from(self._order + "HHI", self._held, at)
        unit, offset, at = 1_000_000, 0, at + 8
        while at + 4 <= end:
            code, length = struct.unpack_from(self._order + "HH", self._held, at)
            at += 4
            if code == 0 or at + length > end:
                break
            if code == TIME_RESOLUTION and length == 1:
                said = self._held[at]
                if said & 0x7F > (63 if said & 0x80 else 18):
                    raise self._damaged(at, "a unit of time that is none")
                unit = 2 ** (said & 0x7F) if said & 0x80 else 10**said
            elif code == TIME_OFFSET and length == 8:
                offset = struct.unpack_from(self._order + "q", self._held, at)[0]
            at += length + -length % 4
        step = 0 if offset or SECOND % unit else SECOND // unit
        self._interfaces.append(_Interface(link, snapshot, unit, offset, step))

    def _packet(self, kind: int, at: int, end: int) -> CapturedFrame:
        """The frame of one of the three blocks that have one."""
        number, high, low = 0, 0, 0
        if kind == ENHANCED_PACKET:
            number, high, low, kept, length = ENHANCED[self._order].unpack_from(self._held, at)
            start = at + 20
        elif kind == OLD_PACKET:
            number, _, high, low, kept, length = struct.unpack_from(self._order + "HHIIII", self._held, at)
            start = at + 20
        else:  # without a time
            kept = length = struct.unpack_from(self._order + "I", self._held, at)[0]
            start = at + 4
        if number >= len(self._interfaces):
            raise self._damaged(at, "a packet of an interface that is not there")
        interface = self._interfaces[number]
        if kind == SIMPLE_PACKET:
            kept = min(length, interface.snapshot or length, end - start)
        if start + kept > end:
            raise self._damaged(at, "a packet that is longer than its block")
        time = 0 if kind == SIMPLE_PACKET else interface.time(high << 32 | low)
        return CapturedFrame(time, interface.link, self._held[start : start + kept], length)

    def _damaged(self, at: int, what: str) -> CaptureFault:
        return CaptureFault(f"damaged at octet {self._at + at:,}: {what}")
