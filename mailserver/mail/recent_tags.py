"""A bounded set of short tags with the day on which each was last seen, in one run of octets.

An entry is six octets of a hash and two of the day (since 1970).  The entries are in the order in which they were met, so the
oldest stand in front: they leave when their days are over, and when there is no more room.  Nothing is unpacked to look one up.
"""

from __future__ import annotations

__all__ = ["TAG_OCTETS", "day_of", "is_recent", "with_recent"]

TAG_OCTETS = 6
ENTRY_OCTETS = 8
DAY_SECONDS = 86400
LAST_DAY = 0xFFFF  # in the year 2149


def day_of(seconds: float) -> int:
    """The day of a time since the epoch."""
    return min(max(int(seconds // DAY_SECONDS), 0), LAST_DAY)


def is_recent(entries: bytes, tag: bytes, today: int, days: int) -> bool:
    """Whether `tag` was met within the last `days` days."""
    at = _place(entries, tag)
    return at >= 0 and _day(entries, at) > today - days


def with_recent(entries: bytes, tag: bytes, today: int, *, days: int, most: int) -> bytes:
    """`entries` after `tag` was met today; the same octets where they say so already.  At most `most` are kept."""
    at = _place(entries, tag)
    if at >= 0 and _day(entries, at) == today:
        return entries
    if at >= 0:
        entries = entries[:at] + entries[at + ENTRY_OCTETS :]
    entries += tag + today.to_bytes(2, "big")
    start = max(0, len(entries) - most * ENTRY_OCTETS)
    while start < len(entries) and _day(entries, start) <= today - days:
        start += ENTRY_OCTETS
    return entries[start:] if start else entries


def _place(entries: bytes, tag: bytes) -> int:
    if len(tag) != TAG_OCTETS or len(entries) % ENTRY_OCTETS:
        raise ValueError("not a tag, or not such entries")
    at = entries.find(tag)
    while at >= 0 and at % ENTRY_OCTETS:
        at = entries.find(tag, at + 1)
    return at


def _day(entries: bytes, at: int) -> int:
    return int.from_bytes(entries[at + TAG_OCTETS : at + ENTRY_OCTETS], "big")
