"""The road of each message, kept for `mailserver explain`.

It is an SQLite file of its own, ``explain.db``.  It is written in batches, one statement each, and never synced: if a power
failure destroys some of it, or even all, no mail is lost.  A damaged file is put aside and a new one begun.

A row holds what one batch had of one id: ``[[time, step, fields], …]`` as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import apsw

from mailserver.mail.dns_road import STEP, is_dns_road, road_of

__all__ = [
    "AmbiguousId",
    "DnsOfThen",
    "RoadStore",
    "RoadsUnreadable",
    "Step",
    "UnknownId",
    "opened_for_reading",
    "read_road",
    "roads_since",
    "steps_of",
]

PREFIX_CHARACTERS = 6
CANDIDATES = 10
PAGE = 1000  # rows read at once
DELETED_AT_LEAST = 100  # a batch deletes up to so many rows, or up to twice its own rows where that is more
WAL_OCTETS = 16 * 1024 * 1024
BUSY_MILLISECONDS = 2000
DAY_SECONDS = 86_400
AHEAD_SECONDS = DAY_SECONDS  # a time further ahead than this lies in the future

CREATE = """
    CREATE TABLE IF NOT EXISTS road (number INTEGER PRIMARY KEY, id TEXT NOT NULL, time REAL NOT NULL, steps TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS road_id ON road (id);
    CREATE INDEX IF NOT EXISTS road_time ON road (time);
"""
INSERT = "INSERT INTO road (id, time, steps) SELECT value->>0, value->>1, value->2 FROM json_each(?)"
OLDEST = "SELECT min(time) FROM road"
DELETE = "DELETE FROM road WHERE number IN (SELECT number FROM road WHERE time < ? ORDER BY time LIMIT ?) RETURNING number"
DELETE_AHEAD = "DELETE FROM road WHERE number IN (SELECT number FROM road WHERE time > ? AND number < ? LIMIT ?)"
DELETE_ANY = "DELETE FROM road WHERE number IN (SELECT number FROM road ORDER BY number LIMIT ?)"
DAMAGED = (apsw.CorruptError, apsw.NotADBError)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a road: `time` in seconds since the epoch, `id` of the message or connection."""

    time: float
    id: str
    step: str
    fields: dict[str, Any] = field(default_factory=dict)


class UnknownId(LookupError):
    """No road is known under this id or beginning of one."""


class AmbiguousId(LookupError):
    """Several ids begin like this; `candidates` are some of them."""

    def __init__(self, prefix: str, candidates: tuple[str, ...]) -> None:
        super().__init__(f"{prefix} is the beginning of several ids: {', '.join(candidates)}")
        self.candidates = candidates


class RoadsUnreadable(Exception):
    """The file is missing, damaged or closed to this user."""


class RoadStore:
    """The writer of the roads; used by one thread at a time.

    Rows older than `retention_seconds` are deleted, and the oldest ones when the file is larger than `octets_max`.  Each batch
    deletes a bounded number of rows, more than it adds.  Each row is judged by its own time.  A row from the future was written
    while the clock was ahead: it is deleted with the first later row whose time is over.
    """

    def __init__(
        self, path: str, *, retention_seconds: float = 30 * DAY_SECONDS, octets_max: int = 4 * 1024**3
    ) -> None:
        self._path = path
        self._retention_seconds = retention_seconds
        self._octets_max = octets_max
        self._connection: apsw.Connection | None = None
        self._oldest = 0.0  # a lower bound for the time of nearly all rows
        self.put_aside = ""
        """Where a damaged file was moved to; empty where nothing was wrong."""

    def add(self, batch: str, rows: int, now: float) -> None:
        """Store `rows` rows, given as a JSON array of ``[id, time, steps]``.  Raises `apsw.Error` and OSError."""
        try:
            self._add(batch, rows, now)
        except DAMAGED:
            self._put_aside(now)
            self._add(batch, rows, now)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _add(self, batch: str, rows: int, now: float) -> None:
        connection = self._connection or self._opened()
        connection.execute(INSERT, (batch,))
        self._forget(connection, rows, now)

    def _opened(self) -> apsw.Connection:
        os.close(
            os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        )  # SQLite gives its -wal the same mode
        connection = apsw.Connection(self._path)
        try:
            connection.set_busy_timeout(BUSY_MILLISECONDS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_OCTETS}")
            connection.execute(CREATE)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _forget(self, connection: apsw.Connection, rows: int, now: float) -> None:
        """Delete a bounded number of rows, where some are due."""
        expired, most = now - self._retention_seconds, max(DELETED_AT_LEAST, 2 * rows)
        if self._octets(connection) > self._octets_max:
            connection.execute(DELETE_ANY, (most,))
        self._oldest = min(self._oldest, now)
        if self._oldest >= expired:
            return
        gone = [number for (number,) in connection.execute(DELETE, (expired, most))]
        if gone:
            connection.execute(DELETE_AHEAD, (now + AHEAD_SECONDS, max(gone), most))
        if len(gone) < most:
            oldest = connection.execute(OLDEST).get
            self._oldest = now if oldest is None else min(now, oldest)

    def _octets(self, connection: apsw.Connection) -> int:
        """The octets in use, without those left free by deleted rows."""
        pages, free, page_octets = connection.execute(
            "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        ).get
        return int((pages - free) * page_octets)

    def _put_aside(self, now: float) -> None:
        self.close()
        self.put_aside = f"{self._path}.damaged-{int(now)}"
        os.replace(self._path, self.put_aside)
        for ending in ("-wal", "-shm"):
            try:
                os.unlink(self._path + ending)
            except FileNotFoundError:
                pass


def read_road(path: str, id: str) -> list[Step]:
    """All steps of a message with those of its connection, in the order of time; or those of a connection.

    `id` is an id or its first six characters or more, in upper or lower case.  A server may be writing to the file at `path`.
    Raises `UnknownId`, `AmbiguousId`, `RoadsUnreadable`.
    """
    try:
        connection = opened_for_reading(path)
        try:
            id = _whole_id(connection, id.strip())
            steps = steps_of(connection, id)
            connections = {step.fields.get("connection") for step in steps} - {id}
            for other in sorted(one for one in connections if isinstance(one, str)):
                steps += steps_of(connection, other)
        finally:
            connection.close()
    except (apsw.Error, ValueError) as error:
        raise RoadsUnreadable(f"{path}: {error}") from error
    return sorted(steps, key=lambda step: step.time)


def opened_for_reading(path: str) -> apsw.Connection:
    """Open the file; a server may be writing to it.  Raises `RoadsUnreadable` where it is missing, and `apsw.Error`."""
    if not os.path.exists(path):
        raise RoadsUnreadable(f"{path} does not exist: no mail has come here yet")
    if not any(os.path.exists(path + ending) for ending in ("-wal", "-shm")):  # nobody writes: SQLite need make no files either
        return _opened_as_it_is(path)
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute("SELECT 1 FROM road LIMIT 1").fetchone()
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        # No server runs, and this user may not make the file that readers share: then nobody writes.
        connection.close()
        return _opened_as_it_is(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _opened_as_it_is(path: str) -> apsw.Connection:
    address = f"file:{quote(os.path.abspath(path))}?immutable=1"
    return apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def roads_since(path: str, since: float) -> Iterator[tuple[str, list[Step]]]:
    """Each message that came, or was refused, since then (seconds since the epoch), with the steps of its connection.

    Blocks; reads the whole file.  Raises `RoadsUnreadable`.
    """
    connection: apsw.Connection | None = None
    try:
        connection = opened_for_reading(path)
        seen: set[str] = set()
        number = 0
        while rows := _page_since(connection, since, number):
            number = rows[-1][0]
            for _, id in rows:
                if id in seen or is_dns_road(id):
                    continue
                seen.add(id)
                steps = steps_of(connection, id)
                if any(step.step in ("accepted", "refused") for step in steps):
                    others = {step.fields.get("connection") for step in steps} - {id}
                    for other in sorted(one for one in others if isinstance(one, str)):
                        steps = steps_of(connection, other) + steps
                    yield id, steps
    except (apsw.Error, ValueError) as error:
        raise RoadsUnreadable(f"{path}: {error}") from error
    finally:
        if connection is not None:
            connection.close()


class DnsOfThen:
    """What the DNS had said of a name at a moment, by the roads.  Raises `RoadsUnreadable`."""

    def __init__(self, path: str) -> None:
        try:
            self._connection = opened_for_reading(path)
        except apsw.Error as error:
            raise RoadsUnreadable(f"{path}: {error}") from error

    def answer(self, name: str, record_type: str, moment: float) -> dict[str, Any] | None:
        """The newest answer of then, as it was written down; None where there is none."""
        try:
            steps = steps_of(self._connection, road_of(name))
        except (apsw.Error, ValueError):
            return None
        for step in reversed(steps):
            parts = step.fields.get("answer")
            if step.step == STEP and step.time <= moment and step.fields.get("type") == record_type and isinstance(parts, list):
                try:
                    found = json.loads("".join(map(str, parts)))
                except ValueError:
                    continue
                if isinstance(found, dict):
                    return found
        return None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _page_since(connection: apsw.Connection, since: float, number: int) -> list[Any]:
    return connection.execute(
        "SELECT number, id FROM road WHERE time >= ? AND number > ? ORDER BY number LIMIT ?", (since, number, PAGE)
    ).fetchall()


def _whole_id(connection: apsw.Connection, id: str) -> str:
    if not id.isascii():
        raise UnknownId(f"no road is known for {id!r}: it is not an id")
    for exact in (id, id.upper()):
        if connection.execute("SELECT 1 FROM road WHERE id = ? LIMIT 1", (exact,)).fetchone():
            return exact
    if len(id) < PREFIX_CHARACTERS:
        raise UnknownId(f"no road is known for {id!r}; the beginning of an id needs {PREFIX_CHARACTERS} characters")
    start = id.upper()
    end = start[:-1] + chr(ord(start[-1]) + 1)
    rows = connection.execute(
        "SELECT DISTINCT id FROM road WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (start, end, CANDIDATES)
    )
    found = tuple(str(row[0]) for row in rows)
    if not found:
        raise UnknownId(f"no road is known for {id!r}: it is not an id, or its retention time is over")
    if len(found) > 1:
        raise AmbiguousId(id, found)
    return found[0]


def steps_of(connection: apsw.Connection, id: str) -> list[Step]:
    """The steps of this id, in the order in which they were written."""
    rows: Iterable[tuple[Any, ...]] = connection.execute("SELECT steps FROM road WHERE id = ? ORDER BY number", (id,))
    return [Step(moment, id, step, fields) for (steps,) in rows for moment, step, fields in json.loads(steps)]
