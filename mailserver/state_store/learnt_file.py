"""The file of what was learnt of messages: for each owner, in how many of each kind a token was.  All functions here block.

An owner is a user, or the site (""); one's learning never touches another's rows.  Tokens and messages are keyed hashes.  One
connection writes, others read.  A file that is damaged is left as it is.  What is read of it may be anything all the same, since
SQLite has no checksums: numbers are looked at again.

What is old is so by the file's own age, the hours in which somebody had it in use: a clock that is set makes nobody forget.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apsw

from mailserver.mail.durable import sync_directory
from mailserver.mail.faults import StorageBroken, StorageDamaged, StorageFault, StorageFull

__all__ = ["Kind", "LearntFile", "Lesson", "OwnerRow", "Swept", "Told", "storage_fault"]

SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE owner (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, spam INTEGER NOT NULL, ham INTEGER NOT NULL,"
    " learnt REAL NOT NULL)",
    "CREATE TABLE token (owner INTEGER NOT NULL, token INTEGER NOT NULL, spam INTEGER NOT NULL, ham INTEGER NOT NULL,"
    " day INTEGER NOT NULL, PRIMARY KEY (owner, token)) WITHOUT ROWID",
    "CREATE TABLE message (owner INTEGER NOT NULL, digest BLOB NOT NULL, is_spam INTEGER NOT NULL, day INTEGER NOT NULL,"
    " PRIMARY KEY (owner, digest)) WITHOUT ROWID",
    "CREATE TABLE mailbox (owner TEXT PRIMARY KEY, swept REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE junk (owner TEXT NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL, octets INTEGER NOT NULL,"
    " written INTEGER NOT NULL, PRIMARY KEY (owner, name)) WITHOUT ROWID",
    "CREATE TABLE told (number INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL, was TEXT NOT NULL, kind TEXT NOT NULL)",
)
OF_AN_OWNER = (
    "DELETE FROM token WHERE owner = ?",
    "DELETE FROM message WHERE owner = ?",
    "DELETE FROM owner WHERE number = ?",
)
OF_A_MAILBOX = ("DELETE FROM mailbox WHERE owner = ?", "DELETE FROM junk WHERE owner = ?")
EXPIRED = (
    "DELETE FROM token WHERE (owner, token) IN (SELECT owner, token FROM token WHERE day < ? LIMIT ?)",
    "DELETE FROM message WHERE (owner, digest) IN (SELECT owner, digest FROM message WHERE day < ? LIMIT ?)",
)
ONE_MORE = {
    "spam": "INSERT INTO token VALUES (?, ?, 1, 0, ?) ON CONFLICT DO UPDATE SET spam = spam + 1, day = excluded.day",
    "ham": "INSERT INTO token VALUES (?, ?, 0, 1, ?) ON CONFLICT DO UPDATE SET ham = ham + 1, day = excluded.day",
}
ONE_LESS = {
    "spam": "UPDATE token SET spam = max(spam - 1, 0) WHERE owner = ? AND token = ?",
    "ham": "UPDATE token SET ham = max(ham - 1, 0) WHERE owner = ? AND token = ?",
}
ONE_MESSAGE_MORE = {
    "spam": "UPDATE owner SET spam = spam + 1 WHERE number = ?",
    "ham": "UPDATE owner SET ham = ham + 1 WHERE number = ?",
}
ONE_MESSAGE_LESS = {
    "spam": "UPDATE owner SET spam = max(spam - 1, 0) WHERE number = ?",
    "ham": "UPDATE owner SET ham = max(ham - 1, 0) WHERE number = ?",
}
BUSY_MILLISECONDS = 10_000  # the command line may write as well
TOLD_MOST = 10_000
TRIMMED_PERCENT = 90  # what a vocabulary that was full is left with
DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)
HOURS_OF_A_DAY = 24
HOURS = "hours"

Kind = Literal["spam", "ham", "forget"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A message and what it is learnt as.  `id` is the one under which the server took it, "" where nobody knows."""

    kind: Kind
    digest: bytes
    hashes: tuple[int, ...]
    id: str = ""


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """What an owner's messages were: how many of each kind, and when the last one was learnt (seconds since the epoch)."""

    name: str
    number: int
    spam: int
    ham: int
    learnt: float


@dataclass(frozen=True, slots=True)
class Swept:
    """A mailbox as it was looked at last: when, and which files stood in Junk, by name: inode, octets, when written (ns)."""

    at: float
    junk: Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Told:
    """What was learnt of a message that this server took: `was` is what it had been learnt as before, "" for nothing."""

    number: int
    message: str
    was: str
    kind: str


