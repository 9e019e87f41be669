"""A message as a program types it, made into one that can travel: line ends, recipients from its header, what is missing."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import formataddr, formatdate, getaddresses
from typing import Any, BinaryIO

from mailserver.mail.address import Address, AddressError

__all__ = ["TypedMessage", "TypedMessageError", "TooLarge", "lines_of", "qualified"]

CHUNK_OCTETS = 65_536
HEADER_OCTETS = 1 << 20
FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")  # RFC 5322 section 2.2, and section 4.5: blanks before the colon
ADDRESSES = (b"to", b"cc", b"bcc")
RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
# The strict way of newer Pythons (and of Debian's 3.11) takes no list that ends with a comma, and no group of two.
LENIENT: dict[str, Any] = {"strict": False} if getattr(email.utils, "supports_strict_parsing", False) else {}
REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path", b"content-length"})


class TypedMessageError(ValueError):
    """The message cannot be sent as it is; the words are for who typed it."""


class TooLarge(ValueError):
    """The message is larger than the server takes."""


def lines_of(stream: BinaryIO, *, dot_ends: bool, line_octets_most: int = 1 << 30) -> Iterator[bytes]:
    """The lines without their ends, which may be LF, CRLF or CR.  With `dot_ends` a line with a dot alone is the end.

    Each octet is looked at once, however it comes.  Raises `TooLarge` for a line above `line_octets_most`, before it is held.
    """
    begun: list[bytes] = []  # of a line whose end has not come yet
    octets = 0
    after_cr = False  # the last octet was a CR: a CRLF may be cut in two
    while chunk := stream.read(CHUNK_OCTETS):
        if after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        after_cr = chunk.endswith(b"\r") if chunk else False
        for line in chunk.splitlines(keepends=True):
            bare = line.rstrip(b"\r\n")
            octets += len(bare)
            if octets > line_octets_most:
                raise TooLarge(f"a line of it is larger than {line_octets_most} octets")
            begun.append(bare)
            if len(bare) == len(line):
                continue
            whole, octets = b"".join(begun), 0
            begun.clear()
            if dot_ends and whole == b".":
                return
            yield whole
    if begun and not (dot_ends and b"".join(begun) == b"."):
        yield b"".join(begun)


def qualified(text: str, domain: str) -> Address:
    """An address; one without a domain gets ours.  Raises `TypedMessageError`."""
    try:
        return Address.parse(text if "@" in text else f"{text}@{domain}", utf8=True)
    except AddressError as error:
        raise TypedMessageError(f"{text!r} is not an address: {error}") from None


@dataclass(frozen=True, slots=True)
class TypedMessage:
    """The header fields, each without its last CRLF, and the lines of the body as they come."""

    fields: tuple[bytes, ...]
    body: Iterator[bytes]

    @classmethod
    def read(cls, lines: Iterator[bytes]) -> TypedMessage:
        """Read the header.  The first line that is not a header field begins the body, with or without an empty line."""
        fields: list[list[bytes]] = []  # each with the lines that it is folded into
        octets = 0
        for number, line in enumerate(lines):
            octets += len(line)
            if octets > HEADER_OCTETS:
                raise TypedMessageError("its header is too long")
            if number == 0 and line.startswith((b"From ", b">From ")):
                continue  # of a mailbox file
            if line[:1] in (b" ", b"\t") and fields and line.strip():
                fields[-1].append(line)
            elif FIELD.match(line):
                fields.append([line])
            else:
                return cls(_joined(fields), _with_first(line, lines) if line else lines)
        return cls(_joined(fields), iter(()))

    def recipients(self, domain: str) -> list[Address]:
        """Those of To, Cc and Bcc, or where the message was sent on of the Resent- fields.  Raises `TypedMessageError`."""
        names = {_name(field) for field in self.fields}
        wanted = RESENT if names.intersection(RESENT) else ADDRESSES
        found: list[Address] = []
        for field in self.fields:
            if _name(field) in wanted:
                found += _addresses(field, domain)
        return found

    def completed(self, *, sender: Address, name: str, message_id: str, now: float) -> Sequence[bytes]:
        """The fields that travel: without Bcc, with Date, Message-ID and From (RFC 5322 section 3.6)."""
        names = {_name(field) for field in self.fields}
        fields = [field for field in self.fields if _name(field) not in REMOVED]
        if b"date" not in names:
            fields.append(f"Date: {formatdate(now, localtime=True)}".encode())
        if b"message-id" not in names:
            fields.append(f"Message-ID: {message_id}".encode())
        if b"from" not in names:
            fields.append(f"From: {formataddr((name, str(sender))) if sender.is_ascii else str(sender)}".encode())
        return fields


def _joined(fields: list[list[bytes]]) -> tuple[bytes, ...]:
    return tuple([b"\r\n".join(lines) for lines in fields])


def _with_first(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from lines


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].rstrip().lower()


def _addresses(field: bytes, domain: str) -> list[Address]:
    value = field.partition(b":")[2]
    text = re.sub(r"\r\n(?=[ \t])", "", value.decode("utf-8", "replace"))
    try:
        # Not the parser of email.policy, which takes four minutes for a hundred thousand commas.
        pairs = getaddresses([text], **LENIENT)
    except RecursionError:
        raise TypedMessageError("a field has more comments within each other than can be read") from None
    found = [qualified(address, domain) for _, address in pairs if address]
    if not found and text.strip() and not text.strip().endswith(";"):  # a group without members is nobody
        raise TypedMessageError(f"there is no address in {text.strip()[:100]!r}")
    return found
