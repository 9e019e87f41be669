"""The reading side of the embedded store: a connection of its own, so that reading back never stands in a commit's way.

Every function blocks and is called in a thread.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import apsw

from mailserver.mail.answers import Local
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.envelope_codec import decode_envelope
from mailserver.mail.faults import StorageBroken, StorageDamaged
from mailserver.mail.headers import Headers
from mailserver.mail.parcel import Destination
from mailserver.mail.set_apart import HoldKind
from mailserver.mail.tags import tag_lines
from mailserver.queue.entry import (
    FRONT,
    HIGHEST_NUMBER,
    SPOOLED,
    WHOLE_ENTRY,
    Attempt,
    DuePlace,
    EntryState,
    EntrySummary,
    UnreadableEntry,
    decode_findings,
    decode_history,
    decode_reply,
    number_of,
    shown_id,
    stored_size_of,
    unpack,
    unpack_front,
)
from mailserver.queue.mark import required_files
from mailserver.queue.shared_memory import SharedMemory
from mailserver.queue.spool import Spool
from mailserver.queue.store import DAMAGED, cut_off_is_damage
from mailserver.queue.summaries import damaged_summary, destination_summary

# What a damaged row may raise where it is decoded: anything that wrong types and figures lead to.
ROW_FAULTS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, struct.error)

__all__ = ["OpenEntry", "ReadMessage", "SqliteReader", "Unreadable", "list_entries", "show_entry"]

BUSY_MILLISECONDS = 5000
LATEST = 1e11  # seconds since the epoch: the year 5138
DESTINATIONS_MOST = 1_000_000
HEAD_OCTETS = 65_536  # of a header section that is looked at for people
ATTEMPT = "number, destination, remote, state, attempts, due, reply, note, report, history, until, hold, findings"
ORDER_OF_STATES = ("damaged", "failed", "held", "undecided", "deferred", "queued", "returned", "delivered", "dropped")


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """An entry as it was committed, with what is kept of its attempts."""

    number: int
    envelope: Envelope
    content: Content
    destinations: tuple[Destination, ...]
    attempts: tuple[Attempt, ...]


class OpenEntry(NamedTuple):
    """Where an entry goes: no destinations where they cannot be read; `attempted` are indexes of those with a record."""

    number: int
    destinations: tuple[Destination, ...]
    attempted: frozenset[int]


class StoredDestinations(NamedTuple):
    """Where an entry goes, and what is recorded of that."""

    destinations: tuple[Destination, ...]
    attempts: tuple[Attempt, ...]


class NumberedSummary(NamedTuple):
    """An entry for people, with its number."""

    number: int
    entry: EntrySummary


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that is there and cannot be delivered as it is."""

    number: int
    id: str
    why: str


def not_told(why: str) -> None:
    """Nobody but the one who asks hears of damage."""


