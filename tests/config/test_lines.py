"""The line scanner, held against tomllib: every key that tomllib finds has a line, and it is the right one."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.lines import KeyPath, line_of, lines_of

TRICKY = '''\
# a comment = not a key
title = "a # in a string, a [bracket] and \\" a quote"   # more
"quoted key".'with.dot' . plain = 1
multi = """
[not.a.table]
x = 1 \\
"quoted" ""\\" end"""
literal = \'\'\'
y = 2
\'\'\'
dates = [1979-05-27 07:32:00, 1979-05-27T00:32:00-07:00] # two
list = [
  1, # one
  [ "a", "b" ],

  { in = 1, deep.er = [ {z = 1},
     {z = 2} ] },
]
[table.sub]
a = true
[[many]]
b = 1
[many.below]
c = 2
[[many]]
b = 3
[[many.inner]]
d = 4
[[many.inner]]
d = 5
["ünï\\u0063ode"]
e = 6
last = "no newline at the end"'''


def paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, below in value.items():
            found += paths(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            found += paths(below, (*path, index))
    return found


class Lines(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines = lines_of(TRICKY)

    def test_every_key_that_tomllib_finds_has_a_line(self) -> None:
        implicit = {("table",)}
        found = set(paths(tomllib.loads(TRICKY))) - implicit
        self.assertEqual(found - set(self.lines), set())
        self.assertEqual(set(self.lines) - set(paths(tomllib.loads(TRICKY))), set())

    def test_the_lines_are_the_right_ones(self) -> None:
        expected: dict[KeyPath, int] = {
            ("title",): 2,
            ("quoted key", "with.dot", "plain"): 3,
            ("multi",): 4,
            ("literal",): 8,
            ("dates", 1): 11,
            ("list",): 12,
            ("list", 0): 13,
            ("list", 1, 1): 14,
            ("list", 2, "deep", "er", 1, "z"): 17,
            ("table", "sub"): 19,
            ("table", "sub", "a"): 20,
            ("many", 0): 21,
            ("many", 0, "below", "c"): 24,
            ("many", 1, "b"): 26,
            ("many", 1, "inner", 1, "d"): 30,
            ("ünïcode", "e"): 32,
            ("ünïcode", "last"): 33,
        }
        self.assertEqual({path: self.lines.get(path) for path in expected}, expected)

    def test_what_is_missing_is_placed_at_the_nearest_table(self) -> None:
        self.assertEqual(line_of(("many", 1, "missing"), self.lines), 25)
        self.assertEqual(line_of(("nowhere",), self.lines), 1)

    def test_crlf_files_have_the_same_lines(self) -> None:
        self.assertEqual(lines_of(TRICKY.replace("\n", "\r\n")), self.lines)


KEYS = st.text(st.sampled_from('ab-_."\\ #[]='), max_size=4)
VALUES = st.recursive(
    st.text(st.sampled_from("ab\"'\\#[]{},=\n"), max_size=6) | st.integers() | st.booleans(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=8,
)


def written(text: str) -> str:
    """A TOML basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(key)} = {inline(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + "\n,".join(map(inline, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return written(value) if isinstance(value, str) else str(value)


class AnyDocument(SynchronousTestCase):
    @settings(max_examples=200, database=None)
    @given(st.dictionaries(KEYS, VALUES, max_size=5))
    def test_the_scan_finds_what_tomllib_finds(self, document: dict[str, Any]) -> None:
        text = "".join(f"{written(key)} = {inline(value)}\n" for key, value in document.items())
        self.assertEqual(set(lines_of(text)), set(paths(tomllib.loads(text))))
