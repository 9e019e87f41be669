"""Lines above 998 octets (RFC 5322 section 2.1.1), encoded where mail is submitted.

Some hosts cut such lines, and whoever cuts one breaks the signatures over it.  So a user's message has none before it is signed
or sent.  The parts that have such lines become quoted-printable or base64, and lines of base64 that are too long are wrapped;
nothing else changes.  What is signed or encrypted already, is binary, or cannot be told stays as it is, and so does mail in
transit.  Where we sign, all is made text of 7 bits besides, so that nobody has to change what is signed.
"""

from __future__ import annotations

import os
from contextlib import suppress

from mailserver.mail.content import Content
from mailserver.mail.durable import sync_directory
from mailserver.mail.eight_bit import Channel, Conversion, Unconvertible, conversion_of, facts_of, is_signed
from mailserver.mail.source import Source, source_of

__all__ = ["short_lines"]

CHANNEL = Channel(long=False)
SEVEN_BIT_CHANNEL = Channel(eight_bit=False, binary=False, long=False)


def short_lines(content: Content, *, seven_bit: bool = False) -> Content:
    """The message without long lines in its parts; the same object where it has none, or where they stay.

    `seven_bit`: also without octets above 127 and what is no text, as for a message that is signed.

    A message in a file is read, and written anew in its place, durably: call this in a thread.  Raises OSError, with the file as
    it was.
    """
    if content.binary and not seven_bit:
        return content
    with source_of(content) as source:
        conversion = _conversion_of(source, content, seven_bit)
        if conversion is None:
            return content
        if content.path is None:
            return Content.of(b"".join(conversion.chunks()))
        return Content.at(content.path, _rewrite(content.path, conversion))


def _conversion_of(source: Source, content: Content, seven_bit: bool) -> Conversion | None:
    channel = SEVEN_BIT_CHANNEL if seven_bit else CHANNEL
    if channel.carries(facts_of(source, 0, source.size)) or is_signed(content.headers):
        return None
    try:
        return conversion_of(source, channel)
    except Unconvertible:
        return None


def _rewrite(path: str, conversion: Conversion) -> int:
    """Put the octets into the place of the file that they are made of; return how many they are."""
    new = f"{path}.new"  # a crash leaves it to the sweep of the spool: no entry has that name
    try:
        with open(new, "xb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)) as file:
            for piece in conversion.chunks():
                file.write(piece)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(new)
        raise
    sync_directory(os.path.dirname(path))
    return size
