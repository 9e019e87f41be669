"""An mbox file, read in pieces: whatever its size, a few MiB of it are in memory.

Where a message begins (RFC 4155 and the practice of its four kinds):

* A line ``From ADDRESS DATE`` begins one, where the line before is empty, or the next one is a header field.  A line that
  begins so and has no date is text.
* Where the header has a Content-Length that leads right before such a line, or to the end, it is believed: what begins with
  ``From `` inside is text (mboxcl2).  A wrong one is ignored.
* ``>From `` loses one ``>`` (mboxrd; mboxo has the one form alone), but not in a message that has unquoted ones.

The fields that mbox programs keep for themselves (Status, X-Status, X-Keywords, X-UID, X-IMAP…, Content-Length) become flags and
are left out.  Lines end with LF in what comes out.
"""

from __future__ import annotations

import calendar
import email.utils
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mailserver.moving.careful import opened_file
from mailserver.moving.mail_item import CannotRead, Keys, MailFault, MailItem

__all__ = ["MboxSource", "Span"]

PIECE = 1 << 20
SMALL = 1 << 14  # most messages are not larger: they are not read many times for their neighbours' sake
LINE_OCTETS = 2000
HEADER_OCTETS = 1 << 20
FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
TIME = rb"\d\d?:\d\d(?::\d\d)?"
BEGINS = re.compile(  # the date as asctime(3) writes it, with a zone somewhere or none; or as RFC 5322 does
    rb"From .*?(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +)?"
    rb"(?:%b +\d\d? +%b( +\S+){0,2} +\d{4}|%b +\d\d? +\d{4} +%b|\d\d? +%b +\d{4} +%b)\b.{0,60}"
    % (MONTH, TIME, MONTH, TIME, MONTH, TIME)
)
DATE = re.compile(
    r"(?:\w{3},?\s+)?(\w{3})\s+(\d{1,2})\s+(\d{1,2}:\d\d(?::\d\d)?)\s+(?:([+-]\d{4}|[A-Z]{1,5})\s+)?(\d{4})(?:\s+([+-]\d{4}))?"
)
QUOTED = re.compile(rb"(?m)^>(>*From )")
OWN_FIELDS = frozenset({"status", "x-status", "x-keywords", "x-uid", "x-imap", "x-imapbase", "content-length"})
X_FLAGS = {"A": "R", "F": "F", "D": "T", "T": "D"}  # X-Status's letters, and Maildir's
INTERNAL = b"FOLDER INTERNAL DATA"


@dataclass(frozen=True, slots=True)
class Span:
    """A message's octets in the file: its ``From `` line, its header, its body."""

    start: int
    header: int
    body: int
    end: int


