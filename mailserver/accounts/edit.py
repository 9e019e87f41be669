"""A change to the text of the accounts file that keeps what people wrote around it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from mailserver.accounts.entry import Account
from mailserver.authentication.app_passwords import SCOPES, AppPassword
from mailserver.config.fault import ConfigurationError, Fault
from mailserver.config.lines import KeyPath, lines_of

__all__ = ["Edit", "app_password_table", "quoted", "unknown_form"]

ROW = re.compile(r"[^\n]*\n|[^\n]+")
HEADER = re.compile(r"[ \t]*\[[^\[]")
STRING = r'''(?:"(?:[^"\\]|\\.)*"|'[^']*')'''
VALUE = rf"(?:true|false|{STRING}|\[[ \t]*(?:{STRING}[ \t]*,?[ \t]*)*\])"


class Edit:
    """The file's rows, one account of it, and what the file shall hold at the end (`wanted`, by address)."""

    def __init__(self, path: str, text: str, account: Account, wanted: dict[str, Account]) -> None:
        self.account = account
        self.wanted = wanted
        self.rows: list[str] = ROW.findall(text)  # not str.splitlines(), which knows line ends that TOML does not
        self._path = path
        self._lines = lines_of(text)
        self._own: KeyPath = ("account", account.address)

    def set_key(self, name: str, value: str) -> None:
        """Give a key of the account's own table this value, in TOML's syntax; "" removes the key.

        Raises `ConfigurationError` for a form that cannot be changed.
        """
        header = self._header(self._own)
        place = self._lines.get((*self._own, name))
        if place is None:
            if value:
                self._insert(header + 1, [f"{name} = {value}"])
            return
        if value:
            line = re.compile(rf"([ \t]*(?:{name}|\"{name}\"|'{name}')[ \t]*=[ \t]*)({VALUE})(.*)", re.DOTALL)
            match = line.fullmatch(self.rows[place - 1])
            if match is None:
                raise unknown_form(self._path, place)
            self.rows[place - 1] = f"{match[1]}{value}{match[3]}"
        else:
            del self.rows[place - 1]
            self._lines = {path: at - (at > place) for path, at in self._lines.items() if path != (*self._own, name)}

    def with_app_password(self, one: AppPassword) -> str:
        """The text with one more table for the app password, behind the account's other tables."""
        _, last = self._extent(self._own)
        self._insert(last, ["", *app_password_table(self.account.address, one)])
        return "".join(self.rows)

    def with_lines(self, lines: Mapping[str, Sequence[str]]) -> str:
        """The text with lines at the top of accounts' own tables, by their addresses."""
        end = "\r\n" if self.rows and self.rows[0].endswith("\r\n") else "\n"
        behind = {self._header(("account", address)): new for address, new in lines.items()}
        return "".join(
            row if n not in behind else "".join([row if row.endswith("\n") else row + end, *[line + end for line in behind[n]]])
            for n, row in enumerate(self.rows)
        )

    def without(self, path: KeyPath) -> str:
        """The text without this table and those below it."""
        first, last = self._extent(path)
        while last < len(self.rows) and not self.rows[last].strip():
            last += 1
        return "".join(self.rows[:first] + self.rows[last:])

    def _extent(self, path: KeyPath) -> tuple[int, int]:
        """The first row of a table, and the one after its last key.  Raises `ConfigurationError` for other forms."""
        first = self._header(path)
        return first, max(line for found, line in self._lines.items() if found[: len(path)] == path)

    def _header(self, path: KeyPath) -> int:
        place = self._lines.get(path)
        if place is None or not HEADER.match(self.rows[place - 1]):
            raise unknown_form(self._path, place or 1)
        return place - 1

    def _insert(self, at: int, lines: Sequence[str]) -> None:
        end = "\r\n" if self.rows[0].endswith("\r\n") else "\n"
        if at and not self.rows[at - 1].endswith("\n"):
            self.rows[at - 1] += end
        self.rows[at:at] = [line + end for line in lines]
        self._lines = {path: line + len(lines) * (line > at) for path, line in self._lines.items()}


def app_password_table(address: str, one: AppPassword) -> list[str]:
    """The lines of an app password's table."""
    lines = [f"[account.{quoted(address)}.app_password.{quoted(one.name)}]", f"password = {quoted(one.hash)}"]
    if one.scopes != SCOPES:
        lines.append(f"scopes = [{', '.join(map(quoted, one.scopes))}]")
    if one.expires is not None:
        lines.append(f"expires = {one.expires.isoformat()}")
    return lines


def unknown_form(path: str, line: int) -> ConfigurationError:
    """The fault for TOML that a program could not change without destroying its form."""
    return ConfigurationError([Fault(path, line, "", "is written in a form that only an editor can change, not this command")])


def quoted(text: str) -> str:
    """The text as a TOML basic string.  JSON strings are a subset of these."""
    return json.dumps(text, ensure_ascii=False)
