"""What has been written into the roads since a place, as spans, in bounded batches.

The file of the roads is opened for each batch and closed again: what reads for long keeps SQLite from cutting the writer's log,
and a damaged file is put aside under the reader's hands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apsw

from mailserver.mail.ids import is_id
from mailserver.observe.roads import RoadsUnreadable, Step, opened_for_reading
from mailserver.traces.ledger import Ledger, RowPlace
from mailserver.traces.spans import Detail, TraceSpan, root_span, spans_of

__all__ = ["ROWS", "Batch", "read_batch", "rows_behind"]

ROWS = 256
OCTETS_MOST = 1 << 20  # of the steps of one batch, as they are written; the row that goes beyond is the last one
STEPS_MOST = 5_000  # of a road that are read for the span of the whole message
CONNECTION_STEPS_MOST = 50  # of a connection, for each of its messages
HEADS = "SELECT number, id, time, length(CAST(steps AS BLOB)) FROM road WHERE number > ? ORDER BY number LIMIT ?"
IS_THERE = "SELECT 1 FROM road WHERE number = ? AND id = ? AND time = ?"
ENDS_WITHOUT_CONNECTION = frozenset({"refused"})


@dataclass(slots=True)
class Batch:
    """Spans, and what is true once a collector has them: see `Ledger.take`.  `rows` is 0 where there was nothing new.

    `unreadable` are ids of rows that hold no steps.
    """

    place: RowPlace
    rows: int = 0
    spans: list[TraceSpan] = field(default_factory=list)
    begun: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def read_batch(path: str, ledger: Ledger, *, detail: Detail, rows_most: int = ROWS) -> Batch:
    """What comes next.  Where the row of the ledger's place is not there any more, all begins anew: with the same ids.

    Raises `RoadsUnreadable`.
    """
    try:
        connection = opened_for_reading(path)
        try:
            connection.execute("BEGIN")  # all of it as it is now
            if ledger.place.number and not _has(connection, ledger.place):
                ledger.forget()
            reader = _Reader(connection, ledger, detail)
            octets = 0
            heads: list[Any] = connection.execute(HEADS, (ledger.place.number, rows_most)).fetchall()
            for number, id, moment, length in heads:
                reader.row(number, id, moment)
                octets += length
                if octets > OCTETS_MOST:
                    break
        finally:
            connection.close()
    except (apsw.Error, ValueError) as error:
        raise RoadsUnreadable(f"{path}: {error}") from error
    batch = reader.batch
    batch.place = replace(batch.place, told=ledger.place.told + len(batch.spans))
    return batch


def rows_behind(path: str, place: RowPlace) -> tuple[int, float]:
    """How many rows wait beyond the place, and the time of the first of them (0.0: none).  Raises `RoadsUnreadable`."""
    try:
        connection = opened_for_reading(path)
        try:
            number = place.number if place.number and _has(connection, place) else 0
            count, oldest = connection.execute("SELECT count(*), min(time) FROM road WHERE number > ?", (number,)).get
        finally:
            connection.close()
    except apsw.Error as error:
        raise RoadsUnreadable(f"{path}: {error}") from error
    return int(count), float(oldest or 0.0)


def _has(connection: apsw.Connection, place: RowPlace) -> bool:
    return connection.execute(IS_THERE, (place.number, place.id, place.time)).fetchone() is not None


class _Reader:
    """Rows, one after the other."""

    def __init__(self, connection: apsw.Connection, ledger: Ledger, detail: Detail) -> None:
        self._connection = connection
        self._ledger = ledger
        self._detail = detail
        self.batch = Batch(ledger.place)

    def row(self, number: int, id: str, moment: float) -> None:
        """Take one; what it holds that is no road of a message goes by."""
        batch = self.batch
        batch.rows += 1
        batch.place = RowPlace(number, id, moment)
        if not is_id(id):
            return
        try:
            steps = _steps(self._connection, number, id)
        except (ValueError, TypeError, AttributeError):  # damaged, or not ours: the next one is read all the same
            batch.unreadable.append(id)
            return
        first, begins_with = self._first(id)
        if begins_with == "connected":
            if any(step.step == "closed" for step in steps):
                self._connection_ended(id)
        else:
            self._message(id, steps, is_first=first == number)

    def _message(self, id: str, steps: list[Step], *, is_first: bool) -> None:
        batch, names = self.batch, {step.step for step in steps}
        other = next((value for step in steps if isinstance(value := step.fields.get("connection"), str)), "")
        around: list[Step] = []
        if is_first and other and is_id(other):
            around = _first_steps(self._connection, other, max(step.time for step in steps))
        batch.spans += spans_of(id, [*around, *steps], detail=self._detail)
        if "settled" in names:
            self._ended(id, steps)
        elif "accepted" in names:
            batch.begun.pop(id, None)
            batch.ended.append(id)  # its end comes with `settled`
        elif is_first and not other and names & ENDS_WITHOUT_CONNECTION:
            self._ended(id)
        elif is_first and other:
            batch.begun[id] = other
            if self._has_closed(other) and not self._is_accepted(id):
                self._ended(id)

    def _connection_ended(self, connection: str) -> None:
        begun = [id for id, other in self.batch.begun.items() if other == connection]
        for id in dict.fromkeys([*self._ledger.open_messages(connection), *begun]):
            if id not in self.batch.ended and not self._is_accepted(id):
                self._ended(id)

    def _ended(self, id: str, last: Sequence[Step] = ()) -> None:
        """The whole of it is known.  `last` are its newest steps, for where there are too many to be looked at."""
        steps = list(_bounded(self._connection, id))
        newest = steps[-1].time if steps else 0.0
        steps += [step for step in last if step.time > newest]
        other = next((value for step in steps if isinstance(value := step.fields.get("connection"), str)), "")
        service = ""
        if other:
            connected = next((one for one in _bounded(self._connection, other) if one.step == "connected"), None)
            service = "" if connected is None else str(connected.fields.get("service", ""))
        self.batch.spans.append(root_span(id, steps, detail=self._detail, service=service))
        self.batch.begun.pop(id, None)
        self.batch.ended.append(id)

    def _first(self, id: str) -> tuple[int, str]:
        """The number of the first row of an id, and its first step."""
        number: Any = self._connection.execute("SELECT min(number) FROM road WHERE id = ?", (id,)).get
        steps = _quiet_steps(self._connection, number, id)
        return number, steps[0].step if steps else ""

    def _has_closed(self, connection: str) -> bool:
        return any(step.step == "closed" for step in _bounded(self._connection, connection))

    def _is_accepted(self, id: str) -> bool:
        return any(step.step == "accepted" for step in _bounded(self._connection, id))


def _steps(connection: apsw.Connection, number: int, id: str) -> list[Step]:
    """Of a row.  Raises ValueError, TypeError and AttributeError where it holds something else."""
    found = []
    rows: list[Any] = connection.execute("SELECT steps FROM road WHERE number = ?", (number,)).fetchall()
    for (text,) in rows:
        for moment, step, fields in json.loads(text):
            found.append(Step(float(moment), id, str(step), dict(fields.items())))
    return found


def _quiet_steps(connection: apsw.Connection, number: int, id: str) -> list[Step]:
    try:
        return _steps(connection, number, id)
    except (ValueError, TypeError, AttributeError):
        return []


def _bounded(connection: apsw.Connection, id: str) -> Iterator[Step]:
    """The steps of a road, as many as are looked at; rows that cannot be read go by."""
    left = STEPS_MOST
    select = "SELECT number FROM road WHERE id = ? ORDER BY number LIMIT ?"
    numbers: list[Any] = connection.execute(select, (id, STEPS_MOST)).fetchall()
    for (number,) in numbers:
        steps = _quiet_steps(connection, number, id)[:left]
        left -= len(steps)
        yield from steps
        if not left:
            return


def _first_steps(connection: apsw.Connection, id: str, until: float) -> list[Step]:
    """Of a connection, up to a time."""
    found: list[Step] = []
    for step in _bounded(connection, id):
        if step.time > until or len(found) == CONNECTION_STEPS_MOST:
            break
        if step.step != "closed":
            found.append(step)
    return found