def storage_fault(path: str, error: Exception) -> StorageFault:
    """What an error of SQLite or of the system means."""
    if isinstance(error, apsw.FullError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{path}: {error}")
    return (StorageDamaged if isinstance(error, DAMAGED) else StorageBroken)(f"{path}: {error}")


class LearntFile:
    """The open file, for one thread at a time.  Raises `StorageFull`, `StorageDamaged`, `StorageBroken` wherever it is asked."""

    def __init__(self, path: str, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection
        self._vocabulary: dict[int, int] = {}  # at least so many tokens an owner has, where it was counted

    @classmethod
    def open(cls, path: str, *, writes: bool = True) -> LearntFile:
        """Open it; where it writes, make one that is missing, mode 0600, and look through it for damage."""
        with _faults(path):
            if writes and not os.path.exists(path):
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
                sync_directory(os.path.dirname(path))
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if writes else apsw.SQLITE_OPEN_READONLY
            connection = apsw.Connection(path, flags=flags)
            try:
                connection.set_busy_timeout(BUSY_MILLISECONDS)
                if writes:
                    _prepare(path, connection)
            except BaseException:
                connection.close(True)
                raise
        return cls(path, connection)

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(apsw.Error):
            self._connection.close(True)

    # --- What is read. ---

    def mark(self, name: str) -> bytes | None:
        """What stands in the file about the file."""
        with _faults(self.path):
            row: Any = self._connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return row[0] if row is not None and isinstance(row[0], bytes) else None

    def owners(self, names: Sequence[str] | None = None) -> list[OwnerRow]:
        """Those of these names that have learnt something; all of them where no names are given."""
        sql = (
            "SELECT name, number, spam, ham, learnt FROM owner"
            " WHERE ? OR name IN (SELECT value FROM json_each(?)) ORDER BY name"
        )
        with _faults(self.path):
            rows: Any = self._connection.execute(sql, (names is None, json.dumps(list(names or ())))).fetchall()
        return [_owner_row(self.path, row) for row in rows]

    def known(self) -> list[str]:
        """All owners and mailboxes of which something is kept, without the site."""
        with _faults(self.path):
            rows: Any = self._connection.execute("SELECT name FROM owner UNION SELECT owner FROM mailbox ORDER BY 1").fetchall()
        return [name for (name,) in rows if isinstance(name, str) and name]

    def counts(self, owner: int, hashes: Sequence[int]) -> dict[int, tuple[int, int]]:
        """In how many messages of spam and of ham these tokens were; those that are known."""
        sql = "SELECT token, spam, ham FROM json_each(?) CROSS JOIN token ON owner = ? AND token = value"
        with _faults(self.path):
            rows: Any = self._connection.execute(sql, (json.dumps(list(hashes)), owner)).fetchall()
        return {token: (_number(self.path, spam), _number(self.path, ham)) for token, spam, ham in rows}

    def vocabulary(self, owner: int) -> int:
        """How many tokens an owner knows."""
        with _faults(self.path):
            return int(self._connection.execute("SELECT count(*) FROM token WHERE owner = ?", (owner,)).get)

    def mailbox(self, owner: str) -> Swept | None:
        """As the mailbox of this name was when it was looked at last; None for the first time."""
        with _faults(self.path):
            row: Any = self._connection.execute("SELECT swept FROM mailbox WHERE owner = ?", (owner,)).fetchone()
            if row is None or not isinstance(row[0], float):
                return None
            rows: Any = self._connection.execute(
                "SELECT name, inode, octets, written FROM junk WHERE owner = ?", (owner,)
            ).fetchall()
        return Swept(row[0], {name: (inode, octets, written) for name, inode, octets, written in rows})

    def told_after(self, number: int, most: int) -> list[Told]:
        """What was learnt of messages that this server took, after the one of this number."""
        sql = "SELECT number, message, was, kind FROM told WHERE number > ? ORDER BY number LIMIT ?"
        with _faults(self.path):
            rows: Any = self._connection.execute(sql, (number, most)).fetchall()
        return [Told(*row) for row in rows]

    def told_to(self) -> int:
        """The number of the last one of these, 0 for none."""
        with _faults(self.path):
            return int(self._connection.execute("SELECT coalesce(max(number), 0) FROM told").get)

    # --- What is written: each call is one transaction. ---

    def put_mark(self, name: str, value: bytes) -> None:
        """Write something about the file into it."""
        with self._changing():
            self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def grow_older(self) -> None:
        """The file has been in use for one more hour."""
        with self._changing():
            self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (HOURS, str(self._hours() + 1).encode()))

    def learn(
        self, owner: str, lessons: Sequence[Lesson], *, now: float, vocabulary_most: int, swept: Swept | None = None,
        mailbox: str = "",
    ) -> list[str]:  # fmt: skip
        """Learn these messages.  Returns what came of each: ``new``, ``moved`` from the other kind, ``known``, ``forgotten``,
        ``unknown``.

        With `swept` the `mailbox` of this name stands then as it was seen: what was learnt of it and that it was are one
        transaction.  Its name is the owner's where none is given.
        """
        came = []
        with self._changing():
            number, day = self._number_of(owner) if lessons else 0, self._hours() // HOURS_OF_A_DAY
            for one in lessons:
                came.append(self._learnt(number, one, day))
            if lessons:
                self._connection.execute("UPDATE owner SET learnt = ? WHERE number = ?", (now, number))
                self._connection.execute(
                    "DELETE FROM told WHERE number <= (SELECT max(number) FROM told) - ?", (TOLD_MOST,)
                )
                self._bound(number, sum([len(one.hashes) for one in lessons]), vocabulary_most)
            if swept is not None:
                self._put_mailbox(mailbox or owner, swept)
        return came

    def put_mailboxes(self, times: Mapping[str, float]) -> None:
        """Mailboxes stood at these times as they did before."""
        with self._changing():
            self._connection.executemany(
                "UPDATE mailbox SET swept = ? WHERE owner = ?", [(at, owner) for owner, at in times.items()]
            )

    def drop_owner(self, owner: str) -> bool:
        """Forget everything of an owner, what is known of his mailbox too.  Whether there was anything."""
        with self._changing():
            row: Any = self._connection.execute("SELECT number FROM owner WHERE name = ?", (owner,)).fetchone()
            known: Any = self._connection.execute("SELECT 1 FROM mailbox WHERE owner = ?", (owner,)).fetchone()
            if row is not None:
                for statement in OF_AN_OWNER:
                    self._connection.execute(statement, row)
                self._vocabulary.pop(row[0], None)
            for statement in OF_A_MAILBOX:
                self._connection.execute(statement, (owner,))
        return row is not None or known is not None

    def copy_owner(self, owner: str, new: str) -> None:
        """What one has learnt stands under another name, too, in the place of what stood there."""
        with self._changing():
            row = self._learning_of(owner)
            if row is None:
                return
            self._drop_learning(new)
            self._connection.execute("INSERT INTO owner (name, spam, ham, learnt) VALUES (?, ?, ?, ?)", (new, *row[1:]))
            number = int(self._connection.execute("SELECT number FROM owner WHERE name = ?", (new,)).get)
            self._connection.execute(
                "INSERT INTO token SELECT ?, token, spam, ham, day FROM token WHERE owner = ?", (number, row[0])
            )
            self._connection.execute(
                "INSERT INTO message SELECT ?, digest, is_spam, day FROM message WHERE owner = ?", (number, row[0])
            )

    def move_owner(self, owner: str, new: str) -> None:
        """It stands under the other name alone.  Where both have learnt, that stays which is of more messages."""
        with self._changing():
            row, other = self._learning_of(owner), self._learning_of(new)
            if row is not None and other is not None and other[1] + other[2] >= row[1] + row[2]:
                self._drop_learning(owner)
            elif row is not None:
                self._drop_learning(new)
                self._connection.execute("UPDATE owner SET name = ? WHERE number = ?", (new, row[0]))
            if self._connection.execute("SELECT 1 FROM mailbox WHERE owner = ?", (new,)).fetchone() is None:
                self._connection.execute("DELETE FROM junk WHERE owner = ?", (new,))
                self._connection.execute("UPDATE mailbox SET owner = ? WHERE owner = ?", (new, owner))
                self._connection.execute("UPDATE junk SET owner = ? WHERE owner = ?", (new, owner))
            for statement in OF_A_MAILBOX:
                self._connection.execute(statement, (owner,))

    def drop_copy(self, owner: str, new: str) -> None:
        """Undo `copy_owner`, unless something else was learnt under the other name since."""
        with self._changing():
            row, other = self._learning_of(owner), self._learning_of(new)
            if row is not None and other is not None and row[1:] == other[1:]:
                self._drop_learning(new)

    def expire(self, *, days: float, most: int) -> int:
        """Drop up to so many tokens, and messages, that nobody has learnt for so many days of use.  How many."""
        dropped = 0
        with self._changing():
            day = int(self._hours() / HOURS_OF_A_DAY - days)
            for statement in EXPIRED:
                self._connection.execute(statement, (day, most))
                dropped += self._connection.changes()
        return dropped

    # --- Within a transaction. ---

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with _faults(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself takes back what finds no room
                    self._connection.execute("ROLLBACK")
                raise

    def _learning_of(self, owner: str) -> Any:
        """Number, spam, ham, when; None where nothing was learnt."""
        return self._connection.execute("SELECT number, spam, ham, learnt FROM owner WHERE name = ?", (owner,)).fetchone()

    def _drop_learning(self, owner: str) -> None:
        row = self._learning_of(owner)
        if row is not None:
            for statement in OF_AN_OWNER:
                self._connection.execute(statement, row[:1])
            self._vocabulary.pop(row[0], None)

    def _hours(self) -> int:
        row: Any = self._connection.execute("SELECT value FROM about WHERE name = ?", (HOURS,)).fetchone()
        text = bytes(row[0]) if row is not None and isinstance(row[0], bytes) else b""
        return int(text) if text.isdigit() and len(text) < 10 else 0

    def _number_of(self, owner: str) -> int:
        self._connection.execute("INSERT OR IGNORE INTO owner (name, spam, ham, learnt) VALUES (?, 0, 0, 0)", (owner,))
        return int(self._connection.execute("SELECT number FROM owner WHERE name = ?", (owner,)).get)

    def _learnt(self, owner: int, lesson: Lesson, day: int) -> str:
        execute = self._connection.execute
        row: Any = execute("SELECT is_spam FROM message WHERE owner = ? AND digest = ?", (owner, lesson.digest)).fetchone()
        was = "" if row is None else "spam" if row[0] else "ham"
        if was == lesson.kind:
            return "known"
        if lesson.kind == "forget" and not was:
            return "unknown"
        if was:
            self._connection.executemany(ONE_LESS[was], [(owner, token) for token in lesson.hashes])
            execute(ONE_MESSAGE_LESS[was], (owner,))
            execute("DELETE FROM message WHERE owner = ? AND digest = ?", (owner, lesson.digest))
        if lesson.kind == "forget":
            self._connection.executemany(
                "DELETE FROM token WHERE owner = ? AND token = ? AND spam = 0 AND ham = 0",
                [(owner, token) for token in lesson.hashes],
            )
        else:
            self._connection.executemany(ONE_MORE[lesson.kind], [(owner, token, day) for token in lesson.hashes])
            execute(ONE_MESSAGE_MORE[lesson.kind], (owner,))
            execute("INSERT INTO message VALUES (?, ?, ?, ?)", (owner, lesson.digest, int(lesson.kind == "spam"), day))
        if lesson.id:
            execute("INSERT INTO told (message, was, kind) VALUES (?, ?, ?)", (lesson.id, was, lesson.kind))
        return "forgotten" if lesson.kind == "forget" else "moved" if was else "new"

    def _bound(self, owner: int, more: int, most: int) -> None:
        """Where an owner knows too many tokens, those leave that were seen once, and then those that were learnt longest ago."""
        if owner in self._vocabulary and self._vocabulary[owner] + more <= most:
            self._vocabulary[owner] += more
            return
        count = int(self._connection.execute("SELECT count(*) FROM token WHERE owner = ?", (owner,)).get)
        if count > most:
            left = most * TRIMMED_PERCENT // 100
            self._connection.execute(
                "DELETE FROM token WHERE owner = ? AND token IN"
                " (SELECT token FROM token WHERE owner = ? ORDER BY spam + ham > 1, day LIMIT ?)",
                (owner, owner, count - left),
            )
            count = left
        self._vocabulary[owner] = count

    def _put_mailbox(self, owner: str, swept: Swept) -> None:
        rows: Any = self._connection.execute("SELECT name, inode, octets, written FROM junk WHERE owner = ?", (owner,))
        before = {name: tuple(more) for name, *more in rows}
        gone = before.keys() - swept.junk.keys()
        self._connection.executemany("DELETE FROM junk WHERE owner = ? AND name = ?", [(owner, name) for name in gone])
        self._connection.executemany(
            "INSERT OR REPLACE INTO junk VALUES (?, ?, ?, ?, ?)",
            [(owner, name, *facts) for name, facts in swept.junk.items() if before.get(name) != facts],
        )
        self._connection.execute("INSERT OR REPLACE INTO mailbox VALUES (?, ?)", (owner, swept.at))


def _prepare(path: str, connection: apsw.Connection) -> None:
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "NORMAL")  # consistent after a power loss, short of the last seconds
    version = connection.pragma("user_version")
    if version > SCHEMA_VERSION:
        raise StorageBroken(f"{path} was written by a later release (schema {version})")
    if version == 0:
        with connection:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.pragma("user_version", SCHEMA_VERSION)
    elif (fault := connection.execute("PRAGMA quick_check(1)").get) != "ok":
        raise StorageDamaged(f"{path} is damaged: {fault}")


@contextlib.contextmanager
def _faults(path: str) -> Iterator[None]:
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise storage_fault(path, error) from error


def _owner_row(path: str, row: Any) -> OwnerRow:
    name, number, spam, ham, learnt = row
    if not isinstance(name, str) or not isinstance(learnt, float):
        raise StorageDamaged(f"{path} is damaged: a row of an owner is none")
    return OwnerRow(name, _number(path, number), _number(path, spam), _number(path, ham), learnt)


def _number(path: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise StorageDamaged(f"{path} is damaged: a count is none")
    return value
