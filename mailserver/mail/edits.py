"""What a modifier may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.mail.address import Address

__all__ = ["AddHeader", "DropHeader", "Edit", "ReplaceRecipient"]


@dataclass(frozen=True, slots=True)
class AddHeader:
    """Put a header field in front of the message's own.  `value` may be folded with CRLF and a blank."""

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
