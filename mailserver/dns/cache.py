"""Answers that are still true.

Bounded by the number of answers and by their octets; what was not asked for the longest time goes first.
"""

from __future__ import annotations

from collections import OrderedDict

from mailserver.mail.lookup import Answer, LookupFailed

__all__ = ["Cache"]

Key = tuple[str, str]
ENTRY_OCTETS = 400  # what an entry costs beside its text


class Cache:
    """Keeps answers as long as their time to live says, and failures for a few seconds (RFC 9520 section 3.2).

    `longest_seconds` cuts absurd times to live.  The time is handed in.
    """

    __slots__ = ("_entries", "_entries_most", "_failure_seconds", "_longest_seconds", "_octets_most", "octets")

    def __init__(self, *, entries_most: int, octets_most: int, longest_seconds: float, failure_seconds: float) -> None:
        self.octets = 0
        self._entries: OrderedDict[Key, tuple[float, int, Answer | str]] = OrderedDict()
        self._entries_most = entries_most
        self._octets_most = octets_most
        self._longest_seconds = longest_seconds
        self._failure_seconds = failure_seconds

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Answer | LookupFailed | None:
        """What is known; an answer's `ttl_seconds` is what is left of it."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, _, found = entry
        left = expires_at - now
        if left <= 0:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        if isinstance(found, str):  # a new exception each time: one that is raised again and again collects tracebacks
            return LookupFailed(found)
        return Answer(found.records, int(left), found.authenticated, found.name_exists, found.canonical_name)

    def put(self, key: Key, answer: Answer, now: float) -> None:
        """Keep an answer; not at all where its time to live is 0."""
        octets = ENTRY_OCTETS + 2 * len(key[0]) + sum([64 + len(record) for record in answer.records])
        self._keep(key, min(float(answer.ttl_seconds), self._longest_seconds), octets, answer, now)

    def put_failure(self, key: Key, why: str, now: float) -> None:
        """Keep a failure for a moment, so that a flood of messages is not a flood of questions that nobody answers."""
        self._keep(key, self._failure_seconds, ENTRY_OCTETS + 2 * len(key[0]) + len(why), why, now)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.octets = 0

    def _keep(self, key: Key, seconds: float, octets: int, found: Answer | str, now: float) -> None:
        if key in self._entries:
            self._drop(key)
        if seconds <= 0 or octets > self._octets_most:
            return
        self._entries[key] = (now + seconds, octets, found)
        self.octets += octets
        while len(self._entries) > self._entries_most or self.octets > self._octets_most:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        self.octets -= self._entries.pop(key)[1]
