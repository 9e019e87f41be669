"""The file of the small facts that expire: `state.db`.  All functions here block.

One connection writes, others read.  SQLite keeps the file consistent over a power loss, which may cost the last seconds.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import apsw

from mailserver.mail.faults import StorageBroken
from mailserver.state_store.facts import Fact
from mailserver.state_store.own_time import Reading

__all__ = [
    "SWEEP_ROWS",
    "Contents",
    "Spaces",
    "close_all",
    "contents_of",
    "fact_of",
    "facts_of",
    "open_reading",
    "open_writing",
    "write",
]

SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE fact (space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires REAL NOT NULL,"
    " PRIMARY KEY (space, key)) WITHOUT ROWID",
    "CREATE INDEX fact_expires ON fact (expires)",
)
# An earlier release leaves this table alone, so the version is the same.
CLOCK_SCHEMA = "CREATE TABLE IF NOT EXISTS clock (own REAL, wall REAL, steady REAL, boot TEXT)"
SWEEP_ROWS = 5000  # removed at once
BUSY_MILLISECONDS = 1000
LOADED_MOST = 20_000  # facts of one space that are read at the start
LOADED_OCTETS_MOST = 4 << 20
TRIMMED_PERCENT = 90  # what a space that was full is left with: so that it is not counted again with the next fact

Spaces = Mapping[str, Mapping[str, Fact | None]]


class Contents(NamedTuple):
    """What the start learns: the kept time, how many facts each space has, and all the facts of those that are small."""

    kept: Reading | None
    counts: dict[str, int]
    small: dict[str, dict[str, Fact]]


def open_writing(path: str) -> apsw.Connection:
    """Open or create the file, mode 0600.  Raises `StorageBroken`."""
    try:
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        writing = apsw.Connection(path)
        try:
            _prepare(path, writing)
        except BaseException:
            writing.close(True)
            raise
    except (apsw.Error, OSError) as error:
        raise StorageBroken(f"{path}: {error}") from error
    return writing


def _prepare(path: str, writing: apsw.Connection) -> None:
    writing.set_busy_timeout(BUSY_MILLISECONDS)
    writing.pragma("journal_mode", "wal")
    writing.pragma("synchronous", "NORMAL")  # consistent after a power loss, short of the last seconds
    version = writing.pragma("user_version")
    if version > SCHEMA_VERSION:
        raise StorageBroken(f"{path} was written by a later release (schema {version})")
    with writing:
        if version == 0:
            for statement in SCHEMA:
                writing.execute(statement)
            writing.pragma("user_version", SCHEMA_VERSION)
        writing.execute(CLOCK_SCHEMA)


def open_reading(path: str) -> apsw.Connection:
    """A connection that only reads.  Raises `StorageBroken`."""
    try:
        reading = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        reading.set_busy_timeout(BUSY_MILLISECONDS)
    except apsw.Error as error:
        raise StorageBroken(f"{path}: {error}") from error
    return reading


def close_all(*connections: apsw.Connection | None) -> None:
    """Close them."""
    for connection in connections:
        if connection is not None:
            connection.close(True)


def contents_of(connection: apsw.Connection, names: Collection[str]) -> Contents:
    """What the start has to know; facts of spaces with these names.  Raises `apsw.Error`."""
    rows: Any = connection.execute("SELECT own, wall, steady, boot FROM clock").fetchone()
    counts: dict[str, int] = {}
    small: dict[str, dict[str, Fact]] = {}
    for space, count, octets in connection.execute("SELECT space, count(*), sum(length(value)) FROM fact GROUP BY space"):
        counts[space] = count
        if space in names and count <= LOADED_MOST and octets <= LOADED_OCTETS_MOST:
            small[space] = {}
    for space, facts in small.items():
        for key, value, expires in connection.execute("SELECT key, value, expires FROM fact WHERE space = ?", (space,)):
            facts[key] = Fact(value, expires)
    return Contents(None if rows is None else Reading(*rows), counts, small)


def fact_of(connection: apsw.Connection, space: str, key: str) -> Fact | None:
    """The fact, whether it has expired or not.  Raises `apsw.Error`."""
    row: Any = connection.execute("SELECT value, expires FROM fact WHERE space = ? AND key = ?", (space, key)).fetchone()
    return None if row is None else Fact(*row)


def facts_of(
    connection: apsw.Connection, space: str, now: float, first: str, before: str | None, most: int
) -> dict[str, Fact]:
    """What has not expired at `now` (own time), by key, from `first` on, up to but without `before`.  Raises `apsw.Error`."""
    sql, bindings = "SELECT key, value, expires FROM fact WHERE space = ? AND expires > ? AND key >= ?", [space, now, first]
    if before is not None:
        sql, bindings = sql + " AND key < ?", [*bindings, before]
    found = connection.execute(sql + " ORDER BY key LIMIT ?", (*bindings, most))
    return {key: Fact(value, expires) for key, value, expires in found}


def write(
    connection: apsw.Connection,
    changes: Spaces,
    reading: Reading,
    *,
    counts: dict[str, int] | None = None,
    bounds: Mapping[str, int] | None = None,
    sweep: bool = False,
) -> list[str]:
    """One transaction for all the changes, and a part of what has expired.

    `counts` says how many facts a space has at most.  Where that is more than its bound the facts are counted, and those that
    expire first leave: of that space, no other's.  Returns the names of spaces where some have left.  Raises `apsw.Error`.
    """
    kept = [(space, key, *fact) for space, facts in changes.items() for key, fact in facts.items() if fact is not None]
    dropped = [(space, key) for space, facts in changes.items() for key, fact in facts.items() if fact is None]
    full = []
    with connection:
        if kept:
            connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?, ?, ?)", kept)
        if dropped:
            connection.executemany("DELETE FROM fact WHERE space = ? AND key = ?", dropped)
        if sweep:
            connection.execute(
                "DELETE FROM fact WHERE (space, key) IN"
                " (SELECT space, key FROM fact INDEXED BY fact_expires WHERE expires <= ? ORDER BY expires LIMIT ?)",
                (reading.own, SWEEP_ROWS),
            )
        if counts is not None and bounds is not None:
            for space, _, _, _ in kept:
                counts[space] = counts.get(space, 0) + 1
            for space in changes:
                if counts.get(space, 0) > bounds[space]:
                    counts[space], has_trimmed = _trim(connection, space, bounds[space])
                    full += [space] if has_trimmed else []
        connection.execute("DELETE FROM clock")
        connection.execute("INSERT INTO clock VALUES (?, ?, ?, ?)", reading)
    return full


def _trim(connection: apsw.Connection, space: str, most: int) -> tuple[int, bool]:
    """Count the space's facts; where there are too many those that expire first leave.  How many there are then, and whether."""
    count = int(connection.execute("SELECT count(*) FROM fact WHERE space = ?", (space,)).get)
    left = most * TRIMMED_PERCENT // 100
    if count <= most:
        return count, False
    connection.execute(
        "DELETE FROM fact WHERE (space, key) IN (SELECT space, key FROM fact WHERE space = ? ORDER BY expires LIMIT ?)",
        (space, count - left),
    )
    return left, True
