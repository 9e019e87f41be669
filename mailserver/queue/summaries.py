"""What is stored of an entry, as values for people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mailserver.mail.ids import time_of
from mailserver.mail.outcomes import clean_text
from mailserver.mail.parcel import Destination
from mailserver.mail.set_apart import found_by_filters, holders_of
from mailserver.queue.entry import Attempt, DestinationSummary, EntryState, EntrySummary, destination_name, shown_id

__all__ = ["damaged_summary", "destination_summary"]


def damaged_summary(number: int, id: str, why: str) -> EntrySummary:
    """An entry of which nothing but the number is sure."""
    id = shown_id(number, id)
    return EntrySummary(id, time_of(id), "", 0, EntryState.DAMAGED, (), clean_text(why))


def destination_summary(destination: Destination, attempt: Attempt | None, with_history: bool) -> DestinationSummary:
    """One destination for people."""
    first = DestinationSummary(
        destination.index, str(destination.recipient.address), destination_name(destination), "queued", 0, None, "", "",
        quiet=destination.quiet,
    )  # fmt: skip
    if attempt is None:
        return first
    reply = "" if attempt.reply is None else str(attempt.reply)
    return replace(
        first,
        state=attempt.shown_state,
        attempts=attempt.attempts,
        due=attempt.due,
        reply=reply,
        note=attempt.note,
        history=attempt.history if with_history else (),
        hold=str(attempt.hold or ""),
        until=attempt.until,
        **(_of_hold(attempt, with_history) if attempt.hold else {}),
    )


def _of_hold(attempt: Attempt, whole: bool) -> dict[str, Any]:
    """Who holds it and what was found, for people: without tags, and in a list without evidence."""
    found = [replace(one, tags=()) for one in found_by_filters(attempt.findings)]
    if not whole:
        found = [replace(one, evidence="", properties={}) for one in found]
    held_by = dict.fromkeys([holder.filter for holder in holders_of(attempt.findings)])
    return {"held_by": tuple(held_by), "findings": tuple(found)}