class SqliteReader:
    """Reads entries.  Calls may come from any thread, one at a time.  Raises `StorageBroken`, of a damaged file `StorageDamaged`.

    One damaged entry is shown as such and keeps no other from being read; `damaged(why)` is told, in the same thread.
    """

    def __init__(self, *, path: str, spool: Spool, damaged: Callable[[str], object] = not_told) -> None:
        self._path = path
        self._spool = spool
        self._damaged = damaged
        self._connection: apsw.Connection | None = None

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)

    def read(self, numbers: Sequence[int], octets: int) -> tuple[list[ReadMessage | Unreadable], int]:
        """Read these entries in this order until their data are `octets` or more: what was read, and how many numbers it took.

        An entry that is no longer there is passed over.
        """
        found: list[ReadMessage | Unreadable] = []
        taken = 0
        with self._reading() as connection:
            for number in numbers:
                taken += 1
                try:
                    with cut_off_is_damage():
                        rows: list[Any] = connection.execute("SELECT message FROM entry WHERE number = ?", (number,)).fetchall()
                    for (message,) in rows:
                        found.append(self._message(connection, number, message))
                        octets -= len(message) if isinstance(message, bytes) else 0
                except DAMAGED as error:
                    self._say_damaged(error)
                    found.append(Unreadable(number, shown_id(number, ""), f"it cannot be read: {error}"))
                if octets <= 0:
                    break
        return self._without_gone(found), taken

    def _without_gone(self, found: list[ReadMessage | Unreadable]) -> list[ReadMessage | Unreadable]:
        """An entry is forgotten before its file is removed: one whose file was missing may have been settled meanwhile."""
        if not any(isinstance(message, Unreadable) for message in found):
            return found
        with self._reading() as connection:
            return [
                message
                for message in found
                if isinstance(message, ReadMessage)
                or connection.execute("SELECT 1 FROM entry WHERE number = ?", (message.number,)).fetchall()
            ]

    def unattempted(self, after: int, up_to: int, limit: int) -> list[int]:
        """Entries with a destination of which nothing is recorded, in order."""
        with self._reading() as connection:
            return [
                number
                for (number,) in connection.execute(
                    "SELECT number FROM entry WHERE number > ? AND number <= ? AND destinations >"
                    " (SELECT count(*) FROM attempt WHERE attempt.number = entry.number AND destination >= 0)"
                    " AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.number = entry.number AND destination = ?)"
                    " ORDER BY number LIMIT ?",
                    (after, up_to, WHOLE_ENTRY, limit),
                )
            ]

    def open_entries(self, after: int, up_to: int, limit: int) -> list[OpenEntry]:
        """`unattempted`, with what says where each goes."""
        numbers = self.unattempted(after, up_to, limit)
        known = self.without_content(numbers)
        return [
            OpenEntry(number, destinations, frozenset([attempt.destination for attempt in attempts]))
            for number in numbers
            for destinations, attempts in (known.get(number, StoredDestinations((), ())),)
        ]

    def due(self, after: DuePlace, now: float, limit: int) -> list[DuePlace]:
        """Deferred entries whose time has come: (due, number, remote), in order, beyond the place `after`."""
        with self._reading() as connection:
            return [
                DuePlace(due, number, bool(remote))
                for due, number, remote in connection.execute(
                    "SELECT DISTINCT due, number, remote FROM attempt INDEXED BY attempt_due WHERE due IS NOT NULL"
                    " AND due >= ? AND due <= ? AND (due, number, remote) > (?, ?, ?) ORDER BY due, number, remote LIMIT ?",
                    (after.due, now, *after, limit),
                )
            ]

    def next_due(self, after: float) -> float | None:
        """The first time after `after` at which something is due."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT due FROM attempt INDEXED BY attempt_due WHERE due IS NOT NULL AND due > ? ORDER BY due LIMIT 1", (after,)
            )
            return next((due for (due,) in rows), None)

    def due_now(
        self, after: DuePlace, now: float, limit: int
    ) -> tuple[list[DuePlace], float | None]:
        """`due`, and where that was all of it the next time that something is due."""
        places = self.due(after, now, limit)
        return places, self.next_due(now) if len(places) < limit else None

    def reports_due(
        self, after: DuePlace, now: float, limit: int
    ) -> tuple[list[DuePlace], float | None]:
        """Entries that owe a report: as `due_now`, `remote` without a meaning."""
        return self._by_time("report", after, now, limit)

    def until_now(
        self, after: DuePlace, now: float, limit: int
    ) -> tuple[list[DuePlace], float | None]:
        """Entries of which something held is to be discarded or judged again: as `reports_due`."""
        return self._by_time("until", after, now, limit)

    def _by_time(
        self, column: Literal["report", "until"], after: DuePlace, now: float, limit: int
    ) -> tuple[list[DuePlace], float | None]:
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT DISTINCT {column}, number FROM attempt INDEXED BY attempt_{column} WHERE {column} IS NOT NULL"  # noqa: S608 - one of two names
                f" AND {column} >= ? AND {column} <= ? AND ({column}, number) > (?, ?) ORDER BY {column}, number LIMIT ?",
                (after.due, now, after.due, after.number, limit),
            )
            places = [DuePlace(due, number, False) for due, number in rows]
            if len(places) == limit:
                return places, None
            later = connection.execute(
                f"SELECT {column} FROM attempt INDEXED BY attempt_{column} WHERE {column} IS NOT NULL AND {column} > ?"  # noqa: S608
                f" ORDER BY {column} LIMIT 1", (now,)
            )  # fmt: skip
            return places, next((due for (due,) in later), None)

    def states(self) -> dict[str, tuple[int, int]]:
        """Of recipients with a record: how many in each state, and the lowest number; with "any" the queue's."""
        with self._reading() as connection:
            oldest = connection.execute("SELECT min(number) FROM entry").get
            rows = list(connection.execute("SELECT state, count(*), min(number) FROM attempt GROUP BY state"))
        return {"any": (0, oldest)} | {state: (count, number) for state, count, number in rows} if oldest else {}

    def newest(self) -> int:
        """The highest number, 0 where the queue is empty."""
        with self._reading() as connection:
            return int(connection.execute("SELECT coalesce(max(number), 0) FROM entry").get)

    def attempted(self) -> int:
        """How many entries have something recorded."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(DISTINCT number) FROM attempt").get)

    def damaged_spool(self) -> list[Unreadable]:
        """Entries whose file is missing or has the wrong size."""
        damaged = []
        with self._reading() as connection:
            for number, front in connection.execute(
                "SELECT number, substr(message, 1, ?) FROM entry INDEXED BY entry_spooled WHERE spooled ORDER BY number",
                (FRONT.size,),
            ):
                try:
                    id, _, _ = unpack_front(number, front)
                    why = self._spool.fault(id, stored_size_of(front)) if number_of(id) == number else "it has another id"
                except ROW_FAULTS as error:
                    id, why = "", str(error)
                id = shown_id(number, id)
                if why is not None:
                    damaged.append(Unreadable(number, id, why))
        return damaged

    def without_entry(self, names: Iterable[str]) -> list[str]:
        """Those names of spool files that no entry owns."""
        with self._reading() as connection:
            return [name for name in names if not is_entry(connection, name)]

    def count(self) -> int:
        """How many entries there are.  Raises `StorageBroken`."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM entry").get)

    def list(self, after: str = "", limit: int = 1000) -> list[EntrySummary]:
        """Summaries in the order of the ids, from the one after `after`."""
        return [one.entry for one in self.page(number_of(after) if after else 0, HIGHEST_NUMBER, limit)]

    def page(self, after: int, up_to: int, limit: int) -> Sequence[NumberedSummary]:
        """Numbers and summaries in the order of the numbers, from the one after `after`.

        Where damage bars the way, the last one says so; at the very beginning that is an error.
        """
        found: list[NumberedSummary] = []
        with self._reading() as connection:
            numbers: list[Any] = []
            try:
                for (number,) in connection.execute(
                    "SELECT number FROM entry WHERE number > ? AND number <= ? ORDER BY number LIMIT ?", (after, up_to, limit)
                ):
                    numbers.append(number)  # as far as it goes
            except DAMAGED as error:
                if not numbers and after <= 0:
                    raise
                self._say_damaged(error)
                barred: int | None = (numbers[-1] if numbers else after) + 1
                why = f"the list cannot be read further: {error}"
            else:
                barred, why = None, ""
            found = [
                NumberedSummary(number, self._summary(connection, number, with_history=False)) for number in numbers
            ]
        if barred is not None:
            found.append(NumberedSummary(barred, damaged_summary(barred, "", why)))
        return found

    def held_page(self, after: int, up_to: int, limit: int) -> Sequence[NumberedSummary]:
        """As `page`, of the entries with a copy that a verdict holds: by the index of their ends, however long the queue is."""
        with self._reading() as connection:
            numbers = _held_numbers(connection, after, up_to, limit)
            return [NumberedSummary(number, self._summary(connection, number, with_history=False)) for number in numbers]

    def held_with(
        self, octets: bytes, after: int, up_to: int, limit: int, most: int
    ) -> tuple[Sequence[NumberedSummary], int | None]:
        """Up to `limit` of the next `most` such entries whose envelopes have these octets, in either case; and behind which to go
        on, None at the end.  Of one user's copies among many others' only his are read whole."""
        with self._reading() as connection:
            numbers = _held_numbers(connection, after, up_to, most)
            found: list[NumberedSummary] = []
            for number in numbers:
                if _may_have(connection, number, octets):
                    found.append(NumberedSummary(number, self._summary(connection, number, with_history=False)))
                    if len(found) == limit:
                        return found, number
        return found, numbers[-1] if len(numbers) == most else None

    def heads(self, numbers: Sequence[int]) -> dict[int, tuple[Envelope, bytes]]:
        """The envelopes of entries and the beginnings of their header sections, of those that can be read."""
        found: dict[int, tuple[Envelope, bytes]] = {}
        with self._reading() as connection:
            for number in numbers:
                with contextlib.suppress(apsw.SQLError, apsw.CorruptError, OSError, *ROW_FAULTS):
                    found[number] = self._head(connection, number)
        return found

    def _head(self, connection: apsw.Connection, number: int) -> tuple[Envelope, bytes]:
        blob = connection.blob_open("main", "entry", "message", number, False)
        with contextlib.closing(blob):
            _, flags, raw, envelope_octets, prefix_octets, stored, skip = FRONT.unpack(blob.read(FRONT.size))
            envelope, _ = decode_envelope(blob.read(envelope_octets))
            spooled, id = bool(flags & SPOOLED), raw.decode("ascii")
            prefix = blob.read(min(prefix_octets, HEAD_OCTETS))
            head = prefix if spooled else prefix + blob.read(min(HEAD_OCTETS, stored))
        if spooled and len(head) < HEAD_OCTETS and number_of(id) == number:
            with open(self._spool.path(id), "rb") as file:
                file.seek(skip)
                head += file.read(HEAD_OCTETS)
        return envelope, head

    def _summary(self, connection: apsw.Connection, number: int, with_history: bool = True) -> EntrySummary:
        """One entry for people; one that cannot be read as a damaged one."""
        try:
            return summary(connection, number, with_history)
        except DAMAGED as error:
            self._say_damaged(error)
            return damaged_summary(number, "", f"it cannot be read: {error}")

    def _say_damaged(self, error: Exception) -> str:
        why = f"{self._path}: {type(error).__name__}: {error}"
        self._damaged(why)
        return why

    def without_content(self, numbers: Sequence[int]) -> dict[int, StoredDestinations]:
        """The destinations of entries and what is recorded of them; an entry that is gone or cannot be read is left out."""
        found = {}
        with self._reading() as connection:
            for number in numbers:
                with contextlib.suppress(apsw.SQLError, apsw.CorruptError, *ROW_FAULTS):
                    _, _, _, destinations = front_of(connection, number)
                    attempts = attempts_of(connection, number)
                    found[number] = StoredDestinations(aside(destinations, attempts), attempts)
        return found

    def show(self, id: str) -> EntrySummary | None:
        """The entry with this id, None where the queue has it not."""
        try:
            number = number_of(id.upper())
        except ValueError:
            return None
        with self._reading() as connection:
            if not connection.execute("SELECT 1 FROM entry WHERE number = ?", (number,)).fetchall():
                return None
            found = self._summary(connection, number)
        return found if found.id == id.upper() else None

    def summaries(self, numbers: Sequence[int]) -> Sequence[EntrySummary]:
        """Those of these entries that are there."""
        with self._reading() as connection:
            return [
                self._summary(connection, number)
                for number in numbers
                if connection.execute("SELECT 1 FROM entry WHERE number = ?", (number,)).fetchall()
            ]

    def _message(self, connection: apsw.Connection, number: int, packed: bytes) -> ReadMessage | Unreadable:
        id = ""
        try:
            id = packed[2:18].decode("ascii", "replace")
            row = unpack(number, packed)
            envelope, destinations = checked(number, row.id, *decode_envelope(row.envelope))
            attempts = attempts_of(connection, number)
        except ROW_FAULTS as error:
            return Unreadable(number, shown_id(number, id), str(error))
        if row.data is None:
            why = self._spool.fault(row.id, row.stored_size)
            if why is not None:
                return Unreadable(number, row.id, why)
            path = self._spool.path(row.id)
            content = Content.at(path, row.stored_size, prefix=row.prefix, binary=row.binary, skip=row.skip)
        else:
            content = Content.of(row.data, prefix=row.prefix, binary=row.binary)
        return ReadMessage(number, envelope, content, aside(destinations, attempts), attempts)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """All that is read here is of one moment, whatever is settled meanwhile."""
        try:
            if self._connection is None:
                SharedMemory(self._path).require_room()
                self._connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READONLY)
                self._connection.set_busy_timeout(BUSY_MILLISECONDS)
            connection = self._connection
            connection.execute("BEGIN")
            try:
                with cut_off_is_damage():
                    yield connection
            finally:
                self._end(connection)
        except DAMAGED as error:
            raise StorageDamaged(self._say_damaged(error)) from error
        except apsw.Error as error:
            raise StorageBroken(f"{self._path}: {type(error).__name__}: {error}") from error


    def _end(self, connection: apsw.Connection) -> None:
        """A transaction that has read damage may not end as it should: that says nothing new of what was read."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._connection = None
            connection.close(True)


def _held_numbers(connection: apsw.Connection, after: int, up_to: int, limit: int) -> list[int]:
    rows = connection.execute(
        "SELECT DISTINCT number FROM attempt INDEXED BY attempt_until WHERE until IS NOT NULL AND state = ?"
        " AND hold IS NOT NULL AND number > ? AND number <= ? ORDER BY number LIMIT ?",
        (str(EntryState.HELD), after, up_to, limit),
    )
    return [int(number) for (number,) in rows]


def _may_have(connection: apsw.Connection, number: int, octets: bytes) -> bool:
    """Whether an entry's envelope has these octets; an entry that cannot be read may."""
    try:
        blob = connection.blob_open("main", "entry", "message", number, False)
        with contextlib.closing(blob):
            _, envelope_octets, _ = unpack_front(number, blob.read(FRONT.size))
            return octets in blob.read(envelope_octets).lower()
    except (apsw.SQLError, *ROW_FAULTS):
        return True


