"""Frames on a Unix stream socket: four octets of length, then so many octets.  Descriptors may travel with the first octet.

The functions here block; `exchange` is the reactor's counterpart.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

__all__ = ["DESCRIPTORS", "FRAME_OCTETS", "LENGTH", "LONGEST_OCTETS", "exactly", "receive", "send"]

LENGTH = struct.Struct("!I")
FRAME_OCTETS = 131072  # the longest frame from a peer that is not trusted
LONGEST_OCTETS = 2**32 - 1  # the longest that four octets of length can say
DESCRIPTORS = 4


def send(
    end: socket.socket, octets: bytes, descriptors: Sequence[int] = (), *, octets_most: int = FRAME_OCTETS
) -> None:
    """Send one frame, and descriptors with it.  Blocks.  Raises OSError, also for a frame that is too long."""
    if len(octets) > octets_most:
        raise OSError(f"a frame of {len(octets)} octets is too long")
    frame = LENGTH.pack(len(octets)) + octets
    sent = socket.send_fds(end, [frame], list(descriptors)) if descriptors else 0
    end.sendall(frame[sent:])


def receive(end: socket.socket, *, octets_most: int = FRAME_OCTETS) -> tuple[bytes, list[int]]:
    """Receive one frame and its descriptors, which the caller closes.  Blocks.

    Raises EOFError at the end of the stream and for a malformed frame, and OSError.
    """
    head, descriptors, flags, _ = socket.recv_fds(end, LENGTH.size, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    try:
        if flags & socket.MSG_CTRUNC:
            raise EOFError("too many descriptors")
        head += exactly(end, LENGTH.size - len(head)) if head else b""
        if len(head) != LENGTH.size or LENGTH.unpack(head)[0] > octets_most:
            raise EOFError("the end, or no frame")
        return exactly(end, LENGTH.unpack(head)[0]), descriptors
    except (EOFError, OSError):
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def exactly(end: socket.socket, octets: int) -> bytes:
    """Receive exactly so many octets.  Blocks.  Raises EOFError where the stream ends before, and OSError."""
    data = b""
    while len(data) < octets:
        more = end.recv(octets - len(data), socket.MSG_WAITALL)
        if not more:
            raise EOFError("the end within a frame")
        data += more
    return data
