"""The changes that a modifier may ask for, and how they are made to a header section.

The edits of a message in a file leave the file alone: its header section is replaced by an edited one in front of it.

`with_start` is what all edits of a header section come down to.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.mail.added_header import AddHeader, EditError, checked_name, field_octets
from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.envelope import NO_RECIPIENT_PARAMETERS, RecipientParameters

__all__ = [
    "AddHeader",
    "AddRecipient",
    "ChangeHeader",
    "ChangeSender",
    "DropHeader",
    "Edit",
    "EditError",
    "HeaderEdit",
    "InsertHeader",
    "PutAside",
    "ReplaceBody",
    "ReplaceRecipient",
    "apply_edits",
    "checked_edit",
    "field_of",
    "in_words",
    "with_fields",
    "with_start",
    "with_value",
]

WORDS_CHARACTERS = 200
WHY_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class InsertHeader:
    """Put a header field before the one at place `at`: 0 is the front; beyond the last it becomes the last.

    `value` as in `AddHeader`.  Raises `EditError`.
    """

    at: int
    name: str
    value: str

    def __post_init__(self) -> None:
        if not _is_number(self.at) or self.at < 0:
            raise EditError(f"a place in the header section is 0 or more, not {self.at!r}")
        field_octets(self.name, self.value)


@dataclass(frozen=True, slots=True)
class ChangeHeader:
    """Give a header field another value; None removes it.

    `index` counts those of this name: 0 is the first, -1 the last.  A field that is not there cannot be changed: that is the
    modifier's failure.  `value` as in `AddHeader`.  Raises `EditError`.
    """

    name: str
    index: int
    value: str | None

    def __post_init__(self) -> None:
        if not _is_number(self.index):
            raise EditError(f"an index is a whole number, not {self.index!r}")
        if self.value is None:
            checked_name(self.name)
        else:
            field_octets(self.name, self.value)


@dataclass(frozen=True, slots=True)
class DropHeader:
    """Remove every header field of this name; there may be none.  Raises `EditError`."""

    name: str

    def __post_init__(self) -> None:
        checked_name(self.name)


@dataclass(frozen=True, slots=True)
class ReplaceBody:
    """Put another body in place of the message's; the header section stays.

    `chunks` are octets, or octets piece by piece, which may have to be waited for; or `path` is a file that has them.  They are
    read once, when the edit is made.  Line ends become CRLF.  Content-Type and Content-Transfer-Encoding are the modifier's to
    change.  Raises `EditError`.
    """

    chunks: bytes | Iterable[bytes] | AsyncIterable[bytes] = b""
    path: str = ""

    def __post_init__(self) -> None:
        chunks: Any = self.chunks  # a plugin's: of any type
        path: Any = self.path
        if isinstance(chunks, str) or not isinstance(chunks, Iterable | AsyncIterable):
            raise EditError(f"a body is octets, or pieces of octets, not {type(chunks).__name__}")
        if not isinstance(path, str) or (path and chunks != b""):
            raise EditError("a body comes in chunks or from a path, which is a text")


@dataclass(frozen=True, slots=True)
class ChangeSender:
    """Another reverse-path, to which reports go; None is the null reverse-path.  Raises `EditError`."""

    sender: Address | None

    def __post_init__(self) -> None:
        if self.sender is not None and not isinstance(self.sender, Address):
            raise EditError(f"a sender is an address or None, not {type(self.sender).__name__}")


@dataclass(frozen=True, slots=True)
class ReplaceRecipient:
    """Send to `replacements` in place of `recipient`; none at all means that this recipient gets no copy.

    Somebody must be left: who wants to throw the message away answers with `Discard`.  Raises `EditError`.
    """

    recipient: Address
    replacements: tuple[Address, ...]

    def __post_init__(self) -> None:
        members: Any = (self.recipient, self.replacements)  # a plugin's: of any type
        if not isinstance(members[1], tuple) or not all(isinstance(one, Address) for one in (members[0], *members[1])):
            raise EditError("a recipient is an address, and its replacements are a tuple of such")


@dataclass(frozen=True, slots=True)
class AddRecipient:
    """Send to `recipient`, too.  What becomes of others' copies is nothing to him.  Raises `EditError`."""

    recipient: Address
    parameters: RecipientParameters = NO_RECIPIENT_PARAMETERS

    def __post_init__(self) -> None:
        recipient: Any = self.recipient  # a plugin's: of any type
        parameters: Any = self.parameters
        if not isinstance(recipient, Address) or not isinstance(parameters, RecipientParameters):
            raise EditError("a recipient is an address, with the parameters of one")


@dataclass(frozen=True, slots=True)
class PutAside:
    """Put the message aside, as a `Quarantine` for a content does.  Raises `EditError`."""

    why: str

    def __post_init__(self) -> None:
        why: Any = self.why
        if not isinstance(why, str) or len(why) > WHY_CHARACTERS or not why.isprintable():
            raise EditError(f"a reason is printable text of at most {WHY_CHARACTERS} characters")


HeaderEdit = AddHeader | InsertHeader | ChangeHeader | DropHeader
Edit = HeaderEdit | ReplaceBody | ChangeSender | ReplaceRecipient | AddRecipient | PutAside


