"""Databases that accounts are read from: SQLite and PostgreSQL.  The only SQL drivers of this package; every call blocks.

A query has its parameters by name, ``:address``; they are bound by the driver and never become part of the text.
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
CONNECT_SECONDS = 4  # whole ones, at least 2: libpq
STATEMENT_SECONDS = 4.0
PATIENCE = {  # for a host that is silent; the administrator's own words come first
    "connect_timeout": str(CONNECT_SECONDS),
    "tcp_user_timeout": "5000",  # ms
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


class DatabaseBusy(CannotTell):
    """Somebody else keeps it from answering; who asks at once would wait as long for nothing."""


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """What a query has found: `columns` are there without rows, too."""

    columns: int
    rows: list[tuple[Any, ...]]


class AccountSource(Protocol):
    """A database."""

    connections: int
    """How many may ask at once."""

    def ask(self, query: str, parameters: Mapping[str, str]) -> FoundAccount:
        """What the query finds.  Blocks; from any thread.  Raises `CannotTell`."""

    def cut(self, seconds: float) -> None:
        """End what has been under way for so long, from another thread.  Does not block."""

    def close(self) -> None:
        """End all connections, and open none any more.  Blocks."""


class SqliteSource:
    """A file.  It is opened for reading alone, and again where another one has taken its place."""

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
        """As `AccountSource`: whatever it does."""
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
    """A server, or a PgBouncer before it, over a few connections that are opened when they are needed and again when they break.

    Each question is a transaction of its own that may not write.  Nothing is set for a whole session, and nothing prepared, since
    PgBouncer gives the next transaction to another one.
    """

    connections = CONNECTIONS

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._busy: dict[Any, float] = {}  # since when
        self._closed = False

    def ask(self, query: str, parameters: Mapping[str, str]) -> FoundAccount:
        """As `AccountSource`."""
        if any("\0" in value for value in parameters.values()):
            return FoundAccount(0, [])  # no text of PostgreSQL holds one
        return self._ask(PARAMETER.sub(r"%(\1)s", query.replace("%", "%%")), dict(parameters))

    def cut(self, seconds: float) -> None:
        """As `AccountSource`."""
        with self._lock:
            for connection, since in list(self._busy.items()):
                if time.monotonic() - since >= seconds:
                    del self._busy[connection]  # which tells its thread, too
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
                return self._ask(query, parameters)  # it was lost while nobody used it
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
