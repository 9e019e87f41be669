"""8-bit content encoded by part, with quoted-printable or base64 (RFC 2045 section 6), for a host that takes 7 bits.

    with source_of(content) as source:
        conversion = conversion_of(source, Channel(eight_bit=False))    # None: it fits as it is
        conversion.chunks()                                         # the message, in pieces

Only parts that do not fit are encoded.  Of their headers only Content-Transfer-Encoding changes, and that of what holds them
where it promised more than 7 bits; a message that had no MIME-Version gets one, and one that said nothing of its text at all
also gets a Content-Type (RFC 1428).  All other octets stay: headers are never written anew.

What cannot be converted without harm raises `Unconvertible`: a multipart/signed or multipart/encrypted that would have to
change, a part that is encoded already and breaks its encoding, a structure that cannot be told.  Whether that is sent as it is
or not at all is the caller's to say.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mailserver.mail.headers import Headers
from mailserver.mail.mime_parts import CONTENT_TYPE, ENCODING, MESSAGE, VERSION, MalformedMIME, Part, parts_of
from mailserver.mail.source import BLOCK_OCTETS, Source

__all__ = ["LINE_OCTETS_MOST", "Conversion", "Facts", "Unconvertible", "Channel", "conversion_of", "facts_of", "is_signed"]

LINE_OCTETS_MOST = 998  # RFC 5322 section 2.1.1, without the CRLF
IDENTITY = ("", "7bit", "8bit", "binary")
SEALED = ("multipart/signed", "multipart/encrypted")  # RFC 1847: what passes on the message must not change them
# Nobody undoes an encoding of message/delivery-status and the like (RFC 2046 section 5.2; RFC 3464 section 2.1: 7bit).  Those of
# RFC 6532 and RFC 6533 were made with it in mind.
MAY_BE_ENCODED = ("message/global",)
SIGNATURES = ("DKIM-Signature", "ARC-Seal", "ARC-Message-Signature")  # RFC 6376, RFC 8617: they cover the body
GAP_OCTETS_MOST = 65_536
BASE64_OCTETS = 57 * 4096  # of one block: lines of 76
BASE64_LINE = 76
MOSTLY_EIGHT_BIT = 4  # text with more than one octet in so many above 127 is shorter in base64,
SHORT_OCTETS = 500  # and where it is shorter than this, that counts for nothing
EIGHT_BIT = bytes(range(128, 256))
HARMLESS = bytes(range(1, 128)).rjust(128, b"?") + b"?" * 128
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
LONG = re.compile(rb"[^\r\n]{900}(?=[^\r\n])")


class Unconvertible(Exception):
    """It cannot be encoded without harm.  The message says why; `sealed` that a signature or an encryption would break."""

    def __init__(self, why: str, *, sealed: bool = False) -> None:
        super().__init__(why)
        self.sealed = sealed


@dataclass(frozen=True, slots=True)
class Facts:
    """What some octets hold.  `eight_bit` counts those above 127, `binary` is a NUL or a CR or LF that is not in CRLF,
    `long` a line of more than 998 octets."""

    size: int = 0
    eight_bit: int = 0
    binary: bool = False
    long: bool = False


@dataclass(frozen=True, slots=True)
class Channel:
    """What the octets of a body may be: octets above 127; NUL, bare CR and LF; lines longer than 998 octets."""

    eight_bit: bool = True
    binary: bool = True
    long: bool = True

    def carries(self, facts: Facts) -> bool:
        """Such octets arrive as they are."""
        return (
            (self.eight_bit or not facts.eight_bit)
            and (self.binary or not facts.binary)
            and (self.long or not facts.long)
        )


def facts_of(source: Source, start: int, end: int) -> Facts:
    """Look at a range, block by block.  Raises what `source` does."""
    eight_bit, binary, longest, line, held = 0, False, 0, 0, b""
    for at in range(start, end, BLOCK_OCTETS):
        block = held + source.read(at, min(at + BLOCK_OCTETS, end))
        held = b""
        if block.endswith(b"\r"):
            block, held = block[:-1], b"\r"
        if not block.isascii():
            eight_bit += len(block) - len(block.translate(None, EIGHT_BIT))
        ends = block.count(b"\r\n")
        if not binary:
            binary = b"\0" in block or block.count(b"\r") != ends or block.count(b"\n") != ends
        lines = block.split(b"\r\n")
        longest = max(longest, line + len(lines[0]), max(map(len, lines)))
        line = len(lines[-1]) + (line if len(lines) == 1 else 0)
    return Facts(end - start, eight_bit, binary or bool(held), longest > LINE_OCTETS_MOST)


def is_signed(headers: Headers) -> bool:
    """A host on the message's channel has signed it (DKIM or ARC): another form of it would count as forged."""
    return any(name in headers for name in SIGNATURES)


