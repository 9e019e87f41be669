"""A header field that somebody adds: what may be in one, and how it goes out (RFC 5322 section 2.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mailserver.mail.quick import quick

__all__ = ["AddHeader", "EditError", "checked_name", "field_octets"]

LINE_OCTETS = 998  # RFC 5322 section 2.1.1, without the CRLF
NAME = re.compile(r"[!-9;-~]{1,76}")
# RFC 5322 section 2.2.3 and errata 1908: each line of a folded value holds something besides blanks.
VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*(?:\r\n[ \t]+[^\x00-\x20\x7f][^\x00-\x08\x0a-\x1f\x7f]*)*")


class EditError(ValueError):
    """An edit that cannot be made: an invalid field name or value, or a header section without an end."""


@quick
@dataclass(frozen=True, slots=True)
class AddHeader:
    """Put a header field in front of the message's own.

    `value` may be folded with CRLF and a blank, has no other control character than the tab, and no line of it takes the
    field beyond 998 octets.  It goes out as UTF-8: encode it (RFC 2047) where the message did not come with SMTPUTF8.
    Raises `EditError`.
    """

    name: str
    value: str

    def __post_init__(self) -> None:
        field_octets(self.name, self.value)

    @property
    def octets(self) -> bytes:
        """The field as it goes out, with its CRLF."""
        return field_octets(self.name, self.value)


def field_octets(name: Any, value: Any) -> bytes:  # a plugin's: of any type
    """The field as it goes out, with its CRLF.  Raises `EditError`."""
    name = checked_name(name)
    if not isinstance(value, str) or VALUE.fullmatch(value) is None:
        raise EditError(f"the value of {name} holds a control character, or a line end without a text after it")
    try:
        field = f"{name}: {value}".encode()
    except UnicodeEncodeError:
        raise EditError(f"the value of {name} holds a lone surrogate") from None
    if max(map(len, field.split(b"\r\n"))) > LINE_OCTETS:
        raise EditError(f"a line of {name} is longer than {LINE_OCTETS} octets")
    return field + b"\r\n"


def checked_name(name: Any) -> str:
    """The name, if it is one of a field.  Raises `EditError`."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise EditError(f"not the name of a header field: {name!r:.100}")
    return name