def attempts_of(connection: apsw.Connection, number: int) -> tuple[Attempt, ...]:
    """What is recorded of an entry's destinations."""
    rows = connection.execute(f"SELECT {ATTEMPT} FROM attempt WHERE number = ? ORDER BY destination", (number,))  # noqa: S608
    return tuple(
        Attempt(
            *(number, destination, bool(remote), EntryState(state), attempts, due),
            *(decode_reply(reply), note, report, decode_history(history)),
            *(until, None if hold is None else HoldKind(hold), decode_findings(findings)),
        )
        for (number, destination, remote, state, attempts, due, reply, note, report, history, until, hold, findings) in rows
    )


def aside(destinations: tuple[Destination, ...], attempts: Sequence[Attempt]) -> tuple[Destination, ...]:
    """The destinations; their row is as it was committed, and a copy that was judged again may have been put aside, or has more
    tags."""
    judged = {one.destination: one for one in attempts if one.findings or one.hold is HoldKind.QUARANTINED}
    if not judged:
        return destinations
    return tuple([as_judged(one, judged[one.index]) if one.index in judged else one for one in destinations])


def as_judged(destination: Destination, attempt: Attempt) -> Destination:
    """The same with its tags, and for the Junk folder if it was put aside and not held.  Nothing changes for another host."""
    route = destination.route
    if not isinstance(route, Local) or attempt.state in (EntryState.HELD, EntryState.UNDECIDED):
        return destination
    if attempt.hold is HoldKind.QUARANTINED:
        route = Local(route.address, replace(route.mailbox, junk=True))
    lines, _ = tag_lines(attempt.findings, [field.raw + b"\r\n" for field in Headers.parse(destination.lines)])
    return replace(destination, route=route, lines=lines)


