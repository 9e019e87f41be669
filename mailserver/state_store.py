"""Small expiring facts in SQLite: greylists, rates, reputation (`IStateStore`).

Answers come from memory first.  Writes are gathered and reach the disk every few seconds, in a thread, in one transaction, and
nobody waits for a sync: a power loss costs some seconds of greylist, never mail.  What does not fit into memory is read back from
the file, by key.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import Clock, IStateStore
from mailserver.mail.faults import StorageBroken

__all__ = ["StateStore", "StoppedState"]

SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE fact (space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires REAL NOT NULL,"
    " PRIMARY KEY (space, key)) WITHOUT ROWID",
    "CREATE INDEX fact_expires ON fact (expires)",
)
SWEEP_SECONDS = 300.0
SWEEP_ROWS = 5000  # removed at once
BUSY_MILLISECONDS = 1000
ITEMS_MOST = 100_000

Key = tuple[str, str]
Fact = tuple[bytes, float]  # value, when it expires (seconds since the epoch)


@implementer(IStateStore)
class StateStore:
    """`state.db` in the data directory.

    `remembered` facts are kept in memory, the least recently used leave first; `unwritten_most` is the number of changes that
    start a write before `write_seconds` have passed.  `run_in_thread(function, *args)` returns a Deferred.
    """

    log = Logger()

    def __init__(
        self,
        *,
        path: str,
        clock: Clock,
        run_in_thread: Callable[..., Any],
        write_seconds: float = 3.0,
        remembered: int = 50_000,
        unwritten_most: int = 5_000,
    ) -> None:
        self._path = path
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._write_seconds = write_seconds
        self._remembered = remembered
        self._unwritten_most = unwritten_most
        self._memory: OrderedDict[Key, Fact | None] = OrderedDict()  # None: known to be absent
        self._unwritten: dict[Key, Fact | None] = {}
        self._in_flight: dict[Key, Fact | None] = {}
        self._reading: apsw.Connection | None = None
        self._writing: apsw.Connection | None = None
        self._one_write = DeferredLock()
        self._timer: Any = None
        self._swept_at = 0.0

    # --- life ---

    async def start(self) -> None:
        """Open or create the file, mode 0600.  Raises `StorageBroken`."""
        self._writing, self._reading = await self._run_in_thread(open_both, self._path)

    async def stop(self) -> None:
        """Write what is not written and close."""
        self._cancel_timer()
        try:
            await self._one_write.run(self._write)
        finally:
            connections = (self._reading, self._writing)
            self._reading = self._writing = None
            await self._run_in_thread(close_all, connections)

    # --- IStateStore ---

    def get(self, space: str, key: str) -> bytes | None:
        """The value, None where there is none or it has expired."""
        place = (space, key)
        memory = self._memory
        if place in memory:
            memory.move_to_end(place)
            fact = memory[place]
        else:
            fact = self._look_up(place)
            self._remember(place, fact)
        if fact is None or fact[1] <= self._clock.seconds():
            return None
        return fact[0]

    def put(self, space: str, key: str, value: bytes, lifetime_seconds: float) -> None:
        """Keep the value; it reaches the disk within seconds.

        Raises TypeError or ValueError for what no row can hold: it would keep all that is written with it from the disk.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"a fact is bytes, not {type(value).__name__}")
        expires = self._clock.seconds() + lifetime_seconds
        if expires != expires:  # NaN
            raise ValueError("a lifetime is a number of seconds")
        self._change((space, key), (value, expires))

    def drop(self, space: str, key: str) -> None:
        """Forget it."""
        self._change((space, key), None)

    def items(self, space: str) -> list[tuple[str, bytes, float]]:
        """What has not expired, by key; at most 100,000 of them.  Raises `StorageBroken`."""
        now = self._clock.seconds()
        found: dict[str, Fact | None] = {}
        if self._reading is not None:
            try:
                found = facts_of(self._reading, space, now)
            except apsw.Error as error:
                raise StorageBroken(f"{self._path}: {error}") from error
        for pending in (self._in_flight, self._unwritten):
            found |= {key: fact for (place, key), fact in pending.items() if place == space}
        alive = [(key, *fact) for key, fact in sorted(found.items()) if fact is not None and fact[1] > now]
        return alive[:ITEMS_MOST]

    # --- memory ---

    def _change(self, place: Key, fact: Fact | None) -> None:
        for text in place:
            text.encode()  # ValueError for a lone surrogate
        self._remember(place, fact)
        self._unwritten[place] = fact
        if len(self._unwritten) >= self._unwritten_most and not self._in_flight:
            self._write_soon()
        elif self._timer is None and self._writing is not None:
            self._timer = self._clock.callLater(self._write_seconds, self._write_timed)

    def _remember(self, place: Key, fact: Fact | None) -> None:
        self._memory[place] = fact
        self._memory.move_to_end(place)
        if len(self._memory) > self._remembered:
            self._memory.popitem(last=False)

    def _look_up(self, place: Key) -> Fact | None:
        for pending in (self._unwritten, self._in_flight):
            if place in pending:
                return pending[place]
        if self._reading is None:
            return None
        try:
            rows = self._reading.execute("SELECT value, expires FROM fact WHERE space = ? AND key = ?", place)
            row: Any = next(iter(rows), None)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error
        return None if row is None else (row[0], row[1])

    # --- writing ---

    def _write_timed(self) -> None:
        self._timer = None
        self._write_soon()

    def _write_soon(self) -> None:
        self._cancel_timer()
        if self._writing is not None:
            self._one_write.run(self._write)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self) -> Deferred[None] | None:
        if self._writing is None:
            return None
        now = self._clock.seconds()
        sweep = not 0 <= now - self._swept_at < SWEEP_SECONDS
        if not self._unwritten and not sweep:
            return None
        if sweep:
            self._swept_at = now
        self._in_flight, self._unwritten = self._unwritten, {}
        arguments = (write, self._writing, self._in_flight, now if sweep else None)
        done: Deferred[None] = maybeDeferred(self._run_in_thread, *arguments)
        return done.addCallbacks(self._written, self._not_written)

    def _written(self, _: None) -> None:
        self._in_flight = {}

    def _not_written(self, failure: Failure) -> None:
        """Keep it all for the next time, as far as it is not newer already; the bound holds by forgetting the oldest."""
        self.log.failure("the state store could not write; it tries again", failure)
        kept = {**self._in_flight, **self._unwritten}
        for place in list(kept)[: max(0, len(kept) - 4 * self._unwritten_most)]:
            del kept[place]
        self._in_flight, self._unwritten = {}, kept
        if self._timer is None and self._writing is not None:
            self._timer = self._clock.callLater(self._write_seconds, self._write_timed)


