"""A message on its way to a scanner, as fast as the scanner takes it and never whole in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from mailserver.api import Content, RunInThread

__all__ = ["ContentFeed"]

PIECE_OCTETS = 65_536


@implementer(IBodyProducer, IPushProducer)
class ContentFeed:
    """Writes `content` to one consumer: once, piece by piece, with a halt wherever the consumer asks for one.

    `frame` makes of each piece the octets that are written in its place.  A file is read in a thread.  It is also what
    twisted.web takes for a body.
    """

    def __init__(
        self, content: Content, *, run_in_thread: RunInThread, frame: Callable[[bytes], Sequence[bytes]] | None = None
    ) -> None:
        self.length = content.size
        self._content = content
        self._run_in_thread = run_in_thread
        self._frame = frame
        self._is_stopped = False
        self._is_paused = False
        self._resumed: Deferred[None] | None = None

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """All of it, for twisted.web, which asks for the halts itself."""
        return Deferred.fromCoroutine(self.into(consumer))

    async def into(self, consumer: Any) -> None:
        """Write all of it, or as much as is wanted.  Raises OSError where the message cannot be read."""
        pieces = self._content.chunks(PIECE_OCTETS)
        reads_file = self._content.path is not None
        while not self._is_stopped:
            piece = await self._run_in_thread(_next, pieces) if reads_file else _next(pieces)
            if piece is None:
                return
            for start in range(0, len(piece), PIECE_OCTETS):  # what is in memory comes as it lies there
                if self._is_paused:
                    self._resumed = Deferred()
                    await self._resumed
                if self._wants_no_more():
                    return
                part = piece[start : start + PIECE_OCTETS]
                for octets in (part,) if self._frame is None else self._frame(part):
                    consumer.write(octets)

    def _wants_no_more(self) -> bool:
        return self._is_stopped

    def pauseProducing(self) -> None:
        """The consumer has enough for now."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """It takes more."""
        self._is_paused = False
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.called:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Nobody takes any more."""
        self._is_stopped = True
        self.resumeProducing()


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
