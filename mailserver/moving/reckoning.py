"""What became of each setting of a foreign configuration: nothing is dropped without a word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
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


NAME_CHARACTERS, WHY_CHARACTERS = 300, 500
# Secrets that may stand in main.cf itself.  The list is printed, and goes into a file that all may read.
SECRET = re.compile(r"(?i)passw|secret|_pw\b")
MAPS = re.compile(r"_maps?\b|_files?\b")
CONTENT = re.compile(r"(?s)\b(inline|static):.*")


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
        if SECRET.search(entry.name):
            value = "…" if entry.value and not MAPS.search(entry.name) else entry.value
            entry = replace(entry, value=value)
        if "passw" in f"{entry.name} {entry.value}":
            entry = replace(entry, name=CONTENT.sub(r"\1:…", entry.name), value=CONTENT.sub(r"\1:…", entry.value))
        if len(entry.name) > NAME_CHARACTERS or len(entry.why) > WHY_CHARACTERS:
            entry = replace(entry, name=_cut(entry.name, NAME_CHARACTERS), why=_cut(entry.why, WHY_CHARACTERS))
        self._entries[entry] = None
        self._names.add(entry.name.partition(": ")[0])


def _short(value: str) -> str:
    line = " ".join(value.split())
    return _cut(line, VALUE_CHARACTERS)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
