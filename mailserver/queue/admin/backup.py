"""A copy of a queue that may be at work: one moment of its store, and the files of the messages that stand in it.

A message that is delivered while its file is about to be copied needs no copy: it leaves the backup, too.  Everything else in
the backup is *held*: under a server that has gone on since, it would be delivered a second time unasked.  So are reports of
success that were owed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apsw

from mailserver.mail.durable import sync_directory, sync_file
from mailserver.mail.faults import StorageBroken
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order, StoppedQueue
from mailserver.queue.admin.selection import Selection
from mailserver.queue.entry import REPORT_HELD, EntryState, is_id, number_of
from mailserver.queue.mark import DATABASE, End, required_files, write_mark

__all__ = ["MANIFEST", "Backup", "NoBackup", "back_up", "copy_file", "read_manifest", "restore"]

MANIFEST = "backup.json"  # written last: without it a folder is no backup
SPOOL = "spool"
KEPT = ("state.db", "records.db")
LEARNT = ("bayes.db", "bayes-*.db")  # what nobody's mail hangs on: where one is damaged the backup goes on without it
BUSY_MILLISECONDS = 10_000
PAGE = 1000


class NoBackup(Exception):
    """The folder holds no whole backup, or one cannot be put there.  The message is for the person who asked."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied: `made_at` in seconds since the epoch, how many messages, how many left the queue meanwhile.

    Of `damaged` ones the queue itself has lost the file; for `reports` recipients a report of success was owed.  The files
    `left_out` are damaged, and no mail hangs on them.
    """

    made_at: float
    messages: int
    settled_meanwhile: int
    damaged: int = 0
    reports: int = 0
    left_out: Sequence[str] = ()


def back_up(data: str, target: str, now: float, files: Sequence[str] = ()) -> Backup:
    """Copy the queue, the state, the records and these files to the folder `target`, which is empty.

    Blocks.  Raises `StorageFault`, OSError, `NoBackup`; the folder is no backup then.
    """
    if os.listdir(target):
        raise NoBackup(f"{target} is not empty")
    os.mkdir(os.path.join(target, SPOOL), 0o700)
    gone = damaged = reports = 0
    if required_files(data).octets:
        _copy_database(os.path.join(data, DATABASE), os.path.join(target, DATABASE))
        lost = [id for id in _spooled(target) if not _copy_spooled(data, target, id)]
        settled = [id for id in lost if not _is_there(data, id)]
        gone, damaged = len(settled), len(lost) - len(settled)
        write_mark(target, End.CHANGED)  # whoever starts on it looks through all of it
        reports = _hold(target, settled, now)
    for name in KEPT:
        if os.path.exists(os.path.join(data, name)):
            _copy_database(os.path.join(data, name), os.path.join(target, name))
    left_out = [name for name in _learnt_in(data) if not _copy_learnt(data, target, name)]
    for path in files:
        copy_file(path, os.path.join(target, os.path.basename(path)))
    found = Backup(now, _count(target), gone, damaged, reports, left_out)
    sync_directory(os.path.join(target, SPOOL))
    _write_manifest(target, found)
    return found


def restore(source: str, data: str) -> Backup:
    """Copy a backup into the data folder, which has no queue.  Blocks.  Raises `NoBackup`, OSError, `StorageFault`."""
    found = read_manifest(source)
    if required_files(data) != (None, 0):
        raise NoBackup(f"there is a queue in {data} already: move queue.db*, queue.mark and spool away first")
    spool = os.path.join(data, SPOOL)
    if os.path.isdir(spool) and os.listdir(spool):
        raise NoBackup(f"{spool} is not empty: move it away first")
    os.makedirs(spool, 0o700, exist_ok=True)
    for name in os.listdir(os.path.join(source, SPOOL)):
        copy_file(os.path.join(source, SPOOL, name), os.path.join(spool, name))
    sync_directory(spool)
    for name in (*KEPT, *_learnt_in(source)):
        if not os.path.exists(os.path.join(source, name)):
            continue
        if not os.path.exists(os.path.join(data, name)):
            _put(os.path.join(source, name), os.path.join(data, name))
    if os.path.exists(os.path.join(source, DATABASE)):
        _put(os.path.join(source, DATABASE), os.path.join(data, DATABASE))  # from here on there is a queue
        write_mark(data, End.CHANGED)
    sync_directory(data)
    return found


def _learnt_in(folder: str) -> list[str]:
    return sorted([name for name in os.listdir(folder) if any(fnmatch.fnmatch(name, learnt) for learnt in LEARNT)])


def _copy_learnt(data: str, target: str, name: str) -> bool:
    """Whether it is in order, and in the backup."""
    try:
        _copy_database(os.path.join(data, name), os.path.join(target, name))
    except StorageBroken:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(target, name))
        return False
    return True


def _put(source: str, target: str) -> None:
    """A copy that is there as a whole, or not at all; what an earlier try has left of it makes way.  Raises OSError."""
    draft = f"{target}.restored"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    copy_file(source, draft)
    os.rename(draft, target)


def read_manifest(folder: str) -> Backup:
    """What is in a backup.  Raises `NoBackup`."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
            return Backup(**json.load(file))
    except (OSError, ValueError, TypeError) as error:
        raise NoBackup(f"{folder} is no whole backup: {MANIFEST} is not there, or not in order") from error


