"""Databases that accounts are read from: SQLite and PostgreSQL.  The only SQL drivers of this package; every call blocks.

A query names its parameters: ``:address``.  The driver binds them, so they never become part of the query's text.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import apsw
from apsw.ext import query_info

from mailserver.interfaces import CannotTell

__all__ = [
    "STATEMENT_SECONDS",
    "DatabaseBusy",
    "FoundAccount",
    "PostgresSource",
    "AccountSource",
    "SqliteSource",
]

BUSY_MILLISECONDS = 1000
PARAMETER = re.compile(r"(?<![:\w]):(address|mark)\b")
CONNECTIONS = 4
CONNECT_SECONDS = 4  # libpq wants whole seconds, at least 2
STATEMENT_SECONDS = 4.0
PATIENCE = {  # time-outs for a silent host; the administrator's own settings come first
    "connect_timeout": str(CONNECT_SECONDS),
    "tcp_user_timeout": "5000",  # ms
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


class DatabaseBusy(CannotTell):
    """The database is locked or silent.  Another try at once would only wait again."""


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """The result of a query: the number of `columns`, known even without rows, and the rows."""

    columns: int
    rows: list[tuple[Any, ...]]


class AccountSource(Protocol):
    """A database that can be queried."""

    connections: int
    """How many may ask at once."""

    def ask(self, query: str, parameters: Mapping[str, str]) -> FoundAccount:
        """Run the query.  Blocks; may be called in any thread.  Raises `CannotTell`."""

    def cut(self, seconds: float) -> None:
        """End queries that have run for so many seconds.  Called in another thread.  Does not block."""

    def close(self) -> None:
        """Close all connections and open no more.  Blocks."""


class SqliteSource:
    """A SQLite file.  It is opened for reading only, and opened again when another file has replaced it."""

    connections = 1

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._place: tuple[int, int] | None = None
        self._closed = False

    def ask(self, query: str, parameters: Mapping[str, str]) -> FoundAccount:
        """As `AccountSource`."""
        try:
            with self._lock:
                connection = self._opened()
                rows = [tuple(row) for row in connection.execute(query, dict(parameters))]
                return FoundAccount(len(rows[0]) if rows else len(query_info(connection, query).description), rows)
        except apsw.BusyError as error:
            raise DatabaseBusy(f"{self._path}: {error}") from error
        except (apsw.Error, OSError) as error:
            raise CannotTell(f"{self._path}: {error}") from error

    def cut(self, seconds: float) -> None:
        """As `AccountSource`, however long the query has run."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.interrupt()

    def close(self) -> None:
        """As `AccountSource`."""
        with self._lock:
            self._closed = True
            self._close()

    def _opened(self) -> apsw.Connection:
        if self._closed:
            raise CannotTell("it is not in use any more")
        status = os.stat(self._path)
        place = (status.st_dev, status.st_ino)
        if self._connection is None or place != self._place:
            self._close()
            connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READONLY)
            connection.set_busy_timeout(BUSY_MILLISECONDS)
            self._connection, self._place = connection, place
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)


class PostgresSource:
    """A PostgreSQL server, or a PgBouncer before it.  A few connections are opened on demand, and again when they break.

    Each question is a read-only transaction of its own.  No session settings and no prepared statements are used, since
    PgBouncer may give the next transaction to another session.
    """

    connections = CONNECTIONS

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._busy: dict[Any, float] = {}  # by connection: since when it is busy
        self._closed = False

    def ask(self, query: str, parameters: Mapping[str, str]) -> FoundAccount:
        """As `AccountSource`."""
        if any("\0" in value for value in parameters.values()):
            return FoundAccount(0, [])  # text in PostgreSQL cannot hold a NUL
        return self._ask(PARAMETER.sub(r"%(\1)s", query.replace("%", "%%")), dict(parameters))

    def cut(self, seconds: float) -> None:
        """As `AccountSource`."""
        with self._lock:
            for connection, since in list(self._busy.items()):
                if time.monotonic() - since >= seconds:
                    del self._busy[connection]  # its thread sees by this that it was cut
                    with contextlib.suppress(OSError, self._error()):
                        with socket.socket(fileno=os.dup(connection.fileno())) as its:
                            its.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """As `AccountSource`."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, query: str, parameters: dict[str, str]) -> FoundAccount:
        psycopg = _psycopg()
        connection, was_idle = self._taken(psycopg)
        try:
            connection.execute(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {int(STATEMENT_SECONDS * 1000)}")
            cursor = connection.execute(query, parameters)
            columns = len(cursor.description or ())
            found = FoundAccount(columns, [tuple(row) for row in cursor] if columns else [])
            connection.execute("COMMIT")
        except BaseException as error:
            is_lost = connection.closed and connection in self._busy
            self._give_back(connection, is_good=False)
            if was_idle and is_lost and isinstance(error, psycopg.Error):
                return self._ask(query, parameters)  # the connection was lost while it was idle
            if isinstance(error, psycopg.Error):
                raise CannotTell(f"PostgreSQL: {' '.join(str(error).split())}") from error
            raise
        self._give_back(connection, is_good=True)
        return found

    def _taken(self, psycopg: Any) -> tuple[Any, bool]:
        with self._lock:
            if self._closed:
                raise CannotTell("PostgreSQL: it is not in use any more")
            connection = self._idle.pop() if self._idle else None
            if connection is not None:
                self._busy[connection] = time.monotonic()
                return connection, True
        try:
            wanted = {**PATIENCE, **psycopg.conninfo.conninfo_to_dict(self._dsn)}
            connection = psycopg.connect(**wanted, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise CannotTell(f"PostgreSQL: {' '.join(str(error).split())}") from error
        with self._lock:
            self._busy[connection] = time.monotonic()
        return connection, False

    def _give_back(self, connection: Any, *, is_good: bool) -> None:
        with self._lock:
            was_cut = self._busy.pop(connection, None) is None
            if is_good and not was_cut and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _error(self) -> Any:
        return _psycopg().Error


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise CannotTell("the package psycopg is not installed; mailserver[pg] brings it") from error
    return psycopg