def is_entry(connection: apsw.Connection, id: str) -> bool:
    """An entry with this id may exist: one that is damaged keeps its file, whatever is left of it."""
    try:
        number = number_of(id)
    except ValueError:
        return False
    return bool(connection.execute("SELECT 1 FROM entry WHERE number = ?", (number,)).fetchall())


def summary(connection: apsw.Connection, number: int, with_history: bool = True) -> EntrySummary:
    """One entry for people, without reading its content."""
    try:
        id, size, envelope, destinations = front_of(connection, number)
        attempts = attempts_of(connection, number)
        destinations = aside(destinations, attempts)
        records = {attempt.destination: attempt for attempt in attempts}
    except (apsw.SQLError, *ROW_FAULTS) as error:
        return damaged_summary(number, id_in(connection, number), str(error))
    whole = records.get(WHOLE_ENTRY)
    parts = tuple(
        destination_summary(destination, records.get(destination.index), with_history) for destination in destinations
    )
    state = EntryState.DAMAGED if whole else min((part.state for part in parts), key=ORDER_OF_STATES.index, default="queued")
    sender = "" if envelope.sender is None else str(envelope.sender)
    note, login = whole.note if whole else "", envelope.peer.login
    return EntrySummary(id, envelope.received_at, sender, size, state, parts, note, login)


