"""What an active queue has yet to find in the store, beyond the numbers in its backlog: a range of numbers.  Pure."""

from __future__ import annotations

__all__ = ["StoreWindow"]


class StoreWindow:
    """A range of numbers, both ends included, among which are entries that wait; `reading` while they are looked for."""

    __slots__ = ("_high", "_low", "reading")

    def __init__(self) -> None:
        self._low = self._high = 0
        self.reading = False

    @property
    def waits(self) -> bool:
        """There may be such entries, and nobody looks for them yet."""
        return self._high > 0 and not self.reading

    @property
    def is_empty(self) -> bool:
        """There are none, looked for or not."""
        return not (self._high or self.reading)

    def add_range(self, low: int, high: int) -> None:
        """Entries with these numbers, or some between them, wait."""
        if low <= high:
            self._low = min(self._low, low) if self._high else low
            self._high = max(self._high, high)

    def taken(self) -> tuple[int, int]:
        """The range, from now on `reading`."""
        found = self._low, self._high
        self._low = self._high = 0
        self.reading = True
        return found
