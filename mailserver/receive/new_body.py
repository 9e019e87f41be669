"""Takes in the body that a modifier has put in place of a message's (`ReplaceBody`): in memory, or in a file of the spool."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.interfaces import Clock
from mailserver.mail.content import CHUNK_OCTETS, Content
from mailserver.mail.edits import EditError, ReplaceBody
from mailserver.receive.spooling import Spooling

__all__ = ["CRLFLines", "DiskGate", "take_in"]

TURN_OCTETS = 1_048_576  # after so many others have their turn
PIECE_OCTETS = 64  # a piece counts for no less, as it costs time also where it is empty


class CRLFLines:
    """Octets that come in pieces, each of their line ends as CRLF, the last line ended."""

    __slots__ = ("_cr", "_last")

    def __init__(self) -> None:
        self._cr = b""  # the end of the last piece, which may be the first half of a line end
        self._last = b"\n"

    def convert(self, piece: bytes) -> bytes:
        """The piece as far as its line ends are known."""
        piece = self._cr + piece
        self._cr = b""
        if piece.endswith(b"\r"):
            piece, self._cr = piece[:-1], b"\r"
        if not piece:
            return b""
        self._last = piece[-1:]
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")

    def end(self) -> bytes:
        """What is missing."""
        return b"\r\n" if self._cr or self._last not in (b"\n", b"\r") else b""


class DiskGate:
    """Closed while the disk has not taken what it was given."""

    def __init__(self) -> None:
        self._opens: Deferred[None] | None = None

    def close(self) -> None:
        self._opens = Deferred()

    def open(self) -> None:
        opens, self._opens = self._opens, None
        if opens is not None and not opens.called:
            opens.callback(None)

    async def is_open(self) -> None:
        """Wait for it."""
        if self._opens is not None:
            await self._opens


async def take_in(
    edit: ReplaceBody, content: Content, spooling: Spooling, gate: DiskGate, *, octets_most: int, clock: Clock
) -> Content:
    """The message with the new body.  `spooling`, which closes `gate`, has to be released, or its file discarded, by the caller.

    Raises `EditError` for what is no body or makes the message larger than `octets_most`, OSError, and what the modifier's own
    iterator raises.
    """
    head = content.head
    if content.has_cut_head:
        raise EditError("the header section has no end")
    if not head.endswith(b"\r\n\r\n") and head != b"\r\n":
        head += b"\r\n"  # fields only, so far
    lines = CRLFLines()
    convert: Callable[[bytes], bytes] = bytes if content.binary else lines.convert
    since_turn = 0

    def write(piece: bytes) -> None:
        spooling.write(piece)
        if len(head) + spooling.size > octets_most:
            raise EditError(f"the message would have more than {octets_most} octets")

    async for piece in _pieces(edit):
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise EditError(f"a piece of a body is octets, not {type(piece).__name__}")
        for at in range(0, len(piece) or 1, TURN_OCTETS):
            write(convert(bytes(piece[at : at + TURN_OCTETS])))
            await gate.is_open()
            since_turn += max(min(len(piece) - at, TURN_OCTETS), PIECE_OCTETS)
            if since_turn >= TURN_OCTETS:
                since_turn = 0
                turn: Deferred[None] = Deferred()
                clock.callLater(0, turn.callback, None)
                await turn
    if not content.binary:
        write(lines.end())
    body = await spooling.finish(binary=content.binary)
    if body.path is None:
        return Content.of(head + (body.data or b""), binary=content.binary)
    return Content.at(body.path, body.stored_size, prefix=head, binary=content.binary)


async def _pieces(edit: ReplaceBody) -> AsyncIterator[Any]:
    if edit.path:
        for piece in _of_file(edit.path):
            yield piece
        return
    chunks = edit.chunks
    if isinstance(chunks, bytes | bytearray | memoryview):
        yield chunks
    elif isinstance(chunks, AsyncIterable):
        async for piece in chunks:
            yield piece
    elif isinstance(chunks, Iterable):
        for piece in chunks:
            yield piece


def _of_file(path: str) -> Iterator[bytes]:
    # A pipe that nobody writes into would hold everybody up.
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise EditError("the path of a body is no file")
        while piece := file.read(CHUNK_OCTETS):
            yield piece
