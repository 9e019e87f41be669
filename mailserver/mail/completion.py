"""Adds what a submitted message lacks (RFC 6409 section 8)."""

from __future__ import annotations

from mailserver.mail.address import Address, AddressError
from mailserver.mail.content import Content
from mailserver.mail.trace import date_time

__all__ = ["author_as_written", "completion"]


def completion(
    content: Content, *, id: str, hostname: str, seconds: float, author: Address | None, smtputf8: bool
) -> bytes:
    """The fields to be put in front of the message where it has none: Date (section 8.2), Message-ID (8.3), From.

    `id` and `hostname` make the Message-ID; `seconds` since the epoch make the Date; `author` is who has logged in.
    """
    headers = content.headers
    fields: list[str] = []
    if "From" not in headers and author is not None:
        written = author_as_written(author, smtputf8)
        if written:
            fields.append(f"From: {written}\r\n")
    if "Date" not in headers:
        fields.append(f"Date: {date_time(int(seconds))}\r\n")
    if "Message-ID" not in headers:
        fields.append(f"Message-ID: <{id}@{hostname}>\r\n")
    return "".join(fields).encode()


def author_as_written(author: Address, smtputf8: bool) -> str:
    """The address as a From field can hold it; "" where it cannot: a local part outside ASCII needs SMTPUTF8 (RFC 6531)."""
    if author.is_ascii or smtputf8:
        return str(author)
    try:
        ascii_domain = Address(author.local, author.domain_key)
    except AddressError:
        return ""
    return str(ascii_domain) if ascii_domain.is_ascii else ""
