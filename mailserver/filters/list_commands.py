"""What people may do with the lists: the same commands for a server that runs and for its files."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from mailserver.api import Address, AddressError, Argument, CannotDo, ComponentCommand
from mailserver.filters.list_book import ListBook
from mailserver.filters.list_entries import COLOURS, SITE, Entry, read_scope, read_subject, scopes_of
from mailserver.filters.list_table import Subject, choose

__all__ = ["commands_of"]

SHOWN_MOST = 1000
ENTRY = Argument("entry", "an address, a domain, a network, or helo:NAME, ptr:NAME, dkim:DOMAIN; .example.org is all below it")
SCOPE = Argument("scope", "whose it is: a user's address, @DOMAIN; absent: the site's", required=False)


def commands_of(book: ListBook, *, separator: str) -> Sequence[ComponentCommand]:
    """``add``, ``remove``, ``show``, ``test``."""
    orders = _Orders(book, separator)
    add = (
        Argument("colour", "white, black or grey", choices=COLOURS),
        ENTRY,
        SCOPE,
        Argument(
            "evidence", "none: it helps whoever says that he is the one", required=False, choices=("aligned", "none")
        ),
        Argument("hard", "before all entries of users and domains", kind="flag", required=False),
        Argument("seconds", "how long it holds; absent: for good", kind="number", required=False),
        Argument("comment", "why", required=False),
        Argument("by", "who adds it", required=False),
    )
    test = (
        Argument("sender", "the sender's address"),
        Argument("recipient", "the recipient's address", required=False),
        Argument("ip", "the peer's address", required=False),
        Argument("helo", "what it calls itself", required=False),
        Argument("ptr", "the name that the DNS has for it", required=False),
        Argument("dkim", "a domain whose signature verifies", required=False),
        Argument("spf", "a domain for which SPF passes", required=False),
    )
    return (
        ComponentCommand("add", "add an entry, or put another in its place", orders.add, add),
        ComponentCommand("remove", "remove an entry", orders.remove, (ENTRY, SCOPE)),
        ComponentCommand("show", "the entries, of all or of one scope", orders.show, (
            Argument("scope", "site, @DOMAIN or a user's address; absent: all", required=False),
            Argument("entry", "this one alone", required=False),
        )),
        ComponentCommand("test", "which entries speak of a message, and which decides", orders.test, test),
    )  # fmt: skip


class _Orders:
    def __init__(self, book: ListBook, separator: str) -> None:
        self._book = book
        self._separator = separator

    async def add(
        self, colour: str, entry: str, scope: str = SITE, evidence: str = "aligned", hard: bool = False,
        seconds: float | None = None, comment: str = "", by: str = "",
    ) -> str:  # fmt: skip
        """What was done, in words."""
        now = self._book.now
        try:
            if seconds is not None and not seconds > 0:
                raise ValueError("an entry holds for more than no time")
            added = Entry(
                read_scope(scope), *read_subject(entry), colour, needs_evidence=evidence != "none", hard=hard,
                until=None if seconds is None else now + seconds, comment=comment, added_by=by, added=now,
            )  # fmt: skip
            before = await self._book.put(added)
        except ValueError as error:  # AddressError among it
            raise CannotDo(str(error)) from error
        warning = ""
        if added.is_proved_by_claim:
            warning = "; it helps whoever says that he is the one, since it wants no evidence"
        return f"{added.words}{' in the place of ' + before.words if before is not None else ''}{warning}"

    async def remove(self, entry: str, scope: str = SITE) -> str:
        """What was done, in words."""
        there = self._there(entry, scope)
        if there is None:
            raise CannotDo(f"there is no entry {entry} of {scope or 'the site'}")
        await self._book.drop(there)
        return f"removed: {there.words}"

    async def show(self, scope: str | None = None, entry: str | None = None) -> list[dict[str, Any]]:
        """A row for each entry."""
        try:
            wanted = None if scope is None else read_scope(scope)
            subject = None if entry is None else read_subject(entry)
        except ValueError as error:
            raise CannotDo(str(error)) from error
        found = [
            one for one in self._book.table
            if wanted in (None, one.scope) and subject in (None, (one.kind, one.value))
        ]  # fmt: skip
        if len(found) > SHOWN_MOST:
            raise CannotDo(f"there are {len(found)} entries: name a scope or an entry (`mailserver records export` has all)")
        found.sort(key=lambda one: (one.scope, one.kind, one.value))
        return [await self._row(one) for one in found]

    async def test(
        self, sender: str, recipient: str = "", ip: str = "", helo: str = "", ptr: str = "", dkim: str = "", spf: str = ""
    ) -> list[dict[str, Any]]:
        """A row for each entry that speaks of it, in the order in which they are looked at."""
        try:
            kind, value = read_subject(f"address:{sender}") if sender not in ("", "<>") else ("", "")
            to = [SITE] if not recipient else scopes_of(Address.parse(recipient, utf8=True), self._separator)
            signers = frozenset([read_subject(f"dkim:{dkim}")[1]] if dkim else [])
            passed = frozenset([read_subject(f"domain:{spf}")[1]] if spf else [])
            names = (read_subject(f"ptr:{ptr}")[1],) if ptr else ()
            hello = read_subject(f"helo:{helo}")[1] if helo else ""
            address = ip_address(ip) if ip else None
        except ValueError as error:
            raise CannotDo(str(error)) from error
        proved = signers | passed
        subject = Subject((value,) if kind else (), address, hello, names, signers, proved, hello in passed or hello in names)
        matching = self._book.table.matching(subject, to, self._book.now)
        choice = choose(matching, subject)
        says = {id(one): "lacks evidence" for one in choice.unproved}
        if choice.entry is not None:
            says[id(choice.entry)] = "decides"
        return [{"says": says.get(id(one), "comes too late"), **_named(one)} for one in matching]

    def _there(self, entry: str, scope: str) -> Entry | None:
        try:
            return self._book.table.get(read_scope(scope), *read_subject(entry))
        except (AddressError, ValueError) as error:
            raise CannotDo(str(error)) from error

    async def _row(self, entry: Entry) -> dict[str, Any]:
        return {
            **_named(entry),
            "hits": await self._book.hits(entry),
            "until": entry.until,
            "ended": entry.has_ended(self._book.now),
            "added": entry.added,
            "by": entry.added_by,
            "comment": entry.comment,
        }


def _named(entry: Entry) -> dict[str, Any]:
    return {
        "scope": entry.scope or "site",
        "colour": entry.colour,
        "entry": entry.name,
        "hard": entry.hard,
        "evidence": "aligned" if entry.needs_evidence else "none",
    }