def front_of(
    connection: apsw.Connection, number: int
) -> tuple[str, int, Envelope, tuple[Destination, ...]]:
    """Id, size, envelope and destinations of an entry, without reading its content.  Raises any of `ROW_FAULTS`."""
    blob = connection.blob_open("main", "entry", "message", number, False)
    with contextlib.closing(blob):
        id, envelope_octets, size = unpack_front(number, blob.read(FRONT.size))
        return id, size, *checked(number, id, *decode_envelope(blob.read(envelope_octets)))


def checked(
    number: int, id: str, envelope: Envelope, destinations: tuple[Destination, ...]
) -> tuple[Envelope, tuple[Destination, ...]]:
    """Both, where figures are figures and the id is that of the entry.  Raises ValueError, TypeError."""
    if number_of(id) != number or envelope.id != id:
        raise UnreadableEntry(f"entry {number} has another id")
    if not 0 <= envelope.received_at <= LATEST:
        raise UnreadableEntry(f"entry {number} came at no time")
    indexes = {one.index for one in destinations if type(one.index) is int and 0 <= one.index < DESTINATIONS_MOST}
    if not destinations or len(indexes) != len(destinations):
        raise UnreadableEntry(f"the destinations of entry {number} are not as they were")
    return envelope, destinations


def id_in(connection: apsw.Connection, number: int) -> str:
    """The id that a damaged entry may still have."""
    try:
        row: Any = connection.execute("SELECT substr(message, 3, 16) FROM entry WHERE number = ?", (number,)).fetchone()
        return str(row[0].decode("ascii"))
    except (apsw.Error, *ROW_FAULTS):
        return ""


def list_entries(
    data_directory: str, after: str = "", limit: int = 1000, damaged: Callable[[str], object] = not_told
) -> list[EntrySummary]:
    """`Queue.list` for when no server runs: reads the file of a data directory.  Raises `StorageBroken`."""
    with closing_reader(data_directory, damaged) as reader:
        return reader.list(after, limit) if reader is not None else []


def show_entry(data_directory: str, id: str, damaged: Callable[[str], object] = not_told) -> EntrySummary | None:
    """`Queue.show` for when no server runs."""
    with closing_reader(data_directory, damaged) as reader:
        return reader.show(id) if reader is not None else None


@contextlib.contextmanager
def closing_reader(data_directory: str, damaged: Callable[[str], object] = not_told) -> Iterator[Any]:
    """A reader for one question; None where there has never been a queue.  Raises `QueueGone` where there has been one."""
    path = os.path.join(data_directory, "queue.db")
    if not required_files(data_directory).octets:
        yield None
        return
    reader = SqliteReader(path=path, spool=Spool(os.path.join(data_directory, "spool")), damaged=damaged)
    try:
        yield reader
    finally:
        reader.close()
