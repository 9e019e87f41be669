"""The form in which a message goes to a host: as it came, or encoded for what the host takes (RFC 6152, RFC 3030).

    content is                        the host lacks        it goes
    ASCII                             8BITMIME              as it came, without BODY
    8-bit                             8BITMIME              converted by part, raw or not at all: `EightBit`
    binary, but CRLF lines, no NUL    BINARYMIME            as 8-bit content
    binary                            BINARYMIME            with base64 in those parts, whatever `EightBit` says

Content that others have signed (DKIM, ARC, multipart/signed) or encrypted is not converted, nor is malformed MIME.  8-bit
content of that kind goes raw; binary content is returned to its sender.
"""

from __future__ import annotations

import enum
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mailserver.mail.content import CHUNK_OCTETS, Content
from mailserver.mail.eight_bit import Channel, Conversion, Facts, Unconvertible, conversion_of, facts_of, is_signed
from mailserver.mail.reply import Reply
from mailserver.mail.source import FileSource, MemorySource, Source, source_of
from mailserver.smtp.client.offer import Offer
from mailserver.smtp.client.request import NEEDS_8BITMIME, NEEDS_BINARYMIME, Request, can_be_said

__all__ = ["EightBit", "Form", "form_of", "channel_to"]


class EightBit(enum.StrEnum):
    """What happens to 8-bit content for a host without 8BITMIME."""

    CONVERT = "convert"
    RAW = "raw"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Form:
    """A message as it is sent to some hosts.  `body` is MAIL's BODY; `note` is for the outcome; "" for none.

    `smaller` is the form for a host whose SIZE is less than this one's.
    """

    content: Content
    body: str
    note: str = ""
    smaller: Form | None = None

    def within(self, size_max: int) -> Form:
        """The form for a host that takes `size_max` octets; 0 where it has not named a size."""
        return self.smaller if self.smaller is not None and 0 < size_max < self.content.size else self


def channel_to(request: Request, offer: Offer) -> Channel | None:
    """What the content may hold for this host; None where it needs no conversion, or where no conversion would help."""
    is_text = request.body != "BINARYMIME" or offer.binarymime
    if (offer.eightbitmime and is_text) or not can_be_said(request, offer):
        return None
    return Channel(eight_bit=offer.eightbitmime, binary=is_text)


def form_of(content: Content, channel: Channel, *, eight_bit: EightBit, directory: str) -> Form | Reply:
    """The form for this channel, or the reason why none can be made.

    Reads the content, and makes a file in `directory` for a large one.  Raises OSError.
    """
    with source_of(content) as source:
        facts = facts_of(source, 0, source.size)
        if channel.carries(facts):
            return Form(content, _body(facts, channel))
        needs_text = facts.binary and not channel.binary
        if eight_bit is EightBit.RAW:
            channel = replace(channel, eight_bit=True)
        raw = Form(content, "7BIT", "8-bit content sent raw")
        if channel.carries(facts):
            return raw
        if eight_bit is EightBit.REFUSE:
            return NEEDS_BINARYMIME if needs_text else NEEDS_8BITMIME
        try:
            if is_signed(content.headers):
                raise Unconvertible("it is signed")
            conversion = conversion_of(source, channel)
            converted, facts = (content, facts) if conversion is None else _made(conversion, content, directory)
        except Unconvertible as fault:
            return NEEDS_BINARYMIME if needs_text else replace(raw, note=f"8-bit content sent raw: {fault}")
    if needs_text and facts.binary:  # in a header, which cannot be encoded
        return NEEDS_BINARYMIME
    if conversion is None:
        return Form(converted, "7BIT")  # 8-bit octets in a header only: BODY does not cover these
    smaller = None if needs_text else replace(raw, note="8-bit content sent raw: converted it would be too large")
    return Form(converted, _body(facts, channel), "converted for this host", smaller)


def _body(facts: Facts, channel: Channel) -> str:
    return "8BITMIME" if facts.eight_bit and channel.eight_bit else "7BIT"


def _made(conversion: Conversion, content: Content, directory: str) -> tuple[Content, Facts]:
    source: Source
    if content.path is None:
        data = b"".join(conversion.chunks())
        source = MemorySource(data)
        return Content.of(data), facts_of(source, 0, source.size)
    file = HeldFile(directory)
    for piece in conversion.chunks():
        file.write(piece)
    source = FileSource(file.descriptor, stored=file.size)
    return HeldContent(None, None, file.size, file=file), facts_of(source, 0, source.size)


class HeldFile:
    """A file without a name.  It ends with the last reference to it, so nothing is left behind after a crash."""

    __slots__ = ("descriptor", "size")

    def __init__(self, directory: str) -> None:
        self.descriptor = -1
        self.size = 0
        descriptor, path = tempfile.mkstemp(prefix="converted-", dir=directory)
        self.descriptor = descriptor
        os.unlink(path)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def write(self, octets: bytes) -> None:
        """Append octets.  Raises OSError."""
        view = memoryview(octets)
        while view:
            view = view[os.write(self.descriptor, view) :]
        self.size += len(octets)


@dataclass(frozen=True)
class HeldContent(Content):
    """A message in a `HeldFile`."""

    file: HeldFile | None = None

    def chunks(self, octets: int = CHUNK_OCTETS) -> Iterator[bytes]:
        """See `Content.chunks`."""
        file = self.file
        if file is None:
            return
        source = FileSource(file.descriptor, stored=file.size)
        for at in range(0, source.size, octets):
            yield source.read(at, min(at + octets, source.size))
