"""The text of Postfix's files: ``main.cf``, ``master.cf``, tables of lookups, aliases.  Pure: text in, values out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = [
    "Service",
    "alias_lines",
    "expanded",
    "logical_lines",
    "main_lines",
    "master_services",
    "names_in",
    "table_lines",
    "words",
]

NAME = re.compile(r"\$(?:([A-Za-z0-9_]+)|\(([A-Za-z0-9_]+)\)|\{)")
CONDITION = re.compile(r"\s*\{(.*)\}\s*(==|!=|<=|>=|<|>)(?:\s*level)?\s*\{(.*)\}\s*", re.DOTALL)
EXPANDED_CHARACTERS = 4 << 20
DEPTH_MOST = 30


@dataclass(frozen=True, slots=True)
class Service:
    """A line of master.cf (master(5)).  `command` has its words, `options` what ``-o`` gives."""

    name: str
    type: str
    columns: tuple[str, ...]
    command: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """As postconf -M writes it: ``smtp/inet``."""
        return f"{self.name}/{self.type}"

    @property
    def program(self) -> str:
        """The program of the daemon."""
        return self.command[0] if self.command else ""


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that go on from them (postconf(5)): each with the number of its first.  Comments are left out.

    A line that begins with white space goes on from the last one; empty lines and comments between them do not matter.
    """
    at, kept = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if line[0].isspace() and at:
            kept += " " + stripped
            continue
        if at:
            yield at, kept
        at, kept = number, stripped
    if at:
        yield at, kept


def main_lines(text: str) -> dict[str, str]:
    """The parameters of main.cf, as they stand there; of several lines with one name the last holds."""
    found: dict[str, str] = {}
    for _, line in logical_lines(text):
        name, equals, value = line.partition("=")
        if equals:
            found.pop(name.strip(), None)
            found[name.strip()] = value.strip()
    return found


def master_services(text: str) -> list[Service]:
    """The services of master.cf."""
    found = []
    for _, line in logical_lines(text):
        parts = words(line, separators=" \t")
        if len(parts) < 8:
            continue
        command, options = parts[7:], {}
        for n, word in enumerate(command[1:], 1):
            if command[n - 1] == "-o":
                name, _, value = _bare(word).partition("=")
                options[name.strip()] = value.strip()
        found.append(Service(parts[0], parts[1], tuple(parts[2:7]), tuple(command), options))
    return found


def words(text: str, separators: str = ", \t\r\n") -> list[str]:
    """A list as Postfix divides it; what stands in braces is one word."""
    found, at, depth = [], "", 0
    for character in text:
        if depth == 0 and character in separators:
            if at:
                found.append(at)
            at = ""
            continue
        depth = max(0, depth + (character == "{") - (character == "}"))
        at += character
    return [*found, at] if at else found


def expanded(value: str, look_up: Callable[[str], str | None], depth: int = 0) -> str:
    """`value` with ``$name``, ``${name}``, ``${name?yes}``, ``${name:no}``, ``${{a} == {b} ? {yes} : {no}}`` put in."""
    if depth > DEPTH_MOST:
        return value
    if depth == 0:
        look_up = _bounded(look_up)
    out, at = "", 0
    while True:
        match = NAME.search(value, at)
        if match is None:
            return (out + value[at:]).replace("$$", "$")
        if match.start() and value[match.start() - 1] == "$" and value[at : match.start()].endswith("$"):
            out += value[at : match.start() - 1] + "$" + value[match.start() + 1 : match.end()]
            at = match.end()
            continue
        out += value[at : match.start()]
        name = match[1] or match[2]
        if name:
            at = match.end()
            found = look_up(name)
            out += match[0] if found is None else expanded(found, look_up, depth + 1)
            continue
        end = _closing(value, match.end() - 1)
        out += _braced(value[match.end() : end], look_up, depth + 1)
        at = end + 1


