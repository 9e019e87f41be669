"""White, black and grey lists of the site, of domains and of users, kept in records and changed while the server runs.

Each recipient's mail goes by his own entries, his domain's and the site's.  An allow entry is an Accept: it takes suspicion
away and nothing that is hard.  For an address or a domain it wants evidence: SPF, DKIM or DMARC has passed for that domain.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Accept,
    AddressError,
    Clock,
    ComponentCommand,
    Content,
    Envelope,
    Finding,
    IAccountFollower,
    ICommands,
    IComponent,
    IComponentFactory,
    IPeriodic,
    IRecipientContentFilter,
    IRecipientFilter,
    IRecords,
    ISenderFilter,
    IStateStore,
    LookupFailed,
    Options,
    Pass,
    Peer,
    Quarantine,
    Recipient,
    Refuse,
    Services,
    StorageBroken,
    Verdict,
    normal_domain,
)
from mailserver.filters.evidence import author_of, normal_addresses, proofs_of
from mailserver.filters.followed_records import FollowedRecords, FollowsAccounts, KeyPart
from mailserver.filters.list_book import HIT_SECONDS, ListBook, hits_key
from mailserver.filters.list_commands import commands_of
from mailserver.filters.list_entries import SITE, Entry, scopes_of
from mailserver.filters.list_table import Choice, Subject, choose

__all__ = ["Lists", "ListsOptions", "factory"]

FINDING = "list"
UNPROVED_MOST = 5  # findings about allow entries that lack evidence
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class ListsOptions(Options):
    """What entries lead to; the entries themselves stand in the records."""

    black: Literal["refuse", "quarantine"] = "refuse"
    """What a black entry leads to: the recipient is refused, or the message put aside for him."""
    grey: Score = 3.0
    """The score of the finding of a grey entry."""
    separator: str = Field(default="+", max_length=1)
    """What divides a user's name from a detail: mail for `alice+shop@example.org` goes by alice's entries, too. Empty: none."""


@implementer(ISenderFilter, IRecipientFilter, IRecipientContentFilter, IComponent, IPeriodic, ICommands, IAccountFollower)
class Lists(FollowsAccounts):
    """Decides at RCPT, and after the data where only the message shows who has sent it.

    At MAIL it only speaks of what no user can say otherwise: the site's hard entries, and allow entries of the site, lest
    somebody who is welcome be refused there.
    """

    cost = 0.5  # behind SPF, in front of the greylist and of those who ask lists in the DNS
    interval_seconds = 60.0
    deadline_seconds = 60.0
    log = Logger()

    def __init__(
        self, options: ListsOptions, *, name: str, records: IRecords, state: IStateStore, clock: Clock
    ) -> None:
        self._name = name
        self._black = Refuse if options.black == "refuse" else Quarantine
        self._grey = options.grey
        self._separator = options.separator
        self._state = state
        self._clock = clock
        self._book = ListBook(records, clock=clock, state=state)
        self._followed = FollowedRecords(
            records, KeyPart(0), separator=options.separator, state=state, in_state=KeyPart(1), clock=clock
        )

    # --- Life. ---

    async def start(self) -> None:
        """Read all entries."""
        await self._book.read()

    async def stop(self) -> None:
        """Nothing is open."""

    async def run_periodically(self) -> None:
        """Drop what has ended, and read what an import has put there."""
        await self._book.read()
        await self._book.drop_ended()

    def commands(self) -> Sequence[ComponentCommand]:
        """``add``, ``remove``, ``show`` and ``test``."""
        return commands_of(self._book, separator=self._separator)

    # --- Renamed and removed users. ---

    async def _read_anew(self) -> None:
        await self._book.read_anew()

    # --- Judging. ---

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """A hard entry of the site decides; an allow entry of the site spares the others of this stage."""
        table = self._book.table
        if not table:
            return Pass()
        subject = await self._subject(envelope)
        matching = table.matching(subject, [SITE], self._clock.seconds())
        first = matching[0] if matching else None
        if first is None or (first.colour == "white" and not subject.is_proved(first)):
            return Pass()
        if first.colour == "white":
            if not first.hard and table.somebody_is_against(subject):
                return Pass()
            return Accept(first.words)
        return await self._said(first, envelope) if first.hard else Pass()

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """What this recipient's entries say, where the message cannot change it."""
        if not self._book.table:
            return Pass()
        choice = self._choice(await self._subject(envelope), recipient)
        if choice.unproved:
            return Pass()  # a signature may show it: the message decides
        return Pass() if choice.entry is None else await self._said(choice.entry, envelope)

    async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Verdict:
        """The same with what the message shows: who has written it, and who has signed it."""
        if not self._book.table:
            return Pass()
        choice = self._choice(await self._subject(envelope, content), recipient)
        unproved = tuple([_finding(one, 0.0, "unproved") for one in choice.unproved[:UNPROVED_MOST]])
        if choice.entry is None:
            return Pass(findings=unproved)
        return await self._said(choice.entry, envelope, unproved)

    def _choice(self, subject: Subject, recipient: Recipient) -> Choice:
        scopes = scopes_of(recipient.address, self._separator)
        return choose(self._book.table.matching(subject, scopes, self._clock.seconds()), subject)

    async def _said(self, entry: Entry, envelope: Envelope, more: tuple[Finding, ...] = ()) -> Verdict:
        if not self._has_said(entry, envelope):
            await self._count(entry)
            more = (_finding(entry, self._grey if entry.colour == "grey" else 0.0, "decides"), *more)
        if entry.colour == "white":
            return Accept(entry.words, findings=more)
        if entry.colour == "grey":
            return Pass(findings=more)
        return self._black(entry.words, findings=more)

    def _has_said(self, entry: Entry, envelope: Envelope) -> bool:
        """At RCPT, of this recipient: it is neither counted nor weighed twice."""
        return any(
            one.name == FINDING
            and one.source == self._name
            and one.properties.get("result") == "decides"
            and (one.properties.get("of"), one.properties.get("entry")) == (entry.scope, entry.name)
            for one in envelope.findings
        )

    async def _count(self, entry: Entry) -> None:
        """Hits are for people: mail does not wait for a store that cannot keep them."""
        try:
            await self._state.add(hits_key(entry), 1, HIT_SECONDS)
        except StorageBroken as fault:
            self.log.warn("a hit of {entry} is not counted: {fault}", entry=entry.words, fault=fault)

    async def _subject(self, envelope: Envelope, content: Content | None = None) -> Subject:
        peer = envelope.peer
        senders = [] if envelope.sender is None else normal_addresses([envelope.sender])
        if content is not None:
            senders += [one for one in normal_addresses(author_of(content)) if one not in senders]
        names = await self._names(peer)
        hello = _domain(peer.hello)
        signers, proved, spf = proofs_of(envelope)
        hello_is_proved = bool(hello) and (("helo", hello) in spf or hello in names)
        return Subject(tuple(senders), peer.ip, hello, names, signers, proved, hello_is_proved)

    async def _names(self, peer: Peer) -> tuple[str, ...]:
        if not self._book.table.wants_names():
            return ()
        try:
            return tuple(filter(None, map(_domain, await peer.names())))
        except LookupFailed:
            return ()  # no entry about a name fits then, neither for him nor against him


def _finding(entry: Entry, score: float, result: str) -> Finding:
    words = entry.words if result == "decides" else f"{entry.words}: nothing shows that the message is from there"
    scope = {"scope": entry.scope_name, "of": entry.scope}
    return Finding(FINDING, score, words[:1000], {**scope, "entry": entry.name, "colour": entry.colour, "result": result})


@functools.lru_cache(4096)  # of each peer at three stages of each message
def _domain(name: str) -> str:
    try:
        return "" if name.startswith("[") else normal_domain(name).rstrip(".")
    except AddressError:
        return ""


@implementer(IComponentFactory)
class ListsFactory:
    """Makes the filter for ``[[filter]] use = "lists"``."""

    name = "lists"
    summary = "White, black and grey lists of the site, of domains and of users, changed while the server runs."
    api_version = "1.0"
    replays = True
    provides = (ISenderFilter, IRecipientFilter, IRecipientContentFilter)
    options = ListsOptions

    def build(self, options: Any, services: Services) -> Lists:
        """Return the filter."""
        return Lists(options, name=services.name, records=services.records, state=services.state, clock=services.clock)


factory = ListsFactory()
