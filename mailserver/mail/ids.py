"""Message ids: sixteen letters and digits that sort by time.

The first eleven say the microsecond, the last five are random: unique over restarts, and one process never gives the same
microsecond twice.  The alphabet leaves out I, L, O and U and has one case, so an id survives file systems and telephones.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

__all__ = ["IdSource", "is_id", "time_of"]

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = tuple(a + b for a in ALPHABET for b in ALPHABET)
RANDOM_BITS = 25
RANDOM_MASK = (1 << RANDOM_BITS) - 1
QUICK_BITS = 20  # of the time, about a second
QUICK_MASK = (1 << QUICK_BITS) - 1


class IdSource:
    """Gives ids.  `seconds` tells the time in seconds since the epoch."""

    __slots__ = ("_front", "_last", "_random", "_seconds", "_slow")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._last = 0
        self._random = secrets.randbits(RANDOM_BITS)
        self._slow = -1  # the part of the time that changes once a second, and what it looks like
        self._front = ""

    def next(self) -> str:
        """A new id, greater than every one before it."""
        moment = int(self._seconds() * 1_000_000)
        if moment <= self._last:
            moment = self._last + 1
        self._last = moment
        self._random = random = (self._random * 0x10DCD + 0x3039) & RANDOM_MASK
        slow = moment >> QUICK_BITS
        if slow != self._slow:
            self._slow = slow
            self._front = "".join([ALPHABET[slow >> shift & 31] for shift in range(30, -5, -5)])
        quick = moment & QUICK_MASK
        return (
            f"{self._front}{PAIRS[quick >> 10]}{PAIRS[quick & 1023]}"
            f"{PAIRS[random >> 15]}{PAIRS[random >> 5 & 1023]}{ALPHABET[random & 31]}"
        )


def time_of(id: str) -> float:
    """Seconds since the epoch at which the id was given.  Raises ValueError for an invalid id."""
    if len(id) != 16:
        raise ValueError("an id has sixteen characters")
    n = 0
    for character in id:
        n = n << 5 | ALPHABET.index(character)
    return (n >> RANDOM_BITS) / 1_000_000


def is_id(text: str) -> bool:
    """The text is an id, in upper or lower case."""
    return len(text) == 16 and set(text.upper()) <= set(ALPHABET)
