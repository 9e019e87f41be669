"""Which recipients of a file have its message, where one transaction was not enough for all of them.

Most files need none of this: their recipients are accepted or refused at once.  Where some have to wait (a 4yz reply, or more of
them than a transaction takes), what has been done stands beside the taken file as ``ID.ID.progress``, so that a crash neither
loses a recipient nor sends to one twice.  What is about to be committed is written down first, with its message id: after a crash
the queue is asked whether it has it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

__all__ = ["PickupProgress", "PickupStep"]


@dataclass(frozen=True, slots=True)
class PickupStep:
    """A commit that may or may not have been made: the message's id and the addresses that it serves."""

    id: str
    addresses: tuple[str, ...]


@dataclass(slots=True)
class PickupProgress:
    """`done` are the addresses that the queue has, `told` those of which the sender has heard that they are refused.

    `delivery` and `report` are what may have been committed.  `used` are the two ids of the file's name that have served.
    `untold` says that a sender could not be told, so that the file is kept for the administrator.
    """

    done: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    delivery: PickupStep | None = None
    report: PickupStep | None = None
    used: set[str] = field(default_factory=set)
    untold: bool = False
    is_kept: bool = False  # it stands on the disk

    def encode(self) -> bytes:
        """The file."""
        row = {
            "version": 1,
            "done": sorted(self.done),
            "told": sorted(self.told),
            "delivery": _row_of(self.delivery),
            "report": _row_of(self.report),
            "used": sorted(self.used),
            "untold": self.untold,
        }
        return json.dumps(row).encode("ascii")

    @classmethod
    def decode(cls, octets: bytes) -> PickupProgress:
        """Raises ValueError for a file that is damaged."""
        try:
            row = json.loads(octets)
            return cls(
                done=_texts(row["done"]),
                told=_texts(row["told"]),
                delivery=_step_of(row["delivery"]),
                report=_step_of(row["report"]),
                used=_texts(row["used"]),
                untold=row["untold"] is True,
                is_kept=True,
            )
        except (LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None


def _row_of(step: PickupStep | None) -> list[object] | None:
    return None if step is None else [step.id, list(step.addresses)]


def _step_of(row: object) -> PickupStep | None:
    if row is None:
        return None
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str):
        raise TypeError("an id and its addresses were expected")
    return PickupStep(row[0], tuple(sorted(_texts(row[1]))))


def _texts(row: object) -> set[str]:
    if not isinstance(row, list) or not all(isinstance(one, str) for one in row):
        raise TypeError("a list of texts was expected")
    return set(row)
