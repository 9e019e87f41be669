"""What people may do with accounts whose sending is stopped: the same commands for a server that runs and for its records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mailserver.api import Argument, CannotDo, Clock, ComponentCommand, StorageFault
from mailserver.filters.account_book import AccountBook
from mailserver.filters.account_records import ReleasedAccount, StoppedAccount, account_name

__all__ = ["commands_of"]

SHOWN_MOST = 1000
WHO_CHARACTERS = 100
ACCOUNT = Argument("account", "the account's address")
BY = Argument("by", "who says so", required=False)

Owed = Callable[[str], Awaitable[None]]
"""Does at once what is owed about an account."""


def commands_of(
    book: AccountBook, clock: Clock, *, begin_anew: Owed | None, go: Owed | None
) -> Sequence[ComponentCommand]:
    """``list``, ``show``, ``lock``, ``unlock``.  Without a server `begin_anew` and `go` are None: it does the rest later."""
    orders = _Orders(book, clock, begin_anew, go)
    return (
        ComponentCommand("list", "the accounts whose sending is stopped", orders.list),
        ComponentCommand("show", "why an account is stopped", orders.show, (ACCOUNT,)),
        ComponentCommand("lock", "stop an account's sending", orders.lock, (
            ACCOUNT, Argument("why", "for those who look", required=False), BY,
        )),
        ComponentCommand("unlock", "let an account send again, and release what is held", orders.unlock, (ACCOUNT, BY)),
    )  # fmt: skip


class _Orders:
    def __init__(self, book: AccountBook, clock: Clock, begin_anew: Owed | None, go: Owed | None) -> None:
        self._book = book
        self._clock = clock
        self._begin_anew = begin_anew
        self._go = go

    async def list(self) -> list[dict[str, Any]]:
        """A row for each, those first that were stopped last."""
        found = sorted(self._book.stopped.values(), key=lambda one: (-one.at, one.account))
        return [_row(one) for one in found[:SHOWN_MOST]]

    async def show(self, account: str) -> dict[str, Any]:
        """Everything about one; an empty mapping where it is not stopped."""
        found = self._book.stopped.get(_name(account))
        return {} if found is None else _row(found)

    async def lock(self, account: str, why: str = "", by: str = "") -> str:
        """What was done, in words."""
        name = _name(account)
        if name in self._book.stopped:
            raise CannotDo(f"{name} is stopped already")
        by = by[:WHO_CHARACTERS] or "a person"
        try:
            await self._book.keep(StoppedAccount(name, self._clock.seconds(), by=by, why=why))
        except StorageFault as fault:
            stopped = f"{name} is stopped until the server ends, and" if self._go is not None else f"{name} is not stopped:"
            raise CannotDo(f"{stopped} the records cannot be written yet: {fault}") from fault
        if self._go is None:
            return f"{name} is stopped; what it has in the queue is held when a server runs"
        await self._go(name)
        return f"{name} is stopped, and what it had in the queue is held"

    async def unlock(self, account: str, by: str = "") -> str:
        """What was done, in words."""
        name = _name(account)
        if self._begin_anew is not None and name in self._book.stopped:
            await self._begin_anew(name)  # first: else the next message is weighed with what has stopped it
        try:
            if not await self._book.let_go(ReleasedAccount(name, self._clock.seconds(), by[:WHO_CHARACTERS])):
                raise CannotDo(f"{name} is not stopped")
        except StorageFault as fault:
            raise CannotDo(f"{name} is still stopped: the records cannot be written: {fault}") from fault
        if self._go is None:
            return f"{name} may send again; what is held of its mail is released when a server runs"
        await self._go(name)
        if name in self._book.released:
            return f"{name} may send again; what is held of its mail is released in a moment"
        return f"{name} may send again, and what was held of its mail is released"


def _name(account: str) -> str:
    try:
        return account_name(account)
    except ValueError as error:
        raise CannotDo(str(error)) from error


def _row(one: StoppedAccount) -> dict[str, Any]:
    return {
        "account": one.account,
        "since": one.at,
        "by": one.by,
        "why": one.words,
        "signals": {seen.signal: {"count": seen.count, "examples": list(seen.examples)} for seen in one.seen},
        "logins": list(one.logins),
        "held": one.is_held,
    }
