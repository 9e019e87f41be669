"""Message ids: sixteen letters and digits that sort by time.

The first eleven say the microsecond, the last five are random: unique over restarts, and one process never gives the same
microsecond twice.  The alphabet leaves out I, L, O and U and has one case, so an id survives file systems and telephones.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

__all__ = ["IdSource", "time_of"]

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = tuple(a + b for a in ALPHABET for b in ALPHABET)
RANDOM_BITS = 25
RANDOM_MASK = (1 << RANDOM_BITS) - 1


class IdSource:
    """Gives ids.  `seconds` tells the time in seconds since the epoch."""

    __slots__ = ("_last", "_random", "_seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._last = 0
        self._random = secrets.randbits(RANDOM_BITS)

    def next(self) -> str:
        """A new id, greater than every one before it."""
        self._last = moment = max(self._last + 1, int(self._seconds() * 1_000_000))
        self._random = (self._random * 0x10DCD + 0x3039) & RANDOM_MASK
        n = moment << RANDOM_BITS | self._random
        pairs = PAIRS
        return (
            pairs[n >> 70 & 1023]
            + pairs[n >> 60 & 1023]
            + pairs[n >> 50 & 1023]
            + pairs[n >> 40 & 1023]
            + pairs[n >> 30 & 1023]
            + pairs[n >> 20 & 1023]
            + pairs[n >> 10 & 1023]
            + pairs[n & 1023]
        )


def time_of(id: str) -> float:
    """Seconds since the epoch at which the id was given.  Raises ValueError for what is no id."""
    if len(id) != 16:
        raise ValueError("an id has sixteen characters")
    n = 0
    for character in id:
        n = n << 5 | ALPHABET.index(character)
    return (n >> RANDOM_BITS) / 1_000_000
