"""The accounts file: read, and edited without disturbing what people wrote around it.

    [account."alice@example.org"]
    password = "$argon2id$…"             # absent: receives mail, cannot log in
    disabled = true                      # nobody can log in for now; absent: false
    scram    = "SCRAM-SHA-256$…"         # written with it

    [account."alice@example.org".app_password."phone"]
    password = "{SSHA256}…"

An edit changes the lines of one account.  It writes a new file beside the old one, syncs it and renames it over the old one.
So a reader, or a power failure, meets either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

from mailserver.accounts.edit import Edit, app_password_table, quoted, unknown_form
from mailserver.accounts.entry import Account, Password, account_of
from mailserver.authentication.app_passwords import AppPassword
from mailserver.config.draft import Unchangeable
from mailserver.config.fault import ConfigurationError, Fault
from mailserver.config.lines import KeyPath, line_of, lines_of
from mailserver.mail.address import Address, AddressError, normal_names
from mailserver.mail.durable import locked_directory, replace_file

__all__ = [
    "Account",
    "AccountExists",
    "AccountsFile",
    "Change",
    "NoSuchAccount",
    "Password",
    "account_key",
    "key_of",
    "parse_accounts",
]

SYNTAX_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
FIRST_LINES = "# The accounts.  Change them with `mailserver user`, or here: the server sees a change within a second.\n"


class NoSuchAccount(LookupError):
    """The accounts file has no such account."""


class AccountExists(ValueError):
    """The account exists already."""


Accounts = Mapping[tuple[str, str], Account]
Change = Callable[[tuple[str, ...]], Sequence[str]]  # from the old entries to the new ones


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
        return lines_of(text)  # as slow as the parsing itself, so only where faults are found

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
        if not isinstance(table, dict):
            fault(path, "must be a table")
        tell = functools.partial(_tell, fault, path)
        accounts[key] = account_of(name, table if isinstance(table, dict) else {}, tell)
    _one_account_each(accounts, fault)
    if not isinstance(tables, dict):
        fault(("account",), 'is a table of tables: [account."alice@example.org"]')
    if faults:
        raise ConfigurationError(faults)
    return accounts


def _one_account_each(accounts: Accounts, fault: Callable[[KeyPath, str], None]) -> None:
    """Tell a fault for each certificate that stands for two accounts: only the last would count."""
    seen: dict[str, str] = {}
    for account in accounts.values():
        for index, mark in enumerate(account.certificates):
            other = seen.setdefault(mark.lower(), account.address)
            if other != account.address:
                fault(("account", account.address, "certificates", index), f"stands for {other} already")


def _tell(fault: Callable[[KeyPath, str], None], path: KeyPath, message: str, *where: str | int) -> None:
    fault((*path, *where), message)


def account_key(name: str) -> str:
    """The normal form of an account's address, as text.  Raises `AddressError`."""
    return "@".join(key_of(name))


def key_of(name: str) -> tuple[str, str]:
    """The normal form of an account's address.  Raises `AddressError`."""
    address = Address.parse(name, utf8=True)
    if address.bare:
        raise AddressError("not a local part")
    return normal_names(address)


def table_of(account: Account) -> list[str]:
    """The lines of an account's tables."""
    words = Password(account.password, account.scram, account.secret)
    lines = [f"[account.{quoted(account.address)}]"]
    lines += [f"{name} = {value}" for name, value in _password_lines(words) if value]
    lines += ["disabled = true"] * account.disabled
    lines += [f"{name} = {_array(texts)}" for name, texts in (
        ("senders", account.senders), ("certificates", account.certificates)) if texts]  # fmt: skip
    for one in account.app_passwords:
        lines += ["", *app_password_table(account.address, one)]
    return lines


