"""A batch in its plain form, which crosses to the thread or the process that writes, and what comes back.

Only built-in types, because `marshal` carries them between the two processes: it is as quick as copying, and both ends are the
same interpreter and the same release.  The shapes:

    Copy    (index, user, domain, folder, folder_must_exist, junk, file name, fields in front)
    Letter  (again, binary, data or None, path or None, stored size, prefix, octets to skip, [Copy, ...])
    Result  (index, 0, path of the file) or (index, errno or -1, note)
    Report  ([[Result, ...] for each letter], {device: a Maildir on it}, [(Maildir, file), ...], [directory, ...])
"""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.delivery import errno_outcomes
from mailserver.delivery.durability import Touched
from mailserver.delivery.maildir_format import delivery_fields
from mailserver.delivery.names import file_name, number_of_mailbox
from mailserver.mail.answers import Delivered, Local, Outcome
from mailserver.mail.parcel import Parcel

__all__ = ["Copy", "Letter", "Report", "Result", "letter_of", "outcomes_of", "touched_of"]

Copy = tuple[int, str, str, tuple[str, ...], bool, bool, str, bytes]
Letter = tuple[bool, bool, bytes | None, str | None, int, bytes, int, list[Copy]]
Result = tuple[int, int, str]
Report = tuple[list[list[Result]], dict[int, str], list[tuple[str, str]], list[str]]


def letter_of(parcel: Parcel, host: str) -> Letter:
    """The plain form of a parcel's `Local` destinations.  `host` is the last part of the files' names."""
    envelope, content = parcel.envelope, parcel.content
    copies: list[Copy] = []
    for destination in parcel.destinations:
        route = destination.route
        if not isinstance(route, Local):
            continue
        box = route.mailbox
        number = destination.index if destination.named_by_index else number_of_mailbox(box.user)
        copies.append(
            (
                destination.index,
                box.user,
                box.domain,
                box.folder,
                box.folder_must_exist,
                box.junk,
                file_name(envelope.received_at, envelope.id, number, host),
                delivery_fields(
                    envelope.sender, route.address, destination.recipient.address, binary=content.binary
                ),
            )
        )
    return parcel.again, content.binary, content.data, content.path, content.stored_size, content.prefix, content.skip, copies


def outcomes_of(parcel: Parcel, results: Sequence[Result]) -> dict[int, Outcome]:
    """The outcome of each destination; those that this delivery does not serve are deferred."""
    outcomes: dict[int, Outcome] = {
        index: errno_outcomes.outcome_of(number, note) if number else Delivered(note) for index, number, note in results
    }
    if len(outcomes) != len(parcel.destinations):
        for destination in parcel.destinations:
            outcomes.setdefault(destination.index, errno_outcomes.NOT_LOCAL)
    return outcomes


def touched_of(report: Report) -> Touched:
    """What has to be synced for a report."""
    return Touched(report[1], report[2], set(report[3]))
