"""What a milter answers, as values; each is bounded, and of its text nothing can end a line of ours.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mailserver.api import Reply
from mailserver.filters.milter_wire import MilterFault, MilterStep, number, texts_in

__all__ = [
    "Accepted",
    "AddedField",
    "Answer",
    "BodyPart",
    "Change",
    "ChangedField",
    "ShutDown",
    "Continued",
    "Discarded",
    "InsertedField",
    "LostRecipient",
    "NewRecipient",
    "NewSender",
    "Agreement",
    "StillWorking",
    "PutAway",
    "Declined",
    "Skipped",
    "read_answer",
    "read_offer",
]

LINES_MOST = 32
LINE_CHARACTERS_MOST = 400
WORDS_CHARACTERS_MOST = 200
MACROS_MOST = 100  # names, of one stage
REPLY_LINE = re.compile(r"([45][0-9]{2})(?:[ -](.*))?", re.DOTALL)
ENHANCED = re.compile(r"([45]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|\Z)")
NOT_IN_A_REPLY = re.compile(r"[^ -~]")


# --- what ends a step ---


@dataclass(frozen=True, slots=True)
class Continued:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """It wants to hear no more of the message; at connect and HELO, of the whole connection."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """It has heard enough of these: no more fields, no more of the body."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """Say yes and throw the message away."""


@dataclass(frozen=True, slots=True)
class Declined:
    """No, or not now (`is_transient`); in the words of `reply`, where it has some."""

    is_transient: bool
    reply: Reply | None = None

    def __str__(self) -> str:
        return str(self.reply) if self.reply is not None else "tempfail" if self.is_transient else "reject"


@dataclass(frozen=True, slots=True)
class ShutDown:
    """It wants the connection to be closed (421)."""


# --- what is said before that ---


@dataclass(frozen=True, slots=True)
class StillWorking:
    """It still works on it."""


@dataclass(frozen=True, slots=True)
class AddedField:
    """A field behind the others."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class InsertedField:
    """A field before the one at place `at`, counted from 0."""

    at: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class ChangedField:
    """Another value for the field of this name and index, counted from 1; b"" takes it away."""

    index: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class BodyPart:
    """The next piece of another body."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewSender:
    """Another sender, with parameters of MAIL."""

    path: bytes
    parameters: bytes = b""


@dataclass(frozen=True, slots=True)
class NewRecipient:
    """One more recipient, with parameters of RCPT."""

    path: bytes
    parameters: bytes = b""


@dataclass(frozen=True, slots=True)
class LostRecipient:
    """One recipient less."""

    path: bytes


@dataclass(frozen=True, slots=True)
class PutAway:
    """Quarantine it; the reason is printable."""

    why: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a milter has chosen of what was offered.  `macros` has the names it wants, by the number of the stage."""

    version: int
    actions: int
    omits: int
    macros: Mapping[int, tuple[str, ...]]


Change = AddedField | InsertedField | ChangedField | BodyPart | NewSender | NewRecipient | LostRecipient | PutAway
Answer = Continued | Accepted | Skipped | Discarded | Declined | ShutDown
EVERYWHERE = frozenset(b"cartyf4p")
CHANGES = frozenset(b"hibme+2-q")
BEFORE_MAIL = frozenset({MilterStep.CONNECT, MilterStep.HELO})


def read_answer(step: MilterStep, letter: bytes, data: bytes) -> Answer | StillWorking | Change:
    """The answer to a command of this step.  Raises `MilterFault` for what is none, or none there."""
    known = letter[0] in EVERYWHERE
    if letter == b"d":
        known = step not in BEFORE_MAIL  # there is no message yet
    elif letter == b"s":
        known = step in (MilterStep.HEADER, MilterStep.BODY)
    elif letter[0] in CHANGES:
        known = step is MilterStep.END
    if not known:
        raise MilterFault(f"the answer {letter!r} to the command {step.name}")
    match letter:
        case b"c":
            return Continued()
        case b"a":
            return Accepted()
        case b"s":
            return Skipped()
        case b"d":
            return Discarded()
        case b"r":
            return Declined(False)
        case b"t":
            return Declined(True)
        case b"y":
            return _refused(data)
        case b"4" | b"f":
            return ShutDown()
        case b"p":
            return StillWorking()
        case _:
            return _change(letter, data)


def _refused(data: bytes) -> Declined | ShutDown:
    """What was set by smfi_setreply or smfi_setmlreply: ``550 5.7.1 text``, more lines divided by CRLF."""
    (text, *_) = texts_in(data)
    lines = re.split(r"\r\n|\r|\n", text.decode("utf-8", "replace"))[:LINES_MOST]
    first = REPLY_LINE.fullmatch(lines[0])
    if first is None:
        raise MilterFault(f"no reply: {_printable(lines[0])!r}")
    code = int(first[1])
    if code == 421:
        return ShutDown()
    words, enhanced = [], ""
    for place, line in enumerate(lines):
        found = REPLY_LINE.fullmatch(line)
        line = (found[2] or "") if found is not None and found[1] == first[1] else line
        status = ENHANCED.match(line)
        if status is not None:
            line = line[status.end() :]
            enhanced = enhanced or (status[1] if status[1][0] == first[1][0] else "")
        if line or place == 0:
            words.append(_printable(line.replace("%%", "%"))[:LINE_CHARACTERS_MOST])
    if words == [""]:
        words = ["Not now" if code < 500 else "Declined"]
    return Declined(code < 500, Reply(code, enhanced or f"{code // 100}.7.1", tuple(words)))


def _change(letter: bytes, data: bytes) -> Change:
    if letter == b"b":
        return BodyPart(data)
    at = 0
    if letter in (b"i", b"m"):
        at, data = number(data)
    parts = texts_in(data)
    match letter, parts:
        case b"h", [name, value]:
            return AddedField(name, value)
        case b"i", [name, value]:
            return InsertedField(at, name, value)
        case b"m", [name, value]:
            return ChangedField(at, name, value)
        case b"e", [path, *more]:
            return NewSender(path, b" ".join(more))
        case (b"+" | b"2"), [path, *more]:
            return NewRecipient(path, b" ".join(more))
        case b"-", [path]:
            return LostRecipient(path)
        case b"q", [why]:
            return PutAway(_printable(why.decode("utf-8", "replace"))[:WORDS_CHARACTERS_MOST])
        case _:
            raise MilterFault(f"{len(parts)} texts in the answer {letter!r}")


def read_offer(data: bytes) -> Agreement:
    """The answer to the offer.  Raises `MilterFault`."""
    version, data = number(data)
    actions, data = number(data)
    omits, data = number(data)
    macros: dict[int, tuple[str, ...]] = {}
    while data:
        stage, data = number(data)
        names, end, data = data.partition(b"\0")
        if not end:
            raise MilterFault("a list of macros without an end")
        found = re.split(r"[\s,]+", names.decode("utf-8", "replace"))
        macros[stage] = tuple([_macro(name) for name in found if name][:MACROS_MOST])
    return Agreement(version, actions, omits, macros)


def _macro(name: str) -> str:
    """``{mail_addr}`` and ``i``, however it was written."""
    bare = name.strip("{}")
    return bare if len(bare) == 1 else "{" + bare + "}"


def _printable(text: str) -> str:
    return NOT_IN_A_REPLY.sub("?", text)

