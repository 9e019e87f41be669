"""The file of the durable records: `records.db`.  All functions here block.

Everything that is committed here is synced (WAL, synchronous FULL).  A file that is damaged is left as it is: nothing is written
into it, and nothing made in its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import apsw

from mailserver.mail.durable import sync_directory
from mailserver.mail.faults import StorageBroken, StorageDamaged

__all__ = ["RECORDS", "fault_of", "open_records", "record_of", "records_of", "spaces_of", "write_record"]

RECORDS = "records.db"
SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE record (space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID"
)
BUSY_MILLISECONDS = 10_000  # the command line may write as well
DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)


def open_records(path: str) -> apsw.Connection:
    """Open or create the file, mode 0600, its name synced.  Raises `StorageDamaged`, `StorageBroken`."""
    try:
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            sync_directory(os.path.dirname(path))
        connection = apsw.Connection(path)
        try:
            _prepare(path, connection)
        except BaseException:
            connection.close(True)
            raise
    except (apsw.Error, OSError) as error:
        raise fault_of(path, error) from error
    return connection


def _prepare(path: str, connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")  # each commit is synced
    version = connection.pragma("user_version")
    if version > SCHEMA_VERSION:
        raise StorageBroken(f"{path} was written by a later release (schema {version})")
    if version == 0:
        with connection:
            connection.execute(SCHEMA)
            connection.pragma("user_version", SCHEMA_VERSION)
    elif (fault := connection.execute("PRAGMA quick_check(1)").get) != "ok":
        raise StorageDamaged(f"{path} is damaged: {fault}")


def fault_of(path: str, error: Exception) -> StorageBroken:
    """What an error of SQLite or of the system means."""
    return (StorageDamaged if isinstance(error, DAMAGED) else StorageBroken)(f"{path}: {error}")


def record_of(connection: apsw.Connection, space: str, key: str) -> bytes | None:
    """The value, None where there is none."""
    row: Any = connection.execute("SELECT value FROM record WHERE space = ? AND key = ?", (space, key)).fetchone()
    return None if row is None else row[0]


def records_of(
    connection: apsw.Connection, space: str, first: str, before: str | None, most: int
) -> list[tuple[str, bytes]]:
    """Key and value by key, from `first` on, up to but without `before`."""
    sql, bindings = "SELECT key, value FROM record WHERE space = ? AND key >= ?", [space, first]
    if before is not None:
        sql, bindings = sql + " AND key < ?", [*bindings, before]
    rows: Any = connection.execute(sql + " ORDER BY key LIMIT ?", (*bindings, most)).fetchall()
    return list(rows)


def write_record(connection: apsw.Connection, space: str, key: str, value: bytes | None) -> None:
    """Put a value there; None: take what is there away.  The caller has begun a transaction."""
    if value is None:
        connection.execute("DELETE FROM record WHERE space = ? AND key = ?", (space, key))
    else:
        connection.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", (space, key, value))


def spaces_of(connection: apsw.Connection) -> Iterator[tuple[str, int, int]]:
    """Each space with the number of its records, and the octets of their values."""
    yield from connection.execute("SELECT space, count(*), sum(length(value)) FROM record GROUP BY space ORDER BY space")
