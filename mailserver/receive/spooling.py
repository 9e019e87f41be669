"""Takes in the octets of a message: in memory while it is small, in a file of the spool once it is not.

The file is written by a thread in large pieces.  While a piece is on its way and the next is full, `pause` stops the
peer: a connection never holds more than two pieces, and all connections together no more than their `SpoolBudget` allows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.mail.content import Content
from mailserver.mail.durable import sync_directory

__all__ = ["SpoolBudget", "Spooling"]

log = Logger()

PIECE_OCTETS = 262_144
SMALL_OCTETS = 65_536


class SpoolBudget:
    """What all incoming messages share: how much one may hold in memory, and how much all of them hold now."""

    __slots__ = ("all_octets_most", "octets", "one_octets_most", "run_in_thread")

    def __init__(
        self, *, one_octets_most: int, all_octets_most: int, run_in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self.octets = 0
        self.one_octets_most = one_octets_most
        self.all_octets_most = all_octets_most
        self.run_in_thread = run_in_thread


class Spooling:
    """The content of one message as it comes in.  `path` is where it goes if it grows large."""

    # Most messages stay small and never set these.
    _file: int | None = None  # open from the first octet too many to the end
    # A thread has the descriptor.  `abandon` must not close it then: the number could be another file's by the time the thread
    # writes.  It notes an error, and `_written` closes and removes the file.
    _writing = False
    _paused = False  # the peer is stopped; set apart from `_writing`, since most pieces are written before the next is full
    # Of the disk, or "abandoned".  It comes amid the data, when no reply can be given: `finish` raises it.  What the peer sends
    # until then is counted, for the limit of the size, and forgotten.
    _error: Failure | None = None
    _finished: Deferred[None] | None = None  # `finish` waits for the piece that a thread writes

    def __init__(self, *, path: str, spool: SpoolBudget, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.size = 0
        self._path = path
        self._spool = spool
        self._pause = pause
        self._resume = resume
        self._pieces: list[bytes] = []
        self._waiting_octets = 0

    def write(self, data: bytes) -> None:
        """Take the next octets.  Never waits; an error of the disk is kept for `finish`."""
        self.size += len(data)
        if self._error is not None:
            return
        self._pieces.append(data)
        self._waiting_octets += len(data)
        spool = self._spool
        spool.octets += len(data)
        if self._file is None:
            crowded = spool.octets > spool.all_octets_most and self.size > SMALL_OCTETS
            if self.size <= spool.one_octets_most and not crowded:
                return
            self._open()
        if self._waiting_octets < PIECE_OCTETS:
            return
        if not self._writing:
            self._write_out()
        elif not self._paused:
            self._paused = True
            self._pause()

    async def finish(self, *, binary: bool) -> Content:
        """The content, durable where it is a file (file and directory are synced).  Raises OSError."""
        if self._file is None and self._error is None:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            return Content.of(data, binary=binary)
        if self._writing:
            self._finished = Deferred()
            await self._finished
        if self._error is None and self._file is not None:
            pieces, self._pieces = self._pieces, []
            file, self._file = self._file, None
            try:
                await self._spool.run_in_thread(_complete, file, pieces, self._path)
            except OSError:
                self._error = Failure()
            self._forget()
        if self._error is not None:  # who noted it has left nothing behind
            self._error.raiseException()
        return Content.at(self._path, self.size, binary=binary)

    def release(self) -> None:
        """The content has gone elsewhere or is no longer wanted: its octets no longer count."""
        self._spool.octets -= self._waiting_octets
        self._waiting_octets = 0
        self._pieces = []

    def abandon(self) -> None:
        """The message does not come to anything: leave nothing behind."""
        self.release()
        if self._writing:  # `_written` comes back here
            if self._error is None:
                self._error = Failure(OSError("abandoned"))
            return
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._unlink()

    def discard_file(self) -> None:
        """A finished file is not wanted after all (the message was refused)."""
        self._unlink()

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            self._error = Failure()
            self.release()

    def _write_out(self) -> None:
        if self._file is None:
            return
        pieces, self._pieces = self._pieces, []
        octets, self._waiting_octets = self._waiting_octets, 0
        self._writing = True
        writing = self._spool.run_in_thread(_write_all, self._file, pieces)
        writing.addBoth(self._written, octets)

    def _written(self, result: object, octets: int) -> None:
        self._writing = False
        self._spool.octets -= octets
        if isinstance(result, Failure):
            self._error = self._error or result
        if self._error is not None:
            self.abandon()
        elif self._waiting_octets >= PIECE_OCTETS:
            self._write_out()
        if self._finished is not None and not self._writing:
            finished, self._finished = self._finished, None
            finished.callback(None)
        if self._paused:
            self._paused = False
            self._resume()

    def _forget(self) -> None:
        self._spool.octets -= self._waiting_octets
        self._waiting_octets = 0

    def _unlink(self) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError:  # the peer's answer does not hang on it; the queue removes files without a message when it starts
            log.failure("{path} cannot be removed", path=self._path)


def _write_all(file: int, pieces: list[bytes]) -> None:
    view = memoryview(b"".join(pieces))
    while view:
        view = view[os.write(file, view) :]


def _complete(file: int, pieces: list[bytes], path: str) -> None:
    """Write the rest, make the file and its name durable.  A file whose sync failed is not trusted again."""
    try:
        try:
            _write_all(file, pieces)
            os.fsync(file)
        finally:
            os.close(file)
        sync_directory(os.path.dirname(path))
    except OSError:
        os.unlink(path)
        raise
