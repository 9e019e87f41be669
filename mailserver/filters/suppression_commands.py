"""What people may do with addresses that get no mail any more: the same commands for a server that runs and for its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailserver.api import Address, Argument, CannotDo, ComponentCommand
from mailserver.filters.suppression_book import Suppression, SuppressionBook, account_named, address_named

__all__ = ["commands_of"]

SHOWN_MOST = 10_000
USER = Argument("user", "the account; @domain: mail of this domain that comes without a login")
ADDRESS = Argument("address", "the address that gets no mail")
BY = Argument("by", "who says so", required=False)


def commands_of(book: SuppressionBook, *, within_seconds: float, expire_seconds: float) -> Sequence[ComponentCommand]:
    """``list``, ``remove``, ``add``."""
    orders = _Orders(book, within_seconds, expire_seconds)
    return (
        ComponentCommand("list", "the addresses that get no mail any more, and those refused once", orders.list, (
            Argument("user", "this account's alone", required=False),
        )),
        ComponentCommand("remove", "let an account write to an address again", orders.remove, (USER, ADDRESS, BY)),
        ComponentCommand("add", "let an account write to an address no more", orders.add, (USER, ADDRESS, BY)),
    )  # fmt: skip


class _Orders:
    def __init__(self, book: SuppressionBook, within_seconds: float, expire_seconds: float) -> None:
        self._book = book
        self._seconds = within_seconds, expire_seconds

    async def list(self, user: str = "") -> list[dict[str, Any]]:
        """A row for each, by account, those that were suppressed last first."""
        found = await self._book.of(_account(user) if user else "")
        if len(found) > SHOWN_MOST:
            raise CannotDo(f"there are {len(found)} addresses: name a user (`mailserver records export` has all)")
        found.sort(key=lambda one: (one.account, -one.since, -one.first, one.address))
        return [self._row(one) for one in found]

    async def remove(self, user: str, address: str, by: str = "") -> str:
        """What was done, in words."""
        account = _account(user)
        there = await self._book.get(account, _address(address))
        if there is None:
            raise CannotDo(f"nothing is known of {address} for {user}")
        await self._book.drop(there)
        return f"{there.account} may write to {there.address} again"

    async def add(self, user: str, address: str, by: str = "") -> str:
        """What was done, in words."""
        try:
            said = await self._book.add(_account(user), _address(address), by)
        except ValueError as error:
            raise CannotDo(str(error)) from error
        return f"{said.account} writes to {said.address} no more"

    def _row(self, one: Suppression) -> dict[str, Any]:
        end = one.end(*self._seconds)
        return {
            "user": one.account, "address": one.address, "state": "suppressed" if one.since else "refused once",
            "status": one.status, "first": one.first or None, "since": one.since or None,
            "until": end if end < float("inf") else None, "by": one.by,
        }  # fmt: skip


def _account(text: str) -> str:
    try:
        return account_named(text)
    except ValueError as error:
        raise CannotDo(f"{text}: {error}") from error


def _address(text: str) -> str:
    try:
        found = address_named(Address.parse(text, utf8=True))
    except ValueError as error:
        raise CannotDo(f"{text}: {error}") from error
    if not found:
        raise CannotDo(f"{text} is no address of another host")
    return found
