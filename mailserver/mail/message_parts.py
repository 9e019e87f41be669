"""The parts of a message for those who look into it: one after another as they stand there, their content decoded as it is read.

Where `mime_parts` refuses what can be read in two ways, this reads on as a mail program would, and says so in `findings`: whoever
looks for something wants to see what the reader will see.  At most 20 levels and 1,000 parts are read.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any

from mailserver.mail.answers import Finding
from mailserver.mail.headers import Headers
from mailserver.mail.mime_parts import DEPTH_MOST, PARTS_MOST, MalformedMIME, PartReading
from mailserver.mail.source import StoredOctets, source_of

__all__ = ["BEYOND_BOUNDS", "MALFORMED", "MessagePart", "MessageParts"]

BEYOND_BOUNDS = "mime_beyond_bounds"
MALFORMED = "mime_malformed"
REASONS_MOST = 10
CHUNK_OCTETS = 65536
NAME_CHARACTERS = 255
NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
PADDING = re.compile(rb"=+")


class MessagePart:
    """One part: of a multipart, the message itself, or a message in it.

    `kind` is type/subtype in lower case; `depth` is 1 for the message itself.  `name` is the file name that a mail program would
    show, decoded, "" without one: never a path.  `octets` is the length of the body as it stands in the message.
    """

    __slots__ = ("_body", "_content", "depth", "encoding", "headers", "kind", "name", "octets")

    def __init__(
        self, content: StoredOctets, headers: Headers, kind: str, encoding: str, depth: int, body: tuple[int, int]
    ) -> None:
        self._content = content
        self._body = body
        self.headers = headers
        self.kind = kind
        self.encoding = encoding
        self.depth = depth
        self.octets = body[1] - body[0]
        self.name = _name_in(headers)

    @property
    def is_multipart(self) -> bool:
        """It has parts of its own, which follow; it has no chunks."""
        return self.kind.startswith("multipart/")

    def raw_chunks(self) -> Iterator[bytes]:
        """The body as it stands in the message, piece by piece.  Raises OSError."""
        at, end = self._body
        with source_of(self._content) as source:
            while at < end:
                stop = min(at + CHUNK_OCTETS, end)
                yield source.read(at, stop)
                at = stop

    def chunks(self) -> Iterator[bytes]:
        """The body, decoded, piece by piece; what cannot be decoded as it says comes as far as it can.  Raises OSError."""
        if self.is_multipart:
            return iter(())
        if self.encoding == "base64":
            return _without_base64(self.raw_chunks())
        if self.encoding == "quoted-printable":
            return _without_quoted_printable(self.raw_chunks())
        return self.raw_chunks()


class MessageParts:
    """The parts of a message, outer ones before inner ones.  To be iterated once.

    `findings` say, as far as it has come, what could be read in two ways and what lies beyond the bounds; of the latter
    `note_beyond` is told, too, since the core tells it where a filter does not.
    """

    def __init__(self, content: StoredOctets, note_beyond: Callable[[str], object]) -> None:
        self._content = content
        self._note_beyond = note_beyond
        self._reasons: dict[str, list[str]] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """For the verdict: ``Pass(findings=parts.findings)``."""
        return tuple([Finding(name, 0.0, "; ".join(reasons)) for name, reasons in self._reasons.items()])

    def __iter__(self) -> Iterator[MessagePart]:
        with source_of(self._content) as source:
            reading = PartReading(source)
            open_parts = [(0, source.size, "text/plain", 1)]
            count = 0
            while open_parts:
                start, end, usual_kind, depth = open_parts.pop()
                if depth > DEPTH_MOST:
                    self._note(BEYOND_BOUNDS, f"parts more than {DEPTH_MOST} deep")
                    continue
                if count == PARTS_MOST:
                    self._note(BEYOND_BOUNDS, f"more than {PARTS_MOST} parts")
                    return
                count += 1
                try:
                    part, inner = self._part(reading, start, end, usual_kind, depth)
                except MalformedMIME as fault:
                    self._note(MALFORMED, str(fault))
                    continue
                yield part
                open_parts += reversed([(a, b, usual, depth + 1) for a, b, usual in inner])

    def _part(
        self, reading: PartReading, start: int, end: int, usual_kind: str, depth: int
    ) -> tuple[MessagePart, list[tuple[int, int, str]]]:
        headers, body = reading.header(start, end, lenient=True)
        try:
            kind, boundary = reading.kind(headers, usual_kind)
        except MalformedMIME as fault:
            self._note(MALFORMED, str(fault))
            kind, boundary = reading.first_kind(headers, usual_kind)
        encodings = headers.get_all("Content-Transfer-Encoding")
        encoding = re.split(r"[\s;(]", encodings[0].strip().lower(), maxsplit=1)[0] if encodings else ""
        if len(encodings) > 1:
            self._note(MALFORMED, "two Content-Transfer-Encoding fields")
        inner: list[tuple[int, int, str]] = []
        if kind.startswith("multipart/"):
            usual = "message/rfc822" if kind == "multipart/digest" else "text/plain"
            try:
                ranges, _ = reading.ranges(body, end, boundary, lenient=True)
                inner = [(a, b, usual) for a, b in ranges]
                if len(ranges) > PARTS_MOST:
                    self._note(BEYOND_BOUNDS, f"more than {PARTS_MOST} parts")
            except MalformedMIME as fault:
                self._note(MALFORMED, str(fault))
                kind = "application/octet-stream"  # what a mail program shows of it nobody knows: all of it can be looked at
        elif kind == "message/rfc822" and encoding in ("", "7bit", "8bit", "binary"):
            inner = [(body, end, "text/plain")]
        return MessagePart(self._content, headers, kind, encoding, depth, (body, end)), inner

    def _note(self, name: str, reason: str) -> None:
        reasons = self._reasons.setdefault(name, [])
        if reason not in reasons and len(reasons) < REASONS_MOST:
            reasons.append(reason)
        if name == BEYOND_BOUNDS:
            self._note_beyond(reason)


def _name_in(headers: Headers) -> str:
    """The file name of Content-Disposition, else the name of Content-Type (RFC 2183, RFC 2231); RFC 2047 words are decoded."""
    given = {field: value for field in ("Content-Disposition", "Content-Type") if (value := headers.get(field)) is not None}
    if not any("name" in value.lower() for value in given.values()):  # neither name= nor filename=, however it is written
        return ""
    from email.header import decode_header, make_header
    from email.message import Message

    message: Message[Any, Any] = Message()
    for field, value in given.items():
        message[field] = value[:4096].replace("\r", " ").replace("\n", " ")
    try:
        name = message.get_filename() or ""
        if "=?" in name:
            name = str(make_header(decode_header(name)))
    except Exception:  # noqa: BLE001  # of the standard library, over octets of strangers: whatever it raises
        return ""
    name = re.split(r"[/\\]", name)[-1].encode("utf-8", "replace").decode("utf-8")
    return "".join([one for one in name[:NAME_CHARACTERS] if one.isprintable()])


def _without_base64(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 2045 section 6.8: other characters are ignored.  What follows padding is read on, as several mail programs do."""
    rest = b""
    for piece in pieces:
        rest += NOT_BASE64.sub(b"", piece)
        out = b""
        while (padding := PADDING.search(rest)) is not None and padding.end() < len(rest):
            out += _quads(rest[: padding.start()])
            rest = rest[padding.end() :]
        if padding is None:
            whole = len(rest) // 4 * 4
            out, rest = out + _quads(rest[:whole]), rest[whole:]
        if out:
            yield out
    if last := _quads(rest.rstrip(b"=")):
        yield last


def _quads(text: bytes) -> bytes:
    """Decode, with padding added where it is missing; one character too many is left out."""
    if len(text) % 4 == 1:
        text = text[:-1]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4)) if text else b""


def _without_quoted_printable(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 2045 section 6.7."""
    rest = b""
    for piece in pieces:
        text = rest + piece
        cut = len(text)
        mark = text.rfind(b"=", max(0, cut - 3))
        if mark >= 0 and not text.endswith(b"\n"):  # an escape, or a soft line end, that may go on in the next piece
            cut = mark
        rest = text[cut:]
        if cut and (out := binascii.a2b_qp(text[:cut])):
            yield out
    if rest and (out := binascii.a2b_qp(rest)):
        yield out
