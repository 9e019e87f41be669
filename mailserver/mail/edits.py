"""The changes that a modifier may ask for, and how they are made to a header section.

The edits of a message in a file leave the file alone: its header section is replaced by an edited one in front of it.

`with_start` is what all edits of a header section come down to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mailserver.mail.address import Address
from mailserver.mail.content import Content

__all__ = [
    "AddHeader",
    "DropHeader",
    "Edit",
    "EditError",
    "ReplaceRecipient",
    "apply_edits",
    "checked_edit",
    "with_fields",
    "with_start",
    "with_value",
    "without_return_path",
]

LINE_OCTETS = 998  # RFC 5322 section 2.1.1, without the CRLF
NAME = re.compile(r"[!-9;-~]{1,76}")
# RFC 5322 section 2.2.3 and errata 1908: each line of a folded value holds something besides blanks.
VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*(?:\r\n[ \t]+[^\x00-\x20\x7f][^\x00-\x08\x0a-\x1f\x7f]*)*")


class EditError(ValueError):
    """An edit that cannot be made: an invalid field name or value, or a header section without an end."""


@dataclass(frozen=True, slots=True)
class AddHeader:
    """Put a header field in front of the message's own.

    `value` may be folded with CRLF and a blank, has no other control character than the tab, and no line of it takes the
    field beyond 998 octets.  It goes out as UTF-8: encode it (RFC 2047) where the message did not come with SMTPUTF8.
    """

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class DropHeader:
    """Remove every header field of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class ReplaceRecipient:
    """Send to `replacements` in place of `recipient`; none at all means that this recipient gets no copy."""

    recipient: Address
    replacements: tuple[Address, ...]


Edit = AddHeader | DropHeader | ReplaceRecipient


def checked_edit(edit: Edit) -> Edit:
    """Return it, if it is one whatever the message is.  Raises `EditError`, and whatever members of a wrong type lead to."""
    if isinstance(edit, AddHeader):
        _field(edit)
    elif isinstance(edit, DropHeader):
        _checked_name(edit.name)
    else:
        members: Any = (edit.recipient, edit.replacements)  # a plugin's: of any type
        if not isinstance(members[1], tuple) or not all(isinstance(one, Address) for one in (members[0], *members[1])):
            raise EditError("a recipient is an address, and its replacements are a tuple of such")
    return edit


def apply_edits(content: Content, edits: Iterable[Edit]) -> Content:
    """Make the header edits in their order; `ReplaceRecipient` is not for here and is passed over.

    A drop takes what stands in the message and what was added before it, so give it the message before the server's own
    trace fields are put in front.  Raises `EditError`, and OSError where the message's file cannot be read.
    """
    added: list[tuple[str, bytes]] = []
    dropped: set[str] = set()
    for edit in edits:
        if isinstance(edit, AddHeader):
            added.insert(0, (edit.name.lower(), _field(edit)))
        elif isinstance(edit, DropHeader):
            name = _checked_name(edit.name).lower()
            dropped.add(name)
            added = [one for one in added if one[0] != name]
    front = b"".join([field for _, field in added])
    if dropped:
        content = _without(content, frozenset(dropped))
    return content.with_prefix(front) if front else content


def _field(edit: AddHeader) -> bytes:
    name = _checked_name(edit.name)
    if VALUE.fullmatch(edit.value) is None:
        raise EditError(f"the value of {name} holds a control character, or a line end without a text after it")
    try:
        field = f"{name}: {edit.value}".encode()
    except UnicodeEncodeError:
        raise EditError(f"the value of {name} holds a lone surrogate") from None
    if max(map(len, field.split(b"\r\n"))) > LINE_OCTETS:
        raise EditError(f"a line of {name} is longer than {LINE_OCTETS} octets")
    return field + b"\r\n"


def _checked_name(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise EditError(f"not the name of a header field: {name!r}")
    return name


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


def without_return_path(content: Content) -> Content:
    """For the final delivery, which writes its own (RFC 5321 section 4.4).  Never raises."""
    try:
        has_one = b"return-path" in content.head.lower()
        return _without(content, frozenset({"return-path"})) if has_one else content
    except (EditError, OSError):  # no end of the header section; or a file that whoever writes the message meets, too
        return content


def _without(content: Content, names: frozenset[str]) -> Content:
    headers = content.headers
    if not any(name in headers for name in names):
        return content
    return with_fields(content, headers.without(names))
