"""How far the export has come: a small SQLite file beside the roads, ``traces.db``.

It has the place of the last row that a collector has taken, and the messages that it knows in part and that have not been
accepted yet: what ends such a one is the end of its connection.  Whoever has it open is the only one who exports.  It is not
synced: when the power fails, something may be told twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import apsw

__all__ = ["NOWHERE", "Ledger", "LedgerInUse", "RowPlace", "place_in"]

OPEN_MOST = 100_000
CREATE = """
    CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER, id TEXT, time REAL, told INTEGER);
    CREATE TABLE IF NOT EXISTS unfinished (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, connection TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS unfinished_connection ON unfinished (connection);
"""


class LedgerInUse(Exception):
    """Another process exports."""


@dataclass(frozen=True, slots=True)
class RowPlace:
    """The last row of the roads that was taken, by its number, and by what it is known again; `told`: how many spans so far."""

    number: int
    id: str = ""
    time: float = 0.0
    told: int = 0


NOWHERE = RowPlace(0)


class Ledger:
    """Opened for writing.  Raises `LedgerInUse` and `apsw.Error`."""

    def __init__(self, path: str) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640))
        self._connection = connection = apsw.Connection(path)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN IMMEDIATE")  # from here on nobody else
            for statement in filter(str.strip, CREATE.split(";")):
                connection.execute(statement)
            connection.execute("COMMIT")
        except apsw.BusyError as error:
            connection.close()
            raise LedgerInUse(path) from error
        except BaseException:
            connection.close()
            raise
        self.place = _place(connection)

    def open_messages(self, connection: str) -> list[str]:
        """The messages of a connection that were not over."""
        rows = self._connection.execute("SELECT id FROM unfinished WHERE connection = ? ORDER BY number", (connection,))
        return [str(id) for (id,) in rows]

    def take(self, place: RowPlace, begun: Iterable[tuple[str, str]], ended: Iterable[str]) -> None:
        """The collector has all up to `place`.  `begun`: messages that are not over, and their connections; `ended`: that are."""
        execute = self._connection.execute
        with self._connection:
            row = (place.number, place.id, place.time, place.told)
            execute("INSERT OR REPLACE INTO place (one, number, id, time, told) VALUES (1, ?, ?, ?, ?)", row)
            for id, connection in begun:
                execute("INSERT OR IGNORE INTO unfinished (id, connection) VALUES (?, ?)", (id, connection))
            for id in ended:
                execute("DELETE FROM unfinished WHERE id = ?", (id,))
            execute("DELETE FROM unfinished WHERE number <= (SELECT max(number) FROM unfinished) - ?", (OPEN_MOST,))
        self.place = place

    def forget(self) -> None:
        """Begin anew, at the first row."""
        with self._connection:
            self._connection.execute("DELETE FROM unfinished")
        self.place = RowPlace(0, told=self.place.told)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def place_in(path: str) -> RowPlace | None:
    """The place as it stands in the file; None where it is being written to.  Raises `apsw.Error`."""
    if not os.path.exists(path):
        return NOWHERE
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return _place(connection)
    except apsw.BusyError:
        return None
    finally:
        connection.close()


def _place(connection: apsw.Connection) -> RowPlace:
    row = connection.execute("SELECT number, id, time, told FROM place").fetchone()
    return NOWHERE if row is None else RowPlace(int(row[0]), str(row[1]), float(row[2]), int(row[3]))
