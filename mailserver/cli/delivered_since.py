"""What of a backup's mail has been delivered since, by what can be seen: the Maildirs that are here, and the roads.

A file in a Maildir says by its name which message it is, and so it is there for sure; that it is not there says nothing, since
people remove their mail.  The roads of the old server (its explain.db) say what it had done when they end.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw

from mailserver.delivery.names import marker_in, marker_of, number_of_mailbox
from mailserver.mail.answers import Local
from mailserver.observe.roads import RoadsUnreadable, Step, opened_for_reading, steps_of
from mailserver.queue.entry import EntryState, destination_name, number_of
from mailserver.queue.reader import closing_reader

if TYPE_CHECKING:
    from mailserver.mail.answers import Mailbox
    from mailserver.mail.parcel import Destination

__all__ = ["Held", "Known", "held_mail", "roads_end"]

PAGE = 500
ACCEPTED = "accepted"  # the first step of a message: a road without it is not the old server's


class Known(enum.StrEnum):
    """What is known of one destination."""

    DELIVERED = "delivered"
    WAITING = "waiting"  # when the roads end
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Held:
    """A destination that is held, or of which a report of success is (`is_report`).  `why` says from what it is `known`."""

    id: str
    sender: str
    recipient: str
    destination: str
    is_report: bool
    known: Known
    why: str = ""


def held_mail(
    data: str, path_of: Callable[[Mailbox], str | None], roads: str = "", *, is_whole: bool = True
) -> Iterator[Held]:
    """Everything in the queue of a data folder that is held.

    `path_of` gives a mailbox's Maildir, None where that is not known; `roads` is a file of them, "" for none, and `is_whole`
    where all of its end is the old server's.  Blocks.  Raises `StorageFault`, `RoadsUnreadable`.
    """
    maildirs = _Maildirs(path_of)
    road_of = _road_reader(roads)
    with closing_reader(data) as reader:
        after = ""
        while reader is not None:
            page = reader.list(after, PAGE)
            found = reader.without_content([number_of(entry.id) for entry in page])
            for entry in page:
                destinations, attempts = found.get(number_of(entry.id), ((), ()))
                states = {one.destination: one for one in attempts}
                steps: list[Step] | None = None
                for one in destinations:
                    attempt = states.get(one.index)
                    if attempt is None or attempt.shown_state != EntryState.HELD:
                        continue
                    steps = road_of(entry.id) if steps is None else steps
                    is_report = attempt.state is EntryState.DELIVERED
                    known, why = _report_known(steps) if is_report else _known(entry.id, one, maildirs, steps)
                    if known is Known.UNKNOWN and is_whole and any(step.step == ACCEPTED for step in steps):
                        known = Known.WAITING
                    to = str(one.recipient.address)
                    yield Held(entry.id, entry.sender, to, destination_name(one), is_report, known, why)
            if len(page) < PAGE:
                return
            after = page[-1].id


def roads_end(path: str) -> float | None:
    """When the last step was written (seconds since the epoch), None where there is none.  Raises `RoadsUnreadable`."""
    try:
        connection = opened_for_reading(path)
        try:
            newest: float | None = connection.execute("SELECT max(time) FROM road").get
            return newest
        finally:
            connection.close()
    except apsw.Error as error:
        raise RoadsUnreadable(f"{path}: {error}") from error


def _known(id: str, destination: Destination, maildirs: _Maildirs, steps: list[Step]) -> tuple[Known, str]:
    place = maildirs.place(id, destination)
    if place:
        return Known.DELIVERED, place
    to, name = str(destination.recipient.address), destination_name(destination)
    for step in steps:
        if step.step == "delivered" and (step.fields.get("recipient"), step.fields.get("destination")) == (to, name):
            return Known.DELIVERED, f"by its road: {step.fields.get('note') or 'delivered'}"
    if any(step.step == "settled" for step in steps):
        return Known.DELIVERED, "by its road: nothing was left to do"
    return Known.UNKNOWN, ""


def _report_known(steps: list[Step]) -> tuple[Known, str]:
    if any(step.step == "reported" and step.fields.get("condition") == "success" for step in steps):
        return Known.DELIVERED, "by its road: the report was sent"
    return Known.UNKNOWN, ""


class _Maildirs:
    """The markers of the messages in Maildirs and their folders, each looked through once."""

    def __init__(self, path_of: Callable[[Mailbox], str | None]) -> None:
        self._path_of = path_of
        self._places: dict[str, dict[str, str]] = {}

    def place(self, id: str, destination: Destination) -> str:
        """Where the message stands, "" where it does not."""
        if not isinstance(destination.route, Local):
            return ""
        box = destination.route.mailbox
        path = self._path_of(box)
        if path is None:
            return ""
        if path not in self._places:
            self._places[path] = _markers(path)
        number = destination.index if destination.named_by_index else number_of_mailbox(box.user)
        return self._places[path].get(marker_of(id, number), "")


def _markers(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    folders = ["", *(name for name in _names(path) if name.startswith("."))]
    for folder in folders:
        for part in ("new", "cur"):
            place = os.path.join(path, folder, part)
            for name in _names(place):
                marker = marker_in(name)
                if marker:
                    found.setdefault(marker, os.path.join(place, name))
    return found


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:  # it is not there, or not ours to see: nothing is known from it
        return []


def _road_reader(path: str) -> Callable[[str], list[Step]]:
    if not path:
        return lambda id: []
    connection: Any = opened_for_reading(path)

    def read(id: str) -> list[Step]:
        try:
            return steps_of(connection, id)
        except (apsw.Error, ValueError) as error:
            raise RoadsUnreadable(f"{path}: {error}") from error

    return read
