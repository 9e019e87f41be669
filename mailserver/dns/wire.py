"""DNS messages as octets (RFC 1035 section 4): a question out, the records of an answer in.

Input is not trusted: each name, each section and the message have their bounds.  One missing octet makes the whole message
malformed, since a truncated message must never pass for one with fewer records.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "TYPES",
    "MalformedMessage",
    "Message",
    "NotAName",
    "Record",
    "answers_question",
    "decode",
    "encode_name",
    "encode_query",
    "encode_question",
    "in_random_case",
    "read_name",
]

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "TLSA": 52}  # the types that can be asked for
OPT = 41
IN = 1

LABEL_OCTETS = 63  # section 2.3.4
NAME_OCTETS = 255  # section 2.3.4, length octets included
MESSAGE_RECORDS = 1000  # 64 KiB hold 5,000 of the smallest; mail needs no more than dozens
NAME_POINTERS = 16  # real messages have one or two in a name
TTL_SECONDS = 0x7FFFFFFF  # RFC 2181 section 8: a TTL with the top bit set counts as zero

HEADER = struct.Struct("!6H")
RECORD = struct.Struct("!HHIH")
HEADER_OCTETS = HEADER.size
# RD; AD in a question asks for the AD bit in the answer, without the signatures (RFC 6840 section 5.7)
QUERY_FLAGS = 0x0120
# The OPT record (RFC 6891 section 6.1.2): 1232 octets fit into one packet on every path, so nothing is fragmented
PAYLOAD_OCTETS = 1232
OPT_RECORD = b"\0" + RECORD.pack(OPT, PAYLOAD_OCTETS, 0, 0)

LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
PLAIN = re.compile(rb"[!-\[\]-~]*")  # printable, neither space nor backslash
ESCAPE = re.compile(r"\\([0-9]{3})|\\([^0-9])|(\.)|([^\\.]+)")
EXTENDED_ERROR = 15  # RFC 8914
EXTENDED_ERRORS = {
    6: "DNSSEC bogus",
    7: "signature expired",
    8: "signature not yet valid",
    9: "DNSKEY missing",
    10: "signatures missing",
    12: "NSEC missing",
    22: "no reachable authority",
    23: "network error",
}


class MalformedMessage(Exception):
    """A malformed DNS message."""


class NotAName(ValueError):
    """The text is an invalid domain name, so no such name can exist."""


class Record(NamedTuple):
    """A resource record; its data are `message.data[start:end]`."""

    owner: str
    type: int
    ttl_seconds: int
    start: int
    end: int


@dataclass(slots=True)
class Message:
    """A response, as far as a stub resolver needs it."""

    data: bytes
    rcode: int
    truncated: bool
    authoritative: bool
    recursion_available: bool
    authenticated: bool
    answers: list[Record]
    authority: list[Record]
    extended_error: str = ""


# --- names ---


def encode_name(name: str) -> bytes:
    """A name in text form as length-prefixed labels (RFC 1035 section 3.1).  A final dot is ignored; "." is the root.

    Raises `NotAName`.
    """
    try:
        if "\\" in name:
            labels = _unescaped(name)
        else:
            labels = name.encode("ascii").removesuffix(b".").split(b".")
    except UnicodeEncodeError:
        raise NotAName(f"{name!r} is not ASCII") from None
    if name == ".":
        return b"\0"
    parts = []
    for label in labels:
        if not 0 < len(label) <= LABEL_OCTETS:
            raise NotAName(f"{name!r} has an empty or an overlong label")
        parts.append(b"%c%b" % (len(label), label))
    encoded = b"".join(parts) + b"\0"
    if len(encoded) > NAME_OCTETS:
        raise NotAName(f"{name!r} is longer than {NAME_OCTETS} octets")
    return encoded


def _unescaped(name: str) -> list[bytes]:
    labels = [bytearray()]
    at = 0
    while at < len(name):
        found = ESCAPE.match(name, at)
        if found is None:
            raise NotAName(f"{name!r} has a backslash with nothing behind it")
        octet, character, dot, plain = found.groups()
        if octet is not None and int(octet) > 255:
            raise NotAName(f"{name!r} has an octet above 255")
        if dot:
            labels.append(bytearray())
        else:
            labels[-1] += bytes((int(octet),)) if octet is not None else (character or plain).encode("ascii")
        at = found.end()
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    return [bytes(label) for label in labels]


def read_name(data: bytes, at: int) -> tuple[str, int]:
    """The name at offset `at`, in lower case, and the offset behind it.  Raises `MalformedMessage` or IndexError."""
    labels = []
    behind = pointers = 0
    octets = 1
    while length := data[at]:
        if length <= LABEL_OCTETS:
            labels.append(data[at + 1 : at + 1 + length])
            at += 1 + length
            octets += 1 + length
        elif length >= 0xC0:
            target = (length & 0x3F) << 8 | data[at + 1]
            behind = behind or at + 2
            pointers += 1
            if target >= at or pointers > NAME_POINTERS:  # section 4.1.4: a pointer leads to a prior occurrence only
                raise MalformedMessage("a name runs in circles")
            at = target
        else:
            raise MalformedMessage("a label of an unknown kind")
        if octets > NAME_OCTETS:
            raise MalformedMessage("a name is too long")
    name = b".".join(labels)
    if name.count(b".") >= max(1, len(labels)) or PLAIN.fullmatch(name) is None:
        name = b".".join([_escaped(label) for label in labels])
    return name.lower().decode("ascii") or ".", behind or at + 1


def _escaped(label: bytes) -> bytes:
    return b"".join(
        b"%c" % octet if 0x21 <= octet < 0x7F and octet not in b".\\" else b"\\%03d" % octet for octet in label
    )


# --- messages ---


def encode_question(name: bytes, record_type: int) -> bytes:
    """The question section for an encoded name."""
    return name + struct.pack("!HH", record_type, IN)


def in_random_case(question: bytes, draw: bytes) -> bytes:
    """The question with its letters in random case (known as 0x20).  An answer has to repeat them.

    `draw` holds as many random octets as the question.  Only ASCII letters change.  Length octets are below 64, so they are
    never taken for letters.  Octets above 127 have no case in the DNS (RFC 4343 section 3).
    """
    end = len(question) - 4
    mixed = [octet ^ (bit & 0x20 if octet in LETTERS else 0) for octet, bit in zip(question[:end], draw, strict=False)]
    return bytes(mixed) + question[end:]


def encode_query(id: bytes, question: bytes, *, edns: bool = True, checking: bool = True) -> bytes:
    """A query with one question; `id` is two octets.  With `edns` it has an OPT record.

    Without `checking` it has the CD bit: the server shall answer although the data are forged (RFC 4035 section 3.2.2).
    """
    flags = b"\x01\x20" if checking else b"\x01\x30"
    if edns:
        return id + flags + b"\x00\x01\x00\x00\x00\x00\x00\x01" + question + OPT_RECORD
    return id + flags + b"\x00\x01\x00\x00\x00\x00\x00\x00" + question


def answers_question(data: bytes, question: bytes, *, exactly: bool = False) -> bool:
    """Whether a message is a response to this question.  The case of letters counts only with `exactly`.

    A server that has not understood the question may leave it out (FORMERR, NOTIMP).
    """
    if len(data) < HEADER_OCTETS or data[2] & 0xF8 != 0x80:  # a response to a standard query
        return False
    if data[4:6] == b"\0\0":
        return data[3] & 0x0F in (1, 4)
    end = HEADER_OCTETS + len(question)
    if data[4:6] != b"\0\1":
        return False
    if data[HEADER_OCTETS:end] == question:
        return True
    return (
        not exactly
        and data[HEADER_OCTETS : end - 4].lower() == question[:-4].lower()
        and data[end - 4 : end] == question[-4:]
    )


def decode(data: bytes, question: bytes, name: str) -> Message:
    """The records of a message that answers `question`, whose name is `name`.  Raises `MalformedMessage`."""
    _, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    message = Message(
        data,
        flags & 0x0F,
        bool(flags & 0x0200),
        bool(flags & 0x0400),
        bool(flags & 0x0080),
        bool(flags & 0x0020),
        [],
        [],
    )
    if message.truncated:
        return message
    if answers + authority + additional > MESSAGE_RECORDS:
        raise MalformedMessage("too many records")
    at = HEADER_OCTETS + (len(question) if questions else 0)
    try:
        at = _read_records(data, at, answers, name, message.answers)
        at = _read_records(data, at, authority, name, message.authority)
        _read_additional(message, at, additional)
    except (IndexError, struct.error):
        raise MalformedMessage("the message is cut off") from None
    return message


def _read_records(data: bytes, at: int, count: int, name: str, into: list[Record]) -> int:
    for _ in range(count):
        if data[at] == 0xC0 and data[at + 1] == HEADER_OCTETS:  # a pointer to the question's name, as nearly always
            owner, at = name, at + 2
        else:
            owner, at = read_name(data, at)
        type, record_class, ttl_seconds, length = RECORD.unpack_from(data, at)
        at += RECORD.size
        if at + length > len(data):
            raise MalformedMessage("the message is cut off")
        if record_class == IN:
            into.append(Record(owner, type, ttl_seconds if ttl_seconds <= TTL_SECONDS else 0, at, at + length))
        at += length
    return at


def _read_additional(message: Message, at: int, count: int) -> None:
    """Read the OPT record; all others are ignored.  Its TTL holds the upper bits of the RCODE (RFC 6891 section 6.1.3)."""
    data = message.data
    for _ in range(count):
        at = at + 1 if not data[at] else read_name(data, at)[1]
        type, _, upper, length = RECORD.unpack_from(data, at)
        at += RECORD.size + length
        if at > len(data):
            raise MalformedMessage("the message is cut off")
        if type == OPT:
            message.rcode |= upper >> 24 << 4
            if message.rcode and length:
                message.extended_error = _extended_error(data[at - length : at])


def _extended_error(options: bytes) -> str:
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from("!HH", options, at)
        at += 4 + length
        if code == EXTENDED_ERROR and length >= 2 and at <= len(options):
            (number,) = struct.unpack_from("!H", options, at - length)
            return EXTENDED_ERRORS.get(number, f"extended error {number}")
    return ""
