"""What filters note down for the length of a connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

__all__ = ["NOTES_MOST", "FilterNotes"]

NOTES_MOST = 1000  # of one filter on one connection
NOTHING: Mapping[str, object] = MappingProxyType({})


class FilterNotes(Mapping[str, Mapping[str, object]]):
    """By a filter's name what it has noted, by keys.  Filters read it; the core alone calls `keep`."""

    __slots__ = ("__weakref__", "_of")  # a filter may want to know when nobody needs them any more

    def __init__(self) -> None:
        self._of: dict[str, dict[str, object]] | None = None  # most connections have no notes

    def __getitem__(self, filter: str) -> Mapping[str, object]:
        if self._of is None:
            raise KeyError(filter)
        return MappingProxyType(self._of[filter])

    def __iter__(self) -> Iterator[str]:
        return iter(self._of or ())

    def __len__(self) -> int:
        return len(self._of or ())

    def __repr__(self) -> str:
        return f"FilterNotes({self._of or {}!r})"

    def keep(self, filter: str, notes: Mapping[str, object]) -> None:
        """Add the filter's notes; a key that it has used before gets the new value.

        Raises ValueError where it has noted too much: nothing of it is kept then.
        """
        mine = dict(self.get(filter, NOTHING))
        mine.update(notes)
        if len(mine) > NOTES_MOST:
            raise ValueError(f"more than {NOTES_MOST} notes on one connection")
        if self._of is None:
            self._of = {}
        self._of[filter] = mine
