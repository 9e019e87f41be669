"""Header fields and bodies in the forms that are signed (RFC 6376 section 3.4), piece by piece.

`BodyHash` takes the octets of a body as they come and keeps no more of them than a piece.  What it does to a piece are a few
calls of bytes methods, and those that have nothing to do cost a search.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Literal

from mailserver.mail.content import Content

__all__ = ["BodyHash", "Form", "body_chunks", "canonical_field"]

Form = Literal["simple", "relaxed"]

BLANKS = re.compile(rb"[ \t]+")
BLANKS_TWO = re.compile(rb"  +")
FOLD = re.compile(rb"\r\n(?=[ \t])")
CRLF = b"\r\n"
TAIL_OCTETS_MOST = 65_536
BLANK_LINES_AT_ONCE = 32_768


def canonical_field(raw: bytes, form: Form) -> bytes:
    """A header field (all its octets but the last CRLF) as it is signed, without the CRLF that follows it there."""
    if form == "simple":
        return raw
    name, _, value = raw.partition(b":")
    if b"\r\n" in value:
        value = FOLD.sub(b"", value)
    if b"\t" in value or b"  " in value:
        value = BLANKS.sub(b" ", value)
    value = value.strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + value


class BodyHash:
    """The hash of a body in one form.  `most` is the l= of a signature: so many octets of the form count, None for all."""

    def __init__(self, form: Form, algorithm: str = "sha256", most: int | None = None) -> None:
        self._relaxed = form == "relaxed"
        self._hash = hashlib.new(algorithm)
        self._most = most
        self._tail = b""  # octets at the end that may be the end of a line, or of the body
        self._blank_lines = 0  # before the tail: left out where nothing follows
        self._has_content = False
        self.octets = 0
        """Of the form, as far as they were hashed."""

    def update(self, chunk: bytes) -> None:
        """Take the next octets."""
        data = self._tail + chunk if self._tail else chunk
        content = data.rstrip(b" \t\r\n" if self._relaxed else CRLF)
        # A blank that ends the piece may be within a line, a CR the first half of a line's end.
        if len(content) == len(data):
            self._tail = b""
        else:
            self._tail = data[len(content) :]
        if content:
            self._give_blank_lines()
            self._give(self._formed(content))
            self._has_content = True
        elif len(self._tail) > TAIL_OCTETS_MOST:
            self._count_blank_lines()

    def digest(self) -> bytes:
        """Of all that came."""
        self._end()
        return self._hash.digest()

    def _end(self) -> None:
        if self._has_content:
            self._give(self._rest_of_line() + CRLF)
        elif not self._relaxed:
            self._give(CRLF)
        self._tail, self._blank_lines, self._has_content = b"", 0, False

    def _rest_of_line(self) -> bytes:
        """What of the tail is no end of a line: octets that are not to be had in a text with CRLF."""
        if self._relaxed or self._blank_lines:
            return b""
        rest = self._tail
        while rest.endswith(CRLF):
            rest = rest[:-2]
        return rest

    def _give_blank_lines(self) -> None:
        while self._blank_lines:
            lines = min(self._blank_lines, BLANK_LINES_AT_ONCE)
            self._blank_lines -= lines
            self._give(CRLF * lines)

    def _count_blank_lines(self) -> None:
        """A body may be nothing but blank lines for megabytes."""
        place = self._tail.rfind(CRLF) + 2
        if place > 1:
            lines, self._tail = self._tail[:place], self._tail[place:]
            self._blank_lines += lines.count(CRLF)
        if self._relaxed and len(self._tail) > TAIL_OCTETS_MOST:
            self._tail = b" "

    def _formed(self, content: bytes) -> bytes:
        if self._relaxed:
            if b"\t" in content:
                content = content.replace(b"\t", b" ")
            if b"  " in content:
                content = BLANKS_TWO.sub(b" ", content)
            if b" \r\n" in content:
                content = content.replace(b" \r\n", CRLF)
        return content

    def _give(self, octets: bytes) -> None:
        if self._most is not None:
            octets = octets[: max(0, self._most - self.octets)]
        self._hash.update(octets)
        self.octets += len(octets)


def body_chunks(content: Content) -> Iterator[bytes]:
    """The octets of the body: what follows the empty line behind the header section.  Blocking for a file; raises OSError."""
    return _without_head(content.chunks(), len(content.head))


def _without_head(chunks: Iterable[bytes], missing: int) -> Iterator[bytes]:
    for chunk in chunks:
        if missing >= len(chunk):
            missing -= len(chunk)
            continue
        yield chunk[missing:] if missing else chunk
        missing = 0
