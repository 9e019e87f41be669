"""The running server's small facts that expire, in `state.db`: greylists, rates, reputation.

Answers come from memory first.  Writes are gathered and reach the disk every few seconds, in a thread, in one transaction, and
nobody waits for a sync: a power loss costs some seconds of greylist, never mail.  Reads and writes have a thread each, which are
nobody else's: a disk that hangs costs those answers that are not in memory, after a deadline.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, maybeDeferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock, NewThreads, Timer
from mailserver.mail.faults import StorageBroken
from mailserver.plugins.awaiting import within
from mailserver.plugins.threads import AllHang
from mailserver.state_store.facts import Fact
from mailserver.state_store.former import FormerState
from mailserver.state_store.own_time import OwnTime
from mailserver.state_store.space import Space
from mailserver.state_store.state_file import (
    Contents,
    close_all,
    contents_of,
    fact_of,
    facts_of,
    open_reading,
    open_writing,
    write,
)

__all__ = ["StateStore"]

SWEEP_SECONDS = 300.0
START_SECONDS = 120.0
STOP_SECONDS = 20.0
READ_SECONDS = 10.0
READS_MOST = 1000  # that wait for the thread

T = TypeVar("T")


class StateStore:
    """`space(name)` is an `IStateStore` of its own; whoever has one reads no other.

    In each space `remembered` facts and `octets_most` octets are kept in memory, the least recently used leave;
    `unwritten_most` is the number of changes that start a write before `write_seconds` have passed, and four times as many wait
    for a disk that takes none.  A space has at most `facts_most` facts in the file; then those that expire first leave.
    `steady` and `boot` are `OwnTime`'s.
    """

    log = Logger()

    def __init__(
        self,
        *,
        path: str,
        clock: Clock,
        new_threads: NewThreads,
        steady: Callable[[], float] | None = None,
        boot: str = "",
        write_seconds: float = 3.0,
        facts_most: int = 1_000_000,
        remembered: int = 50_000,
        octets_most: int = 16 << 20,
        unwritten_most: int = 5_000,
    ) -> None:
        self._path = path
        self._clock = clock
        self._time = OwnTime(wall=clock.seconds, steady=steady, boot=boot)
        self._new_threads = new_threads
        self._write_seconds = write_seconds
        self._facts_most = facts_most
        self._remembered = remembered
        self._octets_most = octets_most
        self._unwritten_most = unwritten_most
        self._spaces: dict[str, Space] = {}
        self._counts: dict[str, int] = {}  # facts in the file, at most; once begun, the writing thread's
        self._told_lost: set[str] = set()
        self._told_gone = False
        self._is_open = False
        self._is_writing = False
        self._reads = 0
        self._reading: apsw.Connection | None = None
        self._writing: apsw.Connection | None = None
        self._blocking: apsw.Connection | None = None
        self._one_write = DeferredLock()
        self._timer: Timer | None = None
        self._swept_at = 0.0

    def space(self, name: str, *, facts_most: int | None = None) -> Space:
        """The facts under this name, an `IStateStore`: always the same one."""
        space = self._spaces.get(name)
        if space is None:
            space = self._spaces[name] = Space(
                name,
                self,
                facts_most=self._facts_most if facts_most is None else facts_most,
                remembered=self._remembered,
                octets_most=self._octets_most,
                unwritten_most=4 * self._unwritten_most,
            )
            if self._counts.get(name):
                space.load(None)
        return space

    def former(self, own: str) -> FormerState:
        """The synchronous store that a plugin of API 0.1 expects; `own` is the space that it would have as one of today."""
        return FormerState(self, own)

    # --- life ---

    async def start(self) -> None:
        """Open or create the file, mode 0600.  Raises `StorageBroken`."""
        self._readers, self._writers = self._new_threads("state.read", 1), self._new_threads("state.write", 1)
        try:
            found = await within(START_SECONDS, self._writers.run(self._open), self._clock)
        except Late:
            raise StorageBroken(f"{self._path} could not be opened within {START_SECONDS:g} seconds") from None
        self._time.go_on_from(found.kept)
        self._counts = found.counts
        for name, space in self._spaces.items():
            space.load(found.small.get(name, {} if not found.counts.get(name) else None))
        self._is_open = True
        if any(space.unwritten for space in self._spaces.values()):
            self._write_later()

    def _open(self) -> Contents:
        writing = open_writing(self._path)
        try:
            reading = open_reading(self._path)
            try:
                found = contents_of(reading, frozenset(self._spaces))
            except BaseException:
                close_all(reading)
                raise
        except apsw.Error as error:
            close_all(writing)
            raise StorageBroken(f"{self._path}: {error}") from error
        except BaseException:
            close_all(writing)
            raise
        self._reading, self._writing = reading, writing
        return found

    async def stop(self) -> None:
        """Write what is not written and close.  A disk that hangs is not waited for longer than `STOP_SECONDS`."""
        self._cancel_timer()
        if not self._is_open:
            return
        self._is_open = False
        reading, self._reading = self._reading, None
        close_all(self._blocking)
        self._blocking = None
        try:
            await within(STOP_SECONDS, self._one_write.run(self._write, last=True), self._clock)
            await within(STOP_SECONDS, self._readers.run(close_all, reading), self._clock)
            # The last one to be closed is the one that may write: it puts SQLite's log into the file.
            writing, self._writing = self._writing, None
            await within(STOP_SECONDS, self._writers.run(close_all, writing), self._clock)
        except (Late, AllHang) as error:
            self.log.error("the state store could not be closed: {path}: {error}", path=self._path, error=error)
        finally:
            self._writers.stop()
            self._readers.stop()

    # --- time ---

    def seconds(self) -> float:
        """The store's own time, in seconds since the epoch, which nobody sets (`OwnTime`): what the facts' ends go by."""
        return self._time.seconds()

    def on_the_wall(self, moment: float) -> float:
        """What the clock on the wall shows at a moment of the own time."""
        return self._time.on_the_wall(moment)

    # --- for the spaces ---

    def changed(self, space: Space) -> None:
        """A space has something to be written."""
        if space.lost and space.name not in self._told_lost:
            self._told_lost.add(space.name)
            self.log.error("{path} takes no changes: the oldest of {space} are lost", path=self._path, space=space.name)
        if not self._is_open:
            return
        if not self._is_writing and (
            space.unwritten >= self._unwritten_most or 4 * space.unwritten_octets >= self._octets_most
        ):
            self._write_soon()
        else:
            self._write_later()

    async def read(self, space: str, key: str) -> Fact | None:
        """The fact in the file.  Raises `StorageBroken`."""
        return await self._read(fact_of, space, key)

    async def read_range(self, space: str, first: str, before: str | None, most: int) -> dict[str, Fact]:
        """Facts in the file that have not expired, by key.  Raises `StorageBroken`."""
        return await self._read(facts_of, space, self.seconds(), first, before, most)

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._reading is None:
            raise StorageBroken(f"{self._path} is closed")
        if self._reads >= READS_MOST:
            raise StorageBroken(f"{self._path}: {self._reads} reads wait already")
        self._reads += 1
        try:
            answer = within(READ_SECONDS, self._readers.run(function, self._reading, *arguments), self._clock)
            return await outlasting(answer.addBoth(self._has_ended))
        except Late:
            raise StorageBroken(f"{self._path}: no answer within {READ_SECONDS:g} seconds") from None
        except (apsw.Error, AllHang) as error:
            raise StorageBroken(f"{self._path}: {error}") from error

    def _has_ended(self, result: T) -> T:
        self._reads -= 1
        return result

    def read_now(self, space: str, key: str) -> Fact | None:
        """As `read`, in this thread, which waits: for plugins of API 0.1.  Raises `StorageBroken`."""
        return self._read_now(fact_of, space, key)

    def read_range_now(self, space: str, first: str, most: int) -> dict[str, Fact]:
        """As `read_range`, in this thread.  Raises `StorageBroken`."""
        return self._read_now(facts_of, space, self.seconds(), first, None, most)

    def _read_now(self, function: Callable[..., T], *arguments: Any) -> T:
        if not self._is_open:
            raise StorageBroken(f"{self._path} is closed")
        if self._blocking is None:
            self._blocking = open_reading(self._path)
        try:
            return function(self._blocking, *arguments)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error

    # --- writing ---

    def _write_later(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(self._write_seconds, self._write_timed)

    def _write_timed(self) -> None:
        self._timer = None
        self._write_soon()

    def _write_soon(self) -> None:
        self._cancel_timer()
        if self._is_open and not self._is_writing:
            self._one_write.run(self._write)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, *, last: bool = False) -> Awaitable[None] | None:
        if self._writing is None:
            return None
        now = self.seconds()
        sweep = not 0 <= now - self._swept_at < SWEEP_SECONDS
        spaces = [space for space in self._spaces.values() if space.unwritten]
        if not (spaces or sweep or last):
            return None
        if sweep:
            self._swept_at = now
        self._is_writing = True
        work = functools.partial(
            self._write_file,
            self._writing,
            {space.name: space.begin_write() for space in spaces},
            self._time.reading(),
            counts=self._counts,
            bounds={space.name: space.facts_most for space in spaces},
            sweep=sweep,
        )
        done: Deferred[Any] = maybeDeferred(self._writers.run, work)
        return done.addCallbacks(self._written, self._not_written, callbackArgs=(spaces,), errbackArgs=(spaces,))

    def _write_file(self, connection: apsw.Connection, *arguments: Any, **named: Any) -> list[str]:
        """In the thread."""
        full = write(connection, *arguments, **named)
        if named["sweep"] and not self._told_gone and not os.path.exists(self._path):
            self._told_gone = True
            self.log.error("{path} was taken away while it was in use: what is kept now is gone with a restart", path=self._path)
        return full

    def _written(self, full: list[str], spaces: list[Space]) -> None:
        self._is_writing = False
        self._told_lost.clear()
        for name in full:
            self.log.warn("the state store has no more room for facts of {space}: the oldest leave", space=name)
        for space in spaces:
            space.written()
            space.lost = 0
        if self._is_open and any(space.unwritten for space in self._spaces.values()):
            self._write_later()

    def _not_written(self, failure: Failure, spaces: list[Space]) -> None:
        """Keep it all for the next time, as far as it is not newer already; each space's bound holds by forgetting the oldest."""
        self._is_writing = False
        if not failure.check(CancelledError):  # the end waits no longer, and says so
            self.log.failure("the state store could not write; it tries again", failure)
        for space in spaces:
            space.not_written()
        if self._is_open:
            self._write_later()


def outlasting(answer: Deferred[T]) -> Deferred[T]:
    """The answer.  Who cancels this waits no longer, and that is all: a call that was cancelled would count as one that hangs."""

    def pass_on(result: Any) -> None:
        if not waiting.called:
            waiting.callback(result)

    waiting: Deferred[T] = Deferred()
    answer.addBoth(pass_on)
    return waiting
