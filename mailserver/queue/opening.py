"""The queue's file at the start and at the end: is it there, is it whole, was it closed in order.

The mark beside the file (`mark.End`) tells a kill from what a person may do to the files of a stopped server.  It is written at
these moments:

* RUNNING, when the store is open.  Not before: a start that fails leaves the mark as it was.
* CLOSING, before the store is closed.  SQLite removes its log as it closes.  A kill after that, with RUNNING still there, would
  look like a log that somebody has removed.
* CLOSED, after it.  Only then may the next start rely on the file without looking through it.
* CHANGED in its place, where a check was still under way or damage has been found: closed in order, and yet to be looked through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.queue.checkup import SHORT_OCTETS, Checkup, fault_in
from mailserver.queue.commit import CommitWriter
from mailserver.queue.health import Health
from mailserver.queue.mark import End, has_lost_log, required_files, write_mark
from mailserver.queue.store import PAGE_OCTETS

__all__ = ["Opening"]


class Opening:
    """Opens the store for a server.  `read(function, *args)` runs in a thread; `sound()` is called when a check that went on
    beside the mail has found nothing.
    """

    log = Logger()

    def __init__(
        self,
        *,
        directory: str,
        path: str,
        writer: CommitWriter,
        health: Health,
        read: Callable[..., Deferred[Any]],
        call_from_thread: Callable[..., Any],
        sound: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._path = path
        self._writer = writer
        self._health = health
        self._read = read
        self._sound = sound
        self._checkup = Checkup(path=path, call_from_thread=call_from_thread, ended=self._checked)
        self._is_open = False
        self.is_new = False

    async def open(self) -> None:
        """Open the store; where its last end was not in order, look through it, before mail is taken if that is quick.

        Raises `StorageFault` (`QueueGone` where the file of an earlier queue is not there) and OSError.
        """
        mark, octets = await self._read(required_files, self._directory)
        if await self._read(has_lost_log, self._directory, mark):
            self.log.critical(
                "{path}-wal has been removed since the server ended: what was acknowledged shortly before the end may be lost",
                path=self._path,
            )
        await self._writer.start(must_exist=not may_be_new(mark, octets), in_order=mark is End.CLOSED)
        self.is_new = self._writer.has_made_store
        await self._read(write_mark, self._directory, End.RUNNING)
        self._is_open = True
        if self.is_new or mark is End.CLOSED:
            return
        if octets > SHORT_OCTETS:
            self.log.info("the server did not end in order: the queue's file is looked through beside the mail")
            self._checkup.start()
            return
        fault = await self._read(fault_in, self._path)
        if fault:
            self._health.found_damage(fault)

    @property
    def is_sound(self) -> bool:
        """As far as anybody knows: what the store does not know of may be removed from the spool."""
        return not (self.is_new or self._checkup.is_running or self._health.damage)

    def stop(self) -> None:
        """Check no longer."""
        self._checkup.stop()

    async def closing(self) -> None:
        """The store is closed next, which takes its log away: a kill in between must not look as if a person had done that."""
        if not self._is_in_doubt:
            await self._write_down(End.CLOSING)

    async def closed(self, left: int = 0) -> None:
        """The store is closed; the next start may rely on it, or has to look through it once more.

        `left` messages that were answered with an error are still in it (`SqliteStore.end`).
        """
        if left:
            self.log.warn("{count} messages that were answered with an error could not be taken out of the queue", count=left)
        await self._write_down(End.CHANGED if self._is_in_doubt else End.CLOSED)

    @property
    def _is_in_doubt(self) -> bool:
        return bool(self._checkup.is_running or self._health.damage)

    async def _write_down(self, end: End) -> None:
        if self._is_open:
            try:
                await self._read(write_mark, self._directory, end)
            except OSError as error:
                self.log.error("the queue is closed, but that cannot be written down: {why}", why=error)

    def _checked(self, fault: str) -> None:
        if fault:
            self._health.found_damage(fault)
        else:
            self.log.info("the queue's file has been looked through; nothing is wrong with it")
            self._sound()


def may_be_new(mark: End | None, octets: int) -> bool:
    """There has been no queue, as far as this tells.

    The first start may have ended (it was killed, the disk was full) when it had begun the file: then that is a page in which
    nothing stands, and there is no mark.
    """
    return not octets or (mark is None and octets == PAGE_OCTETS)
