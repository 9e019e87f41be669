"""How much an account has sent, in slots of ten minutes.  Pure.

An hour is the present slot and the six before it, a day the present one and 144: never less than an hour or a day, so in no hour,
wherever it begins, can more be sent than in these.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["DAY_SLOTS", "HOUR_SLOTS", "NOTHING_SENT", "SLOT_SECONDS", "Sent", "Usage"]

SLOT_SECONDS = 600
HOUR_SLOTS, DAY_SLOTS = 6, 144  # before the present one
COUNT_MOST = 2**32 - 1
SLOT = struct.Struct(">IIII")


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages, their recipients, and those recipients to whom the account had not written lately."""

    messages: int = 0
    recipients: int = 0
    new_recipients: int = 0

    def plus(self, other: Sent, times: int = 1) -> Sent:
        """Both together; `times` -1 takes the other away.  Never below 0."""
        return Sent(
            _bounded(self.messages + times * other.messages),
            _bounded(self.recipients + times * other.recipients),
            _bounded(self.new_recipients + times * other.new_recipients),
        )


NOTHING_SENT = Sent()


@dataclass(frozen=True, slots=True)
class Usage:
    """What was sent in each slot, by the slot's number since 1970, in order.  At most 145 slots."""

    slots: tuple[tuple[int, Sent], ...] = ()

    def within(self, seconds: float, slots_before: int) -> Sent:
        """All that was sent in the slot of that time and in so many before it."""
        present = int(seconds // SLOT_SECONDS)
        return _sum(sent for slot, sent in self.slots if slot >= present - slots_before)

    def with_sent(self, seconds: float, sent: Sent, times: int = 1) -> Usage:
        """With more in the slot of that time, or less (`times` -1).  What is older than a day leaves."""
        present = int(seconds // SLOT_SECONDS)
        slots = {slot: one for slot, one in self.slots if present - DAY_SLOTS <= slot <= present}
        slots[present] = slots.get(present, NOTHING_SENT).plus(sent, times)
        return Usage(tuple(sorted((slot, one) for slot, one in slots.items() if one != NOTHING_SENT)))

    def encode(self) -> bytes:
        """For a state store."""
        return b"".join(
            [SLOT.pack(slot, sent.messages, sent.recipients, sent.new_recipients) for slot, sent in self.slots]
        )

    @classmethod
    def decode(cls, octets: bytes) -> Usage:
        """Raises ValueError for malformed octets."""
        try:
            return cls(tuple([(slot, Sent(*counts)) for slot, *counts in SLOT.iter_unpack(octets)]))
        except struct.error as error:
            raise ValueError(f"not what was sent: {error}") from None


def _sum(several: Iterable[Sent]) -> Sent:
    total = NOTHING_SENT
    for one in several:
        total = total.plus(one)
    return total


def _bounded(count: int) -> int:
    return min(max(count, 0), COUNT_MOST)
