"""Where each key of a TOML text stands.

`tomllib` gives values without places, so faults found later could not name their line.  This second scan runs only over
text that `tomllib` has taken, and so may be simple: it follows tables, keys, strings and brackets (TOML 1.0) and notes a
line for each key path.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from mailserver.former import former_names

__all__ = ["KeyPath", "TablePart", "element_places", "key_places", "line_of", "lines_of", "parts_of"]

KeyPath = tuple[str | int, ...]

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{1,2}(?!"))?'
    r"|'''.*?'''(?:'{1,2}(?!'))?"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(["\\bfnrt]))')
PLAIN_ESCAPES = {'"': '"', "\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
SCALAR = re.compile(r"[^,\]}#\n]+")  # numbers, booleans and times


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line, counted from 1, of each key, table and list element.  `text` must be valid TOML."""
    scan = _Scan(text)
    scan.document()
    return scan.lines


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """The line of a key, or of the nearest table around one that is not there; 1 for the whole file."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


@dataclass(frozen=True, slots=True)
class TablePart:
    """A header of a table, or a key with its value: where it stands, in characters.  `value` is where the value begins."""

    path: KeyPath
    is_header: bool
    start: int
    value: int
    end: int


def parts_of(text: str) -> list[TablePart]:
    """Headers and keys in their order.  `text` must be valid TOML."""
    scan, table, parts = _Scan(text), tuple[str | int, ...](), list[TablePart]()
    while scan.peek():
        start = scan.at
        if text.startswith("[", start):
            table = scan.header(2 if text.startswith("[[", start) else 1)
            parts.append(TablePart(table, True, start, start, scan.at))
            continue
        key = scan.key()
        scan.at += 1  # the equals sign
        scan.peek()
        value, scan.at = scan.at, start
        scan.pair(table)
        parts.append(TablePart((*table, *key), False, start, value, start + len(text[start : scan.at].rstrip())))
    return parts


def key_places(text: str, part: TablePart) -> list[tuple[int, int]]:
    """Where each part of a dotted key stands, of a header or of a key."""
    scan = _Scan(text)
    scan.at = part.start
    if part.is_header:
        scan.at += 2 if text.startswith("[[", part.start) else 1
    scan.key()
    return scan.places


def element_places(text: str, part: TablePart) -> list[tuple[int, int]]:
    """Where each element of a key's array stands; empty where the value is not an array."""
    scan = _Scan(text)
    scan.at = part.value
    places: list[tuple[int, int]] = []
    if scan.peek() != "[":
        return places
    scan.at += 1
    while scan.peek() != "]":
        start = scan.at
        scan.value(())
        places.append((start, scan.at))
        if scan.peek() == ",":
            scan.at += 1
    return places


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.tables: dict[KeyPath, int] = {}  # arrays of tables, with the count of their elements
        self.places: list[tuple[int, int]] = []  # of the parts of the last key
        self.newlines = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> None:
        table: KeyPath = ()
        while self.peek():
            if self.text.startswith("[[", self.at):
                table = self.header(2)
            elif self.peek() == "[":
                table = self.header(1)
            else:
                self.pair(table)

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        self.at = BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches the empty string
        return self.text[self.at : self.at + 1]

    def note(self, path: KeyPath, at: int) -> None:
        self.lines.setdefault(path, bisect_right(self.newlines, at - 1) + 1)

    def header(self, brackets: int) -> KeyPath:
        start, self.at = self.at, self.at + brackets
        path: KeyPath = ()
        key = self.key()
        for part in key[:-1]:
            path = self.last_of((*path, part))
        path = (*path, key[-1])
        if brackets == 2:
            self.note(path, start)
            self.tables[path] = self.tables.get(path, 0) + 1
        path = self.last_of(path)
        self.note(path, start)
        self.peek()
        self.at += brackets
        return path

    def last_of(self, path: KeyPath) -> KeyPath:
        """The path itself; for an array of tables that of its last element."""
        return (*path, self.tables[path] - 1) if path in self.tables else path

    def pair(self, table: KeyPath) -> None:
        start = self.at
        path = table
        for part in self.key():
            path = (*path, part)
            self.note(path, start)
        self.at += 1  # the equals sign
        self.value(path)

    def key(self) -> list[str]:
        """A dotted key; afterwards `at` is on what follows it."""
        parts = []
        self.places = []
        while True:
            quote = self.peek()
            found = (STRING if quote in "\"'" else BARE_KEY).match(self.text, self.at)
            if found is None:
                raise ValueError(f"no key at character {self.at}")
            self.places.append(found.span())
            self.at = found.end()
            parts.append(found[0] if quote not in "\"'" else _text_of(found[0]))
            if self.peek() != ".":
                return parts
            self.at += 1

    def value(self, path: KeyPath) -> None:
        first = self.peek()
        if first == "[":
            self.elements(path)
        elif first == "{":
            self.inline_table(path)
        else:
            found = (STRING if first in "\"'" else SCALAR).match(self.text, self.at)
            if found is None:
                raise ValueError(f"no value at character {self.at}")
            self.at = found.end()

    def elements(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while self.peek() != "]":
            self.note((*path, index), self.at)
            self.value((*path, index))
            index += 1
            if self.peek() == ",":
                self.at += 1
        self.at += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while self.peek() != "}":
            self.pair(path)
            if self.peek() == ",":
                self.at += 1
        self.at += 1


def _text_of(quoted: str) -> str:
    if quoted.startswith("'"):
        return quoted[1:-1]
    return ESCAPE.sub(lambda m: PLAIN_ESCAPES[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), quoted[1:-1])


__getattr__ = former_names(__name__)
