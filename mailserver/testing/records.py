"""An `IRecords` in memory."""

from __future__ import annotations

from zope.interface import implementer

from mailserver.interfaces import IRecords
from mailserver.state_store.facts import checked_key, checked_range, checked_value

__all__ = ["MemoryRecords"]


@implementer(IRecords)
class MemoryRecords:
    """Durable records, as far as a test goes: what one component has kept, another that is made with the same object finds."""

    def __init__(self) -> None:
        self._records: dict[str, bytes] = {}

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
        return await self.compare_and_put(key, None, value)

    async def compare_and_put(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Put `new` in the place of `old`; None is "no value".  Whether `old` was there."""
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
