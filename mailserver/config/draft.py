"""A TOML text and what it says, changed together: everything that people wrote around a change stays where it is."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from mailserver.config.lines import BARE_KEY, KeyPath, TablePart, element_places, key_places, parts_of

__all__ = ["Draft", "Unchangeable"]

Value = bool | str | Sequence[str]


class Unchangeable(ValueError):
    """The text is written in a form that a command cannot change."""


class Draft:
    """`text` must be valid TOML.  Each change raises `Unchangeable` where the text would not say it then."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.document: dict[str, Any] = tomllib.loads(text)
        self._line_end = "\r\n" if "\r\n" in text else "\n"

    def set(self, table: KeyPath, key: str, value: Value) -> None:
        """Give a key of a table (which is there) this value.  In a list as long as before only texts that differ change."""
        found = self._part((*table, key))
        if found is not None and self._replace_texts(found, self._at(table)[key], value):
            pass
        elif found is not None:
            self.text = self.text[: found.value] + _written(value) + self.text[found.end :]
        else:
            self._insert(table, key, value)
        self._at(table)[key] = _plain(value)
        self._agree()

    def _replace_texts(self, part: TablePart, old: object, new: Value) -> bool:
        """Comments may stand between the texts of a list.  False where it is not a list, or has become shorter."""
        if isinstance(new, bool | str) or not isinstance(old, list) or len(old) != len(new):
            return False
        if not all(isinstance(one, str) for one in old):
            return False
        for (start, end), before, after in reversed([*zip(element_places(self.text, part), old, new, strict=True)]):
            if before != after:
                self.text = self.text[:start] + _written(after) + self.text[end:]
        return True

    def remove(self, path: KeyPath) -> None:
        """Remove a key with the lines on which it stands."""
        found = self._part(path)
        if found is None:
            raise Unchangeable
        self._cut(found.start, found.end)
        del self._at(path[:-1])[path[-1]]
        self._agree()

    def become(self, text: str) -> None:
        """Replace the text by another, which must be valid TOML."""
        self.text, self.document = text, tomllib.loads(text)

    def rename(self, path: KeyPath, name: str) -> None:
        """Call a key or a table otherwise, with all that is below it.  What stands behind each name stays as it is."""
        level = len(path) - 1
        for part in reversed(parts_of(self.text)):
            if part.path[: len(path)] != path:
                continue
            places = key_places(self.text, part)
            at = level - (0 if part.is_header else len(part.path) - len(places))
            if at >= 0:  # else it is its table's header that says it
                start, end = places[at]
                self.text = self.text[:start] + _key(name) + self.text[end:]
        table = self._at(path[:-1])
        if name in table:
            raise Unchangeable
        table[name] = table.pop(path[-1])
        self._agree()

    def add_table(self, path: KeyPath, values: Mapping[str, Value]) -> None:
        """A new table, behind the last one that begins with the same word; else at the end."""
        kin = [part for part in parts_of(self.text) if part.path[0] == path[0]]
        end = self._line_after(kin[-1].end) if kin else len(self.text)
        lines = [f"[{'.'.join(map(_key, path))}]", *(f"{_key(key)} = {_written(value)}" for key, value in values.items())]
        before, behind = self.text[:end], self.text[end:]
        gap = "" if not before else self._line_end if before.endswith("\n") else 2 * self._line_end
        self.text = before + gap + "".join(line + self._line_end for line in lines) + behind
        self._at(path).update({key: _plain(value) for key, value in values.items()})
        self._agree()

    def remove_table(self, path: KeyPath) -> None:
        """Remove a table with all that is below it; comments that stand before its header or behind its last key stay."""
        while True:
            parts = parts_of(self.text)
            first = next((n for n, part in enumerate(parts) if part.path[: len(path)] == path), None)
            if first is None:
                break
            last = first
            while last + 1 < len(parts) and parts[last + 1].path[: len(path)] == path and not parts[last + 1].is_header:
                last += 1
            self._cut(parts[first].start, parts[last].end)
        del self._at(path[:-1])[path[-1]]
        if path[:-1] and not self._at(path[:-1]):
            del self._at(path[:-2])[path[-2]]
        self._agree()

    def _insert(self, table: KeyPath, key: str, value: Value) -> None:
        """A line of its own behind the table's last key; where the table has no header, below that of the table around it."""
        parts = parts_of(self.text)
        for length in range(len(table), 0, -1):
            headers = [n for n, part in enumerate(parts) if part.is_header and part.path == table[:length]]
            if headers:
                break
        else:
            raise Unchangeable
        last = headers[0]
        while last + 1 < len(parts) and not parts[last + 1].is_header:
            last += 1
        end = self._line_after(parts[last].end)
        name = ".".join(map(_key, (*table[length:], key)))
        before = self.text[:end]
        gap = "" if before.endswith("\n") else self._line_end
        self.text = f"{before}{gap}{name} = {_written(value)}{self._line_end}{self.text[end:]}"

    def _part(self, path: KeyPath) -> TablePart | None:
        return next((part for part in parts_of(self.text) if part.path == path and not part.is_header), None)

    def _cut(self, start: int, end: int) -> None:
        """Take out the lines between, and one of two empty ones that meet."""
        first, behind = self.text.rfind("\n", 0, start) + 1, self._line_after(end)
        before, after = self.text[:first], self.text[behind:]
        blank = self._line_end
        if (not before or before.endswith(("\n" + blank,))) and after.startswith(blank):
            after = after.removeprefix(blank)
        elif not after and before.endswith("\n" + blank):
            before = before.removesuffix(blank)
        self.text = before + after

    def _line_after(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def _at(self, path: KeyPath) -> Any:
        table: Any = self.document
        for part in path:
            table = table.setdefault(part, {}) if isinstance(table, dict) else table[part]
        return table

    def _agree(self) -> None:
        """Check that the text means what was wanted, and nothing else.  Raises `Unchangeable`."""
        try:
            says = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError:
            raise Unchangeable from None
        if says != self.document:
            raise Unchangeable


def _key(part: str | int) -> str:
    text = str(part)
    return text if BARE_KEY.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _written(value: Value) -> str:
    """A value in TOML: a string, a list of strings, or a boolean.  (TOML reads JSON's escapes, too.)"""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Value) -> bool | str | list[str]:
    return value if isinstance(value, bool | str) else [*value]
