"""What people may do with contacts and expected mail: the same commands for a server that runs and for its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailserver.api import Argument, CannotDo, ComponentCommand
from mailserver.filters.contact_book import ContactBook
from mailserver.filters.contact_decisions import Choice, Decided, Decisions
from mailserver.filters.contact_records import (
    WHO_CHARACTERS,
    Contact,
    Window,
    encoded,
    read_subject_of_contact,
    read_user,
)
from mailserver.filters.list_entries import read_scope, read_subject

__all__ = ["MINUTES_MOST", "commands_of"]

MINUTES_MOST = 24 * 60
SHOWN_MOST = 1000
USER = Argument("user", "the user's address")
SENDER = Argument("sender", "an address, or a domain; .example.org is all below it")
BY = Argument("by", "who says so", required=False)
ONCE = Argument("once", "what is held now, and nothing more", kind="flag", required=False)


def commands_of(book: ContactBook, decisions: Decisions, *, separator: str) -> Sequence[ComponentCommand]:
    """Of contacts: ``list``, ``pending``, ``accept``, ``refuse``, ``forget``, ``clear``, ``hold``, ``rules``; of expected mail:
    ``expect``, ``expected``, ``unexpect``."""
    orders = _Orders(book, decisions, separator)
    evidence = Argument(
        "evidence", "none: whoever says that he is the one is taken for him", required=False, choices=("aligned", "none")
    )
    holds = Argument("holds", "on, off, or default: as the domain or the site says", choices=("on", "off", "default"))
    domain = Argument("domain", "from this domain and those below it; absent: from anybody", required=False)
    return (
        ComponentCommand("list", "a user's contacts and decisions", orders.contacts, (USER,)),
        ComponentCommand("pending", "what waits for a user's decision", orders.pending, (USER,)),
        ComponentCommand("accept", "deliver what is held from a sender, and what comes", orders.accept, (
            USER, SENDER, ONCE, evidence, BY,
        )),
        ComponentCommand("refuse", "refuse a sender's mail", orders.refuse, (USER, SENDER, ONCE, BY)),
        ComponentCommand("forget", "let a contact or a decision be none", orders.forget, (USER, SENDER)),
        ComponentCommand("clear", "forget all that is kept of a user", orders.clear, (USER,)),
        ComponentCommand("hold", "whether mail from strangers is held", orders.hold, (
            Argument("scope", "a user's address, @DOMAIN, or site"), holds, BY,
        )),
        ComponentCommand("rules", "where mail from strangers is held", orders.rules),
        ComponentCommand("expect", "take a user's mail without delay for a while", orders.expect, (
            USER, Argument("minutes", f"for so long, {MINUTES_MOST} at most", kind="number"), domain, BY,
        )),
        ComponentCommand("expected", "whose mail is expected", orders.expected, (
            Argument("user", "this user alone", required=False),
        )),
        ComponentCommand("unexpect", "end that", orders.unexpect, (USER, domain)),
    )  # fmt: skip


class _Orders:
    def __init__(self, book: ContactBook, decisions: Decisions, separator: str) -> None:
        self._book = book
        self._decisions = decisions
        self._separator = separator

    # --- Contacts. ---

    async def contacts(self, user: str) -> list[dict[str, Any]]:
        """A row for each, the newest first."""
        contacts = (await self._book.contacts_of(self._user(user))).values()
        shown = sorted(contacts, key=lambda one: (-one.at, one.subject))[:SHOWN_MOST]
        return [_row(one) for one in shown]

    async def pending(self, user: str) -> list[dict[str, Any]]:
        """A row for each held copy, the oldest first."""
        rows = []
        async for one in self._decisions.held(self._user(user)):
            rows.append({
                "id": one.id, "sender": one.sender.partition(":")[2], "evidence": one.evidence, "author": one.author,
                "subject": one.subject, "since": one.since, "until": one.until,
            })  # fmt: skip
            if len(rows) == SHOWN_MOST:
                break
        return rows

    async def accept(self, user: str, sender: str, once: bool = False, evidence: str = "", by: str = "") -> str:
        """What was done, in words."""
        if once and evidence:
            raise CannotDo("evidence is for mail that comes: not with once")
        return await self._decide(user, sender, "once" if once else "accept", by, evidence)

    async def refuse(self, user: str, sender: str, once: bool = False, by: str = "") -> str:
        """What was done, in words."""
        return await self._decide(user, sender, "refuse-once" if once else "refuse", by)

    async def _decide(self, user: str, sender: str, choice: Choice, by: str, evidence: str = "") -> str:
        name, subject = self._user(user), _subject(sender)
        try:
            done = await self._decisions.decide(name, subject, choice, by=by[:WHO_CHARACTERS], evidence=evidence)
        except ValueError as error:
            raise CannotDo(str(error)) from error
        return _words(name, subject, choice, done)

    async def forget(self, user: str, sender: str) -> str:
        """What was done, in words."""
        name, subject = self._user(user), _subject(sender)
        before = await self._book.forget(name, subject)
        if before is None:
            raise CannotDo(f"{subject.partition(':')[2]} is no contact of {name}")
        return f"forgotten: {subject.partition(':')[2]} ({before.state}), a contact of {name}"

    async def clear(self, user: str) -> str:
        """What was done, in words."""
        name = self._user(user)
        count = await self._book.clear(name)
        return f"forgotten: {count} record{'' if count == 1 else 's'} of {name}"

    # --- Rules. ---

    async def hold(self, scope: str, holds: str, by: str = "") -> str:
        """What was done, in words."""
        try:
            read = read_scope(scope)
            if read and not read.startswith("@"):
                read = self._user(read)
        except ValueError as error:
            raise CannotDo(str(error)) from error
        wanted = {"on": True, "off": False, "default": None}.get(holds)
        kept = {"hold": wanted, "at": self._book.now, **({"by": by[:WHO_CHARACTERS]} if by else {})}
        await self._book.set_hold(read, wanted, encoded(kept))
        words = {True: "is held until they decide", False: "is not held", None: "goes by the domain or the site"}
        return f"mail from strangers for {read or 'the site'} {words[wanted]}"

    async def rules(self) -> list[dict[str, Any]]:
        """A row for each scope that has one."""
        return [{"scope": scope or "site", "hold": holds} for scope, holds in sorted(self._book.holds.items())]

    # --- Expected mail. ---

    async def expect(self, user: str, minutes: float, domain: str = "", by: str = "") -> str:
        """What was done, in words."""
        name, side = self._user(user), _domain(domain)
        if not 0 < minutes <= MINUTES_MOST:
            raise CannotDo(f"mail is expected for {MINUTES_MOST} minutes at most")
        now = self._book.now
        try:
            await self._book.expect(Window(name, side, now + minutes * 60, now, by[:WHO_CHARACTERS]))
        except ValueError as error:
            raise CannotDo(str(error)) from error
        return f"{name} expects mail from {side or 'anybody'} for {minutes:g} minutes"

    async def expected(self, user: str = "") -> list[dict[str, Any]]:
        """A row for each window that is open."""
        name = self._user(user) if user else ""
        found = [one for of_user in self._book.windows.values() for one in of_user.values() if one.until > self._book.now]
        rows = sorted([one for one in found if name in ("", one.user)], key=lambda one: (one.user, one.domain))
        return [
            {"user": one.user, "domain": one.domain, "until": one.until, "since": one.at, "by": one.by}
            for one in rows[:SHOWN_MOST]
        ]

    async def unexpect(self, user: str, domain: str | None = None) -> str:
        """What was done, in words: this window is closed, without a domain all of the user's."""
        name, side = self._user(user), None if domain is None else _domain(domain)
        there = [one for one in self._book.windows.get(name, {}).values() if one.until > self._book.now]
        ended = [one for one in there if side in (None, one.domain) and await self._book.end_window(one)]
        if not ended:
            raise CannotDo(f"{name} expects no mail" + (f" from {side}" if side else ""))
        return f"{name} expects no mail any more from {', '.join([one.domain or 'anybody' for one in ended])}"

    def _user(self, text: str) -> str:
        try:
            return read_user(text, self._separator)
        except ValueError as error:
            raise CannotDo(f"{text}: {error}") from error


