"""A writer with somebody beside it who looks at the clock.

A disk that hangs keeps whoever writes to it, and no deadline changes that.  So each piece of work has its time; then the writer
is given up, and what it had in hand comes again later.  Where too many have been given up, the disk counts as down: mail is
deferred at once, and after a pause the next batch finds out how things are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.delivery import errno_outcomes
from mailserver.delivery.batch_format import BatchMessage, BatchReport, CopyResult, touched_of
from mailserver.delivery.batch_frames import Frame, frames
from mailserver.delivery.durability import Touched
from mailserver.interfaces import Clock
from mailserver.mail.until import still_holds

__all__ = ["WatchedWriter", "BatchWriter"]

FRAME_SECONDS = 60.0  # for a frame, and beside that
SLOWEST_OCTETS_PER_SECOND = 1024 * 1024
SLOWEST_SYNC_SECONDS = 1.0
BATCH_SECONDS = 120.0  # after which no frame is begun; the queue waits 300 seconds for all of them
MISSED_MOST = 3  # deadlines one after the other
PAUSE_SECONDS = 60.0


class BatchWriter(Protocol):
    """Writes messages, one call at a time.  A call that is cancelled is given up, and counts as hanging until it has ended."""

    @property
    def hanging(self) -> int: ...

    @property
    def hanging_most(self) -> int:
        """With so many nothing is written."""

    async def write(self, messages: list[BatchMessage]) -> BatchReport:
        """Raises OSError where the writer itself has a fault."""

    async def close(self) -> None: ...


class WatchedWriter:
    """`writer` with deadlines of `clock`."""

    log = Logger()

    def __init__(self, *, writer: BatchWriter, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        # Deadlines in a row.  `hanging` alone would not do: a writer that is killed in time does not hang any more, and a disk
        # on which each one ends after its deadline would get one new process after the other.
        self._missed = 0
        self._next_try = 0.0  # after so many of them: one batch at that time finds out how things are, the others are deferred
        self._told = False  # one line in the log when it goes down, one when it is back, however many batches come meanwhile

    async def write(self, messages: Sequence[BatchMessage]) -> tuple[list[list[CopyResult]], Touched]:
        """The results of each message, and what has to be synced.  One call at a time; raises nothing but CancelledError."""
        results: list[list[CopyResult]] = [[] for _ in messages]
        touched = Touched()
        end = self._clock.seconds() + BATCH_SECONDS
        why = ""
        for frame in frames(messages):
            why = why or self._hindrance(end) or await self._write(frame, results, touched)
            if why:
                for number, message in zip(frame.numbers, frame.messages, strict=True):
                    results[number] += [(copy.destination, errno_outcomes.NO_ERRNO, why) for copy in message.copies]
        return results, touched

    async def close(self) -> None:
        """End the writer."""
        await self._writer.close()

    def _hindrance(self, end: float) -> str:
        """Why nothing can be written now; "" where it can be tried."""
        now = self._clock.seconds()
        if now >= end:
            return "the mailbox disk is slow, and the messages before this one took its time"
        hanging = self._writer.hanging
        pauses = self._missed >= MISSED_MOST and still_holds(self._next_try, now, PAUSE_SECONDS)
        if hanging < self._writer.hanging_most and not pauses:
            return ""
        if not self._told:
            self._told = True
            self.log.critical(
                "the mailbox disk does not answer ({hanging} writers hang): until a try succeeds, its mail is deferred",
                hanging=hanging,
            )
        return "the mailbox disk does not answer"

    async def _write(self, frame: Frame, results: list[list[CopyResult]], touched: Touched) -> str:
        """Have one frame written.  Returns what hindered it, "" for nothing."""
        seconds = FRAME_SECONDS + frame.octets / SLOWEST_OCTETS_PER_SECOND + frame.synced * SLOWEST_SYNC_SECONDS
        answer = Deferred.fromCoroutine(self._writer.write(frame.messages))
        answer.addTimeout(seconds, self._clock)  # type: ignore[arg-type]
        try:
            report = await answer
        except (Late, CancelledError) as error:
            self._missed += 1
            self._next_try = self._clock.seconds() + PAUSE_SECONDS
            self.log.error("writing into the mailboxes hangs: the writer is given up, its messages are tried again")
            if isinstance(error, CancelledError):
                raise
            return f"the mailbox disk did not answer within {seconds:.0f} seconds"
        except OSError as error:
            self.log.error("messages could not be written: {error}", error=error)
            return str(error)
        self._missed = 0
        if self._told:
            self._told = False
            self.log.warn("the mailbox disk answers again")
        for number, found in zip(frame.numbers, report.results, strict=True):
            results[number] += found
        touched.add(touched_of(report))
        return ""
