"""What is thought of a record: a verdict, why, and the text to put into the zone and to take out of it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mailserver.doctor.seen import SeenRecords, SeenState
from mailserver.doctor.zone_text import ZoneRecord

__all__ = [
    "POLICY", "TRIAL", "CheckedRecord", "RecordVerdict", "all_right", "cannot_tell", "missing", "not_known", "not_wanted",
    "wrong",
]  # fmt: skip

POLICY, TRIAL = "policy", "trial"  # in the place of a record's type: what a host of a policy shows, what was tried


class RecordVerdict(enum.Enum):
    """What is thought of a record, or of the lack of one."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong"
    DIFFERS = "differs"  # the servers of the zone do not agree
    UNKNOWN = "unknown"
    NOT_WANTED = "not-wanted"  # it is not there, and need not be


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRecord:
    """A record, or one fault of it.  `fault` is a short name that stays: "mx-is-cname"; "" where there is none.

    `add` and `remove` are what the zone needs; `to_do` is a sentence about what the zone alone does not mend.
    Advice is what works without, and could be better.
    """

    group: str
    name: str
    type: str
    verdict: RecordVerdict
    why: str
    fault: str = ""
    add: tuple[ZoneRecord, ...] = ()
    remove: tuple[ZoneRecord, ...] = ()
    seen: tuple[str, ...] = ()
    to_do: str = ""
    is_advice: bool = False

    @property
    def is_to_be_done(self) -> bool:
        """Whether something has to be done, or found out."""
        return not self.is_advice and self.verdict not in (RecordVerdict.OK, RecordVerdict.NOT_WANTED)

    @property
    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            "group": self.group, "name": self.name, "type": self.type, "verdict": self.verdict.value, "fault": self.fault,
            "why": self.why, "seen": list(self.seen), "add": [one.line for one in self.add],
            "remove": [one.line for one in self.remove], "to_do": self.to_do, "advice": self.is_advice,
        }  # fmt: skip


def all_right(group: str, seen: SeenRecords, why: str) -> CheckedRecord:
    """It is as it is wanted."""
    return CheckedRecord(group=group, name=seen.name, type=seen.type, verdict=RecordVerdict.OK, why=why, seen=seen.records)


def not_wanted(group: str, name: str, type: str, why: str) -> CheckedRecord:
    """It is not there, and need not be."""
    return CheckedRecord(group=group, name=name, type=type, verdict=RecordVerdict.NOT_WANTED, why=why)


def not_known(group: str, seen: SeenRecords) -> CheckedRecord:
    """Nobody can tell."""
    why = f"the DNS cannot tell: {seen.why}"
    return CheckedRecord(
        group=group, name=seen.name, type=seen.type, verdict=RecordVerdict.UNKNOWN, why=why, fault=f"{group.lower()}-unknown"
    )


def missing(
    group: str, seen: SeenRecords, fault: str, why: str, add: Iterable[ZoneRecord], *, to_do: str = "", is_advice: bool = False
) -> CheckedRecord:
    """It is not there."""
    return CheckedRecord(
        group=group, name=seen.name, type=seen.type, verdict=RecordVerdict.MISSING, why=why, fault=fault, add=tuple(add),
        to_do=to_do, is_advice=is_advice,
    )  # fmt: skip


def wrong(
    group: str,
    seen: SeenRecords,
    fault: str,
    why: str,
    *,
    add: Iterable[ZoneRecord] = (),
    remove: Iterable[str] = (),
    to_do: str = "",
    is_advice: bool = False,
) -> CheckedRecord:
    """It is there, and not as it must be; `remove` are those of its records that have to go."""
    gone = [ZoneRecord(seen.name, seen.type, data) for data in remove]
    if seen.alias and not gone:
        gone = [ZoneRecord(seen.name, "CNAME", seen.alias)]
    return CheckedRecord(
        group=group, name=seen.name, type=seen.type, verdict=RecordVerdict.WRONG, why=why, fault=fault, add=tuple(add),
        remove=tuple(gone), seen=seen.records or tuple([f"CNAME {one}" for one in [seen.alias] if one]), to_do=to_do,
        is_advice=is_advice,
    )  # fmt: skip


def cannot_tell(seen: SeenRecords) -> bool:
    """Whether nobody can tell."""
    return seen.state is SeenState.FAILED