def copy_file(source: str, target: str) -> None:
    """A copy, synced, for nobody else to read.  Raises OSError."""
    with open(source, "rb") as file, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


def _copy_database(path: str, target: str) -> None:
    """One moment of it, whoever writes to it meanwhile.  Raises `StorageBroken`."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        source = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            source.set_busy_timeout(BUSY_MILLISECONDS)
            copy = apsw.Connection(target)
            try:
                with copy.backup("main", source, "main") as work:
                    while not work.done:
                        work.step(-1)
                copy.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file
                if (fault := copy.execute("PRAGMA quick_check(1)").get) != "ok":
                    raise StorageBroken(f"{path} is damaged: {fault}")
            finally:
                copy.close()
        finally:
            source.close()
    except apsw.Error as error:
        raise StorageBroken(f"{path}: {error}") from error
    sync_file(target)


def _hold_reports(path: str) -> int:
    """Those of success, of what is delivered; all others stand with what is held.  All of it goes into the one file."""
    connection = apsw.Connection(path)
    try:
        connection.execute(
            "UPDATE attempt SET report = ?, note = ? WHERE state = ? AND report IS NOT NULL",
            (REPORT_HELD, "delivered; the report of it is held by the backup", EntryState.DELIVERED),
        )
        held = connection.changes()
        connection.execute("PRAGMA journal_mode = DELETE")
    finally:
        connection.close()
    sync_file(path)
    return held


def _copy_spooled(data: str, target: str, id: str) -> bool:
    """False where the file is not there (any more)."""
    try:
        copy_file(os.path.join(data, SPOOL, id), os.path.join(target, SPOOL, id))
    except FileNotFoundError:
        return False
    return True


def _spooled(folder: str) -> Iterator[str]:
    """The ids of the copy's messages whose content is a file."""
    connection = apsw.Connection(os.path.join(folder, DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        after = -1
        while True:
            rows: list[Any] = connection.execute(
                "SELECT number, substr(message, 3, 16) FROM entry WHERE number > ? AND spooled ORDER BY number LIMIT ?",
                (after, PAGE),
            ).fetchall()
            for number, id in rows:
                after = number
                name = bytes(id).decode("ascii", "replace") if isinstance(id, bytes) else str(id)
                if is_id(name):
                    yield name
            if len(rows) < PAGE:
                return
    except apsw.Error as error:
        raise StorageBroken(f"{folder}: {error}") from error
    finally:
        connection.close()


def _is_there(data: str, id: str) -> bool:
    """The queue itself still has the message: then its file is missing there, too."""
    connection = apsw.Connection(os.path.join(data, DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        return bool(connection.execute("SELECT 1 FROM entry WHERE number = ?", (number_of(id),)).fetchall())
    except apsw.Error as error:
        raise StorageBroken(f"{data}: {error}") from error
    finally:
        connection.close()


def _count(folder: str) -> int:
    path = os.path.join(folder, DATABASE)
    if not os.path.exists(path):
        return 0
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(connection.execute("SELECT count(*) FROM entry").get)
    finally:
        connection.close()


def _hold(folder: str, settled: list[str], now: float) -> int:
    """Nothing of the copy is delivered unasked; what was settled meanwhile leaves it.  How many reports of success are owed."""

    def nobody(id: str, step: str, **fields: Any) -> None:
        """The roads are the running server's."""

    with StoppedQueue.opened(folder) as queue:
        if queue is None:
            return 0
        for id in settled:
            queue.carry_out(Order(Verb.DROP, Selection(id=id), "the backup"), after=0, now=now, note=nobody)
        after: int | None = 0
        while after is not None:
            page = queue.carry_out(Order(Verb.HOLD, Selection(), "the backup"), after=after, now=now, note=nobody)
            after = page.next
    return _hold_reports(os.path.join(folder, DATABASE))


def _write_manifest(folder: str, found: Backup) -> None:
    path = os.path.join(folder, MANIFEST)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(found), file)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(folder)