def _at_once(path: str, flags: int) -> int:
    """Opens a file; does not wait for whoever writes into a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


class AccountsFile:
    """The accounts file at `path`.  All methods block.

    Every change locks out other writers.  It raises OSError, and `ConfigurationError` where the file has faults.
    Where root makes the file it belongs to the owner of the server's `data` directory, if that exists.
    """

    def __init__(self, path: str, data: str = "") -> None:
        self.path = os.path.realpath(path)
        self.data = data

    def read(self) -> dict[tuple[str, str], Account]:
        """All accounts.  Raises OSError, or `ConfigurationError` with every fault."""
        return parse_accounts(self._text(), self.path)

    def list(self) -> tuple[Account, ...]:
        """All accounts in the file's order; none where the file does not exist yet."""
        return tuple(self.read().values()) if os.path.exists(self.path) else ()

    def add(self, address: str, password: Password | None = None) -> None:
        """Add an account at the end.  Raises `AccountExists`; `AddressError` for an address that no new account may have."""
        key = key_of(address)
        if Address.parse(address, utf8=True).has_odd_dots:
            raise AddressError("no dot stands at an end of the local part, or behind another")
        with self._locked():
            text = self._text() if os.path.exists(self.path) else FIRST_LINES
            accounts = parse_accounts(text, self.path)
            if key in accounts:
                raise AccountExists(f"{address} exists already")
            end = "\r\n" if "\r\n" in text else "\n"
            gap = "" if not text else (end if text.endswith("\n") else end * 2)
            account = Account(address, *(() if password is None else astuple(password)))
            lines = "".join(f"{name} = {value}{end}" for name, value in _password_lines(password or Password(None)) if value)
            wanted = {one.address: one for one in accounts.values()} | {address: account}
            self._replace(f"{text}{gap}[account.{quoted(address)}]{end}{lines}", wanted)

    def add_all(self, accounts: Sequence[Account]) -> tuple[str, ...]:
        """Add those whose address is not there yet, all in one change; return their addresses.  Makes the file, if need be."""
        with self._locked():
            is_new = not os.path.exists(self.path)
            text = FIRST_LINES if is_new else self._text()
            there = parse_accounts(text, self.path)
            added = {key: one for one in accounts if (key := key_of(one.address)) not in there}
            if not added and not is_new:
                return ()
            end = "\r\n" if "\r\n" in text else "\n"
            gap = "" if not text or text.endswith("\n") else end
            tables = "".join(end + end.join(table_of(one)) + end for one in added.values())
            self._replace(f"{text}{gap}{tables}", {one.address: one for one in (*there.values(), *added.values())})
            return tuple([one.address for one in added.values()])

    def give_passwords(self, passwords: Mapping[str, Password]) -> tuple[str, ...]:
        """Give passwords to accounts that have none, all in one change; return their addresses.  The others stay as they are."""
        wanted_by = {key_of(address): words for address, words in passwords.items()}
        with self._locked():
            text = self._text()
            accounts = parse_accounts(text, self.path)
            edit = Edit(self.path, text, Account(""), {})
            lines: dict[str, list[str]] = {}
            wanted = {one.address: one for one in accounts.values()}
            for key, one in accounts.items():
                if one.password is None and (words := wanted_by.get(key)) is not None:
                    lines[one.address] = [f"{name} = {value}" for name, value in _password_lines(words) if value]
                    wanted[one.address] = replace(one, password=words.hash, scram=words.scram, secret=words.secret)
            self._replace(edit.with_lines(lines), wanted)
            return tuple(lines)

    def remove(self, address: str) -> None:
        """Remove an account; the comments around it stay.  Raises `NoSuchAccount`."""
        with self._locked():
            found = self._found(address)
            del found.wanted[found.account.address]
            self._replace(found.without(("account", found.account.address)), found.wanted)

    def set_disabled(self, address: str, disabled: bool) -> bool:
        """Disable the account or enable it.  Return False where nothing changes.  Raises `NoSuchAccount`."""
        with self._locked():
            found = self._found(address)
            if found.account.disabled is disabled:
                return False
            self._give(found, [("disabled", "true" if disabled else "")], disabled=disabled)
            return True

    def set_password(self, address: str, password: Password | None) -> None:
        """Set or (None) take away the password, with all that is derived from it.  Raises `NoSuchAccount`."""
        words = password or Password(None)
        with self._locked():
            self._give(self._found(address), _password_lines(words), **_fields(words))

    def renew_password(self, address: str, password: Password, *, was: str) -> None:
        """Keep the same password in another form, unless the hash has changed from `was`.  Raises `NoSuchAccount`."""
        with self._locked():
            found = self._found(address)
            if found.account.password == was:
                self._give(found, _password_lines(password), **_fields(password))

    def change_senders(self, address: str, change: Change) -> None:
        """Change the senders that it may use besides its own addresses.  Raises `NoSuchAccount`, and what `change` raises."""
        with self._locked():
            found = self._found(address)
            senders = change(found.account.senders)
            self._give(found, [("senders", _array(senders))], senders=tuple(senders))

    def change_certificates(self, address: str, change: Change) -> None:
        """Change the fingerprints and addresses of its certificates.

        Raises `NoSuchAccount`; `AccountExists` where one stands for another account already; and what `change` raises.
        """
        with self._locked():
            found = self._found(address)
            certificates = change(found.account.certificates)
            others = [one for one in found.wanted.values() if one.address != found.account.address]
            taken = {mark.lower(): one.address for one in others for mark in one.certificates}
            for mark in certificates:
                if mark.lower() in taken:
                    raise AccountExists(f"{mark} stands for {taken[mark.lower()]} already")
            self._give(found, [("certificates", _array(certificates))], certificates=tuple(certificates))

    def add_app_password(self, address: str, app_password: AppPassword) -> None:
        """Add an app password.  Raises `NoSuchAccount`; `AccountExists` where the account has one of this name."""
        with self._locked():
            found = self._found(address)
            account = found.account
            if any(one.name == app_password.name for one in account.app_passwords):
                raise AccountExists(f"{address} has an app password {app_password.name} already")
            found.wanted[account.address] = replace(account, app_passwords=(*account.app_passwords, app_password))
            self._replace(found.with_app_password(app_password), found.wanted)

    def remove_app_password(self, address: str, name: str) -> None:
        """Remove an app password.  Raises `NoSuchAccount` where the account, or an app password of this name, is missing."""
        with self._locked():
            found = self._found(address)
            account = found.account
            kept = tuple([one for one in account.app_passwords if one.name != name])
            if len(kept) == len(account.app_passwords):
                raise NoSuchAccount(f"{address} has no app password {name}")
            found.wanted[account.address] = replace(account, app_passwords=kept)
            self._replace(found.without(("account", account.address, "app_password", name)), found.wanted)

    def change_text(
        self, change: Callable[[str, Accounts], tuple[str, Mapping[str, Account]]], *, dry_run: bool = False
    ) -> None:
        """Any other change.  `change` makes of the text and its accounts a new text, and the accounts that it shall hold.

        Raises what `change` raises.
        """
        with self._locked():
            text = self._text()
            try:
                new, wanted = change(text, parse_accounts(text, self.path))
            except Unchangeable:
                raise unknown_form(self.path, 1) from None
            self._replace(new, wanted, dry_run=dry_run)

    def _give(self, found: Edit, keys: Sequence[tuple[str, str]], **changes: Any) -> None:
        """Give keys of the account's own table new values; "" removes a key."""
        found.wanted[found.account.address] = replace(found.account, **changes)
        for name, value in reversed(keys):  # a new one goes to the top
            found.set_key(name, value)
        self._replace("".join(found.rows), found.wanted)

    def _found(self, address: str) -> Edit:
        text = self._text()
        accounts = parse_accounts(text, self.path)
        account = accounts.get(key_of(address))
        if account is None:
            raise NoSuchAccount(f"there is no account {address}")
        return Edit(self.path, text, account, {one.address: one for one in accounts.values()})

    def _text(self) -> str:
        with open(self.path, encoding="utf-8", newline="", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe or a device would hold up root
                raise ConfigurationError([Fault(self.path, 1, "", "is not a regular file")])
            try:
                return file.read()
            except UnicodeDecodeError as error:
                raise ConfigurationError([Fault(self.path, 1, "", f"is not UTF-8, at octet {error.start}")]) from None

    def _replace(self, text: str, wanted: Mapping[str, Account], *, dry_run: bool = False) -> None:
        """Write the new text, after a check that it holds exactly the accounts wanted."""
        try:
            found = {account.address: account for account in parse_accounts(text, self.path).values()}
        except ConfigurationError:
            raise unknown_form(self.path, 1) from None
        if found != wanted:
            raise unknown_form(self.path, 1)
        if dry_run:
            return
        replace_file(self.path, text, self._keep_owner)

    def _keep_owner(self, fd: int) -> None:
        """Keep the owner of the old file, and its mode without access for others.  A first file is readable by the server."""
        try:
            old = os.stat(self.path)
        except FileNotFoundError:
            old = os.stat(self.data if os.path.isdir(self.data) else os.path.dirname(self.path))
            mode = 0o600
        else:
            mode = stat.S_IMODE(old.st_mode) & 0o660
        if os.geteuid() == 0:
            os.fchown(fd, old.st_uid, old.st_gid)
        os.fchmod(fd, mode)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """A lock: one writer at a time.  Raises TimeoutError."""
        return locked_directory(os.path.dirname(self.path), self.path)


def _fields(words: Password) -> dict[str, str | None]:
    return {"password": words.hash, "scram": words.scram, "secret": words.secret}


def _password_lines(words: Password) -> list[tuple[str, str]]:
    """The lines that belong to the password, in their order."""
    keys = (("password", words.hash), ("scram", words.scram), ("cram_md5", words.secret))
    return [(name, "" if value is None else quoted(value)) for name, value in keys]


def _array(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, texts))}]" if texts else ""
