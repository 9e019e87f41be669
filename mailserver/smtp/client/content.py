"""Content on its way to the peer: DATA with its dots and its end, or one chunk of BDAT.

No line is looked at: dots are found by searching, and over the border between two pieces by the last two octets.
"""

from __future__ import annotations

from mailserver.smtp.faults import LocalProtocolError

__all__ = ["ChunkWriter", "DotWriter"]


class DotWriter:
    """The content of DATA (RFC 5321 section 4.5.2): a line that begins with a dot gets another one.

    The octets go out as they are otherwise; an end of the last line is added where it has none.
    """

    __slots__ = ("_tail", "is_complete")

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the last two octets; that of the DATA line, at first
        self.is_complete = False

    def write(self, data: bytes) -> bytes:
        """The wire form of the next piece."""
        if not data:
            return b""
        # Base64 has no dot at all, and one octet is found ten times as fast as three.
        stuffed = data.replace(b"\r\n.", b"\r\n..") if b"." in data else data
        tail = self._tail
        if tail == b"\r\n":
            if data.startswith(b"."):
                stuffed = b"." + stuffed
        elif tail.endswith(b"\r") and data.startswith(b"\n."):
            stuffed = b"\n." + stuffed[1:]
        self._tail = data[-2:] if len(data) > 1 else tail[-1:] + data
        return stuffed

    def end(self) -> bytes:
        """What says that the content is complete."""
        self.is_complete = True
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


class ChunkWriter:
    """The content as one `BDAT size LAST` (RFC 3030 section 2): any octets, exactly `size` of them, as they are.

    One chunk needs one answer, so it makes no difference whether the peer takes pipelined chunks.
    """

    __slots__ = ("_is_begun", "_missing")

    def __init__(self, size: int) -> None:
        self._missing = size
        self._is_begun = False

    @property
    def is_complete(self) -> bool:
        """The peer has all that it needs for an answer."""
        return self._is_begun and not self._missing

    def write(self, data: bytes) -> bytes:
        """The wire form of the next piece.  Raises `LocalProtocolError` where it is longer than was said."""
        if len(data) > self._missing:
            raise LocalProtocolError(f"{len(data) - self._missing} octets more content than the request said")
        head = self._head()
        self._missing -= len(data)
        return head + data if head else data

    def end(self) -> bytes:
        """Nothing, but for content without any octets.  Raises `LocalProtocolError` where some are missing."""
        if self._missing:
            raise LocalProtocolError(f"{self._missing} octets less content than the request said")
        return self._head()

    def _head(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        return b"BDAT %d LAST\r\n" % self._missing
