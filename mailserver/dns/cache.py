"""The cache of DNS answers.

It is bounded by the number of answers and by their octets.  The least recently used answer goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from mailserver.mail.dns_records import Answer, LookupFailed

__all__ = ["Cache"]

Key = tuple[str, str]
ENTRY_OCTETS = 400  # an estimate of what an entry takes beside its text
EVERY_TYPE = ""
FAILURE_MEMORY_SECONDS = 600.0  # after a failure has expired; a later one begins again with the shortest time


@dataclass(frozen=True, slots=True)
class _Failure:
    why: str
    rcode: int
    seconds: float  # how long it is kept


class Cache:
    """Keeps answers as long as their time to live says.

    That a name does not exist is an answer for all its types (RFC 2308 section 5).  A failure is kept for `failure_seconds`.
    Each further failure is kept twice as long, up to `failure_seconds_most` (RFC 9520 section 3.2).  No answer is kept longer
    than `longest_seconds`, whatever its time to live.  The caller hands the time in, in seconds.
    """

    __slots__ = (
        "_entries",
        "_entries_most",
        "_failure_seconds",
        "_failure_seconds_most",
        "_longest_seconds",
        "_octets_most",
        "octets",
    )

    def __init__(
        self,
        *,
        entries_most: int,
        octets_most: int,
        longest_seconds: float,
        failure_seconds: float,
        failure_seconds_most: float,
    ) -> None:
        self.octets = 0
        self._entries: OrderedDict[Key, tuple[float, int, Answer | _Failure]] = OrderedDict()
        self._entries_most = entries_most
        self._octets_most = octets_most
        self._longest_seconds = longest_seconds
        self._failure_seconds = failure_seconds
        self._failure_seconds_most = failure_seconds_most

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Answer | LookupFailed | None:
        """The cached answer or failure; None where nothing is cached.  An answer's `ttl_seconds` is the time that is left."""
        found = self._get(key, now)
        if not isinstance(found, Answer):  # another type's answer may have shown meanwhile that the name does not exist
            found = self._get((key[0], EVERY_TYPE), now) or found
        return found

    def _get(self, key: Key, now: float) -> Answer | LookupFailed | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, _, found = entry
        left = expires_at - now
        if isinstance(found, _Failure):
            if left <= 0:  # expired, but kept: `put_failure` doubles its time
                return None
            self._entries.move_to_end(key)
            # A new one each time: an exception raised again and again collects tracebacks
            return LookupFailed(found.why, found.rcode)
        if left <= 0:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return Answer(found.records, int(left), found.authenticated, found.name_exists, found.canonical_name)

    def put(self, key: Key, answer: Answer, now: float) -> None:
        """Keep an answer for its time to live.  One with a time to live of 0 is not kept."""
        if not answer.canonical_name:  # else the name that does not exist is the one at the end of the CNAMEs
            if not answer.name_exists:
                self._forget(key)
                key = (key[0], EVERY_TYPE)
            else:
                self._forget((key[0], EVERY_TYPE))
        octets = ENTRY_OCTETS + 2 * len(key[0]) + sum([64 + len(record) for record in answer.records])
        self._keep(key, min(float(answer.ttl_seconds), self._longest_seconds), octets, answer, now)

    def put_failure(self, key: Key, why: str, now: float, rcode: int = 0) -> None:
        """Keep a failure for a moment, so that a flood of messages does not become a flood of failing questions."""
        seconds = self._failure_seconds
        entry = self._entries.get(key)
        if entry is not None and isinstance(entry[2], _Failure) and now < entry[0] + FAILURE_MEMORY_SECONDS:
            seconds = min(2 * entry[2].seconds, self._failure_seconds_most)
        self._keep(key, seconds, ENTRY_OCTETS + 2 * len(key[0]) + len(why), _Failure(why, rcode, seconds), now)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.octets = 0

    def _keep(self, key: Key, seconds: float, octets: int, found: Answer | _Failure, now: float) -> None:
        self._forget(key)
        if seconds <= 0 or octets > self._octets_most:
            return
        self._entries[key] = (now + seconds, octets, found)
        self.octets += octets
        while len(self._entries) > self._entries_most or self.octets > self._octets_most:
            self._drop(next(iter(self._entries)))

    def _forget(self, key: Key) -> None:
        if key in self._entries:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self.octets -= self._entries.pop(key)[1]