class MboxSource:
    """The messages of the file at `path`, for one `folder`.  `tell` hears of what cannot be read.  Raises OSError.

    `kind` is "auto", or "mboxrd", "mboxo" (no Content-Length is believed) and "mboxcl2" (nothing is unquoted).
    """

    def __init__(
        self, path: str, tell: Callable[[MailFault], None], *, folder: tuple[str, ...] = (), kind: str = "auto"
    ) -> None:
        self._path, self._tell, self._folder, self._kind = path, tell, folder, kind
        self._fd = opened_file(path, follow=True)
        self._size = os.fstat(self._fd).st_size
        self._keys = Keys("mbox")

    def fileno(self) -> int:
        """The descriptor of the file."""
        return self._fd

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def __iter__(self) -> Iterator[MailItem]:
        """Every message in the file's order."""
        at = self._first()
        while at is not None and at < self._size:
            span, at = self._span(at)
            item = self._item(span)
            if item is not None:
                yield item

    # --- where messages begin and end ---

    def _first(self) -> int | None:
        """The first line that begins a message.  What stands before it is told, but for empty lines."""
        if self._is_beginning(0, first=True):
            return 0
        at = self._next_beginning(0)
        before = self._read(0, min(at if at is not None else self._size, PIECE))
        if before.strip():
            why = (
                "no message begins here"
                if at is not None
                else "there is no line that begins a message: is it an mbox file?"
            )
            self._tell(
                MailFault(
                    f"{self._path} at offset 0", f"{why}; {at if at is not None else self._size} octets are left out"
                )
            )
        return at

    def _span(self, start: int) -> tuple[Span, int | None]:
        header = start + self._line_length(start)
        block = self._header_block(header)
        body = header + _header_length(block)
        end = self._by_length(block[: body - header], body) if self._kind in ("auto", "mboxcl2") else None
        if end is None:
            following = self._next_beginning(max(header - 1, start))
            end = self._size if following is None else following
            body = min(body, end)
            return Span(start, header, body, end), following
        after = end
        while after < self._size and self._read(after, 2)[:1] in (b"\n", b"\r"):
            after += 2 if self._read(after, 2) == b"\r\n" else 1
        return Span(start, header, body, end), after if after < self._size else None

    def _by_length(self, header: bytes, body: int) -> int | None:
        """The end by Content-Length, where that is right."""
        found = re.search(rb"(?im)^Content-Length:[ \t]*(\d{1,18})[ \t]*\r?$", header)
        if found is None:
            return None
        end = body + int(found[1])
        if end > self._size:
            return None
        after = self._read(end, 4)
        if not after.strip(b"\r\n") and end + len(after) >= self._size:
            return end
        gap = len(after) - len(after.lstrip(b"\r\n"))
        ends_line = end == body or self._read(end - 1, 1) == b"\n" or gap > 0
        return end if ends_line and self._is_beginning(end + gap, first=True) else None

    def _next_beginning(self, after: int) -> int | None:
        """The next line behind `after` that begins a message."""
        at, octets = after, SMALL
        while at < self._size:
            block = self._read(at, octets)
            if not block:
                return None
            octets = min(PIECE, octets * 4)
            found = block.find(b"\nFrom ")
            while found >= 0:
                if self._is_beginning(at + found + 1):
                    return at + found + 1
                found = block.find(b"\nFrom ", found + 1)
            at += max(1, len(block) - 5) if at + len(block) < self._size else len(block)
        return None

    def _is_beginning(self, at: int, *, first: bool = False) -> bool:
        line = self._read(at, LINE_OCTETS)
        if not line.startswith(b"From "):
            return False
        line, _, rest = line.partition(b"\n")
        if at and BEGINS.fullmatch(line.rstrip(b"\r")) is None:
            return False
        before = self._read(max(0, at - 3), min(at, 3))
        return first or before.endswith((b"\n\n", b"\n\r\n")) or before == b"\n" or FIELD.match(rest) is not None

    # --- one message ---

    def _item(self, span: Span) -> MailItem | None:
        raw = self._read(span.header, min(span.body - span.header, HEADER_OCTETS))
        fields = _fields(raw)
        if INTERNAL in raw and ("x-imap" in fields or "x-imapbase" in fields):
            return None  # of the mail program that kept the file
        where = f"{self._path} at offset {span.start}"
        unquotes = self._kind != "mboxcl2" and not self._has_unquoted(span)
        digest, octets, has_nul = hashlib.sha256(), 0, False
        for piece in self._octets(span, unquotes):
            digest.update(piece)
            octets += len(piece)
            has_nul = has_nul or b"\0" in piece
        if octets == 0:
            self._tell(MailFault(where, "a message without any content is left out"))
            return None
        if has_nul:
            self._tell(MailFault(where, "it has NUL octets; it is imported as it is"))
        status, more = fields.get("status", ""), fields.get("x-status", "")
        flags = {X_FLAGS[one] for one in more if one in X_FLAGS} | ({"S"} if "R" in status else set())
        keywords = tuple(dict.fromkeys(fields.get("x-keywords", "").replace(",", " ").split()))
        return MailItem(
            self._keys.key(digest.hexdigest(), *self._folder),
            self._folder,
            self._seconds(span, fields),
            "".join(sorted(flags)),
            keywords,
            not flags and "O" not in status,
            partial(self._octets, span, unquotes),
            where,
        )

    def _seconds(self, span: Span, fields: dict[str, str]) -> float:
        """When it was received: by its ``From `` line, else its Date, else the file's own time."""
        line = self._read(span.start, LINE_OCTETS).partition(b"\n")[0].decode("latin-1")
        found = DATE.search(line)
        if found is not None:
            day = f"{found[2]} {found[1]} {found[5]} {found[3]}"
            for form in ("%d %b %Y %H:%M:%S", "%d %b %Y %H:%M"):
                try:
                    moment = calendar.timegm(time.strptime(day, form))
                except ValueError:
                    continue
                return moment - _offset(found[6] or found[4] or "")
        parsed = email.utils.parsedate_tz(fields.get("date", ""))
        try:
            if parsed is not None:
                return float(email.utils.mktime_tz(parsed))
        except (ValueError, OverflowError):
            pass
        return os.fstat(self._fd).st_mtime

    def _has_unquoted(self, span: Span) -> bool:
        at = span.body
        while at < span.end:
            block = self._read(at, min(PIECE, span.end - at))
            if not block:
                return False
            if b"\nFrom " in block or (at == span.body and block.startswith(b"From ")):
                return True
            at += max(1, len(block) - 5) if at + len(block) < span.end else len(block)
        return False

    def _octets(self, span: Span, unquotes: bool) -> Iterator[bytes]:
        """The content, as it is kept: without the fields of mbox programs, without the empty line that ends it."""
        yield _kept(self._read(span.header, span.body - span.header)).replace(b"\r\n", b"\n")
        end = self._trimmed(span)
        at, carry, line_start = span.body, b"", True
        while at < end or carry:
            block = carry + self._read(at, min(PIECE, end - at))
            at = min(end, at + PIECE)
            carry = b""
            if at < end:
                cut = block.rfind(b"\n") + 1
                if cut:
                    block, carry = block[:cut], block[cut:]
                elif block.endswith(b"\r"):
                    block, carry = block[:-1], b"\r"
            elif not block.endswith(b"\n"):
                block += b"\n"
            block = block.replace(b"\r\n", b"\n")
            if unquotes:
                first, newline, rest = (b"", b"", block) if line_start else block.partition(b"\n")
                block = first + newline + QUOTED.sub(rb"\1", rest)
            line_start = block.endswith(b"\n")
            yield block

    def _trimmed(self, span: Span) -> int:
        """The end without the one empty line that stands before the next message."""
        tail = self._read(max(span.body, span.end - 4), min(4, span.end - span.body))
        for ending, octets in ((b"\r\n\r\n", 2), (b"\n\n", 1)):
            if tail.endswith(ending):
                return span.end - octets
        if tail in (b"\n", b"\r\n"):
            return span.body
        return span.end

    def _header_block(self, at: int) -> bytes:
        """Octets in which the header section ends, if it does within `HEADER_OCTETS`."""
        octets = SMALL
        while True:
            block = self._read(at, octets)
            if len(block) < octets or octets >= HEADER_OCTETS or _header_length(block) < len(block):
                return block
            octets = min(HEADER_OCTETS, octets * 8)

    def _line_length(self, at: int) -> int:
        line = self._read(at, LINE_OCTETS)
        return line.find(b"\n") + 1 or len(line)

    def _read(self, at: int, octets: int) -> bytes:
        try:
            return os.pread(self._fd, octets, at) if octets > 0 else b""
        except OSError as error:
            raise CannotRead(f"{self._path} at offset {at}: {error.strerror}") from error


def _header_length(block: bytes) -> int:
    """The length of the header section with the empty line that ends it; all of the block where there is none."""
    if block.startswith((b"\n", b"\r\n")):
        return block.index(b"\n") + 1
    found = [n for n in (block.find(b"\n\n") + 2, block.find(b"\n\r\n") + 3) if n > 2]
    return min(found, default=len(block))


def _fields(header: bytes) -> dict[str, str]:
    text = re.sub(r"\r?\n[ \t]+", " ", header.decode("latin-1"))
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), value.strip())
    return found


def _kept(header: bytes) -> bytes:
    """The header without the fields that mbox programs keep for themselves."""
    lines, leaves = [], False
    for line in header.splitlines(keepends=True):
        if not line.startswith((b" ", b"\t")):
            leaves = line.partition(b":")[0].strip().lower().decode("latin-1") in OWN_FIELDS
        if not leaves or not line.strip():
            lines.append(line)
    return b"".join(lines)


def _offset(zone: str) -> int:
    if re.fullmatch(r"[+-]\d{4}", zone):
        seconds = int(zone[1:3]) * 3600 + int(zone[3:]) * 60
        return -seconds if zone[0] == "-" else seconds
    return 0
