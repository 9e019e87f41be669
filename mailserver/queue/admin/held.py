"""What verdicts hold, copy by copy, for those who decide about it."""

from __future__ import annotations

import re
from typing import Any

from mailserver.mail.headers import Headers
from mailserver.mail.held_copy import HeldCopy, shown_field
from mailserver.queue.admin.selection import Selection
from mailserver.queue.entry import DestinationSummary, EntrySummary, number_of, shown_id
from mailserver.queue.reader import SqliteReader

__all__ = ["copy_selection", "held_copies"]

PAGE = 100  # entries looked through at once
LOOKED_AT = 2000  # of whose envelopes only the octets are looked at
PLAIN = re.compile(r"[a-z0-9]{3,}")  # stands in an envelope as it is


def held_copies(
    reader: SqliteReader, selection: Selection, *, after: str, most: int, now: float
) -> tuple[list[HeldCopy], str | None]:
    """Of the next page behind the copy `after` ("" for the first) up to `most` of those that are meant, the oldest message first;
    and behind which copy to go on, None at the end.  Blocks.  Raises ValueError, `StorageBroken`."""
    low, high = selection.numbers
    number, index = _place(after) if after else (0, -1)
    named = _octets_of(selection)
    if named:
        rows, further = reader.held_with(named, max(low, number) - 1, high, PAGE, LOOKED_AT)
    else:
        rows = reader.held_page(max(low, number) - 1, high, PAGE)
        further = rows[-1].number if len(rows) == PAGE else None
    meant = [(row.number, chosen) for row in rows if (chosen := selection.chosen(row.entry, now))]
    found: list[HeldCopy] = []
    for at, chosen in meant:
        for entry in reader.summaries([at]):
            parts = [one for one in entry.destinations if one.index in chosen and (at > number or one.index > index)]
            head = reader.heads([at]).get(at) if parts else None
            for part in parts:
                if len(found) == most:
                    return found, found[-1].id
                found.append(_copy(entry, part, head))
    return found, None if further is None else f"{shown_id(further, '')}/{1 << 31}"


def copy_selection(id: str, **more: Any) -> Selection:
    """The copy of this id, or with a message's id all its copies.  Raises ValueError."""
    message, slash, index = id.partition("/")
    number_of(message)
    if slash and not (index.isascii() and index.isdigit()):
        raise ValueError(f"not the id of a copy: {id!r}")
    return Selection(id=message, held=True, index=int(index) if slash else None, **more)


def _octets_of(selection: Selection) -> bytes:
    """What stands in the envelope of each entry that is meant, b"" where nothing is sure."""
    text = (selection.user or selection.recipient).lower()
    local, at, _ = text.rpartition("@")
    if "[" in text or not text.isascii() or not (at or selection.user):  # without an @ a folder's name may be meant
        return b""
    return max(PLAIN.findall(local if at else text), key=len, default="").encode()


def _place(id: str) -> tuple[int, int]:
    message, _, index = id.partition("/")
    return number_of(message), int(index) if index.isascii() and index.isdigit() else -1


def _copy(entry: EntrySummary, part: DestinationSummary, head: Any) -> HeldCopy:
    envelope, octets = head if head is not None else (None, b"")
    headers = Headers.parse(octets)
    return HeldCopy(
        id=f"{entry.id}/{part.index}",
        message=entry.id,
        recipient=part.recipient,
        destination=part.destination,
        sender=entry.sender or None,
        author=shown_field(headers, "from"),
        subject=shown_field(headers, "subject"),
        peer="" if envelope is None else envelope.peer.address,
        login="" if envelope is None else envelope.peer.login,
        size=entry.size,
        since=entry.received_at,
        until=part.until,
        why=part.note,
        held_by=part.held_by,
        findings=part.findings,
    )
