"""The parts of a message, as ranges of its octets (RFC 2045, RFC 2046).

    message = header CRLF body                 a multipart's body is preamble, parts between delimiters, epilogue;
    part    = header CRLF body                 a message/rfc822's body is a message

Nothing is decoded and nothing is repaired.  What can be read in two ways (two Content-Type fields, a multipart whose
boundary does not occur) or is beyond the bounds is a `MalformedMIME`: whoever wanted to change something leaves it
alone.  Only CRLF ends a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.former import former_names
from mailserver.mail.headers import Headers
from mailserver.mail.source import Source

__all__ = ["DEPTH_MOST", "HEADER_LINES_MOST", "PARTS_MOST", "MalformedMIME", "Part", "PartReading", "parts_of"]

DEPTH_MOST = 20
PARTS_MOST = 1000
HEADER_OCTETS_MOST = 262_144
HEADER_LINES_MOST = 50_000  # of all parts: each field is an object, and a message can hold ten million
LIKE_DELIMITERS_MOST = 10 * PARTS_MOST  # lines that begin as a delimiter does and are not one

TYPE = re.compile(r"\s*([!#-'*+\-.0-9A-Z^-~]+)\s*/\s*([!#-'*+\-.0-9A-Z^-~]+)\s*", re.IGNORECASE)
PARAMETER = re.compile(r';\s*([!-\'*+\-.0-9A-Z^-~]+)\s*=\s*("(?:\\.|[^"\\])*"|[^\s;"]*)', re.IGNORECASE)
PAIR = re.compile(r"\\(.)")
DELIMITER_END = re.compile(rb"(--)?[ \t]*(\r\n|\Z)")
DELIMITER_END_OCTETS = 256
PLAIN_TEXT = "text/plain"
MESSAGE = "message/rfc822"
CONTENT_TYPE, ENCODING, VERSION = "Content-Type", "Content-Transfer-Encoding", "MIME-Version"


class MalformedMIME(Exception):
    """The structure cannot be told.  The message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A message or a part of one: its header from `start` to `body` (the empty line included), its body from there to `end`.

    `kind` is type/subtype in lower case, `encoding` the Content-Transfer-Encoding in lower case, "" where there is none.
    `is_message`: its header is a message's.  `parts` are those of a multipart, or the one message of a message/rfc822;
    `gaps` the ranges of a multipart's preamble and epilogue, which belong to nobody.
    """

    start: int
    body: int
    end: int
    kind: str
    encoding: str
    headers: Headers
    is_message: bool
    parts: tuple[Part, ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def is_multipart(self) -> bool:
        """Its body is parts."""
        return self.kind.startswith("multipart/")


def parts_of(source: Source) -> Part:
    """The structure of a message.  Raises `MalformedMIME`, and what `source` does."""
    return PartReading(source).entity(0, source.size, PLAIN_TEXT, 1, is_message=True)


class PartReading:
    """One message while it is looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parts = 0
        self._lines = 0
        self._like_delimiters = 0

    def entity(self, start: int, end: int, usual_kind: str, depth: int, *, is_message: bool) -> Part:
        self._parts += 1
        if depth > DEPTH_MOST or self._parts > PARTS_MOST:
            raise MalformedMIME("it has too many parts, or they are too deep")
        headers, body = self.header(start, end)
        kind, boundary = _kind(headers, usual_kind)
        encodings = headers.get_all(ENCODING)
        encoding = re.split(r"[\s;(]", encodings[0].lower(), maxsplit=1)[0] if encodings else ""
        parts: tuple[Part, ...] = ()
        gaps: tuple[tuple[int, int], ...] = ()
        if kind.startswith("multipart/"):
            usual = MESSAGE if kind == "multipart/digest" else PLAIN_TEXT
            ranges, gaps = self.ranges(body, end, boundary)
            parts = tuple([self.entity(a, b, usual, depth + 1, is_message=False) for a, b in ranges])
        elif kind == MESSAGE and encoding in ("", "7bit", "8bit", "binary"):
            parts = (self.entity(body, end, PLAIN_TEXT, depth + 1, is_message=True),)
        return Part(start, body, end, kind, encoding, headers, is_message, parts, gaps)

    def header(self, start: int, end: int, *, lenient: bool = False) -> tuple[Headers, int]:
        """The fields, and where the body begins.  `lenient`: lines that are no fields are left in their places."""
        source = self._source
        if source.read(start, min(start + 2, end)) == b"\r\n":
            return Headers([]), start + 2
        found = source.find(b"\r\n\r\n", start, min(end, start + HEADER_OCTETS_MOST))
        if found < 0 and end - start > HEADER_OCTETS_MOST:
            raise MalformedMIME("a header is too large")
        octets = source.read(start, found if found >= 0 else end)
        self._lines += octets.count(b"\r\n")
        if self._lines > HEADER_LINES_MOST:
            raise MalformedMIME("its headers have too many lines")
        headers = Headers.parse(octets)
        if not lenient and not all(field.name for field in headers):
            raise MalformedMIME("a line of a header is no field")
        return headers, end if found < 0 else found + 4

    def ranges(
        self, start: int, end: int, boundary: bytes, *, lenient: bool = False
    ) -> tuple[Sequence[tuple[int, int]], tuple[tuple[int, int], ...]]:
        """The parts of a multipart, and what stands before and behind them (RFC 2046 section 5.1.1).

        `lenient`: of more than `PARTS_MOST` parts the first ones and one more.
        """
        source, mark = self._source, b"--" + boundary
        ranges: list[tuple[int, int]] = []
        begins = -1  # of the part that is open
        preamble = (start, start)
        at = start - 2 if source.read(start, min(start + len(mark), end)) == mark else self._next(mark, start, end)
        while at >= 0:
            line = at + 2 + len(mark)
            found = DELIMITER_END.match(source.read(line, min(line + DELIMITER_END_OCTETS, end)))
            if found is None or not (found[2] or line + found.end() == end):
                found = None
                self._like_delimiters += 1
                if self._like_delimiters > LIKE_DELIMITERS_MOST:
                    raise MalformedMIME("too many lines are almost delimiters")
            else:
                if begins < 0:
                    preamble = (start, max(start, at))
                else:
                    ranges.append((begins, max(begins, at)))
                    if len(ranges) > PARTS_MOST:
                        if lenient:
                            return ranges, (preamble,)
                        raise MalformedMIME("it has too many parts")
                begins = line + found.end()
                if found[1]:
                    return ranges, (preamble, (min(begins, end), end))
            at = self._next(mark, line if found is None else max(line, begins - 2), end)
        if begins < 0:
            raise MalformedMIME("the boundary of a multipart does not occur")
        return [*ranges, (begins, end)], (preamble,)  # its end was cut off

    def kind(self, headers: Headers, usual_kind: str) -> tuple[str, bytes]:
        """The type/subtype in lower case, and a multipart's boundary.  Raises `MalformedMIME`."""
        return _kind(headers, usual_kind)

    def first_kind(self, headers: Headers, usual_kind: str) -> tuple[str, bytes]:
        """The same, of the first field and the first boundary where there are several; a multipart without one is none."""
        fields = headers.get_all(CONTENT_TYPE)
        found = TYPE.match(fields[0]) if fields else None
        if found is None:
            return usual_kind, b""
        kind = f"{found[1]}/{found[2]}".lower()
        values = [value for name, value in PARAMETER.findall(fields[0], found.end()) if name.lower() == "boundary"]
        if not kind.startswith("multipart/"):
            return kind, b""
        boundary = values[0] if values else ""
        boundary = PAIR.sub(r"\1", boundary[1:-1]) if boundary.startswith('"') else boundary
        boundary = boundary.rstrip()[:200]
        return (kind, boundary.encode("utf-8", "replace")) if boundary else ("application/octet-stream", b"")

    def _next(self, mark: bytes, start: int, end: int) -> int:
        return self._source.find(b"\r\n" + mark, start, end)


def _kind(headers: Headers, usual_kind: str) -> tuple[str, bytes]:
    """The type/subtype in lower case, and a multipart's boundary.  What cannot be read is text (RFC 2045 section 5.2)."""
    fields = headers.get_all(CONTENT_TYPE)
    if not fields:
        return usual_kind, b""
    if len(fields) > 1:
        raise MalformedMIME("two Content-Type fields")
    found = TYPE.match(fields[0])
    if found is None:
        return PLAIN_TEXT, b""
    kind = f"{found[1]}/{found[2]}".lower()
    if not kind.startswith("multipart/"):
        return kind, b""
    boundaries = [value for name, value in PARAMETER.findall(fields[0], found.end()) if name.lower() == "boundary"]
    if len(boundaries) != 1:
        raise MalformedMIME("a multipart without a boundary, or with two")
    boundary = boundaries[0]
    if boundary.startswith('"'):
        boundary = PAIR.sub(r"\1", boundary[1:-1])
    boundary = boundary.rstrip()
    if not boundary or not boundary.isascii() or len(boundary) > 200:
        raise MalformedMIME("a boundary that can be none")
    return kind, boundary.encode("ascii")


__getattr__ = former_names(__name__)
