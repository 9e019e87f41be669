"""What a user decides about who writes to him, and what becomes of the mail that is held for him.

A decision is three steps: the contact is kept, then an order, then the held copies go where the order says.  A server that dies
between two of them finds the order again and carries it out; and an order stands for a while, so that it is carried out, too, for
a copy that was judged before the decision and committed after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twisted.logger import Logger

from mailserver.api import StorageFault
from mailserver.filters.contact_book import ContactBook
from mailserver.filters.contact_records import Contact, HeldOrder, Verb
from mailserver.filters.evidence import domain_forms

__all__ = ["CHOICES", "FINDING", "NEW", "Choice", "Decided", "Decisions", "HeldMail"]

FINDING = "contact"
NEW = "new"
PAGE = 200
EVIDENCE = ("pass", "none", "fail")
STANDS_SECONDS = 600.0  # longer than a message takes from its judgement to its commit
Choice = Literal["accept", "once", "refuse", "refuse-once"]
CHOICES: Sequence[Choice] = ("accept", "once", "refuse", "refuse-once")


@dataclass(frozen=True, slots=True)
class HeldMail:
    """A copy that waits for the decision of `user`.  `sender` is the contact that it would be, ``address:bob@example.net``.

    `evidence` is "pass" where it is shown that the message is from there, "fail" where the domain denies it, else "none".
    `is_suspect`: another filter has put it aside, too.
    """

    id: str
    user: str
    sender: str
    evidence: str
    author: str
    subject: str
    since: float
    until: float | None
    is_suspect: bool = False

    def is_from(self, subject: str) -> bool:
        """Whether a contact with this subject would be its sender."""
        if subject.startswith("address:"):
            return self.sender == subject
        return subject.removeprefix("domain:") in domain_forms(self.sender.rpartition("@")[2])


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision has come to: what is kept of the sender, how many copies went where they should, how many could not yet."""

    contact: Contact | None
    verb: Verb
    done: int
    waits: bool = False


class Decisions:
    """`quarantine` is an `IQuarantine`, None where there is no server; `refused` is what becomes of held mail that is refused."""

    log = Logger()

    def __init__(self, book: ContactBook, quarantine: Any, *, name: str, refused: Verb) -> None:
        self._book = book
        self._quarantine = quarantine
        self._name = name
        self._refused = refused

    async def decide(
        self, user: str, subject: str, choice: Choice, *, by: str, evidence: str = "", at: float | None = None
    ) -> Decided:
        """Raises what `ContactBook` does.  Done twice it is as done once.

        `evidence`: "none" where who says that he is the one is to be believed, "aligned" where not, "" as the held mail is: whose
        mail was accepted though nothing showed where it was from will send more of that kind.  What a domain denies is believed
        once at most.
        """
        now = self._book.now if at is None else at
        contact = None
        if choice in ("accept", "refuse"):
            kinds = await self._evidence(user, subject)
            is_address = subject.startswith("address:")  # of a whole domain nobody is believed unless that is asked for
            believes = choice == "accept" and (evidence == "none" or (not evidence and is_address and kinds == {"none"}))
            state: Any = "accepted" if choice == "accept" else "refused"
            contact = Contact(user, subject, state, needs_evidence=not believes, at=now, by=by)
            await self._book.keep(contact)
        order = HeldOrder(user, subject, "release" if choice in ("accept", "once") else self._refused, now, by)
        await self._book.order(order)
        if self._quarantine is None:  # the server will
            return Decided(contact, order.verb, 0, waits=True)
        try:
            return Decided(contact, order.verb, await self._carry_out(order))
        except StorageFault as fault:  # the order stands
            self.log.error("held mail of {user} waits for the queue: {fault}", user=user, fault=fault)
            return Decided(contact, order.verb, 0, waits=True)

    async def _evidence(self, user: str, subject: str) -> set[str]:
        """What is known of the held mail."""
        try:
            return {one.evidence async for one in self.held(user) if one.is_from(subject)}
        except StorageFault:
            return set()

    async def carry_out_all(self) -> None:
        """What orders say of copies that have come meanwhile, or could not be had before.  One that fails stops no other."""
        for order in await self._book.orders():
            try:
                await self._carry_out(order)
            except StorageFault as fault:
                self.log.error("held mail of {user} waits for the queue: {fault}", user=order.user, fault=fault)
                continue
            if not 0 <= self._book.now - order.at < STANDS_SECONDS:
                await self._book.end_order(order)

    async def held(self, user: str = "") -> AsyncIterator[HeldMail]:
        """What waits for the decision of this user, of all users with "".  The oldest first."""
        if self._quarantine is None:
            return
        after = ""
        while page := await self._quarantine.held(recipient=_pattern(user), finding=FINDING, after=after, most=PAGE):
            for copy in page:
                found = self._held_mail(copy)
                if found is not None and user in ("", found.user):
                    yield found
            after = page[-1].id

    async def give_up(self, held: Sequence[HeldMail], by: str) -> None:
        """Nobody is asked (any more): it goes to Junk.

        What others hold goes where they say.  What is on its way to another host goes there: there is no Junk for it, and to hold
        it for good would lose it.
        """
        ids = [one.id for one in held if not one.is_suspect]
        done = set(await self._quarantine.to_junk(ids, by=by)) if ids else set()
        if others := [one.id for one in held if one.id not in done]:
            await self._quarantine.release(others, by=by)

    def _held_mail(self, copy: Any) -> HeldMail | None:
        if self._name not in copy.held_by:
            return None
        for one in copy.findings:
            properties = one.properties
            if one.source == self._name and one.name == FINDING and properties.get("result") == NEW:
                user, sender = str(properties.get("user", "")), str(properties.get("sender", ""))
                evidence = str(properties.get("evidence"))
                evidence = evidence if evidence in EVIDENCE else "none"
                others = len(copy.held_by) > 1
                return HeldMail(copy.id, user, sender, evidence, copy.author, copy.subject, copy.since, copy.until, others)
        return None

    async def _carry_out(self, order: HeldOrder) -> int:
        """How many copies there were."""
        held = [one async for one in self.held(order.user) if one.is_from(order.subject) and one.since <= order.at]
        if not held:
            return 0
        by = order.by or order.user
        ids = [one.id for one in held]
        if order.verb == "release":
            await self._quarantine.release(ids, by=by)
        elif order.verb == "drop":
            await self._quarantine.drop(ids, by=by)
        else:
            await self._refuse(held, by)
        return len(held)

    async def _refuse(self, held: Sequence[HeldMail], by: str) -> None:
        """To Junk.  What others hold is theirs to put aside; what has no Junk is not wanted anywhere."""
        ids = [one.id for one in held if not one.is_suspect]
        done = set(await self._quarantine.to_junk(ids, by=by)) if ids else set()
        if suspect := [one.id for one in held if one.is_suspect]:
            await self._quarantine.release(suspect, by=by)
        if remote := [id for id in ids if id not in done]:
            await self._quarantine.drop(remote, by=by)


def _pattern(user: str) -> str:
    """Recipients that may be this user's: with a detail behind the name."""
    if not user:
        return ""
    local, _, domain = user.rpartition("@")
    if not user.isascii() or "xn--" in domain:  # the recipient stands there as its sender has written it
        return ""
    return f"{_plain(local)}*@{_plain(domain)}"


def _plain(text: str) -> str:
    """What is a wildcard stands for itself, or any other character: what is found is looked at."""
    return "".join(["?" if one in "*?[]" else one for one in text])
