"""What the name servers of a zone show.

`Seen` is what the verdicts look at: a table in tests, the servers themselves (`asking`) else.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

__all__ = ["DNSSECState", "NameServerSeen", "Seen", "SeenRecords", "SeenState", "ZoneSeen", "followed", "merged"]

ALIASES_MOST = 8


class SeenState(enum.Enum):
    """What there is at a name."""

    FOUND = "found"
    NONE = "no record of this type"
    NO_NAME = "no such name"
    FAILED = "nobody can tell"


@dataclass(frozen=True, slots=True)
class SeenRecords:
    """The records of one name and type, in order; `alias` is where a CNAME at the name leads.

    `differing` has, where the servers of the zone do not agree, a sentence for each of their answers.  `signature_fault` says
    what is wrong with the signatures of a set whose zone is signed, and `has_expired` that they were right once.
    """

    name: str
    type: str
    state: SeenState = SeenState.NO_NAME
    records: tuple[str, ...] = ()
    alias: str = ""
    why: str = ""
    differing: tuple[str, ...] = ()
    signature_fault: str = ""
    has_expired: bool = False
    ttl_seconds: int = 0

    @property
    def texts(self) -> tuple[bytes, ...]:
        """The records of a TXT set as octets."""
        return tuple([one.encode("ascii", "surrogateescape") for one in self.records])


class DNSSECState(enum.Enum):
    """How a zone is signed."""

    UNSIGNED = "not signed"
    SECURE = "signed"
    NO_DS = "signed, but the zone above has no DS record"
    BOGUS = "the signatures do not fit"
    EXPIRED = "the signatures have expired"
    UNKNOWN = "nobody can tell"


@dataclass(frozen=True, slots=True)
class NameServerSeen:
    """One address of a server of a zone.  `fault` is "" where all is well, "lame", "silent"; `why` in words."""

    name: str
    address: str
    fault: str = ""
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


@dataclass(frozen=True, slots=True)
class ZoneSeen:
    """The zone that a name is in; `name` is "" where it could not be found, and `why` says why."""

    name: str
    servers: tuple[NameServerSeen, ...] = ()
    dnssec: DNSSECState = DNSSECState.UNSIGNED
    why: str = ""


class Seen(Protocol):
    """Who looks: names are A-labels in lower case without a final dot."""

    def of(self, name: str, type: str) -> SeenRecords:
        """The records at this very name: no CNAME is followed."""

    def zone(self, name: str) -> ZoneSeen:
        """The zone that the name is in."""


def followed(seen: Seen, name: str, type: str) -> SeenRecords:
    """The records to which a name leads, over CNAMEs."""
    for _ in range(ALIASES_MOST):
        found = seen.of(name, type)
        if not found.alias:
            return found
        name = found.alias
    return SeenRecords(name, type, SeenState.FAILED, why="CNAMEs without end")


def merged(answers: Sequence[tuple[str, SeenRecords]]) -> SeenRecords:
    """What the servers of a zone show together: (the server, its answer).  There is one answer at least.

    A server that cannot tell counts only where none can.  Where they differ, it is what most of them show, of as many the first.
    """
    told = [(server, one) for server, one in answers if one.state is not SeenState.FAILED]
    if not told:
        return replace(answers[0][1], why="; ".join([f"{server}: {one.why}" for server, one in answers]))
    groups: dict[tuple[object, ...], list[str]] = {}
    first: dict[tuple[object, ...], SeenRecords] = {}
    for server, one in told:
        key = (one.state is SeenState.FOUND, one.alias, tuple(sorted(one.records)))
        groups.setdefault(key, []).append(server)
        first.setdefault(key, one)
    most = max(groups, key=lambda key: len(groups[key]))
    faulty = next((one for _, one in told if one.signature_fault), first[most])
    differing: list[str] = []
    if len(groups) > 1:
        differing = [f"{', '.join(servers)}: {_in_words(first[key])}" for key, servers in groups.items()]
    return replace(
        first[most], differing=tuple(differing), signature_fault=faulty.signature_fault, has_expired=faulty.has_expired
    )


def _in_words(one: SeenRecords) -> str:
    if one.alias:
        return f"CNAME {one.alias}"
    return " | ".join(one.records) or one.state.value