def conversion_of(source: Source, channel: Channel) -> Conversion | None:
    """How to make a message fit; None where nothing has to change.  Raises `Unconvertible`, and what `source` does."""
    try:
        root = parts_of(source)
    except MalformedMIME as fault:
        raise Unconvertible(str(fault)) from None
    conversion = Conversion(source, channel)
    if not conversion.plan(root):
        return None
    conversion.copy(source.size)
    return conversion


Step = Callable[[], Iterator[bytes]]


class Conversion:
    """A message with some parts encoded.  `root` plans it; `chunks` may be taken more than once."""

    def __init__(self, source: Source, channel: Channel) -> None:
        self._source = source
        self._channel = channel
        self._steps: list[Step] = []
        self._done = 0  # of the source, up to here all is planned

    def chunks(self) -> Iterator[bytes]:
        """The octets in pieces.  Raises what the source does."""
        for step in self._steps:
            yield from step()

    # --- the plan ---

    def plan(self, part: Part) -> bool:
        """Plan a part.  False where it stays as it is."""
        if not part.parts and not part.is_multipart:
            return self._plan_leaf(part)
        if part.kind in SEALED:
            if self._fits(part.body, part.end):
                return False
            raise Unconvertible(f"a {part.kind} would have to change", sealed=True)
        place, steps = self._done, len(self._steps)
        self.copy(part.start)
        header_at = len(self._steps)
        self._done = part.body
        changed = [self._plan_gap(*part.gaps[0])] if part.gaps else []
        changed += [self.plan(one) for one in part.parts]
        changed += [self._plan_gap(*gap) for gap in part.gaps[1:]]
        if not any(changed):
            del self._steps[steps:]
            self._done = place
            return False
        encoding = part.encoding
        if encoding == "binary" or (encoding == "8bit" and not self._channel.eight_bit):
            encoding = "8bit" if self._channel.eight_bit else "7bit"
        octets = self._header(part, encoding)
        self._steps.insert(header_at, lambda: iter((octets,)))
        return True

    def copy(self, end: int) -> None:
        """All up to here stays as it is."""
        start, self._done = self._done, max(self._done, end)
        if start < end:
            self._steps.append(lambda: self._copied(start, end))

    def _fits(self, start: int, end: int) -> bool:
        return self._channel.carries(facts_of(self._source, start, end))

    def _plan_leaf(self, part: Part) -> bool:
        facts = facts_of(self._source, part.body, part.end)
        if self._channel.carries(facts):
            return False
        step: Step
        if part.encoding == "base64" and not facts.eight_bit and not facts.binary:
            encoding, step = "base64", lambda: self._wrapped(part)  # lines that are too long are all that is wrong
        elif part.encoding not in IDENTITY:
            raise Unconvertible(f"a part in {part.encoding[:40]} breaks that encoding")
        elif part.kind.startswith("message/") and not part.kind.startswith(MAY_BE_ENCODED):
            raise Unconvertible(f"a {part.kind} cannot be encoded")
        elif part.kind.startswith(("text/", "message/")) and not facts.binary and not _mostly_eight_bit(facts):
            encoding, step = "quoted-printable", lambda: self._quoted_printable(part.body, part.end)
        else:
            encoding, step = "base64", lambda: self._base64(part.body, part.end)
        self.copy(part.start)
        octets = self._header(part, encoding)
        self._steps += [lambda: iter((octets,)), step]
        self._done = part.end
        return True

    def _plan_gap(self, start: int, end: int) -> bool:
        """A preamble or an epilogue, which no reader shows: what does not fit in it becomes harmless."""
        if start >= end or self._fits(start, end):
            return False
        if end - start > GAP_OCTETS_MOST:
            raise Unconvertible("there is too much before or behind the parts of a multipart")
        self.copy(start)
        octets = BARE.sub(b" ", self._source.read(start, end)).translate(HARMLESS)
        octets = _undashed(LONG.sub(rb"\g<0>\r\n ", octets))
        self._steps.append(lambda: iter((octets,)))
        self._done = end
        return True

    def _header(self, part: Part, encoding: str) -> bytes:
        """The header of a part whose body changes, with the empty line."""
        headers = part.headers
        lines: list[bytes] = []
        if part.is_message and VERSION not in headers:
            lines.append(b"MIME-Version: 1.0\r\n")
            if CONTENT_TYPE not in headers and part.kind != MESSAGE and not part.parts:
                charset = "utf-8" if self._is_utf8(part) else "unknown-8bit"
                lines.append(f"Content-Type: text/plain; charset={charset}\r\n".encode())
        if encoding != part.encoding:
            lines.append(f"{ENCODING}: {encoding}\r\n".encode())
            kept = headers.without(frozenset({ENCODING.lower()}))
        else:
            kept = headers.without(frozenset())
        return kept + b"".join(lines) + b"\r\n"

    def _is_utf8(self, part: Part) -> bool:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for block in self._copied(part.body, part.end):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return True

    # --- the octets ---

    def _copied(self, start: int, end: int) -> Iterator[bytes]:
        for at in range(start, end, BLOCK_OCTETS):
            yield self._source.read(at, min(at + BLOCK_OCTETS, end))

    def _base64(self, start: int, end: int) -> Iterator[bytes]:
        """RFC 2045 section 6.8.  The line end before a delimiter is not the part's: the last line has one only if it had one."""
        has_end = self._source.read(max(start, end - 2), end) == b"\r\n"
        for at in range(start, end, BASE64_OCTETS):
            lines = _lines_of(binascii.b2a_base64(self._source.read(at, min(at + BASE64_OCTETS, end)), newline=False))
            yield lines if at + BASE64_OCTETS < end or has_end else lines[:-2]

    def _wrapped(self, part: Part) -> Iterator[bytes]:
        """Base64 whose lines are too long, with lines of 76.

        Dashes are no base64, and nobody reads them there (RFC 2045 section 6.8): wherever lines end, none becomes a delimiter.
        """
        has_end = self._source.read(max(part.body, part.end - 2), part.end) == b"\r\n"
        left = b""
        for block in self._copied(part.body, part.end):
            left += block.translate(None, b"\r\n \t-")
            whole = len(left) - len(left) % BASE64_LINE
            yield _lines_of(left[:whole])
            left = left[whole:]
        yield left + b"\r\n" if left and has_end else left

    def _quoted_printable(self, start: int, end: int) -> Iterator[bytes]:
        """RFC 2045 section 6.7; the octets hold CR and LF in CRLF only."""
        left = b""
        for block in self._copied(start, end):
            left += block
            cut = left.rfind(b"\r\n") + 2
            if cut < 2 and len(left) < BLOCK_OCTETS:
                continue
            if cut >= 2:
                yield _qp_lines(left[:cut])
                left = left[cut:]
            elif not left.endswith(b"\r"):  # a line longer than a block: a soft line break in its midst
                yield _qp_lines(left + b"\r\n")[:-2] + b"=\r\n"
                left = b""
        if left:
            yield _qp_lines(left + b"\r\n")[:-2]


def _mostly_eight_bit(facts: Facts) -> bool:
    return facts.eight_bit * MOSTLY_EIGHT_BIT > facts.size > SHORT_OCTETS


def _qp_lines(lines: bytes) -> bytes:
    """Whole lines in quoted-printable.  A soft line break must not turn the end of a line into a delimiter."""
    octets = binascii.b2a_qp(lines).replace(b"\r\n--", b"\r\n=2D-")
    return b"=2D" + octets[1:] if octets.startswith(b"--") else octets


def _undashed(octets: bytes) -> bytes:
    """Lines with no dash at their beginning: one that has changed might have become a delimiter."""
    octets = octets.replace(b"\r\n--", b"\r\n -")
    return b" " + octets[1:] if octets.startswith(b"--") else octets


def _lines_of(base64: bytes) -> bytes:
    return b"".join([base64[at : at + BASE64_LINE] + b"\r\n" for at in range(0, len(base64), BASE64_LINE)])
