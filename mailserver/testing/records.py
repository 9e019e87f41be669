"""An `IRecords` in memory."""

from __future__ import annotations

from zope.interface import implementer

from mailserver.interfaces import IRecords
from mailserver.state_store.facts import checked_key, checked_range, checked_value
from mailserver.testing.verbs import Calls, watched

__all__ = ["MemoryRecords"]


@watched(IRecords)
@implementer(IRecords)
class MemoryRecords:
    """Durable records, as far as a test goes: what one component has kept, another that is made with the same object finds.

    `space(name)` has other records, and is always the same one for one name.  The verbs in `failing` raise `StorageBroken`
    (``"*"`` stands for all of them); `calls` knows those of all spaces that nobody has awaited.
    """

    what = "records"

    def __init__(self, *, name: str = "", beside: MemoryRecords | None = None) -> None:
        self.failing: set[str] = set()
        self.calls: Calls = Calls() if beside is None else beside.calls
        self._spaces: dict[str, MemoryRecords] = {} if beside is None else beside._spaces
        self._spaces.setdefault(name, self)
        self._records: dict[str, bytes] = {}

    def space(self, name: str) -> MemoryRecords:
        """Other records."""
        found = self._spaces.get(name)
        return MemoryRecords(name=name, beside=self) if found is None else found

    async def get(self, key: str) -> bytes | None:
        """The value, None where there is none."""
        return self._records.get(checked_key(key))

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value."""
        self._records[checked_key(key)] = checked_value(value)

    async def drop(self, key: str) -> None:
        """Take it away."""
        self._records.pop(checked_key(key), None)

    async def put_if_absent(self, key: str, value: bytes) -> bool:
        """Keep the value where there is none.  Whether that was so."""
        return self._compare_and_put(key, None, value)

    async def compare_and_put(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Put `new` in the place of `old`; None is "no value".  Whether `old` was there."""
        return self._compare_and_put(key, old, new)

    def _compare_and_put(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        if self._records.get(checked_key(key)) != old:
            return False
        if new is None:
            self._records.pop(key, None)
        else:
            self._records[key] = checked_value(new)
        return True

    async def items(self, first: str = "", before: str | None = None, most: int = 1000) -> list[tuple[str, bytes]]:
        """Key and value by key, from `first` on, up to but without `before`."""
        first, before, most = checked_range(first, before, most)
        wanted = [key for key in sorted(self._records) if first <= key and (before is None or key < before)]
        return [(key, self._records[key]) for key in wanted[:most]]
