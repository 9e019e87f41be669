"""The embedded store of the queue: SQLite in WAL mode, through apsw.

The one writing connection belongs to the writer thread (`commit`), which also checkpoints.  Each step of a statement gives the
interpreter lock away and has to win it back from a busy reactor, so a batch of any size is a single step: one autocommit INSERT
that reads the packed rows from a C array, with the sync in it.  The page of 16 KiB is as good as any for small mail and twice as
quick as 4 KiB for 64 KiB messages (bench/queue_commit.py).
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apsw

from mailserver.mail.durable import sync_directory, sync_file
from mailserver.mail.faults import StorageBroken, StorageDamaged, StorageFault, StorageFull
from mailserver.queue.entry import (
    CLOSED,
    FRONT,
    WHOLE_ENTRY,
    Attempt,
    EntryState,
    Mark,
    Settled,
    disowned_of,
    encode_findings,
    encode_history,
    encode_reply,
    stored_size_of,
)
from mailserver.queue.shared_memory import SharedMemory

__all__ = ["DAMAGED", "PAGE_OCTETS", "MessageRefused", "SqliteStore", "cut_off_is_damage", "open_connection"]

SQLITE_LEAST = (3, 51, 3)  # before: one connection's checkpoint could lose another's commit (sqlite.org/wal.html)
SCHEMA_VERSION = 3
PAGE_OCTETS = 16384
CACHE_KIBIBYTES = 32768
WAL_KEPT_OCTETS = 64 << 20  # a log that grew past this in a rush is cut at the next restart of the log
BUSY_MILLISECONDS = 5000
VACUUM_FREE_OCTETS = 256 << 20
DAMAGED = (apsw.CorruptError, apsw.NotADBError)
SLACK_SECONDS = 1.0
REPORT_AGAIN_SECONDS = 3600.0  # a report that could not be made is due again after so long at most
FULL = (errno.ENOSPC, errno.EDQUOT)

HOLD_INDEX = "CREATE INDEX attempt_until ON attempt (until, number) WHERE until IS NOT NULL"
REPORT_INDEXES = (
    "CREATE INDEX attempt_report ON attempt (report, number) WHERE report IS NOT NULL",
    "CREATE INDEX attempt_failed ON attempt (number) WHERE state = 'failed'",
)
SCHEMA = (
    # `message` is what entry.pack makes.
    "CREATE TABLE entry (number INTEGER PRIMARY KEY, destinations INTEGER NOT NULL, spooled INTEGER NOT NULL,"
    " message BLOB NOT NULL)",
    "CREATE INDEX entry_spooled ON entry (number) WHERE spooled",
    # A table of its own: an UPDATE of `entry` would write the whole message again.
    "CREATE TABLE attempt (number INTEGER NOT NULL, destination INTEGER NOT NULL, remote INTEGER NOT NULL,"
    " state TEXT NOT NULL, attempts INTEGER NOT NULL, due REAL, reply TEXT, note TEXT NOT NULL,"
    " report REAL, history TEXT NOT NULL DEFAULT '[]', until REAL, hold TEXT, findings TEXT,"
    " PRIMARY KEY (number, destination)) WITHOUT ROWID",
    "CREATE INDEX attempt_due ON attempt (due, number) WHERE due IS NOT NULL",
    *REPORT_INDEXES,
    HOLD_INDEX,
    "CREATE TABLE mark (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
)
UPGRADES: dict[int, tuple[str, ...]] = {  # from this version to the next: statements
    1: (
        "ALTER TABLE attempt ADD COLUMN report REAL",
        "ALTER TABLE attempt ADD COLUMN history TEXT NOT NULL DEFAULT '[]'",
        *REPORT_INDEXES,
    ),
    2: (
        "ALTER TABLE attempt ADD COLUMN until REAL",
        "ALTER TABLE attempt ADD COLUMN hold TEXT",
        "ALTER TABLE attempt ADD COLUMN findings TEXT",
        HOLD_INDEX,
    ),
}

INSERT = (  # the message begins at octet 27, after entry.KEY_OCTETS
    "INSERT INTO entry (number, destinations, spooled, message) SELECT CAST(substr(value, 1, 19) AS INTEGER),"
    " CAST(substr(value, 20, 6) AS INTEGER), CAST(substr(value, 26, 1) AS INTEGER), substr(value, 27)"
    " FROM carray(?)"
)
DELETE = "DELETE FROM entry WHERE number IN (SELECT value FROM carray(?))"
DELETE_ATTEMPTS = "DELETE FROM attempt WHERE number IN (SELECT value FROM carray(?))"
THERE = "SELECT number FROM entry WHERE number IN (SELECT value FROM carray(?))"
REWRITE = "UPDATE entry SET destinations = ?, message = ? WHERE number = ?"
UPSERT = (  # whether the delay has been told is known here alone: an attempt may have begun before its report and ended after it
    "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number, destination) DO UPDATE SET"
    " remote = excluded.remote, attempts = excluded.attempts, due = excluded.due, reply = excluded.reply,"
    " note = excluded.note, history = excluded.history, until = excluded.until, hold = excluded.hold,"
    " findings = excluded.findings,"
    " state = excluded.state, report = CASE WHEN"
    " attempt.state = 'deferred' AND excluded.state = 'deferred' THEN attempt.report ELSE excluded.report END"
)
MARK = (
    "UPDATE attempt SET state = ?, report = ?, note = coalesce(?, note) WHERE number = ? AND destination = ? AND state = ?"
)
RESOLVE = (  # where it is still as it was
    "UPDATE attempt SET state = ?, attempts = ?, due = ?, reply = ?, note = ?, report = ?, history = ?, until = ?, hold = ?,"
    " findings = ?"
    " WHERE number = ? AND destination = ? AND state = ? AND until IS ?"
)
WITH_ALL = (  # entries all of whose destinations are in certain states, and owe no report
    "SELECT number, substr(message, 3, 16), spooled FROM entry WHERE number IN ({numbers}) AND destinations ="
    " (SELECT count(*) FROM attempt WHERE attempt.number = entry.number AND destination >= 0 AND report IS NULL"
    " AND state IN {states}) ORDER BY number"
)
FINISHED = WITH_ALL.format(numbers="SELECT value FROM carray(?)", states="('delivered', 'returned', 'dropped')")
OCTETS_MOST = 1 << 30  # of content whose failure cannot be told: more would be room that mail has not
FRONTS = "SELECT number, substr(message, 1, ?) FROM entry WHERE number IN (SELECT value FROM carray(?))"
GIVEN_UP = WITH_ALL.format(
    numbers="SELECT number FROM attempt WHERE state = 'failed'", states="('failed', 'delivered', 'returned', 'dropped')"
)


def sync_log(path: str) -> None:
    """Make durable what an earlier process wrote into the log and was killed before its sync: the log is believed from now on.

    Files are removed on its word alone: those of messages that it says are settled.  SQLite itself syncs it with the next commit.
    """
    sync_file(path, os.O_RDWR, missing_ok=True)


@contextlib.contextmanager
def cut_off_is_damage() -> Iterator[None]:
    """A page that should stand behind the end of the file: SQLite calls that an error of the disk."""
    try:
        yield
    except apsw.IOError as error:
        if getattr(error, "extendedresult", None) != apsw.SQLITE_IOERR_SHORT_READ:  # none where apsw itself has raised it
            raise
        raise apsw.CorruptError("the file is cut off") from error


class MessageRefused(StorageBroken):
    """The store would not take this batch, but works: one message of it may be the reason."""


class SqliteStore:
    """The writing side.  Every method blocks; all are called from one thread at a time.

    Raises `StorageFull`, `StorageBroken` or `MessageRefused`.  After an error of the disk `trusted` is False, and nothing is
    written before `reopen` has succeeded: what a failed sync left behind must not come back as a message.
    """

    def __init__(self, path: str, *, page_octets: int = PAGE_OCTETS) -> None:
        self.path = path
        self.trusted = False
        self.is_new = False
        self._damage = ""
        self._page_octets = page_octets
        self._shared_memory = SharedMemory(path)
        self._connection: apsw.Connection | None = None
        self._disowned: list[Settled] = []
        self._checkpointed_pages = 0

    # --- life ---

    def open(self, *, must_exist: bool = False, in_order: bool = True) -> None:
        """Open or create the file, mode 0600, and bring its schema up to date.

        With `must_exist` a file without a queue in it, one cut off near its beginning say, is a damaged one; without it, one in
        which there is no more than a beginning is a new one.  One that was not closed `in_order` is left as large as it is.
        """
        with self._faults():
            self._shared_memory.require_room()
            sync_log(f"{self.path}-wal")
            self._connection = connection = open_connection(self.path)
            version = connection.pragma("user_version")
            if version == 0 and (must_exist or connection.pragma("schema_version") != 0):
                raise StorageDamaged(f"{self.path} has no queue in it")
            self.is_new = version == 0
            if version == 0:
                connection.pragma("page_size", self._page_octets)
            if connection.pragma("journal_mode", "wal") != "wal":
                raise StorageBroken(f"{self.path}: the file system does not allow SQLite's write-ahead log")
            connection.pragma("synchronous", "FULL")
            connection.pragma("wal_autocheckpoint", 0)
            connection.pragma("cache_size", -CACHE_KIBIBYTES)
            connection.pragma("journal_size_limit", WAL_KEPT_OCTETS)
            connection.pragma("temp_store", "memory")
            upgrade(connection, version, self.path)
            self._page_octets = connection.pragma("page_size")
            self._shared_memory.fill()
            if in_order:
                self._give_back_space(connection)
            sync_directory(os.path.dirname(self.path))
            self._checkpointed_pages = self._written_pages()
        self.trusted = True

    def close(self) -> None:
        """Close.  SQLite itself checkpoints and removes the log where this was the last connection."""
        self.trusted = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._faults():
                connection.close(True)
        self._shared_memory.gone()

    def end(self) -> int:
        """Close for good.  What was answered with an error is deleted first: the next to open the file knows nothing of it.

        Returns how many the disk did not let go, which may come back.
        """
        if self._disowned:
            with contextlib.suppress(StorageFault):
                self.reopen()
        self.close()
        return len(self._disowned)

    def reopen(self) -> list[Settled]:
        """Close, open, delete what was answered with an error, and prove with a small durable write that the disk works.

        Returns what was deleted: it cannot come back any more.
        """
        if self._damage:
            raise StorageDamaged(self._damage)
        with contextlib.suppress(StorageBroken, StorageFull):
            self.close()
        self.open(must_exist=True)
        self.trusted = False
        with self._faults():
            connection = self._open_connection()
            self._forget(connection, self._disowned)
            connection.execute("INSERT OR REPLACE INTO mark VALUES ('proof', 1 + coalesce("
                               "(SELECT value FROM mark WHERE name = 'proof'), 0))")  # fmt: skip
        forgotten, self._disowned = self._disowned, []
        self.trusted = True
        return forgotten

    def distrust(self, why: str) -> None:
        """Damage has been found: write nothing any more."""
        self._damage = self._damage or why
        self.trusted = False
        if self._connection is not None:  # the file stays as it was found: its log is not moved into it at the end either
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    # --- writing ---

    def add(self, numbers: Sequence[int], packed: Sequence[bytes], attempts: Sequence[Attempt] = ()) -> None:
        """Commit messages, with what is recorded of them from the beginning: when this returns they are on the disk.

        All of them, or none.  A fault that `may_come_back` leaves open which: `reopen` deletes them then.
        """
        connection = self._trusted_connection()
        try:
            with self._faults():
                if not attempts:
                    connection.execute(INSERT, (apsw.carray(tuple(packed)),))
                    return
                with connection:
                    connection.execute(INSERT, (apsw.carray(tuple(packed)),))
                    connection.executemany(UPSERT, [attempt_row(attempt) for attempt in attempts])
        except StorageFault as fault:
            if not self.trusted:
                self._disown(numbers, packed, fault)
            raise
        except Exception as error:
            self.trusted = False
            raise self._disown(numbers, packed, StorageBroken(f"{type(error).__name__}: {error}")) from error

    def _disown(self, numbers: Sequence[int], packed: Sequence[bytes], fault: StorageFault) -> StorageFault:
        """What of these is on the disk nobody knows, and they are answered with an error."""
        self._disowned += map(disowned_of, numbers, packed)
        fault.may_come_back = True
        return fault

    def settle(
        self, numbers: Sequence[int], recorded: Sequence[int], attempts: Sequence[Attempt]
    ) -> list[Settled]:
        """Forget the entries `numbers` (those in `recorded` have attempts that go with them), and keep `attempts`.

        Returns the entries of which these attempts were the last thing to wait for: they are forgotten too.
        """
        connection = self._trusted_connection()
        finished: list[Settled] = []
        with self._faults():
            if not recorded and not attempts:
                connection.execute(DELETE, (numbers_array(numbers),))
                return finished
            with connection:
                if numbers:
                    connection.execute(DELETE, (numbers_array(numbers),))
                if recorded:
                    connection.execute(DELETE_ATTEMPTS, (numbers_array(recorded),))
                if attempts:
                    connection.executemany(UPSERT, [attempt_row(attempt) for attempt in attempts])
                finished = self._finish(connection, {one.number for one in attempts if one.state in CLOSED})
        return finished

    def report(self, packed: Sequence[bytes], marks: Sequence[Mark]) -> list[Settled]:
        """Commit reports together with what they mean for the entries that they speak of: both, or neither.

        Returns the entries that waited for nothing else; they are forgotten.
        """
        connection = self._trusted_connection()
        finished: list[Settled] = []
        with self._faults(), connection:
            if packed:
                connection.execute(INSERT, (apsw.carray(tuple(packed)),))
            connection.executemany(MARK, [mark_row(mark) for mark in marks])
            finished = self._finish(connection, {mark.number for mark in marks})
        return finished

    def resolve(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> tuple[list[Attempt], list[Settled]]:
        """What is held or undecided, and what becomes of it: written where the store has it still as it was.

        Returns what was written, and the entries that waited for nothing else; they are forgotten.
        """
        connection = self._trusted_connection()
        written: list[Attempt] = []
        with self._faults(), connection:
            for was, becomes in pairs:
                row = attempt_row(becomes)[3:]
                connection.execute(RESOLVE, (*row, was.number, was.destination, str(was.state), was.until))
                if connection.changes():
                    written.append(becomes)
            finished = self._finish(connection, {one.number for one in written if one.state in CLOSED})
        return written, finished

    def drop_failed(self, most: int, before: int, *, octets_most: int = OCTETS_MOST) -> list[Settled]:
        """Forget the oldest entries that are kept only because their failure cannot be told: those above `most`, those with which
        there would be more than `octets_most` of content (never the newest), and those with a number below `before`."""
        connection = self._trusted_connection()
        dropped: list[Settled] = []
        with self._faults(), connection:
            failed = settled_rows(connection.execute(GIVEN_UP))
            first = max(len(failed) - most, self._first_within(connection, failed, octets_most))
            dropped = [entry for place, entry in enumerate(failed) if place < first or entry.number < before]
            self._forget(connection, dropped)
        return dropped

    def _first_within(self, connection: apsw.Connection, entries: Sequence[Settled], octets_most: int) -> int:
        """The place of the first of these from which on they have no more than so many octets of content, or are one."""
        if not entries:
            return 0
        rows: Any = connection.execute(FRONTS, (FRONT.size, numbers_array([entry.number for entry in entries])))
        sizes = {number: stored_size_of(front) for number, front in rows if len(front) == FRONT.size}
        octets, first = 0, len(entries)
        for place in range(len(entries) - 1, -1, -1):
            octets += sizes.get(entries[place].number, 0)
            if octets > octets_most and first < len(entries):
                break
            first = place
        return first

    def _finish(self, connection: apsw.Connection, numbers: set[int]) -> list[Settled]:
        if not numbers:
            return []
        finished = settled_rows(connection.execute(FINISHED, (numbers_array(numbers),)))
        self._forget(connection, finished)
        return finished

    def _forget(self, connection: apsw.Connection, entries: Sequence[Settled]) -> None:
        if entries:
            numbers = [entry.number for entry in entries]
            connection.execute(DELETE, (numbers_array(numbers),))
            connection.execute(DELETE_ATTEMPTS, (numbers_array(numbers),))

    def alter(
        self, gone: Sequence[int], rewritten: Sequence[tuple[int, int, bytes]], attempts: Sequence[Attempt]
    ) -> tuple[set[int], list[Settled]]:
        """A person's changes, all of them or none: forget entries, give others (number, destinations, message) a new row, keep
        attempts.  Returns the numbers that were there, and the entries of which nothing was left to do: they are forgotten.
        """
        connection = self._trusted_connection()
        numbers = {*gone, *(number for number, _, _ in rewritten), *(attempt.number for attempt in attempts)}
        if not numbers:
            return set(), []
        with self._faults(), connection:
            there: Any = connection.execute(THERE, (numbers_array(numbers),))
            found: set[int] = {number for (number,) in there}
            for number, destinations, message in rewritten:
                connection.execute(REWRITE, (destinations, message, number))
            if gone:
                connection.execute(DELETE, (numbers_array(gone),))
                connection.execute(DELETE_ATTEMPTS, (numbers_array(gone),))
            written = [attempt for attempt in attempts if attempt.number in found]
            if written:
                connection.executemany(UPSERT, [attempt_row(attempt) for attempt in written])
            finished = self._finish(connection, {one.number for one in written if one.state in CLOSED})
        return found, finished

    def mend_times(self, now: float, pauses: Sequence[float], warn_seconds: float, held_seconds: float) -> int:
        """Make due now what is due later than an attempt made now would be: after one of `pauses`, the first for the first
        attempt, the last for all further ones.  Reports likewise: at once, those on delays after `warn_seconds`.  What is judged
        again likewise; what is held ends `held_seconds` from now at the latest.

        Such a time was written by a clock that was ahead.  Returns how many there were.
        """
        connection = self._trusted_connection()
        latest = "".join([f" WHEN attempts <= {place + 1} THEN ?" for place in range(len(pauses))])
        with self._faults(), connection:
            connection.execute(
                "UPDATE attempt SET due = ? WHERE due > ? AND state = 'deferred'"  # noqa: S608  only numbers of ours
                f" AND due > ? + CASE{latest} ELSE ? END",
                (now, now + min(pauses), now + SLACK_SECONDS, *pauses, pauses[-1]),
            )
            mended = connection.changes()
            connection.execute(
                "UPDATE attempt SET report = CASE state WHEN 'deferred' THEN ? ELSE ? END"
                " WHERE report > CASE state WHEN 'deferred' THEN ? ELSE ? END",
                (now + warn_seconds, now, now + max(warn_seconds, REPORT_AGAIN_SECONDS) + SLACK_SECONDS,
                 now + REPORT_AGAIN_SECONDS + SLACK_SECONDS),
            )
            mended += connection.changes()
            for state, most, moment in (("undecided", max(pauses), now), ("held", held_seconds, now + held_seconds)):
                connection.execute(
                    "UPDATE attempt SET until = ? WHERE state = ? AND until > ?", (moment, state, now + most + SLACK_SECONDS)
                )
                mended += connection.changes()
        return mended

    def forget_damage(self) -> None:
        """Drop the records of damage: the start finds out anew, and a file may have been put back."""
        connection = self._trusted_connection()
        with self._faults():
            connection.execute("DELETE FROM attempt WHERE destination = ? AND state = ?", (WHOLE_ENTRY, EntryState.DAMAGED))

    # --- the log ---

    @property
    def log_octets(self) -> int:
        """What has been written to the log since the last checkpoint."""
        return (self._written_pages() - self._checkpointed_pages) * self._page_octets

    def checkpoint(self) -> None:
        """Move the log into the file, so that the next commit begins it anew."""
        connection = self._open_connection()
        pages = self._written_pages()
        with self._faults():
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._checkpointed_pages = pages

    def _written_pages(self) -> int:
        return 0 if self._connection is None else self._connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]

    def _give_back_space(self, connection: apsw.Connection) -> None:
        """After a flood has drained, the file is mostly holes; a small rest is copied quickly."""
        free = connection.pragma("freelist_count") * connection.pragma("page_size")
        used = connection.pragma("page_count") * connection.pragma("page_size") - free
        if free > VACUUM_FREE_OCTETS and used < free // 8:
            connection.execute("VACUUM")

    def _open_connection(self) -> apsw.Connection:
        if self._connection is None:
            raise StorageBroken(f"{self.path} is not open")
        return self._connection

    def _trusted_connection(self) -> apsw.Connection:
        """The connection for writing.  Raises `StorageBroken` where the store has failed and is not proved to work again."""
        if self._damage:
            raise StorageDamaged(self._damage)
        if not self.trusted:
            raise StorageBroken(f"{self.path} has failed and has not yet been proved to work again")
        return self._open_connection()

    def _says_full(self, error: Exception) -> bool:
        """A quota, or no room for SQLite's shared memory file: an I/O error to SQLite, a full disk to us."""
        if isinstance(error, OSError):
            return error.errno in FULL
        return isinstance(error, apsw.IOError) and self._connection is not None and self._connection.system_errno in FULL

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, and know after which of them the connection is not to be trusted."""
        try:
            with cut_off_is_damage():
                yield
        except DAMAGED as error:
            self.distrust(f"{self.path}: {type(error).__name__}: {error}")
            raise StorageDamaged(self._damage) from error
        except apsw.FullError as error:
            raise StorageFull(f"{self.path}: {error}") from error
        except (apsw.ConstraintError, apsw.TooBigError, apsw.MismatchError) as error:
            raise MessageRefused(f"{self.path}: {error}") from error
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StorageBroken(f"{self.path}: another program holds it: {error}") from error
        except (apsw.Error, OSError) as error:
            self.trusted = False
            if self._says_full(error):
                raise StorageFull(f"{self.path}: {error}") from error
            raise StorageBroken(f"{self.path}: {type(error).__name__}: {error}") from error


def open_connection(path: str) -> apsw.Connection:
    """A writing connection; a new file is made with mode 0600.  Raises `StorageBroken` for an SQLite that loses commits."""
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < SQLITE_LEAST:
        raise StorageBroken(f"SQLite {version} can lose commits at a checkpoint; apsw with SQLite 3.51.3 or later is needed")
    if not os.path.exists(path):  # never open a file that SQLite has open: closing it would drop SQLite's locks
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = apsw.Connection(path)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    return connection


def upgrade(connection: apsw.Connection, version: int, path: str) -> None:
    """Create the schema, or lead an older one step by step to the present version, in one transaction."""
    if version > SCHEMA_VERSION:
        raise StorageBroken(f"{path} was written by a later release (schema {version}, this one knows {SCHEMA_VERSION})")
    if version == SCHEMA_VERSION:
        return
    with connection:
        statements = SCHEMA if version == 0 else [line for n in range(version, SCHEMA_VERSION) for line in UPGRADES[n]]
        for statement in statements:
            connection.execute(statement)
        connection.pragma("user_version", SCHEMA_VERSION)


def numbers_array(numbers: Sequence[int] | set[int]) -> Any:
    """Numbers, at least one, as an argument of `carray(?)`."""
    return apsw.carray(array.array("q", numbers))


def attempt_row(attempt: Attempt) -> tuple[int | float | str | None, ...]:
    """The columns of the table `attempt`."""
    return (
        attempt.number,
        attempt.destination,
        int(attempt.remote),
        str(attempt.state),
        attempt.attempts,
        attempt.due,
        encode_reply(attempt.reply),
        attempt.note,
        attempt.report,
        encode_history(attempt.history),
        attempt.until,
        attempt.hold,
        encode_findings(attempt.findings),
    )


def mark_row(mark: Mark) -> tuple[int | float | str | None, ...]:
    """The arguments of MARK."""
    return str(mark.state), mark.report, mark.note, mark.number, mark.destination, str(mark.was)


def settled_rows(rows: Iterable[Any]) -> list[Settled]:
    """Rows of number, id and spooled."""
    return [Settled(number, id.decode("ascii", "replace"), True, bool(spooled)) for number, id, spooled in rows]
