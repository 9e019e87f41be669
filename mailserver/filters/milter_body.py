"""The body that a milter wants in place of a message's: in memory while it is small, else in a file without a name."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import IO

from mailserver.api import RunInThread
from mailserver.filters.milter_connection import MilterFailed

__all__ = ["NewBody"]

MEMORY_OCTETS = 262_144
PIECE_OCTETS = 65_536


class NewBody:
    """Takes pieces, and gives them back once, as `ReplaceBody` wants them."""

    def __init__(self, octets_most: int, run_in_thread: RunInThread) -> None:
        self._octets_most = octets_most
        self._run_in_thread = run_in_thread
        self._size = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    async def add(self, octets: bytes) -> None:
        """The next piece.  Raises `MilterFailed` where it is too much, OSError."""
        self._size += len(octets)
        if self._size > self._octets_most:
            raise MilterFailed(f"the new body has more than {self._octets_most} octets")
        self._memory += octets
        if len(self._memory) > MEMORY_OCTETS:
            memory, self._memory = bytes(self._memory), bytearray()
            await self._run_in_thread(self._write, memory)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it."""
        file = self._file
        if file is not None:
            await self._run_in_thread(file.seek, 0)
            while piece := await self._run_in_thread(file.read, PIECE_OCTETS):
                yield piece
        yield bytes(self._memory)

    def _write(self, octets: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="body-")  # until nobody wants it any more
        self._file.write(octets)
