"""Content on its way to the socket: piece by piece, as fast as the other side reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.mail.content import Content

__all__ = ["FileStream"]

PIECE_OCTETS = 262_144  # one read in a thread


@implementer(IPullProducer)
class FileStream:
    """Sends a message from a file (a pull producer).  A thread reads the next piece when the transport has written the last.

    `write(piece)` is called with each piece, `ended()` after the last, `failed(failure)` where the file cannot be read.
    """

    def __init__(
        self,
        content: Content,
        *,
        run_in_thread: Callable[..., Any],
        write: Callable[[bytes], None],
        ended: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._pieces: Iterator[bytes] = content.chunks(PIECE_OCTETS)
        self._run_in_thread = run_in_thread
        self._write = write
        self._ended = ended
        self._failed = failed
        self._reading = False
        self.stopped = False

    def resumeProducing(self) -> None:
        """The transport has room for the next piece."""
        if not (self._reading or self.stopped):
            self._reading = True
            maybeDeferred(self._run_in_thread, next, self._pieces, None).addCallbacks(self._read, self._not_read)

    def stopProducing(self) -> None:
        """Send no more: the connection has ended."""
        self.stopped = True

    def _read(self, piece: bytes | None) -> None:
        self._reading = False
        if self.stopped:
            return
        if piece is None:
            self.stopped = True
            self._ended()
        else:
            self._write(piece)

    def _not_read(self, failure: Failure) -> None:
        self._reading = False
        if not self.stopped:
            self.stopped = True
            self._failed(failure)
