"""The entries of the lists: in the records, and in memory as they stand there."""

from __future__ import annotations

from twisted.logger import Logger

from mailserver.api import Clock, IRecords, IStateStore, StorageBroken
from mailserver.filters.list_entries import Entry, read_entry
from mailserver.filters.list_table import EntryTable

__all__ = ["HIT_SECONDS", "ListBook", "hits_key"]

HIT_SECONDS = 10 * 365 * 86_400.0
ENTRIES_MOST = 200_000
PAGE = 250  # so many are read in one turn of the reactor


class ListBook:
    """`table` has what counts now.  Whoever changes it, changes the records first."""

    log = Logger()

    def __init__(self, records: IRecords, *, clock: Clock, state: IStateStore | None) -> None:
        self.table = EntryTable()
        self._records = records
        self._clock = clock
        self._state = state
        self._changes = 0
        self._told: set[str] = set()
        self._read: dict[str, tuple[bytes, Entry]] = {}  # by key, as the records had it the last time

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.seconds()

    async def read(self) -> None:
        """Take up what the records have.  A record that is no entry is told of once, and does nothing.

        Raises `StorageBroken`; then what was read before holds.
        """
        while True:
            changes, found, first = self._changes, EntryTable(), ""
            read: dict[str, tuple[bytes, Entry]] = {}
            while page := await self._records.items(first, most=PAGE):
                for key, value in page:
                    entry = self._entry(key, value)
                    if entry is not None:
                        found.add(entry)
                        read[key] = value, entry
                first = page[-1][0] + "\0"
            if changes == self._changes:  # else somebody has changed an entry while it was read
                self.table, self._read = found, read
                return

    async def read_anew(self) -> None:
        """The records were changed: what somebody has begun to read of them does not count."""
        self._changes += 1
        await self.read()

    async def put(self, entry: Entry) -> Entry | None:
        """Keep it; the entry that it replaces is returned.  Raises ValueError where there is no room for more."""
        before = self.table.get(entry.scope, entry.kind, entry.value)
        if before is None and len(self.table) >= ENTRIES_MOST:
            raise ValueError(f"there are {ENTRIES_MOST} entries already")
        await self._records.put(entry.key, entry.octets())
        self._changes += 1
        self.table.add(entry)
        return before

    async def drop(self, entry: Entry) -> None:
        """Take it away, and its hits."""
        await self._records.drop(entry.key)
        self._changes += 1
        self.table.remove(entry)
        if self._state is None:
            return
        try:
            await self._state.drop(hits_key(entry))
        except StorageBroken as fault:
            self.log.warn("the hits of {entry} are not forgotten: {fault}", entry=entry.words, fault=fault)

    async def drop_ended(self) -> None:
        """Take away what does not count any more, if nobody has made it count again."""
        for entry in [one for one in self.table if one.has_ended(self.now)]:
            if await self._records.compare_and_put(entry.key, entry.octets(), None):
                self._changes += 1
                self.table.remove(entry)

    async def hits(self, entry: Entry) -> int | None:
        """How often it has decided; None where nobody can tell."""
        if self._state is None:
            return None
        try:
            return int(await self._state.get(hits_key(entry)) or b"0")
        except StorageBroken:
            return None

    def _entry(self, key: str, value: bytes) -> Entry | None:
        before = self._read.get(key)
        if before is not None and before[0] == value:
            return before[1]
        try:
            return read_entry(key, value)
        except ValueError as error:
            if key not in self._told:
                self._told.add(key)
                self.log.warn("the record {key!r} is no entry of a list: {error}", key=key[:200], error=str(error)[:200])
            return None


def hits_key(entry: Entry) -> str:
    """Under which its hits are counted."""
    return f"hits\t{entry.key}"