def _bounded(look_up: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """The same, until more has been put in than a configuration needs: then None, and the name stays as it stands."""
    left = EXPANDED_CHARACTERS

    def look(name: str) -> str | None:
        nonlocal left
        if left <= 0:
            return None
        found = look_up(name) or ""
        left -= len(found) + 100
        return found

    return look


def names_in(value: str) -> set[str]:
    """The parameters that a value refers to."""
    return set(re.findall(r"\$[({]*\$?([A-Za-z0-9_]+)", value))


def table_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """The lines of a lookup table (postmap(1)): number, key in lower case, value."""
    for number, line in logical_lines(text):
        if line.startswith('"') and (end := line.find('"', 1)) > 0:
            key, value = line[1:end], line[end + 1 :]
        else:
            key, value = [*line.split(None, 1), ""][:2]
        yield number, key.lower(), value.strip()


def alias_lines(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """The lines of an alias file (aliases(5)): number, name in lower case, what it leads to."""
    for number, line in logical_lines(text):
        quoted = re.match(r'"((?:[^"\\]|\\.)*)"\s*:', line)
        name, rest = (quoted[1], line[quoted.end() :]) if quoted else (line.partition(":")[0], line.partition(":")[2])
        yield number, name.strip().lower(), alias_members(rest)


def alias_members(text: str) -> list[str]:
    """What an alias leads to: divided by commas outside of quotes; quotes around a whole one are taken off."""
    found, at, quoted = [], "", False
    for character in text:
        if character == '"' and not at.endswith("\\"):
            quoted = not quoted
        if character == "," and not quoted:
            found.append(at)
            at = ""
        else:
            at += character
    members = []
    for one in (*found, at):
        bare = one.strip()
        if len(bare) > 1 and bare[0] == bare[-1] == '"':
            bare = re.sub(r"\\(.)", r"\1", bare[1:-1])
        if bare:
            members.append(bare)
    return members


def _closing(text: str, at: int) -> int:
    """Where the brace at `at` is closed; the end of the text where it is not."""
    depth = 0
    for n in range(at, len(text)):
        depth += (text[n] == "{") - (text[n] == "}")
        if depth == 0:
            return n
    return len(text)


def _braced(inner: str, look_up: Callable[[str], str | None], depth: int) -> str:
    if inner.lstrip().startswith("{"):
        return _compared(inner, look_up, depth)
    match = re.match(r"\s*([A-Za-z0-9_]+)\s*([?:]?)(.*)", inner, re.DOTALL)
    if match is None:
        return ""
    name, kind, rest = match[1], match[2], match[3]
    there = look_up(name)
    if not kind:
        return expanded(there or "", look_up, depth)
    if kind == ":":
        return expanded(_bare(rest), look_up, depth) if not there else ""
    yes, no = _choice(rest)
    return expanded(yes if there else no, look_up, depth)


def _compared(inner: str, look_up: Callable[[str], str | None], depth: int) -> str:
    """``{a} == {b} ? {yes} : {no}``; numbers, and compatibility levels, are compared as such."""
    question = _outside(inner, "?")
    condition, rest = (inner[:question], inner[question + 1 :]) if question >= 0 else (inner, "{bool:true}")
    match = CONDITION.fullmatch(condition)
    if match is None:
        return ""
    left, right = (_number(expanded(side, look_up, depth).strip()) for side in (match[1], match[3]))
    if type(left) is not type(right):
        left, right = str(left), str(right)
    order: bool = {
        "==": left == right, "!=": left != right,
        "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right,  # type: ignore[operator]
    }[match[2]]  # fmt: skip
    yes, no = _choice(rest)
    return expanded(yes if order else no, look_up, depth)


def _choice(text: str) -> tuple[str, str]:
    """``{yes} : {no}``, or ``yes`` alone."""
    bare = text.strip()
    if bare.startswith("{"):
        end = _closing(bare, 0)
        return bare[1:end].strip(), _bare(bare[end + 1 :].strip().removeprefix(":"))
    return bare, ""


def _outside(text: str, wanted: str) -> int:
    depth = 0
    for n, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0 and character == wanted:
            return n
    return -1


def _number(text: str) -> tuple[int, ...] | str:
    return tuple(map(int, text.split("."))) if re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}", text) else text


def _bare(text: str) -> str:
    stripped = text.strip()
    return stripped[1:-1].strip() if stripped.startswith("{") and stripped.endswith("}") else stripped
