"""Frames on a Unix stream socket: four octets of length, then that many; with the first octet may travel descriptors.

Here is the end that may wait; the reactor's is `exchange`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

__all__ = ["DESCRIPTORS", "FRAME_OCTETS", "LENGTH", "LONGEST_OCTETS", "exactly", "receive", "send"]

LENGTH = struct.Struct("!I")
FRAME_OCTETS = 131072  # of one from somebody who is not believed
LONGEST_OCTETS = 2**32 - 1  # that the length can say
DESCRIPTORS = 4


def send(
    end: socket.socket, octets: bytes, descriptors: Sequence[int] = (), *, octets_most: int = FRAME_OCTETS
) -> None:
    """Send one frame.  Blocking.  Raises OSError."""
    if len(octets) > octets_most:
        raise OSError(f"a frame of {len(octets)} octets is too long")
    frame = LENGTH.pack(len(octets)) + octets
    sent = socket.send_fds(end, [frame], list(descriptors)) if descriptors else 0
    end.sendall(frame[sent:])


def receive(end: socket.socket, *, octets_most: int = FRAME_OCTETS) -> tuple[bytes, list[int]]:
    """One frame, and the descriptors that came with it, which the caller closes.  Raises EOFError, OSError."""
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
    """So many octets.  Raises EOFError, OSError."""
    data = b""
    while len(data) < octets:
        more = end.recv(octets - len(data), socket.MSG_WAITALL)
        if not more:
            raise EOFError("the end within a frame")
        data += more
    return data
