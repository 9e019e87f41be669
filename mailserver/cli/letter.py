"""A message as a program types it, made into one that can travel: line ends, recipients from its header, what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.policy import SMTPUTF8
from email.utils import formataddr, formatdate
from typing import BinaryIO

from mailserver.mail.address import Address, AddressError

__all__ = ["Letter", "LetterError", "lines_of", "qualified"]

CHUNK_OCTETS = 65_536
HEADER_OCTETS = 1 << 20
FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")  # RFC 5322 section 2.2, and section 4.5: blanks before the colon
ADDRESSES = (b"to", b"cc", b"bcc")
RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path", b"content-length"})


class LetterError(ValueError):
    """The message cannot be sent as it is; the words are for who typed it."""


def lines_of(stream: BinaryIO, *, dot_ends: bool) -> Iterator[bytes]:
    """The lines without their ends, which may be LF, CRLF or CR.  With `dot_ends` a line with a dot alone is the end."""
    rest = b""
    while chunk := stream.read(CHUNK_OCTETS):
        rest += chunk
        held = b"\r" if rest.endswith(b"\r") else b""  # a CRLF may be cut in two
        lines = rest[: len(rest) - len(held)].splitlines(keepends=True)
        rest = held
        if lines and not lines[-1].endswith((b"\r", b"\n")):
            rest = lines.pop() + held
        for line in lines:
            bare = line.rstrip(b"\r\n")
            if dot_ends and bare == b".":
                return
            yield bare
    if rest and not (dot_ends and rest.rstrip(b"\r") == b"."):
        yield rest.removesuffix(b"\r")


def qualified(text: str, domain: str) -> Address:
    """An address; one without a domain gets ours.  Raises `LetterError`."""
    try:
        return Address.parse(text if "@" in text else f"{text}@{domain}", utf8=True)
    except AddressError as error:
        raise LetterError(f"{text!r} is not an address: {error}") from None


@dataclass(frozen=True, slots=True)
class Letter:
    """The header fields, each without its last CRLF, and the lines of the body as they come."""

    fields: tuple[bytes, ...]
    body: Iterator[bytes]

    @classmethod
    def read(cls, lines: Iterator[bytes]) -> Letter:
        """Read the header.  What is no header field begins the body, with or without an empty line."""
        fields: list[bytes] = []
        octets = 0
        for number, line in enumerate(lines):
            octets += len(line)
            if octets > HEADER_OCTETS:
                raise LetterError("its header is too long")
            if number == 0 and line.startswith((b"From ", b">From ")):
                continue  # of a mailbox file
            if line[:1] in (b" ", b"\t") and fields and line.strip():
                fields[-1] += b"\r\n" + line
            elif FIELD.match(line):
                fields.append(line)
            else:
                return cls(tuple(fields), _with_first(line, lines) if line else lines)
        return cls(tuple(fields), iter(()))

    def recipients(self, domain: str) -> list[Address]:
        """Those of To, Cc and Bcc, or where the message was sent on of the Resent- fields.  Raises `LetterError`."""
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


def _with_first(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from lines


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].rstrip().lower()


def _addresses(field: bytes, domain: str) -> list[Address]:
    name, _, value = field.partition(b":")
    text = re.sub(r"\r\n(?=[ \t])", "", value.decode("utf-8", "replace"))
    header = SMTPUTF8.header_factory(name.decode("ascii").strip(), text)
    found = []
    for one in getattr(header, "addresses", ()):
        if one.domain or one.username:
            found.append(qualified(one.addr_spec, domain))
    named_groups = [group for group in getattr(header, "groups", ()) if group.display_name]
    if not found and text.strip() and not named_groups:
        raise LetterError(f"there is no address in {text.strip()!r}")
    return found
