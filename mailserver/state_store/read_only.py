"""State and records as they stand in the files of a server, for whoever must change nothing: changes are kept in memory alone.

A server may be running and writing.  No file is made: where SQLite would have to make one to read its log, the log is not read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import apsw
from zope.interface import implementer

from mailserver.interfaces import IRecords
from mailserver.mail.faults import StorageBroken
from mailserver.state_store.facts import Fact, checked_key, checked_range, checked_value
from mailserver.state_store.former import FormerState
from mailserver.state_store.records_file import record_of, records_of
from mailserver.state_store.space import Space
from mailserver.state_store.state_file import fact_of, facts_of

__all__ = ["ReadOnlyRecords", "ReadOnlyState"]


def opened(path: str) -> apsw.Connection | None:
    """A connection that only reads; None where there is no file.  Raises `StorageBroken`."""
    if not os.path.exists(path):
        return None
    try:
        if os.path.exists(f"{path}-shm"):  # a server has made what readers share
            return apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        address = f"file:{quote(os.path.abspath(path))}?immutable=1"
        return apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    except apsw.Error as error:
        raise StorageBroken(f"{path}: {error}") from error


class ReadOnlyState:
    """The spaces of `state.db`.  `wall_seconds` is the time; all is read in the caller's thread."""

    def __init__(self, path: str, *, wall_seconds: Callable[[], float]) -> None:
        self._path = path
        self._wall_seconds = wall_seconds
        self._connection = opened(path)
        self._ahead = self._own_time_ahead()
        self._spaces: dict[str, Space] = {}

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def space(self, name: str, *, facts_most: int | None = None) -> Space:
        """The facts under this name."""
        most = sys.maxsize
        if name not in self._spaces:
            space = Space(name, self, facts_most=most, remembered=most, octets_most=most, unwritten_most=most)
            if self._connection is not None:
                space.load(None)  # the file knows more
            self._spaces[name] = space
        return self._spaces[name]

    def _own_time_ahead(self) -> float:
        """By how much the store's own time, which nobody sets, is ahead of the wall's."""
        if self._connection is None:
            return 0.0
        try:
            row: Any = self._connection.execute("SELECT own, wall FROM clock").fetchone()
        except apsw.Error:
            return 0.0
        return 0.0 if row is None or None in row else float(row[0] - row[1])

    # --- what a space needs of its store ---

    def seconds(self) -> float:
        """The own time."""
        return self._wall_seconds() + self._ahead

    def on_the_wall(self, moment: float) -> float:
        """By the wall's time."""
        return moment - self._ahead

    def former(self, own: str) -> FormerState:
        """As plugins of API 0.1 know it."""
        return FormerState(self, own)

    def changed(self, space: Space) -> None:
        """It waits for ever to be written, so it is known."""

    async def read(self, space: str, key: str) -> Fact | None:
        """The fact in the file."""
        return self.read_now(space, key)

    async def read_range(self, space: str, first: str, before: str | None, most: int) -> dict[str, Fact]:
        """Facts in the file."""
        if self._connection is None:
            return {}
        try:
            return facts_of(self._connection, space, self.seconds(), first, before, most)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error

    def read_now(self, space: str, key: str) -> Fact | None:
        """The fact in the file."""
        if self._connection is None:
            return None
        try:
            return fact_of(self._connection, space, key)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error

    def read_range_now(self, space: str, first: str, most: int) -> dict[str, Fact]:
        """Facts in the file."""
        try:
            return {} if self._connection is None else facts_of(self._connection, space, self.seconds(), first, None, most)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error


class ReadOnlyRecords:
    """The spaces of `records.db`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = opened(path)
        self._spaces: dict[str, RecordOverlay] = {}

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def space(self, name: str) -> RecordOverlay:
        """The records under this name."""
        return self._spaces.setdefault(name, RecordOverlay(name, self))

    def value(self, space: str, key: str) -> bytes | None:
        """The record in the file.  Raises `StorageBroken`."""
        try:
            return None if self._connection is None else record_of(self._connection, space, key)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error

    def values(self, space: str, first: str, before: str | None, most: int) -> list[tuple[str, bytes]]:
        """Records in the file, by key.  Raises `StorageBroken`."""
        try:
            return [] if self._connection is None else records_of(self._connection, space, first, before, most)
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {error}") from error


@implementer(IRecords)
class RecordOverlay:
    """One component's records, with the changes that are not written."""

    def __init__(self, name: str, file: ReadOnlyRecords) -> None:
        self._name = name
        self._file = file
        self._changed: dict[str, bytes | None] = {}

    async def get(self, key: str) -> bytes | None:
        """The value, None where there is none."""
        return self._value(checked_key(key))

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value in memory."""
        self._changed[checked_key(key)] = checked_value(value)

    async def drop(self, key: str) -> None:
        """Take it away in memory."""
        self._changed[checked_key(key)] = None

    async def put_if_absent(self, key: str, value: bytes) -> bool:
        """Keep the value where there is none.  Whether that was so."""
        return await self.compare_and_put(key, None, value)

    async def compare_and_put(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Put `new` in the place of `old`; None is "no value".  Whether `old` was there."""
        if self._value(checked_key(key)) != old:
            return False
        self._changed[key] = None if new is None else checked_value(new)
        return True

    async def items(self, first: str = "", before: str | None = None, most: int = 1000) -> list[tuple[str, bytes]]:
        """Key and value by key, from `first` on, up to but without `before`."""
        first, before, most = checked_range(first, before, most)
        found: dict[str, bytes | None] = dict(self._file.values(self._name, first, before, most + len(self._changed)))
        found |= {key: value for key, value in self._changed.items() if first <= key and (before is None or key < before)}
        return [(key, value) for key, value in sorted(found.items()) if value is not None][:most]

    def _value(self, key: str) -> bytes | None:
        return self._changed[key] if key in self._changed else self._file.value(self._name, key)