def _subject(text: str) -> str:
    try:
        return read_subject_of_contact(text)
    except ValueError as error:
        raise CannotDo(f"{text}: {error}") from error


def _domain(text: str) -> str:
    try:
        return read_subject(f"domain:{text.removeprefix('@').removeprefix('.')}")[1] if text else ""
    except ValueError as error:
        raise CannotDo(f"{text}: {error}") from error


def _row(contact: Contact) -> dict[str, Any]:
    kind, _, value = contact.subject.partition(":")
    return {
        "contact": value, "kind": kind, "state": contact.state,
        "evidence": "aligned" if contact.needs_evidence else "none", "since": contact.at, "by": contact.by,
    }  # fmt: skip


def _words(user: str, subject: str, choice: Choice, done: Decided) -> str:
    name = subject.partition(":")[2]
    what = {
        "accept": f"{user} takes mail from {name}",
        "once": f"{user} takes what was held from {name}",
        "refuse": f"{user} refuses mail from {name}",
        "refuse-once": f"{user} refuses what was held from {name}",
    }[choice]
    where = {"release": "delivered", "junk": "put into Junk", "drop": "thrown away"}[done.verb]
    words = f"{what}; {done.done} held message{'' if done.done == 1 else 's'} {where}"
    if done.waits:
        words = f"{what}; what is held waits until a server can look after it"
    if done.contact is not None and choice == "accept" and not done.contact.needs_evidence:
        words += "; whoever says that he is this one is believed, since nothing showed where the mail was from"
    return words
