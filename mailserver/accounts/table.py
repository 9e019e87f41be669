"""The accounts file: read, and edited without disturbing what people wrote around it.

    [account."alice@example.org"]
    password = "$argon2id$…"             # absent: receives mail, cannot log in

An edit changes the lines of one account, writes a new file beside the old one, syncs it and renames it over: a reader, or a
power failure, sees the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import stat
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.accounts.passwords import is_hash
from mailserver.config.faults import ConfigurationError, Fault
from mailserver.config.lines import KeyPath, line_of, lines_of
from mailserver.mail.address import Address, AddressError, normal_local
from mailserver.mail.durable import sync_directory

__all__ = ["Account", "AccountExists", "AccountsFile", "NoSuchAccount", "parse_accounts"]

HEADER = re.compile(r"[ \t]*\[[^\[]")
PASSWORD_LINE = re.compile(
    r"""([ \t]*(?:password|"password"|'password')[ \t]*=[ \t]*)("(?:[^"\\]|\\.)*"|'[^']*')(.*)""", re.DOTALL
)
SYNTAX_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
FIRST_LINES = "# The accounts.  Change them with `mailserver user`, or here: the server sees a change within a second.\n"
LOCK_SECONDS = 10.0
LOCK_TRY_SECONDS = 0.02


class NoSuchAccount(LookupError):
    """The accounts file has no such account."""


class AccountExists(ValueError):
    """The account is there already."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account: its address as the file has it, and its hash (None: no log-in)."""

    address: str
    password: str | None


Accounts = Mapping[tuple[str, str], Account]


def parse_accounts(text: str, file: str) -> dict[tuple[str, str], Account]:
    """The accounts by normal local part and domain, in the file's order.  Raises `ConfigurationError` with every fault."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = SYNTAX_PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        raise ConfigurationError([Fault(file, line, "", f"is not valid TOML: {SYNTAX_PLACE.sub('', str(error))}")]) from None
    faults: list[Fault] = []
    accounts: dict[tuple[str, str], Account] = {}

    @functools.cache
    def lines() -> dict[KeyPath, int]:
        return lines_of(text)  # as slow as the reading itself, so only where there are faults

    def fault(path: KeyPath, message: str) -> None:
        faults.append(Fault(file, line_of(path, lines()), ".".join(map(str, path)), message))

    for name in document:
        if name != "account":
            first = min((path for path in lines() if path[0] == name), key=lambda path: lines()[path])
            fault(first, 'is not known here: accounts are tables such as [account."alice@example.org"]')
    tables = document.get("account", {})
    for name, table in tables.items() if isinstance(tables, dict) else ():
        path: KeyPath = ("account", name)
        try:
            key = key_of(name)
        except AddressError as error:
            fault(path, f"is not an address: {error}")
            continue
        if key in accounts:
            fault(path, f"is the same account as {accounts[key].address}")
        for problem, where in _problems(table):
            fault((*path, *where), problem)
        password = table.get("password") if isinstance(table, dict) else None
        accounts[key] = Account(name, password)
    if not isinstance(tables, dict):
        fault(("account",), 'is a table of tables: [account."alice@example.org"]')
    if faults:
        raise ConfigurationError(faults)
    return accounts


def key_of(name: str) -> tuple[str, str]:
    """The normal form of an account's address.  Raises `AddressError`."""
    address = Address.parse(name, utf8=True)
    return normal_local(address.local), address.domain_key


def _problems(table: Any) -> Iterator[tuple[str, KeyPath]]:
    if not isinstance(table, dict):
        yield "must be a table", ()
        return
    for key, value in table.items():
        if key != "password":
            yield "is not a key of an account; the one there is: password", (key,)
        elif not isinstance(value, str):
            yield "must be text", (key,)
        elif not is_hash(value):
            yield "is not a hash; `mailserver user password` makes one", (key,)


