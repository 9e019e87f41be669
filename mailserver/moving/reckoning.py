"""What became of each setting of a foreign configuration: nothing is dropped without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Setting", "Reckoning"]

VALUE_CHARACTERS = 200
Kind = Literal["carried", "same", "left"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, or one line of a table.

    `kind`: ``carried`` (`why` says to which key, or how it differs there), ``same`` (what it asks for is so here without a
    word, or means nothing here; `why`), ``left`` (it is not carried over: `why`, and `todo`, what can be done).
    """

    kind: Kind
    name: str
    value: str
    why: str
    todo: str = ""


class Reckoning:
    """All entries, in the order in which they were found.  The same one twice counts once."""

    def __init__(self) -> None:
        self._entries: dict[Setting, None] = {}
        self._names: set[str] = set()

    def carried(self, name: str, value: str, where: str) -> None:
        """It stands in the new configuration."""
        self._add(Setting("carried", name, _short(value), where))

    def same(self, name: str, value: str, why: str) -> None:
        """Nothing has to be said for it to be so."""
        self._add(Setting("same", name, _short(value), why))

    def left(self, name: str, value: str, why: str, todo: str) -> None:
        """It is not carried over."""
        self._add(Setting("left", name, _short(value), why, todo))

    def knows(self, name: str) -> bool:
        """Whether something was said about this setting, or about a line of it."""
        return name in self._names

    def of(self, kind: Kind) -> list[Setting]:
        """The entries of one kind."""
        return [one for one in self._entries if one.kind == kind]

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._entries)

    def _add(self, entry: Setting) -> None:
        self._entries[entry] = None
        self._names.add(entry.name.partition(": ")[0])


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= VALUE_CHARACTERS else line[: VALUE_CHARACTERS - 1] + "…"