def checked_edit(edit: Edit) -> Edit:
    """Return it as one of our own, if it is one.  Raises `EditError`, and whatever members of a wrong type lead to.

    It was checked when it was made, unless a derived class has seen to that.
    """
    if edit.__class__ is AddHeader:  # checked once more where it is made to a header section
        return edit
    match edit:
        case AddHeader():
            return AddHeader(edit.name, edit.value)
        case InsertHeader():
            return InsertHeader(edit.at, edit.name, edit.value)
        case ChangeHeader():
            return ChangeHeader(edit.name, edit.index, edit.value)
        case DropHeader():
            return DropHeader(edit.name)
        case ReplaceBody():
            return ReplaceBody(edit.chunks, edit.path)
        case ChangeSender():
            return ChangeSender(edit.sender)
        case AddRecipient():
            return AddRecipient(edit.recipient, edit.parameters)
        case PutAside():
            return PutAside(edit.why)
        case _:
            return ReplaceRecipient(edit.recipient, edit.replacements)


def in_words(edit: Edit) -> str:
    """For the log and `explain`: ``AddHeader X-Seen: yes``."""
    match edit:
        case AddHeader(name, value):
            words = f"{name}: {value}"
        case InsertHeader(at, name, value):
            words = f"{name} at {at}: {value}"
        case ChangeHeader(name, index, value):
            words = f"{name} {index}: {value}" if value is not None else f"{name} {index} removed"
        case DropHeader(name):
            words = name
        case ReplaceBody():
            words = edit.path
        case ChangeSender(sender):
            words = f"<{sender or ''}>"
        case ReplaceRecipient(recipient, replacements):
            words = f"{recipient} by {', '.join(map(str, replacements)) or 'nobody'}"
        case AddRecipient(recipient):
            words = str(recipient)
        case PutAside(why):
            words = why
    words = f"{type(edit).__name__} {words}".rstrip()
    return " ".join(words[:WORDS_CHARACTERS].split())


def apply_edits(content: Content, edits: Iterable[HeaderEdit]) -> Content:
    """Make the edits of the header section in their order: each sees what those before it have made.

    Raises `EditError`, and OSError where the message's file cannot be read.
    """
    edits = list(edits)
    added = [edit for edit in edits if isinstance(edit, AddHeader)]
    if len(added) == len(edits):
        front = b"".join([field_octets(edit.name, edit.value) for edit in reversed(added)])
        return content.with_prefix(front) if front else content
    dropped = [edit.name.lower() for edit in edits if isinstance(edit, DropHeader)]
    if len(dropped) == len(edits):
        return _without(content, frozenset(dropped))
    if content.has_cut_head:
        raise EditError("the header section has no end")
    fields = [field.raw for field in content.headers]
    for edit in edits:
        _edit(fields, edit)
    return with_fields(content, b"".join([field + b"\r\n" for field in fields]))


def _edit(fields: list[bytes], edit: HeaderEdit) -> None:
    match edit:
        case AddHeader(name, value):
            fields.insert(0, field_octets(name, value)[:-2])
        case InsertHeader(at, name, value):
            fields.insert(at, field_octets(name, value)[:-2])
        case DropHeader(name):
            places = _places(fields, name)
            fields[:] = [field for n, field in enumerate(fields) if n not in places]
        case ChangeHeader(name, index, value):
            places = _places(fields, name)
            if not -len(places) <= index < len(places):
                raise EditError(f"there is no field {name} {index}: there are {len(places)}")
            place = places[index]
            fields[place : place + 1] = [] if value is None else [field_octets(name, value)[:-2]]


def _places(fields: Sequence[bytes], name: str) -> list[int]:
    key = name.lower().encode()
    return [n for n, raw in enumerate(fields) if b":" in raw and raw.partition(b":")[0].rstrip().lower() == key]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def field_of(edit: AddHeader) -> bytes:
    """The field's octets, with the CRLF that ends it."""
    return field_octets(edit.name, edit.value)


def with_start(content: Content, start: bytes, octets: int) -> Content:
    """The same message with `start` in place of its prefix and of the first `octets` of what is stored."""
    if content.path is not None:
        return Content.at(content.path, content.stored_size, prefix=start, binary=content.binary, skip=content.skip + octets)
    return Content.of(start + (content.data or b"")[octets:], binary=content.binary)


def with_fields(content: Content, fields: bytes) -> Content:
    """The same message with `fields`, each with its CRLF, as its whole header section.

    Raises `EditError` where the header section has no end within what is looked at, and OSError.
    """
    if content.has_whole_head_in_front:
        return with_start(content, fields + b"\r\n", 0)
    stored = content.stored_head
    if stored == b"\r\n" or stored.endswith(b"\r\n\r\n"):
        return with_start(content, fields, len(stored) - 2)  # the empty line stays with the body
    if len(stored) == content.stored_size - content.skip:
        return with_start(content, fields, len(stored))  # fields only, no body
    raise EditError("the header section has no end")


def with_value(content: Content, name: str, value: bytes) -> Content:
    """The same message with another value of every field of this name.  Raises what `with_fields` raises."""
    key = name.lower().encode()
    return with_fields(
        content,
        b"".join([(name.encode() + b": " + value if one.name == key else one.raw) + b"\r\n" for one in content.headers]),
    )


def _without(content: Content, names: frozenset[str]) -> Content:
    headers = content.headers
    if not any(name in headers for name in names):
        return content
    return with_fields(content, headers.without(names))