@implementer(IStateStore)
class StoppedState:
    """The same file while no server runs: for the command line.  Each change is written at once.

    `opened` returns None where there is no file yet; all methods raise `StorageBroken`.
    """

    def __init__(self, path: str, connection: apsw.Connection, seconds: Callable[[], float]) -> None:
        self._path = path
        self._connection = connection
        self._seconds = seconds

    @classmethod
    @contextmanager
    def opened(cls, path: str, seconds: Callable[[], float] = time.time) -> Iterator[StoppedState | None]:
        """The file, closed at the end."""
        if not os.path.exists(path):
            yield None
            return
        writing, reading = open_both(path)
        try:
            yield cls(path, writing, seconds)
        finally:
            close_all((reading, writing))

    def get(self, space: str, key: str) -> bytes | None:
        """The value, None where there is none or it has expired."""
        sql = "SELECT value FROM fact WHERE space = ? AND key = ? AND expires > ?"
        row = self._do(lambda to: to.execute(sql, (space, key, self._seconds())).fetchone())
        return None if row is None else row[0]

    def put(self, space: str, key: str, value: bytes, lifetime_seconds: float) -> None:
        """Keep the value."""
        self._do(lambda to: write(to, {(space, key): (value, self._seconds() + lifetime_seconds)}, None))

    def drop(self, space: str, key: str) -> None:
        """Forget it."""
        self._do(lambda to: write(to, {(space, key): None}, None))

    def items(self, space: str) -> list[tuple[str, bytes, float]]:
        """What has not expired, by key; at most 100,000 of them."""
        found = self._do(lambda to: facts_of(to, space, self._seconds()))
        return [(key, *fact) for key, fact in found.items()]

    def _do(self, work: Callable[[apsw.Connection], Any]) -> Any:
        try:
            return work(self._connection)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error


def open_both(path: str) -> tuple[apsw.Connection, apsw.Connection]:
    """A writing and a reading connection; blocks."""
    try:
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        writing = apsw.Connection(path)
        writing.set_busy_timeout(BUSY_MILLISECONDS)
        writing.pragma("journal_mode", "wal")
        writing.pragma("synchronous", "NORMAL")  # consistent after a power loss, short of the last seconds
        version = writing.pragma("user_version")
        if version > SCHEMA_VERSION:
            raise StorageBroken(f"{path} was written by a later release (schema {version})")
        if version == 0:
            with writing:
                for statement in SCHEMA:
                    writing.execute(statement)
                writing.pragma("user_version", SCHEMA_VERSION)
        reading = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        reading.set_busy_timeout(BUSY_MILLISECONDS)
    except (apsw.Error, OSError) as error:
        raise StorageBroken(f"{path}: {error}") from error
    return writing, reading


def close_all(connections: tuple[apsw.Connection | None, ...]) -> None:
    """Close them; blocks."""
    for connection in connections:
        if connection is not None:
            connection.close(True)


def facts_of(connection: apsw.Connection, space: str, now: float) -> dict[str, Any]:
    """Key, value and end of what has not expired, by key; blocks."""
    sql = "SELECT key, value, expires FROM fact WHERE space = ? AND expires > ? ORDER BY key LIMIT ?"
    return {key: (value, expires) for key, value, expires in connection.execute(sql, (space, now, ITEMS_MOST))}


def write(connection: apsw.Connection, facts: dict[Key, Fact | None], expired_before: float | None) -> None:
    """One transaction for all the changes, and a part of what has expired; blocks."""
    kept = [(space, key, *fact) for (space, key), fact in facts.items() if fact is not None]
    dropped = [place for place, fact in facts.items() if fact is None]
    with connection:
        if kept:
            connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?, ?, ?)", kept)
        if dropped:
            connection.executemany("DELETE FROM fact WHERE space = ? AND key = ?", dropped)
        if expired_before is not None:
            connection.execute(
                "DELETE FROM fact WHERE (space, key) IN"
                " (SELECT space, key FROM fact INDEXED BY fact_expires WHERE expires <= ? ORDER BY expires LIMIT ?)",
                (expired_before, SWEEP_ROWS),
            )
