"""The octets of the milter protocol, version 6: frames, the letters of commands and answers, flags to agree upon.  Pure.

    frame      length of the rest (32 bits, the highest octet first), a letter, data
    data       texts that each end with a zero octet, numbers of 32 bits, or octets as they are

There is no standard; Sendmail's libmilter is what everybody is built on or built after.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence

__all__ = [
    "CHUNK_OCTETS",
    "FRAME_OCTETS_MOST",
    "VERSION",
    "OLDEST_VERSION",
    "Actions",
    "Frames",
    "MilterFault",
    "Omits",
    "MilterStep",
    "frame",
    "number",
    "texts",
    "texts_in",
]

VERSION = 6
OLDEST_VERSION = 2
CHUNK_OCTETS = 65_535  # of a body, at most
FRAME_OCTETS_MOST = 1_048_576  # from a milter: libmilter's are shorter than a chunk, but for a long field

LENGTH = struct.Struct("!I")


class MilterFault(Exception):
    """What a milter has said cannot be understood, or not now.  The words are for the log."""


class MilterStep(enum.Enum):
    """What a milter is asked about: the letter of the command."""

    CONNECT = b"C"
    HELO = b"H"
    MAIL = b"M"
    RCPT = b"R"
    DATA = b"T"
    HEADER = b"L"
    END_OF_HEADER = b"N"
    BODY = b"B"
    END = b"E"


class Actions(enum.IntFlag):
    """What a milter may ask to have changed (SMFIF_…)."""

    ADD_HEADERS = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENTS = 0x4
    DELETE_RECIPIENTS = 0x8
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_PARAMETERS = 0x80
    NAME_MACROS = 0x100

    ALL = 0x1FF


class Omits(enum.IntFlag):
    """What a milter does not want to hear, or will not answer (SMFIP_NO…, SMFIP_NR_…); and three ways of saying things."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADER = 0x20
    NO_END_OF_HEADER = 0x40
    NR_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400  # it may say that it has seen enough of the body
    REFUSED_RECIPIENTS = 0x800  # it wants to hear of recipients whom the MTA has refused
    NR_CONNECT = 0x1000
    NR_HELO = 0x2000
    NR_MAIL = 0x4000
    NR_RCPT = 0x8000
    NR_DATA = 0x10000
    NR_UNKNOWN = 0x20000
    NR_END_OF_HEADER = 0x40000
    NR_BODY = 0x80000
    LEADING_SPACE = 0x100000  # values of fields come and go with the blanks after the colon

    OFFERED = 0x1FF7FF
    """All but REFUSED_RECIPIENTS: no filter is asked about those."""


class Frames:
    """Cuts a milter's octets into frames, wherever the pieces are cut."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = bytearray()

    def __len__(self) -> int:
        """So many octets wait."""
        return len(self._octets)

    def add(self, octets: bytes) -> None:
        """Some more of what it says."""
        self._octets += octets

    def next(self) -> tuple[bytes, bytes] | None:
        """The letter and the data of the next frame, None where that is not whole yet.  Raises `MilterFault`."""
        if len(self._octets) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._octets)
        if not 1 <= length <= FRAME_OCTETS_MOST:
            raise MilterFault(f"a frame of {length} octets")
        end = LENGTH.size + length
        if len(self._octets) < end:
            return None
        letter, data = bytes(self._octets[4:5]), bytes(self._octets[5:end])
        del self._octets[:end]
        return letter, data


def frame(letter: bytes, data: bytes = b"") -> bytes:
    """One frame."""
    return LENGTH.pack(1 + len(data)) + letter + data


def texts(values: Iterable[str]) -> bytes:
    """Texts, each with its zero octet.  What is in them is a peer's: a zero octet of its own becomes a question mark."""
    return b"".join([value.encode("utf-8", "replace").replace(b"\0", b"?") + b"\0" for value in values])


def texts_in(data: bytes) -> Sequence[bytes]:
    """The texts in the data of a frame.  Raises `MilterFault` where the last one has no end."""
    if not data.endswith(b"\0"):
        raise MilterFault("a text without an end")
    return data[:-1].split(b"\0")


def number(data: bytes) -> tuple[int, bytes]:
    """The number with which the data begin, and what follows.  Raises `MilterFault` where there is none."""
    if len(data) < LENGTH.size:
        raise MilterFault("a number without an end")
    return LENGTH.unpack_from(data)[0], data[LENGTH.size :]
