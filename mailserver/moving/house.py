"""A configuration as it is being put together, and its text in TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["House", "NewAccount", "toml_of"]

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
LINE_CHARACTERS = 110


@dataclass(slots=True)
class NewAccount:
    """An account to be made, without a password at first.  `mail` is where its mail lies now, "" for nowhere."""

    address: str
    senders: list[str] = field(default_factory=list)
    mail: str = ""


@dataclass(slots=True)
class House:
    """The tables of the file as plain values, the accounts, and the secrets: the text of each file by its name."""

    tables: dict[str, Any] = field(default_factory=dict)
    accounts: dict[str, NewAccount] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def table(self, name: str) -> dict[str, Any]:
        """One table, made where it is not there yet."""
        made: dict[str, Any] = self.tables.setdefault(name, {})
        return made

    def add(self, name: str, table: Mapping[str, Any]) -> None:
        """One more ``[[name]]``."""
        self.tables.setdefault(name, []).append(dict(table))

    def account(self, address: str) -> NewAccount:
        """An account, made where it is not there yet."""
        return self.accounts.setdefault(address, NewAccount(address))

    def secret(self, name: str, text: str) -> str:
        """Keep a secret for a file of about this name; return the name of the file."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "secret"
        file, n = f"{stem}.password", 1
        while self.secrets.get(file, text) != text:
            n += 1
            file = f"{stem}-{n}.password"
        self.secrets[file] = text
        return file


def toml_of(tables: Mapping[str, Any], remarks: Mapping[str, Sequence[str]] | None = None) -> str:
    """The text; `remarks` stand as comments before the table of their name."""
    remarks = remarks or {}
    lines = [_line(key, value) for key, value in tables.items() if not _is_table(value)]
    for name, value in tables.items():
        if _is_table(value):
            lines += _section([name], value, remarks.get(name, ()))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _section(path: Sequence[str], value: Any, remarks: Iterable[str] = ()) -> list[str]:
    lines = [f"# {remark}" for remark in remarks]
    if isinstance(value, list):
        for one in value:
            lines += _one(path, one, "[[{}]]", lines)
            lines = lines if lines[-1:] != [""] else lines[:-1]
        return ["", *lines]
    return ["", *lines, *_one(path, value, "[{}]", lines)]


def _one(path: Sequence[str], table: Mapping[str, Any], form: str, before: Sequence[str]) -> list[str]:
    plain = {key: value for key, value in table.items() if not _is_table(value)}
    inner = {key: value for key, value in table.items() if _is_table(value)}
    lines = [""] if before and form == "[[{}]]" and not before[-1].startswith("#") else []
    if plain or form == "[[{}]]" or not inner:
        lines.append(form.format(".".join(map(_key, path))))
    lines += [_line(key, value) for key, value in plain.items()]
    for key, value in inner.items():
        lines += _section([*path, key], value)
    return lines


def _line(key: str, value: Any) -> str:
    line = f"{_key(key)} = {_value(value)}"
    if isinstance(value, list) and len(line) > LINE_CHARACTERS:
        return "\n".join([f"{_key(key)} = [", *[f"    {_value(one)}," for one in value], "]"])
    return line


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    return "[" + ", ".join(map(_value, value)) + "]"


def _text(text: str) -> str:
    """A basic string.  JSON strings are a subset of these, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_table(value: Any) -> bool:
    if isinstance(value, Inline):
        return False
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


class Inline(dict[str, Any]):
    """A table that stands on one line."""
