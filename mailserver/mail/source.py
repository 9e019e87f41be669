"""A message's octets by place: all in memory, or in a file that is read in blocks.

What looks at the structure of a message (`mailserver.mail.mime_parts`) asks for ranges and searches; so the same code serves a
message of a kilobyte and one of fifty megabytes, of which no more than a block is in memory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["BLOCK_OCTETS", "FileSource", "MemorySource", "Source", "StoredOctets", "source_of"]

BLOCK_OCTETS = 262_144


class Source(Protocol):
    """Octets, counted from 0 to `size`."""

    size: int

    def read(self, start: int, end: int) -> bytes:
        """The octets of a range, which lies inside."""

    def find(self, octets: bytes, start: int, end: int) -> int:
        """Where `octets` are first found whole in this range, -1 where they are not."""


class StoredOctets(Protocol):
    """Where a message's octets are: `mailserver.mail.content.Content`."""

    @property
    def data(self) -> bytes | None: ...

    @property
    def path(self) -> str | None: ...

    @property
    def prefix(self) -> bytes: ...

    @property
    def skip(self) -> int: ...

    @property
    def stored_size(self) -> int: ...


class MemorySource:
    """Octets in memory."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, start: int, end: int) -> bytes:
        """See `Source`."""
        return self._data[start:end]

    def find(self, octets: bytes, start: int, end: int) -> int:
        """See `Source`."""
        return self._data.find(octets, start, end)


class FileSource:
    """`prefix`, then `stored` octets of the open file `descriptor` from `skip` on.  Its methods raise OSError."""

    __slots__ = ("_descriptor", "_prefix", "_skip", "size")

    def __init__(self, descriptor: int, *, stored: int, skip: int = 0, prefix: bytes = b"") -> None:
        self._descriptor = descriptor
        self._prefix = prefix
        self._skip = skip
        self.size = len(prefix) + stored

    def read(self, start: int, end: int) -> bytes:
        """See `Source`."""
        before = len(self._prefix)
        if end <= before:
            return self._prefix[start:end]
        octets = self._prefix[start:] if start < before else b""
        place, missing = max(start - before, 0) + self._skip, end - max(start, before)
        while missing > 0:
            piece = os.pread(self._descriptor, missing, place)
            if not piece:
                raise OSError(errno.EIO, "the file is shorter than it was")
            octets += piece
            place += len(piece)
            missing -= len(piece)
        return octets

    def find(self, octets: bytes, start: int, end: int) -> int:
        """See `Source`."""
        overlap = len(octets) - 1
        while end - start > overlap:
            stop = min(start + BLOCK_OCTETS, end)
            found = self.read(start, stop).find(octets)
            if found >= 0:
                return start + found
            start = stop - overlap if stop < end else end
        return -1


@contextmanager
def source_of(content: StoredOctets) -> Iterator[Source]:
    """The octets of a message, for as long as the context lasts.  Raises OSError."""
    if content.path is None:
        data = content.data or b""
        yield MemorySource(content.prefix + data if content.prefix else data)
        return
    descriptor = os.open(content.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stored = content.stored_size - content.skip
        yield FileSource(descriptor, stored=stored, skip=content.skip, prefix=content.prefix)
    finally:
        os.close(descriptor)
