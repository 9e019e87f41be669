"""Gives accounts of the accounts file other addresses, with all that they have.

It takes two steps, so that no name is missing at any time.  First copies are added under the new addresses.  Then the accounts
themselves replace the copies.  Between the two the references to the accounts elsewhere can be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mailserver.accounts.edit import quoted
from mailserver.accounts.entry import Account
from mailserver.accounts.table import AccountExists, AccountsFile, NoSuchAccount, key_of
from mailserver.authentication.app_passwords import SCOPES
from mailserver.config.draft import Draft

__all__ = ["add_copies", "become", "remove_copies"]

Renamed = Mapping[str, str]
"""The new address by the old one."""

Reseal = Callable[[Account, str], str | None]
"""The readable password of an account, sealed for another address; None where it cannot be."""

ByKey = Mapping[tuple[str, str], Account]


def add_copies(accounts: AccountsFile, renamed: Renamed, reseal: Reseal, *, over_copies: bool = False) -> None:
    """Add a copy of each account under its new address, without certificates, which stand for one account only.

    A copy from an earlier try is kept.  `over_copies`: it is known that there was an earlier try.  Raises `NoSuchAccount`,
    `AccountExists`, `AddressError`, OSError and `ConfigurationError`.
    """

    def change(text: str, found: ByKey) -> tuple[str, dict[str, Account]]:
        wanted = {one.address: one for one in found.values()}
        line_end = "\r\n" if "\r\n" in text else "\n"
        for old, new in _pairs(found, renamed, over_copies):
            if key_of(new) in found:
                continue
            copy = _copy(old, new, reseal)
            wanted[new] = copy
            gap = line_end if text.endswith("\n") else line_end * 2
            text += gap + "".join(f"{line}{line_end}" for line in _lines(copy))
        return text, wanted

    accounts.change_text(change)


def remove_copies(accounts: AccountsFile, renamed: Renamed) -> None:
    """Undo `add_copies`.  Raises OSError and `ConfigurationError`."""

    def change(text: str, found: ByKey) -> tuple[str, dict[str, Account]]:
        draft = Draft(text)
        wanted = {one.address: one for one in found.values()}
        for old, new in renamed.items():
            copy = found.get(key_of(new))
            if copy is not None and key_of(old) in found and key_of(old) != key_of(new):
                draft.remove_table(("account", copy.address))
                del wanted[copy.address]
        return draft.text, wanted

    accounts.change_text(change)


def become(
    accounts: AccountsFile, renamed: Renamed, reseal: Reseal, *, over_copies: bool = False, dry_run: bool = False
) -> None:
    """Give the accounts their new addresses.  With `over_copies` they replace the copies that `add_copies` has just made.

    Raises `NoSuchAccount`; `AccountExists` where an address is another account's; `AddressError`, OSError and
    `ConfigurationError`.  `dry_run` only raises.
    """

    def change(text: str, found: ByKey) -> tuple[str, dict[str, Account]]:
        draft = Draft(text)
        wanted = {one.address: one for one in found.values()}
        for old, new in _pairs(found, renamed, over_copies):
            copy = found.get(key_of(new))
            if copy is not None and copy.address != old.address:
                draft.remove_table(("account", copy.address))
                del wanted[copy.address]
            del wanted[old.address]
            secret = None if old.secret is None else reseal(old, new)
            if old.address != new:
                draft.rename(("account", old.address), new)
            if secret is not None:
                draft.set(("account", new), "cram_md5", secret)
            elif old.secret is not None:
                draft.remove(("account", new, "cram_md5"))
            wanted[new] = replace(old, address=new, secret=secret)
        return draft.text, wanted

    accounts.change_text(change, dry_run=dry_run)


def _pairs(found: ByKey, renamed: Renamed, over_copies: bool = False) -> list[tuple[Account, str]]:
    pairs = []
    for old, new in renamed.items():
        account = found.get(key_of(old))
        if account is None:
            raise NoSuchAccount(f"there is no account {old}")
        other = found.get(key_of(new))
        if other is not None and other is not account and not _is_copy(other, account, over_copies):
            raise AccountExists(f"{new} exists already")
        pairs.append((account, new))
    return pairs


def _copy(old: Account, new: str, reseal: Reseal) -> Account:
    secret = None if old.secret is None else reseal(old, new)
    return replace(old, address=new, secret=secret, certificates=())


def _is_copy(other: Account, account: Account, just_made: bool) -> bool:
    """Whether `other` is a copy made by `add_copies`.  An account without credentials looks like a copy of any other such one."""
    same = replace(account, address=other.address, secret=other.secret, certificates=()) == other
    return same and (just_made or account.password is not None or bool(account.app_passwords))


def _lines(account: Account) -> list[str]:
    header = f"account.{quoted(account.address)}"
    lines = [f"[{header}]"]
    keys = {"password": account.password, "scram": account.scram, "cram_md5": account.secret}
    lines += [f"{name} = {quoted(value)}" for name, value in keys.items() if value is not None]
    if account.disabled:
        lines.append("disabled = true")
    if account.senders:
        lines.append(f"senders = [{', '.join(map(quoted, account.senders))}]")
    for one in account.app_passwords:
        lines += ["", f"[{header}.app_password.{quoted(one.name)}]", f"password = {quoted(one.hash)}"]
        if one.scopes != SCOPES:
            lines.append(f"scopes = [{', '.join(map(quoted, one.scopes))}]")
        if one.expires is not None:
            lines.append(f"expires = {one.expires.isoformat()}")
    return lines