class AccountsFile:
    """The file at `path`, as programs see it.  Blocking.

    Every change locks out other writers, and raises OSError, or `ConfigurationError` where the file is not in order.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)

    def read(self) -> dict[tuple[str, str], Account]:
        """All accounts.  Raises OSError, or `ConfigurationError` with every fault."""
        return parse_accounts(self._text(), self.path)

    def list(self) -> tuple[Account, ...]:
        """All accounts in the file's order; none where there is no file yet."""
        return tuple(self.read().values()) if os.path.exists(self.path) else ()

    def add(self, address: str, password_hash: str | None = None) -> None:
        """Add an account at the end.  Raises `AccountExists`; `AddressError` for what is no address."""
        key = key_of(address)
        with self._locked():
            text = self._text() if os.path.exists(self.path) else FIRST_LINES
            accounts = parse_accounts(text, self.path)
            if key in accounts:
                raise AccountExists(f"{address} exists already")
            end = "\r\n" if "\r\n" in text else "\n"
            gap = "" if not text else (end if text.endswith("\n") else end * 2)
            line = f"password = {_quoted(password_hash)}{end}" if password_hash is not None else ""
            wanted = {account.address: account.password for account in accounts.values()} | {address: password_hash}
            self._replace(f"{text}{gap}[account.{_quoted(address)}]{end}{line}", wanted)

    def remove(self, address: str) -> None:
        """Remove an account; the comments around it stay.  Raises `NoSuchAccount`."""
        with self._locked():
            text, account, lines, wanted = self._found(address)
            del wanted[account.address]
            rows = text.splitlines(keepends=True)
            first, last = self._rows(account, lines, rows)
            while last < len(rows) and not rows[last].strip():
                last += 1
            self._replace("".join(rows[:first] + rows[last:]), wanted)

    def set_password(self, address: str, password_hash: str | None) -> None:
        """Set or (None) take away the password.  Raises `NoSuchAccount`."""
        with self._locked():
            text, account, lines, wanted = self._found(address)
            wanted[account.address] = password_hash
            rows = text.splitlines(keepends=True)
            header, _ = self._rows(account, lines, rows)
            end = "\r\n" if rows[header].endswith("\r\n") else "\n"
            if not rows[header].endswith("\n"):
                rows[header] += end
            old = lines.get(("account", account.address, "password"))
            if old is None:
                rows.insert(header + 1, "" if password_hash is None else f"password = {_quoted(password_hash)}{end}")
            elif password_hash is None:
                rows[old - 1] = ""
            else:
                rows[old - 1] = PASSWORD_LINE.sub(
                    lambda match: f"{match[1]}{_quoted(password_hash)}{match[3]}", rows[old - 1]
                )
            self._replace("".join(rows), wanted)

    def _found(self, address: str) -> tuple[str, Account, dict[KeyPath, int], dict[str, str | None]]:
        text = self._text()
        accounts = parse_accounts(text, self.path)
        account = accounts.get(key_of(address))
        if account is None:
            raise NoSuchAccount(f"there is no account {address}")
        wanted = {account.address: account.password for account in accounts.values()}
        return text, account, lines_of(text), wanted

    def _rows(self, account: Account, lines: Mapping[KeyPath, int], rows: Sequence[str]) -> tuple[int, int]:
        """The first row of an account's table, and the one after its last key.  Raises `ConfigurationError` for other forms."""
        own: KeyPath = ("account", account.address)
        first = lines[own] - 1
        if not HEADER.match(rows[first]):
            raise self._unknown_form(lines[own])
        return first, max(line for path, line in lines.items() if path[:2] == own)

    def _unknown_form(self, line: int) -> ConfigurationError:
        return ConfigurationError(
            [Fault(self.path, line, "", "is written in a form that only an editor can change, not this command")]
        )

    def _text(self) -> str:
        with open(self.path, encoding="utf-8", newline="") as file:
            try:
                return file.read()
            except UnicodeDecodeError as error:
                raise ConfigurationError([Fault(self.path, 1, "", f"is not UTF-8, at octet {error.start}")]) from None

    def _replace(self, text: str, wanted: Mapping[str, str | None]) -> None:
        """Write the new text, after a look that it says what is wanted and nothing else."""
        try:
            found = {account.address: account.password for account in parse_accounts(text, self.path).values()}
        except ConfigurationError:
            raise self._unknown_form(1) from None
        if found != wanted:
            raise self._unknown_form(1)
        draft = f"{self.path}.{os.getpid()}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(fd, "w", encoding="utf-8", newline="") as file:
                self._keep_owner(fd)
                file.write(text)
                file.flush()
                os.fsync(fd)
            os.rename(draft, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        sync_directory(os.path.dirname(self.path))

    def _keep_owner(self, fd: int) -> None:
        """The owner and the mode of the old file, as far as nobody else may read it; for a first file the directory's owner."""
        try:
            old = os.stat(self.path)
        except FileNotFoundError:
            old = os.stat(os.path.dirname(self.path))
            mode = 0o600
        else:
            mode = stat.S_IMODE(old.st_mode) & 0o660
        if os.geteuid() == 0:
            os.fchown(fd, old.st_uid, old.st_gid)
        os.fchmod(fd, mode)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time.  The lock is on the directory, as the file itself is replaced.  Raises TimeoutError."""
        fd = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            until = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError(f"another program is changing {self.path}") from None
                time.sleep(LOCK_TRY_SECONDS)
            yield
        finally:
            os.close(fd)


def _quoted(text: str) -> str:
    """A TOML basic string (JSON's strings are among them)."""
    return json.dumps(text, ensure_ascii=False)
