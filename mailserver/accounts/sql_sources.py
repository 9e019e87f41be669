"""Databases that accounts are read from: SQLite and PostgreSQL.  The only SQL drivers of this package; every call blocks.

A query has its parameters by name, ``:address``; they are bound by the driver and never become part of the text.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import apsw

__all__ = ["DatabaseTrouble", "PostgresSource", "Source", "SqliteSource"]

BUSY_MILLISECONDS = 2000
PARAMETER = re.compile(r"(?<![:\w]):(address|mark)\b")
CONNECTIONS = 4
SECONDS = 5


class DatabaseTrouble(OSError):
    """The database cannot be asked, or a query is wrong: nobody can tell who exists."""


class Source(Protocol):
    """A database."""

    def rows(self, query: str, parameters: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """What the query finds.  Blocks; from any thread.  Raises `DatabaseTrouble`."""

    def close(self) -> None:
        """End all connections."""


class SqliteSource:
    """A file.  It is opened for reading alone, and again where another one has taken its place."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._place: tuple[int, int] | None = None

    def rows(self, query: str, parameters: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """As `Source`."""
        try:
            with self._lock:
                return [tuple(row) for row in self._opened().execute(query, dict(parameters))]
        except (apsw.Error, OSError) as error:
            raise DatabaseTrouble(f"{self._path}: {error}") from error

    def close(self) -> None:
        """As `Source`."""
        with self._lock:
            self._close()

    def _opened(self) -> apsw.Connection:
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
    """A server, over a few connections that are opened when they are needed and again when they break."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._places = threading.BoundedSemaphore(CONNECTIONS)

    def rows(self, query: str, parameters: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """As `Source`."""
        if any("\0" in value for value in parameters.values()):
            return []  # no text of PostgreSQL holds one
        if not self._places.acquire(timeout=SECONDS):
            raise DatabaseTrouble("all connections to PostgreSQL have been busy for too long")
        try:
            return self._ask(PARAMETER.sub(r"%(\1)s", query.replace("%", "%%")), dict(parameters))
        finally:
            self._places.release()

    def close(self) -> None:
        """As `Source`."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, query: str, parameters: dict[str, str]) -> list[tuple[Any, ...]]:
        psycopg = _psycopg()
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        was_idle = connection is not None
        try:
            connection = connection or self._connect(psycopg)
            found = [tuple(row) for row in connection.execute(query, parameters)]
        except psycopg.Error as error:
            is_lost = connection is not None and connection.closed
            if connection is not None:
                connection.close()
            if was_idle and is_lost:
                return self._ask(query, parameters)  # it was lost while nobody used it
            raise DatabaseTrouble(f"PostgreSQL: {' '.join(str(error).split())}") from error
        with self._lock:
            self._idle.append(connection)
        return found

    def _connect(self, psycopg: Any) -> Any:
        options = f"-c statement_timeout={SECONDS * 1000} -c default_transaction_read_only=on"
        return psycopg.connect(self._dsn, autocommit=True, connect_timeout=SECONDS, options=options)


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise DatabaseTrouble("the package psycopg is not installed; mailserver[pg] brings it") from error
    return psycopg
