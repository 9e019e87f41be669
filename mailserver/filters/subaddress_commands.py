"""What people may do with subaddresses: the same commands for a server that runs and for its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailserver.api import Address, Argument, CannotDo, ComponentCommand
from mailserver.filters.contact_records import read_user
from mailserver.filters.list_entries import read_subject
from mailserver.filters.subaddress_book import ANYBODY, WHO_CHARACTERS, Subaddress, SubaddressBook, split_subaddress

__all__ = ["commands_of"]

SHOWN_MOST = 1000
ADDRESS = Argument("address", "the whole address: alice+shop@example.org")
BY = Argument("by", "who says so", required=False)


def commands_of(book: SubaddressBook, *, separator: str) -> Sequence[ComponentCommand]:
    """``open``, ``close``, ``forget``, ``list``."""
    orders = _Orders(book, separator)
    domain = Argument("domain", f"who may write to it; {ANYBODY} is anybody; absent: whoever does so first", required=False)
    return (
        ComponentCommand("open", "give an address to a sender, or open it again", orders.open, (ADDRESS, domain, BY)),
        ComponentCommand("close", "take no more mail for an address", orders.close, (ADDRESS, BY)),
        ComponentCommand("forget", "let an address be like any other", orders.forget, (ADDRESS,)),
        ComponentCommand("list", "the addresses, with counts", orders.show, (
            Argument("user", "this user's alone", required=False),
        )),
    )  # fmt: skip


class _Orders:
    def __init__(self, book: SubaddressBook, separator: str) -> None:
        self._book = book
        self._separator = separator

    async def open(self, address: str, domain: str | None = None, by: str = "") -> str:
        """What was done, in words."""
        user, detail = self._split(address)
        before = await self._book.get(user, detail)
        known = before.domain if before is not None else ""
        whose = known if domain is None else _domain(domain)
        opened = Subaddress(user, detail, whose, "opened", self._book.now, by[:WHO_CHARACTERS])
        await self._put(opened)
        whom = {"": "whoever writes first", ANYBODY: "anybody"}.get(opened.domain, opened.domain)
        return f"{self._words(opened)} is for {whom}"

    async def close(self, address: str, by: str = "") -> str:
        """What was done, in words."""
        user, detail = self._split(address)
        before = await self._book.get(user, detail)
        closed = Subaddress(user, detail, before.domain if before else "", "closed", self._book.now, by[:WHO_CHARACTERS])
        await self._put(closed)
        return f"{self._words(closed)} takes no more mail"

    async def forget(self, address: str) -> str:
        """What was done, in words."""
        user, detail = self._split(address)
        there = await self._book.get(user, detail)
        if there is None:
            raise CannotDo(f"nothing is known of {address}")
        await self._book.drop(there)
        return f"{self._words(there)} is like any other address"

    async def show(self, user: str = "") -> list[dict[str, Any]]:
        """A row for each."""
        try:
            found = await self._book.of(read_user(user, self._separator) if user else "")
        except ValueError as error:
            raise CannotDo(f"{user}: {error}") from error
        if len(found) > SHOWN_MOST:
            raise CannotDo(f"there are {len(found)} addresses: name a user (`mailserver records export` has all)")
        return [await self._row(one) for one in found]

    async def _row(self, one: Subaddress) -> dict[str, Any]:
        right, other, refused = await self._book.counts(one)
        return {
            "address": self._words(one), "domain": one.domain, "state": "closed" if one.is_closed else "open",
            "how": one.how, "since": one.at, "by": one.by, "right": right, "other": other, "refused": refused,
        }  # fmt: skip

    async def _put(self, address: Subaddress) -> None:
        try:
            await self._book.put(address)
        except ValueError as error:
            raise CannotDo(str(error)) from error

    def _split(self, text: str) -> tuple[str, str]:
        try:
            found = split_subaddress(Address.parse(text, utf8=True), self._separator)
        except ValueError as error:
            raise CannotDo(f"{text}: {error}") from error
        if found is None:
            raise CannotDo(f"{text} has no detail: it is written name{self._separator}detail@domain")
        return found

    def _words(self, one: Subaddress) -> str:
        local, _, domain = one.user.rpartition("@")
        return f"{local}{self._separator}{one.detail}@{domain}"


def _domain(text: str) -> str:
    if text == ANYBODY:
        return ANYBODY
    try:
        _, value = read_subject(f"domain:{text.rpartition('@')[2].removeprefix('.')}")
    except ValueError as error:
        raise CannotDo(f"{text}: {error}") from error
    if "." not in value:
        raise CannotDo(f"{text} is no domain of somebody")
    return value
