"""DNS lists (RFC 5782): the names that are asked for, and what an answer says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mailserver.mail.quick import quick

__all__ = ["CodeSet", "ListAnswer", "TestPoints", "address_name", "read_answer"]

LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class TestPoints:
    """What a list has to hold and what it must never hold (RFC 5782 section 5), as names below the list's own."""

    listed: str
    unlisted: str


V4_POINTS = TestPoints("2.0.0.127", "1.0.0.127")
V6_POINTS = TestPoints(  # ::FFFF:7F00:2 and ::FFFF:7F00:1
    "2.0.0.0.0.0.f.7.f.f.f.f" + ".0" * 20, "1.0.0.0.0.0.f.7.f.f.f.f" + ".0" * 20
)
DOMAIN_POINTS = TestPoints("test", "invalid")


@dataclass(frozen=True, slots=True)
class CodeSet:
    """Codes with which a list answers: ``127.0.0.4``, ``127.0.0.4-127.0.0.7``, ``127.0.1.0/24``, several with commas."""

    text: str
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> CodeSet:
        """Raises ValueError for what is none, and for what lies outside of 127.0.0.0/8."""
        return cls(text, tuple([_range_of(part.strip()) for part in text.split(",")]))

    def __contains__(self, code: int) -> bool:
        return any(first <= code <= last for first, last in self.ranges)

    @property
    def size(self) -> int:
        """How many codes it has."""
        return sum([last - first + 1 for first, last in self.ranges])


def _range_of(text: str) -> tuple[int, int]:
    try:
        if "-" in text:
            first, last = [int(ipaddress.IPv4Address(end.strip())) for end in text.split("-")]
        else:
            network = ipaddress.IPv4Network(text)
            first, last = int(network.network_address), int(network.broadcast_address)
    except ValueError:
        raise ValueError(f"{text!r} is not a code, such as 127.0.0.2, 127.0.0.4-127.0.0.7 or 127.0.1.0/24") from None
    if first > last or ipaddress.IPv4Address(first) not in LOOPBACK or ipaddress.IPv4Address(last) not in LOOPBACK:
        raise ValueError(f"{text!r}: the codes of DNS lists lie in 127.0.0.0/8, the lower one first")
    return first, last


@quick
@dataclass(frozen=True, slots=True)
class ListAnswer:
    """What a list has said.

    ``refused``: it does not answer us.  ``odd``: an address outside of 127.0.0.0/8, as a domain that was given up answers.
    `codes` are the records that say so, in their order.
    """

    says: Literal["unlisted", "listed", "refused", "odd"]
    codes: tuple[str, ...] = ()


UNLISTED = ListAnswer("unlisted")


def address_name(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The octets or nibbles of the address backwards (sections 2.1 and 2.4); a list's name comes behind it."""
    return ip.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def read_answer(records: Iterable[str], refused: Sequence[CodeSet]) -> ListAnswer:
    """What the A records say.  One that refuses makes the whole answer a refusal, and an odd one makes it odd."""
    listed: list[str] = []
    refusals: list[str] = []
    odd: list[str] = []
    for record in records:
        try:
            code = ipaddress.IPv4Address(record)
        except ValueError:
            odd.append(record)
            continue
        if code not in LOOPBACK:
            odd.append(record)
        elif any(int(code) in codes for codes in refused):
            refusals.append(record)
        else:
            listed.append(record)
    if refusals:
        return ListAnswer("refused", tuple(refusals))
    if odd:
        return ListAnswer("odd", tuple(odd))
    return ListAnswer("listed", tuple(listed)) if listed else UNLISTED
