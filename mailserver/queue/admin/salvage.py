"""What can still be read of a damaged queue, written into a new one.  For a stopped server; blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import apsw

from mailserver.mail.durable import sync_directory
from mailserver.mail.faults import StorageBroken, StorageDamaged
from mailserver.queue.entry import HIGHEST_NUMBER, shown_id
from mailserver.queue.lock import lock_directory
from mailserver.queue.mark import End, required_files, write_mark
from mailserver.queue.reader import SqliteReader
from mailserver.queue.spool import Spool
from mailserver.queue.store import DAMAGED, SqliteStore, cut_off_is_damage

__all__ = ["Salvaged", "salvage"]

ROWS = 200  # in one transaction
NEXT = "SELECT number FROM entry WHERE number > ? ORDER BY number"
MESSAGE = "SELECT destinations, spooled, message FROM entry WHERE number = ?"
ATTEMPTS = (
    "SELECT number, destination, remote, state, attempts, due, reply, note, report, history, {newer} FROM attempt"
    " WHERE number = ?"
)


@dataclass(slots=True)
class Salvaged:
    """How many messages were `kept`; `lost` are ids of those of which nothing could be read, as far as their numbers could be;
    `repeated` of those of whose attempts nothing could: they are delivered to all their destinations.  `gaps`: places of the file
    behind which nobody knows how many there were.  The damaged files are at `place`; `files` of the spool that belong to none of
    the messages, as they may to lost ones, at `files_at`.
    """

    place: str
    kept: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    gaps: int = 0
    files: int = 0
    files_at: str = ""


def salvage(data_directory: str, now: float) -> Salvaged:
    """Put a new file in the place of the damaged one, which stays beside it.

    Raises `QueueInUse` where a server has it, `QueueGone` where there is no file, `StorageDamaged` where nothing can be read at
    all, `StorageFault`, OSError; the queue is as it was then.
    """
    path, fresh = os.path.join(data_directory, "queue.db"), os.path.join(data_directory, "queue.db.new")
    lock = lock_directory(data_directory)
    try:
        if not required_files(data_directory).octets:
            raise StorageBroken(f"{path}: there is no queue here")
        while os.path.exists(place := f"{path}.damaged-{int(now)}"):
            now += 1
        found = Salvaged(place)
        _remove(fresh)
        try:
            source = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
            try:
                _copy(source, fresh, found)
            finally:
                source.close(True)
            if not found.kept and (found.gaps or found.lost):
                raise apsw.CorruptError("not one message can be read")
        except apsw.Error as error:
            _remove(fresh)
            raise StorageDamaged(f"{path}: {type(error).__name__}: {error}") from error
        for ending in ("", "-wal", "-shm"):  # the file first: what breaks off in between stops the next start
            if os.path.exists(path + ending):
                os.rename(path + ending, found.place + ending)
        os.rename(fresh, path)
        sync_directory(data_directory)
        write_mark(data_directory, End.CHANGED)
        _put_files_aside(data_directory, path, now, found)
    finally:
        os.close(lock)
    return found


def _put_files_aside(data_directory: str, path: str, now: float, found: Salvaged) -> None:
    """The next start would remove them."""
    spool = Spool(os.path.join(data_directory, "spool"))
    spool.create()
    reader = SqliteReader(path=path, spool=spool)
    try:
        names = reader.without_entry(os.listdir(spool.directory))
    finally:
        reader.close()
    found.files, found.files_at = len(names), spool.move_aside(names, now)


def _copy(source: apsw.Connection, fresh: str, found: Salvaged) -> None:
    store = SqliteStore(fresh)
    store.open()
    store.close()
    target = apsw.Connection(fresh)
    try:
        target.execute("PRAGMA synchronous = FULL")
        rows = 0
        question = ATTEMPTS.format(newer="until, hold, findings" if has_column(source, "until") else "NULL, NULL, NULL")
        target.execute("BEGIN")
        for number in _numbers(source, found):
            _copy_one(source, target, number, found, question)
            rows += 1
            if rows % ROWS == 0:
                target.execute("COMMIT")
                target.execute("BEGIN")
        target.execute("COMMIT")
    finally:
        target.close(True)


def _copy_one(source: apsw.Connection, target: apsw.Connection, number: int, found: Salvaged, question: str) -> None:
    try:
        with cut_off_is_damage():
            row: Any = source.execute(MESSAGE, (number,)).fetchone()
        if row is None or not isinstance(row[2], bytes):
            raise apsw.CorruptError("no message")
        target.execute("INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?)", (number, *row))
    except (*DAMAGED, apsw.ConstraintError):
        found.lost.append(shown_id(number, ""))
        return
    found.kept += 1
    try:
        with cut_off_is_damage():
            attempts: list[Any] = source.execute(question, (number,)).fetchall()
        target.executemany("INSERT OR IGNORE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", attempts)
    except DAMAGED:
        found.repeated.append(shown_id(number, row[2][2:18].decode("ascii", "replace")))


def has_column(source: apsw.Connection, name: str) -> bool:
    """The table of attempts has it; an earlier release's may not."""
    try:
        return any(row[1] == name for row in source.execute("PRAGMA table_info(attempt)"))
    except apsw.Error:
        return True


def _numbers(source: apsw.Connection, found: Salvaged) -> Iterator[int]:
    """All that can be come by: where a page cannot be read, the search goes on behind it."""
    after = -1
    while True:
        try:
            for (number,) in source.execute(NEXT, (after,)):
                after = int(number)
                yield after
            return
        except DAMAGED:
            found.gaps += 1
            beyond = _beyond(source, after)
            if beyond is None:
                return
            after = beyond


def _beyond(source: apsw.Connection, after: int) -> int | None:
    """A number not far behind the damage, from which on reading goes on; None where it does nowhere."""

    def reads(number: int) -> bool:
        try:
            return bool(source.execute(f"{NEXT} LIMIT 1", (number,)).fetchall()) or True
        except DAMAGED:
            return False

    step = 1
    while not reads(after + step):
        step *= 2
        if after + step > HIGHEST_NUMBER:
            return None
    low = step // 2
    while step - low > 1:
        middle = (low + step) // 2
        low, step = (low, middle) if reads(after + middle) else (middle, step)
    return after + step


def _remove(path: str) -> None:
    for ending in ("", "-wal", "-shm"):
        if os.path.exists(path + ending):
            os.unlink(path + ending)
