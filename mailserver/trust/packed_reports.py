"""What reports of strangers are packed in, read piece by piece: the part of a message, and gzip (RFC 1952)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from mailserver.mail.message_parts import MessagePart

__all__ = ["GZIP", "PIECE_OCTETS", "ReportFault", "octets_of_part", "ungzipped"]

PACKED_OCTETS = 10 << 20
PIECE_OCTETS = 65_536
MEMBERS_MOST = 20  # of a gzip
GZIP = b"\x1f\x8b"


class ReportFault(ValueError):
    """There is no report in it, or none that can be read; the words are for people."""


def octets_of_part(part: MessagePart) -> bytes:
    """All of a part, decoded.  Raises `ReportFault` for too much of it."""
    found = bytearray()
    for piece in part.chunks():
        found += piece
        if len(found) > PACKED_OCTETS:
            raise ReportFault(f"the attachment has more than {PACKED_OCTETS} octets")
    return bytes(found)


def ungzipped(octets: bytes) -> Iterator[bytes]:
    """What is in it, in pieces: one member or several.  Raises `ReportFault`."""
    waiting, members = octets, 0
    while waiting:
        members += 1
        if members > MEMBERS_MOST:  # each would copy what follows it
            raise ReportFault(f"its gzip has more than {MEMBERS_MOST} members")
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(waiting, PIECE_OCTETS)
            except zlib.error as error:
                raise ReportFault(f"it is no gzip: {error}") from None
            waiting = member.unconsumed_tail
            if piece:
                yield piece
            elif not waiting and not member.eof:
                raise ReportFault("its gzip breaks off")
        waiting = member.unused_data
        if not waiting.startswith(GZIP):  # what follows is padding, or no gzip
            return
