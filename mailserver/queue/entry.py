"""What the queue keeps of a message, as values and as octets.

A message's row is one blob, packed here, so that a whole batch enters the store with a single statement.  Its number, the key,
is the first twelve characters of the message id read as an integer: it sorts by time, and an id is found without an index.
"""

from __future__ import annotations

import enum
import json
import re
import struct
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from mailserver.mail.added_header import AddHeader
from mailserver.mail.answers import Finding, Local
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.envelope_codec import encode_envelope
from mailserver.mail.ids import ALPHABET
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import HoldKind

__all__ = [
    "CLOSED",
    "FROM_ID",
    "HIGHEST_NUMBER",
    "KEY_OCTETS",
    "NUMBER_CHARACTERS",
    "REPORT_HELD",
    "WHOLE_ENTRY",
    "Attempt",
    "DestinationSummary",
    "DuePlace",
    "EntrySummary",
    "Mark",
    "Settled",
    "EntryState",
    "StoredMessage",
    "Trial",
    "UnreadableEntry",
    "decode_findings",
    "decode_history",
    "decode_reply",
    "destination_name",
    "encode_findings",
    "encode_history",
    "encode_reply",
    "is_id",
    "number_of",
    "pack",
    "shown_id",
    "stored_size_of",
    "unpack",
    "unpack_front",
]

ID = re.compile(f"[{ALPHABET}]{{16}}")
NUMBER_CHARACTERS = 12  # 60 bits: a positive SQLite integer
HIGHEST_NUMBER = (1 << 60) - 1
FROM_ID = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")

# In front of the packed message stand three decimal fields that only the insert statement reads: number (19 digits),
# count of destinations (6), whether the content is a file (1).
KEY_OCTETS = 26
LAYOUT = 1
FRONT = struct.Struct(">BB16sIIQI")  # layout, flags, id; octets: envelope, prefix, data or file, skipped of the file
SPOOLED = 1
BINARY = 2

TRIALS_KEPT = 10  # of each destination, the newest
DIALOGUES_KEPT = 3  # of these, the newest
TRIAL_CHARACTERS = 500
DIALOGUE_LINES = 30
FINDINGS_KEPT = 200

REPORT_HELD = -1.0
"""When a report is owed that waits until a person releases it."""

WHOLE_ENTRY = -1
"""The destination of an attempt that speaks of the entry as a whole (damaged)."""


class Settled(NamedTuple):
    """An entry of which nothing is left to do.  `has_attempts`: in the store; `spooled`: its content is a file."""

    number: int
    id: str
    has_attempts: bool
    spooled: bool


class DuePlace(NamedTuple):
    """A place in the store's index of due times.  `due` is seconds since the epoch; `remote` says for which delivery."""

    due: float
    number: int
    remote: bool


class UnreadableEntry(ValueError):
    """The octets of a row are no packed message."""


class EntryState(enum.StrEnum):
    """What is known of one destination.  A destination without a record has not been tried, or its outcome was not kept.

    FAILED: for good, and its sender has not been told (yet); RETURNED: the sender has been told, or did not want to be.
    """

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"
    RETURNED = "returned"
    HELD = "held"  # not tried until a person releases it; one that a verdict holds ends by itself
    UNDECIDED = "undecided"  # no verdict yet: it is judged again before it is tried
    DROPPED = "dropped"  # a person dropped it, or sent it elsewhere
    DAMAGED = "damaged"


