"""Addresses that can be burnt: `alice+shop@example.org` is for one sender, and is closed by one command.

Who gets an address of his own and gives it away is known by that: mail from another domain to it is a finding, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from zope.interface import implementer

from mailserver.api import (
    ComponentCommand,
    Content,
    Envelope,
    Finding,
    IAccountFollower,
    ICommands,
    IComponentFactory,
    IRecipientContentFilter,
    IRecipientFilter,
    Options,
    Pass,
    Quarantine,
    Recipient,
    Refuse,
    Services,
    Verdict,
)
from mailserver.filters.contact_claims import Claims, claims_of, is_report
from mailserver.filters.followed_records import FollowedRecords, FollowsAccounts, KeyPart
from mailserver.filters.subaddress_book import Subaddress, SubaddressBook, split_subaddress
from mailserver.filters.subaddress_commands import commands_of

__all__ = ["Subaddresses", "SubaddressesOptions", "factory"]

FINDING = "subaddress"
ACCEPTED = "accepted"
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class SubaddressesOptions(Options):
    """What follows from mail to an address that was given to somebody else."""

    learn: bool = False
    """Whether every subaddress is for whoever writes to it first; else those that a command has opened are."""
    other: Literal["finding", "quarantine", "refuse"] = "finding"
    """What mail from another domain leads to: a finding alone, or the message is put aside or refused, too."""
    score: Score = 3.0
    """The score of that finding."""
    addresses: Annotated[int, Field(ge=10, le=10_000)] = 1000
    """How many are kept of each user."""
    separator: str = Field(default="+", min_length=1, max_length=1)
    """What divides a user's name from the detail."""


@implementer(IRecipientFilter, IRecipientContentFilter, ICommands, IAccountFollower)
class Subaddresses(FollowsAccounts):
    """A closed address refuses at RCPT.  Who has sent a message is known after the data."""

    cost = 0.5
    hard = True  # an allow entry for its sender does not open an address that its user has closed

    def __init__(self, options: SubaddressesOptions, book: SubaddressBook, followed: FollowedRecords) -> None:
        self._options = options
        self._book = book
        self._followed = followed

    def commands(self) -> Sequence[ComponentCommand]:
        """``open``, ``close``, ``forget`` and ``list``."""
        return commands_of(self._book, separator=self._options.separator)

    # --- Renamed and removed users. ---

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """No for a closed one: there is no such address any more."""
        found = split_subaddress(recipient.address, self._options.separator)
        address = None if found is None else await self._book.get(*found)
        if address is None or not address.is_closed:
            return Pass()
        await self._book.count("refused", address)
        return _closed(address)

    async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Verdict:
        """Whether it is from whom the address was given to."""
        found = split_subaddress(recipient.address, self._options.separator)
        if found is None or envelope.peer.login:
            return Pass()
        address = await self._book.get(*found)
        if address is not None and address.is_closed:
            return _closed(address)
        claims = claims_of(envelope, content)
        if address is None or not address.domain:
            if (address is not None or self._options.learn) and not is_report(envelope, content):
                return await self._learnt(found, address, claims)
            return Pass()
        return await self._judged(address, envelope, claims)

    async def _learnt(self, found: tuple[str, str], before: Subaddress | None, claims: Claims) -> Verdict:
        """It is for the domain of whoever writes first, if that is shown: what anybody says gives it to nobody."""
        domain = next((one.rpartition("@")[2] for one in claims.senders if claims.proves(f"address:{one}")), "")
        if not domain or domain.startswith("["):
            return Pass()
        by = "" if before is None else before.by
        address = Subaddress(*found, domain, "learnt" if before is None else before.how, self._book.now, by)
        if await self._book.learn(address, before):
            await self._book.count("right", address)
        return Pass(findings=(_finding(address, "pass", f"{domain} is the first to write to it", 0.0, aligned=True),))

    async def _judged(self, address: Subaddress, envelope: Envelope, claims: Claims) -> Verdict:
        right = [one for one in claims.senders if address.is_for(one.rpartition("@")[2])]
        if right or not claims.senders:
            shown = any(claims.proves(f"address:{one}") for one in right)
            await self._book.count("right", address)
            return Pass(findings=(_finding(address, "pass", "from whom it was given to", 0.0, aligned=shown),))
        await self._book.count("other", address)
        words = f"{claims.senders[0]} writes to an address that was given to {address.domain}"
        findings = (_finding(address, "fail", words, self._options.score, aligned=False),)
        is_friend = any(one.name == ACCEPTED for one in envelope.findings)
        if self._options.other == "finding" or is_friend:
            return Pass(findings=findings)
        return (Refuse if self._options.other == "refuse" else Quarantine)(words, findings=findings)


def _closed(address: Subaddress) -> Verdict:
    """5.1.1, so that whoever sends to lists takes it off them."""
    words = f"{address.user} has closed the address with {address.detail}"
    return Refuse(words, enhanced="5.1.1", findings=(_finding(address, "closed", words, 0.0, aligned=False),))


def _finding(address: Subaddress, result: str, words: str, score: float, *, aligned: bool) -> Finding:
    names: dict[str, str | bool] = {"user": address.user, "detail": address.detail, "domain": address.domain}
    return Finding(FINDING, score, words[:1000], {"result": result, **names, "aligned": aligned})


@implementer(IComponentFactory)
class SubaddressesFactory:
    """Makes the filter for ``[[filter]] use = "subaddresses"``."""

    name = "subaddresses"
    summary = "Knows to whom users have given an address of its own (alice+shop@), and refuses those that are closed."
    api_version = "1.0"
    replays = True
    provides = (IRecipientFilter, IRecipientContentFilter)
    options = SubaddressesOptions

    def build(self, options: Any, services: Services) -> Subaddresses:
        """Return the filter."""
        book = SubaddressBook(services.records, clock=services.clock, state=services.state, most=options.addresses)
        followed = FollowedRecords(
            services.records, KeyPart(1), separator="", state=services.state, in_state=KeyPart(1), clock=services.clock
        )
        return Subaddresses(options, book, followed)


factory = SubaddressesFactory()
