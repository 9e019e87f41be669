"""Complaints about mail in the Abuse Reporting Format (RFC 5965): who complains of which message.

What a report says is a stranger's word.  Whoever acts on it looks for evidence first: that the report itself comes from whom one
has an arrangement with, and that the message it names was sent from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from mailserver.mail.address import Address, AddressError
from mailserver.mail.content import Content
from mailserver.mail.headers import Headers

__all__ = ["Complaint", "read_complaint"]

FIELDS_OCTETS = 65_536
HEAD_OCTETS = 262_144
RECIPIENTS_MOST = 100
TYPE = re.compile(r"[a-z0-9\-]{1,40}")
ADDRESS = re.compile(r"<([^<>\s]{1,320})>|([^<>\s,;]{1,320})")
MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a report says.

    `kind` is its Feedback-Type: "abuse", "fraud", "not-spam", "virus", "other", or one that was registered later, such as
    "auth-failure", a failure report of DMARC (RFC 9991).
    `sender` is the reverse-path of the message (Original-Mail-From; None where absent or null), `recipients` are those of
    Original-Rcpt-To, `source` is the host that brought the message, `message_id` is in angle brackets, "" where nothing says it.
    `author` is the address in the message's own From field.
    """

    kind: str
    sender: Address | None = None
    recipients: tuple[Address, ...] = ()
    source: IPv4Address | IPv6Address | None = None
    message_id: str = ""
    author: Address | None = None


def read_complaint(content: Content) -> Complaint | None:
    """The complaint in a message; None where it has none.  Blocks for a content in a file, and raises OSError then.

    A multipart/report has a message/feedback-report, and behind it the message (message/rfc822) or its header
    (text/rfc822-headers).
    """
    fields: Headers | None = None
    for part in content.parts():
        if fields is None:
            if part.kind == "message/feedback-report":
                fields = Headers.parse(_some(part.chunks(), FIELDS_OCTETS))
        elif part.kind in ("message/rfc822", "text/rfc822-headers"):
            return _complaint(fields, Headers.parse(_head(_some(part.chunks(), HEAD_OCTETS))))
    return None if fields is None else _complaint(fields, Headers.parse(b""))


def _complaint(fields: Headers, message: Headers) -> Complaint | None:
    kind = (fields.get("Feedback-Type") or "").strip().lower()
    if TYPE.fullmatch(kind) is None:
        return None
    recipients = [address for text in fields.get_all("Original-Rcpt-To")[:RECIPIENTS_MOST] if (address := _address(text))]
    identity = MESSAGE_ID.search(message.get("Message-ID") or "")
    return Complaint(
        kind,
        sender=_address(fields.get("Original-Mail-From") or ""),
        recipients=tuple(recipients),
        source=_source(fields.get("Source-IP") or ""),
        message_id=identity[0] if identity else "",
        author=_address(_last_in_brackets(message.get("From") or "")),
    )


def _address(text: str) -> Address | None:
    match = ADDRESS.search(text.strip())
    if match is None:
        return None
    try:
        address = Address.parse(match[1] or match[2], utf8=True)
    except AddressError:
        return None
    return address if address.domain else None


def _last_in_brackets(text: str) -> str:
    return text[text.rfind("<") :] if "<" in text else text


def _source(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.strip().strip("[]"))
    except ValueError:
        return None


def _some(pieces: Iterator[bytes], most: int) -> bytes:
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) >= most:
            break
    return bytes(found[:most])


def _head(octets: bytes) -> bytes:
    """Up to the empty line."""
    end = re.search(rb"\r?\n\r?\n", octets)
    return octets[: end.end()] if end else octets + b"\r\n\r\n"