CLOSED = (EntryState.DELIVERED, EntryState.RETURNED, EntryState.DROPPED)
"""Nothing is left to do for a destination."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt for people: when (seconds since the epoch), with whom, how far it came, what was said.

    Of the newest ones the whole `dialogue` is kept, without content and secrets.
    """

    made_at: float
    peer: str
    phase: str
    reply: str
    note: str
    dialogue: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is kept of the attempts for one destination.  `due` is seconds since the epoch, for a deferred one.

    `report` is when a report to the sender is owed, None where none is: on the failure, on the delay or on the success, as
    `state` is; `REPORT_HELD` for a success that is not told before a person says so.  `history` are the last attempts that did
    not deliver, the oldest first.

    `hold` is what holds it where a verdict does; one that is QUARANTINED and not held goes to Junk.  `until` (seconds since the
    epoch) is when a held one is discarded, None for never, and when an undecided one is judged again; `findings` are for those
    who judge it; of what has been judged again they are what was found then, whose tags the copy gets.
    """

    number: int
    destination: int
    remote: bool
    state: EntryState
    attempts: int
    due: float | None
    reply: Reply | None
    note: str
    report: float | None = None
    history: tuple[Trial, ...] = ()
    until: float | None = None
    hold: HoldKind | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def shown_state(self) -> str:
        """For people and their verbs: what is delivered, and whose report is held, is held."""
        return str(EntryState.HELD if self.report == REPORT_HELD else self.state)

    def was_made(self, since: float, now: float) -> bool:
        """The last attempt that did not deliver lies between these two (seconds since the epoch)."""
        return bool(self.history) and since <= self.history[-1].made_at <= now

    def tried(self, trial: Trial) -> tuple[Trial, ...]:
        """The history with one more, bounded."""
        old = self.history[1 - TRIALS_KEPT :]
        silent = tuple([replace(one, dialogue=()) if one.dialogue else one for one in old[: 1 - DIALOGUES_KEPT]])
        return (*silent, *old[1 - DIALOGUES_KEPT :], trial)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a report changes for one destination, if it is still in the state `was`; `note` None leaves the note."""

    number: int
    destination: int
    was: EntryState
    state: EntryState
    report: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A row unpacked.  `data` is None where the content is a file of the spool."""

    number: int
    id: str
    envelope: bytes
    prefix: bytes
    data: bytes | None
    stored_size: int
    binary: bool
    skip: int


@dataclass(frozen=True, slots=True)
class DestinationSummary:
    """One destination, for people.  `state` is "queued" or a `EntryState`; `due` is seconds since the epoch.

    `quiet` is as in `Destination`.
    `history` is empty in a list.  `hold` is a `HoldKind`, "" where no verdict holds it; `until` as in `Attempt`.  Of what a
    verdict holds `held_by` are the filters, and `findings` what was found, in a list without evidence.
    """

    index: int
    recipient: str
    destination: str
    state: str
    attempts: int
    due: float | None
    reply: str
    note: str
    history: tuple[Trial, ...] = ()
    hold: str = ""
    until: float | None = None
    held_by: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class EntrySummary:
    """One entry of the queue, for people.

    `state` is the worst of its destinations': "damaged", "failed", "deferred" or "queued".  `sender` is "" for the null
    reverse-path; `size` counts octets with our trace fields; `received_at` is seconds since the epoch.  `login` is the account
    that has handed it in, "" where nobody had logged in.
    """

    id: str
    received_at: float
    sender: str
    size: int
    state: str
    destinations: tuple[DestinationSummary, ...]
    note: str = ""
    login: str = ""


def is_id(text: str) -> bool:
    """The text is a message id.  A damaged entry may have lost its own, and nothing else is the name of a spool file."""
    return ID.fullmatch(text) is not None


def number_of(id: str) -> int:
    """The key of the entry with this id.  Raises ValueError for what is no id."""
    if not is_id(id):
        raise ValueError(f"not a message id: {id!r}")
    return int(id[:NUMBER_CHARACTERS].translate(FROM_ID), 32)


def shown_id(number: int, id: str) -> str:
    """`id` where it belongs to the entry `number`; else one that does, for an entry that has lost its own."""
    try:
        if number_of(id) == number:
            return id
    except ValueError:
        pass
    digits = [ALPHABET[number >> shift & 31] for shift in range(5 * NUMBER_CHARACTERS - 5, -5, -5)]
    return "".join(digits) + ALPHABET[0] * 4


def pack(number: int, envelope: Envelope, content: Content, destinations: tuple[Destination, ...]) -> bytes:
    """The octets of a row, the three fields of the insert statement in front."""
    octets = encode_envelope(envelope, destinations)
    prefix = content.prefix
    data = content.data
    flags = (SPOOLED if data is None else 0) | (BINARY if content.binary else 0)
    front = FRONT.pack(LAYOUT, flags, envelope.id.encode("ascii"), len(octets), len(prefix), content.stored_size, content.skip)
    key = b"%019d%06d%d" % (number, len(destinations), data is None)
    return b"".join((key, front, octets, prefix, data or b""))


def disowned_of(number: int, packed: bytes) -> Settled:
    """The entry of a row that `pack` has made, as one that is to be taken out again."""
    id, spooled = packed[KEY_OCTETS + 2 : KEY_OCTETS + 18], packed[KEY_OCTETS - 1 : KEY_OCTETS]
    return Settled(number, id.decode("ascii"), True, spooled == b"1")


def unpack_front(number: int, front: bytes) -> tuple[str, int, int]:
    """The id, the octets of the envelope and the size of the whole content, from the first octets of a row."""
    try:
        layout, _, id, envelope_octets, prefix_octets, stored_size, skip = FRONT.unpack_from(front)
    except struct.error as error:
        raise UnreadableEntry(f"entry {number}: {error}") from None
    if layout != LAYOUT:
        raise UnreadableEntry(f"entry {number} has layout {layout}; this release reads layout {LAYOUT}")
    return id.decode("ascii", "replace"), envelope_octets, prefix_octets + stored_size - skip


def stored_size_of(front: bytes) -> int:
    """The octets of the data, or of the file in the spool, from the first octets of a row that `unpack_front` has read."""
    return int(FRONT.unpack_from(front)[5])


def unpack(number: int, packed: bytes) -> StoredMessage:
    """What `pack` was given, the envelope still as octets.  Raises `UnreadableEntry`."""
    id, envelope_octets, _ = unpack_front(number, packed)
    _, flags, _, _, prefix_octets, stored_size, skip = FRONT.unpack_from(packed)
    prefix_at = FRONT.size + envelope_octets
    data_at = prefix_at + prefix_octets
    spooled = bool(flags & SPOOLED)
    if len(packed) != data_at + (0 if spooled else stored_size):
        raise UnreadableEntry(f"entry {number} has {len(packed)} octets, which is not what it says of itself")
    data = None if spooled else packed[data_at:]
    envelope = packed[FRONT.size : prefix_at]
    return StoredMessage(number, id, envelope, packed[prefix_at:data_at], data, stored_size, bool(flags & BINARY), skip)


def encode_reply(reply: Reply | None) -> str | None:
    """A reply as the text that the store keeps."""
    return None if reply is None else json.dumps([reply.code, reply.enhanced, list(reply.lines)])


def decode_reply(text: str | None) -> Reply | None:
    """The reply of `encode_reply`."""
    if text is None:
        return None
    code, enhanced, lines = json.loads(text)
    return Reply(code, enhanced, tuple(lines))


def encode_history(history: tuple[Trial, ...]) -> str:
    """Trials as the text that the store keeps, long texts cut."""
    most = TRIAL_CHARACTERS
    return json.dumps(
        [
            [t.made_at, t.peer[:most], t.phase[:most], t.reply[:most], t.note[:most]]
            + ([[line[:most] for line in t.dialogue[-DIALOGUE_LINES:]]] if t.dialogue else [])
            for t in history
        ]
    )


def decode_history(text: str) -> tuple[Trial, ...]:
    """The trials of `encode_history`."""
    return tuple([Trial(*row[:5], *map(tuple, row[5:])) for row in json.loads(text)])


def encode_findings(findings: tuple[Finding, ...]) -> str | None:
    """Findings as the text that the store keeps, the first `FINDINGS_KEPT` of them; None where there are none."""
    if not findings:
        return None
    return json.dumps(
        [
            [f.name, f.score, f.evidence, dict(f.properties), f.source, [[tag.name, tag.value] for tag in f.tags]]
            for f in findings[:FINDINGS_KEPT]
        ]
    )


def decode_findings(text: str | None) -> tuple[Finding, ...]:
    """The findings of `encode_findings`."""
    return () if text is None else tuple([_finding(*row) for row in json.loads(text)])


def _finding(name: str, score: float, evidence: str, properties: Any, source: str, tags: Any = ()) -> Finding:
    return Finding(name, score, evidence, properties, source, tuple([AddHeader(*tag) for tag in tags]))


def destination_name(destination: Destination) -> str:
    """Where it goes, for people: the mailbox with its folder, or the remote address."""
    route = destination.route
    if isinstance(route, Local):
        box = route.mailbox
        name = f"{box.user}@{box.domain}" if box.domain else box.user
        if box.reader:
            return f"{route.address} ({box.reader})"
        place = box.place
        return "/".join((name, *place)) if place else name
    return str(route.address)
