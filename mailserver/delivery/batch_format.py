"""A batch in the form that crosses to the thread or the process that writes, and the report that comes back.

`marshal` carries both between the two processes: it is as quick as copying, and both ends are the same interpreter and the same
release.  It takes built-in types alone, so `plain_messages` and `messages_of` turn the named tuples into plain ones and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mailserver.delivery import errno_outcomes
from mailserver.delivery.durability import Touched
from mailserver.delivery.maildir_format import delivery_fields
from mailserver.delivery.names import file_name, number_of_mailbox
from mailserver.mail.answers import Delivered, Local, Outcome
from mailserver.mail.content import Content
from mailserver.mail.parcel import Parcel

__all__ = [
    "BatchCopy",
    "BatchMessage",
    "BatchReport",
    "CopyResult",
    "message_of",
    "messages_of",
    "outcomes_of",
    "plain_messages",
    "touched_of",
    "with_copies",
]


class BatchCopy(NamedTuple):
    """One file to write: the index of its destination, its mailbox, the file's name, the header fields in front."""

    destination: int
    user: str
    domain: str
    folder: tuple[str, ...]
    folder_must_exist: bool
    junk: bool
    name: str
    fields: bytes


class BatchMessage(NamedTuple):
    """A message and its copies.  `again`: an earlier attempt may have written some of them.  The rest is `Content`'s."""

    again: bool
    binary: bool
    data: bytes | None
    path: str | None
    stored_size: int
    prefix: bytes
    skip: int
    copies: list[BatchCopy]

    def content(self) -> Content:
        """What goes behind the fields of each copy."""
        return Content(self.data, self.path, self.stored_size, self.prefix, self.binary, self.skip)

    def once_more(self) -> BatchMessage:
        """The same, for a writer that has to look for copies that are there already."""
        return self._replace(again=True)


CopyResult = tuple[int, int, str]
"""A copy's index, 0 and the path of its file; or its index, an errno (or `errno_outcomes.NO_ERRNO`) and a note."""


class BatchReport(NamedTuple):
    """What came of a batch: the results of each message, and what has to be synced for them.

    `devices` has a Maildir on each file system, by the device's number; `files` has each Maildir with a file below it.
    """

    results: list[list[CopyResult]]
    devices: dict[int, str]
    files: list[tuple[str, str]]
    directories: list[str]


def message_of(parcel: Parcel, host: str) -> BatchMessage:
    """The `Local` destinations of a parcel.  `host` is the last part of the files' names."""
    envelope, content = parcel.envelope, parcel.content
    copies: list[BatchCopy] = []
    for destination in parcel.destinations:
        route = destination.route
        if not isinstance(route, Local):
            continue
        box = route.mailbox
        number = destination.index if destination.named_by_index else number_of_mailbox(box.user)
        copies.append(
            BatchCopy(
                destination.index,
                box.user,
                box.domain,
                box.folder,
                box.folder_must_exist,
                box.junk,
                file_name(envelope.received_at, envelope.id, number, host),
                delivery_fields(
                    *(envelope.sender, route.address, destination.recipient.address),
                    binary=content.binary,
                    lines=destination.lines,
                ),
            )
        )
    return with_copies(parcel, copies)


def with_copies(parcel: Parcel, copies: list[BatchCopy]) -> BatchMessage:
    """A parcel's message."""
    content = parcel.content
    return BatchMessage(
        parcel.again, content.binary, content.data, content.path, content.stored_size, content.prefix, content.skip, copies
    )


def plain_messages(messages: Iterable[BatchMessage]) -> list[tuple[Any, ...]]:
    """Built-in types alone."""
    return [(*message[:-1], list(map(tuple, message.copies))) for message in messages]


def messages_of(plain: Iterable[tuple[Any, ...]]) -> list[BatchMessage]:
    """The reverse of `plain_messages`."""
    copy, message = BatchCopy._make, BatchMessage._make
    return [message((*members[:-1], list(map(copy, members[-1])))) for members in plain]


def outcomes_of(parcel: Parcel, results: Sequence[CopyResult]) -> dict[int, Outcome]:
    """The outcome of each destination; those that this delivery does not serve are deferred."""
    outcomes: dict[int, Outcome] = {
        index: errno_outcomes.outcome_of(number, note) if number else Delivered(note) for index, number, note in results
    }
    if len(outcomes) != len(parcel.destinations):
        for destination in parcel.destinations:
            outcomes.setdefault(destination.index, errno_outcomes.NOT_LOCAL)
    return outcomes


def touched_of(report: BatchReport) -> Touched:
    """What has to be synced for a report."""
    return Touched(report.devices, report.files, set(report.directories))
