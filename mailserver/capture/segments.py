"""The TCP segment in a frame: Ethernet with VLANs, Linux cooked, loopback of BSD, raw IP; IPv4, IPv6 with its extension headers.

Whatever the octets are, the answer is a segment or None.  Fragments of IP are not put together; the first one counts as a
segment that was cut.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mailserver.capture.files import CapturedFrame
from mailserver.capture.links import COOKED, COOKED_2, ETHERNET, LOOP, NULL, RAW
from mailserver.mail.quick import maker

__all__ = ["ACK", "FIN", "RST", "SYN", "Segment", "segment"]

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10  # RFC 9293 section 3.1

IPV4, IPV6 = 0x0800, 0x86DD
VLANS = (0x8100, 0x88A8, 0x9100)
PPPOE, PPP_IPV4, PPP_IPV6 = 0x8864, 0x0021, 0x0057
EXTENSIONS = (0, 43, 60, 135, 139, 140)  # hop-by-hop, routing, destination options, mobility, HIP, shim6
FRAGMENT, AUTHENTICATION, TCP = 44, 51, 6
HEADERS = 16  # extension headers, tags: more is damage

ETHERNET_TYPE = struct.Struct("!12xH")
IP4_OCTETS = b"\x08\x00"
# Where the packet begins on the links that nearly all captures are made on; before it stands its kind, but for 0.
BEGINS = {ETHERNET: 14, COOKED: 16} | dict.fromkeys(RAW, 0)
IP4_TCP = struct.Struct("!BxHxxHxB2x12sIIBB6x")  # without options of IP
IP4 = struct.Struct("!BxHxxHxBxx4s4s")
IP6 = struct.Struct("!IHBx16s16s")
TCP_HEADER = struct.Struct("!4sIIBB6x")


class Segment(NamedTuple):
    """One TCP segment.  `missing` octets of its payload were on the wire and not captured.

    `ends` are those of the connection as octets of the packet: both addresses, of 4 or 16 octets each, and both ports, the
    sender's first.
    """

    ends: bytes
    sequence: int
    acknowledged: int
    flags: int
    payload: bytes
    missing: int

    @property
    def source(self) -> bytes:
        """The sender's address, 4 or 16 octets."""
        return self.ends[: len(self.ends) // 2 - 2]

    @property
    def destination(self) -> bytes:
        """The other's address."""
        return self.ends[len(self.ends) // 2 - 2 : -4]

    @property
    def source_port(self) -> int:
        """The sender's port."""
        return int.from_bytes(self.ends[-4:-2], "big")

    @property
    def destination_port(self) -> int:
        """The other's port."""
        return int.from_bytes(self.ends[-2:], "big")


_segment = maker(Segment)


def segment(frame: CapturedFrame) -> Segment | None:
    """The TCP segment in a frame; None where there is none, or its header was not captured whole."""
    octets = frame.octets
    at = BEGINS.get(frame.link, -1)
    if (at == 0 or (at > 0 and octets[at - 2 : at] == IP4_OCTETS)) and len(octets) - at >= 40:
        first, length, fragment, protocol, ends, sequence, acknowledged, offset, flags = IP4_TCP.unpack_from(octets, at)
        if first == 0x45 and protocol == TCP and length and not fragment & 0x1FFF and offset >= 0x50:
            start, end = at + 20 + (offset >> 4) * 4, at + length
            if start > end:
                return None
            payload = octets[start:end]
            return _segment((ends, sequence, acknowledged, flags, payload, end - start - len(payload)))
    return _found(frame)


def _found(frame: CapturedFrame) -> Segment | None:
    """The segment in any other frame."""
    octets, link = frame.octets, frame.link
    try:
        if link == ETHERNET:
            kind, at = ETHERNET_TYPE.unpack_from(octets)[0], 14
            if kind in VLANS or kind == PPPOE:
                kind, at = _inner(octets, kind, at)
        elif link == COOKED:
            kind, at = int.from_bytes(octets[14:16], "big"), 16
            kind, at = _inner(octets, kind, at)
        elif link == COOKED_2:
            kind, at = _inner(octets, int.from_bytes(octets[:2], "big"), 20)
        elif link in RAW:
            kind, at = 0, 0
        elif link in (NULL, LOOP):
            kind, at = 0, 4
        else:
            return None
        if not kind:
            version = octets[at] >> 4
            kind = IPV4 if version == 4 else IPV6 if version == 6 else -1
        if kind == IPV4:
            return _ipv4(frame, at)
        if kind == IPV6:
            return _ipv6(frame, at)
    except (struct.error, IndexError):
        pass
    return None


def _inner(octets: bytes, kind: int, at: int) -> tuple[int, int]:
    """What stands behind the tags of VLANs and the header of PPPoE."""
    for _ in range(HEADERS):
        if kind in VLANS:
            kind, at = int.from_bytes(octets[at + 2 : at + 4], "big"), at + 4
        elif kind == PPPOE:
            said = int.from_bytes(octets[at + 6 : at + 8], "big")
            return {PPP_IPV4: IPV4, PPP_IPV6: IPV6}.get(said, -1), at + 8
        else:
            break
    return kind or -1, at


def _ipv4(frame: CapturedFrame, at: int) -> Segment | None:
    """RFC 791 section 3.1."""
    first, length, fragment, protocol, source, destination = IP4.unpack_from(frame.octets, at)
    header = (first & 15) * 4
    if protocol != TCP or first >> 4 != 4 or header < 20 or fragment & 0x1FFF:
        return None
    # The length is 0 where the network card was to cut it into packets.
    end = at + length if length else frame.length
    return _tcp(frame, at + header, end, source, destination)


def _ipv6(frame: CapturedFrame, at: int) -> Segment | None:
    """RFC 8200 sections 3 and 4."""
    octets = frame.octets
    first, length, following, source, destination = IP6.unpack_from(octets, at)
    if first >> 28 != 6:
        return None
    end = at + 40 + length if length else frame.length
    at += 40
    for _ in range(HEADERS):
        if following == TCP:
            return _tcp(frame, at, end, source, destination)
        if following in EXTENSIONS:
            following, at = octets[at], at + (octets[at + 1] + 1) * 8
        elif following == AUTHENTICATION:
            following, at = octets[at], at + (octets[at + 1] + 2) * 4
        elif following == FRAGMENT and not int.from_bytes(octets[at + 2 : at + 4], "big") >> 3:
            following, at = octets[at], at + 8
        else:
            break
    return None


def _tcp(frame: CapturedFrame, at: int, end: int, source: bytes, destination: bytes) -> Segment | None:
    """RFC 9293 section 3.1; `end` is where the packet of IP ends, and what comes behind it is filling of the link."""
    ports, sequence, acknowledged, offset, flags = TCP_HEADER.unpack_from(frame.octets, at)
    header = (offset >> 4) * 4
    if header < 20 or end < at + header:
        return None
    payload = frame.octets[at + header : end]
    missing = end - at - header - len(payload)
    return Segment(source + destination + ports, sequence, acknowledged, flags, payload, missing)
