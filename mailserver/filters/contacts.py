"""Who a user has to do with: learnt from what he sends.  Mail from strangers may be held until he decides.

A contact is spared the greylist's delay where he says that he is the one, and is no stranger where that is shown (SPF, DKIM,
DMARC).  He is judged by all others like anybody.  One user's contacts and decisions are nobody else's.

Mail that a user expects (`mailserver expect`) is taken as if an allow entry stood for it, for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Accept,
    Address,
    AddressError,
    Clock,
    ComponentCommand,
    Content,
    Duration,
    Envelope,
    Finding,
    IAccountFollower,
    ICommands,
    IComponent,
    IComponentFactory,
    IMailReader,
    IPeriodic,
    IRecipientContentFilter,
    IRecipientFilter,
    IRecords,
    IStateStore,
    ITransactionEnd,
    Network,
    Options,
    Outcome,
    Pass,
    Peer,
    Quarantine,
    Recipient,
    Refuse,
    Services,
    StorageBroken,
    TransactionEnd,
    Verdict,
)
from mailserver.filters.contact_book import ContactBook
from mailserver.filters.contact_claims import Claims, claims_of, is_automatic, is_report
from mailserver.filters.contact_commands import commands_of
from mailserver.filters.contact_decisions import FINDING, NEW, Decisions
from mailserver.filters.contact_records import Contact, ContactPlace, owner_of
from mailserver.filters.contact_replies import Replies
from mailserver.filters.contact_rounds import Rounds
from mailserver.filters.contact_tokens import DECIDE, Tokens, claim_of
from mailserver.filters.evidence import normal_addresses
from mailserver.filters.followed_records import FollowedRecords, FollowsAccounts, KeyPart
from mailserver.filters.list_entries import scopes_of
from mailserver.mail.networks import is_public

__all__ = ["Contacts", "ContactsOptions", "factory"]

EXPECTED = "expected"
NEVER = frozenset(["postmaster", "abuse"])  # whoever has trouble with us must reach them
LEARNT_MOST = 100  # of one message: a newsletter makes no contacts
AUTOMATIC_MOST = 1000  # messages of users that are under way
WRITTEN_SECONDS = 400 * 86_400.0
DOUBTFUL = 1.0  # who is suspected of so much has not "written before"
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Facts = dict[str, str | int | float | bool | None]
Days = Annotated[Duration, Field(ge=3600, le=366 * 86_400)]


class ContactsOptions(Options):
    """Who is a contact, and what becomes of mail from strangers."""

    hold: bool = False
    """Whether mail from strangers is held until its recipient decides, where no rule (`mailserver contacts`) says otherwise."""
    junk_after: Days = 14 * 86_400.0
    """When what nobody has decided about goes to the Junk folder; less than `policy.held_expire`."""
    refused: Literal["junk", "drop"] = "junk"
    """Where held mail goes that is refused: the Junk folder, or nowhere."""
    digest: Duration = 86_400.0
    """How long after one message about held mail its user gets the next. 0: none, and no reply addresses."""
    learn: bool = True
    """Whether those become contacts to whom users write who have logged in."""
    contacts: Annotated[int, Field(ge=10, le=10_000)] = 2000
    """How many are kept of each user."""
    score: Score = 0.0
    """The score of a contact of whom it is shown that he is the one; below 0 it speaks for him."""
    exempt: tuple[Network, ...] = ()
    """Networks whose mail is never held, beside those that nobody has in the Internet."""
    separator: str = Field(default="+", max_length=1)
    """What divides a user's name from a detail: `alice+shop@example.org` is alice. Empty: nothing does."""


@implementer(
    IRecipientFilter, IRecipientContentFilter, ITransactionEnd, IMailReader, IComponent, IPeriodic, ICommands, IAccountFollower
)
class Contacts(FollowsAccounts):
    """At RCPT it knows what is claimed, after the data what is shown."""

    cost = 0.5  # in front of the greylist
    skippable = True
    interval_seconds = 10.0
    deadline_seconds = 300.0
    log = Logger()

    def __init__(
        self,
        options: ContactsOptions,
        *,
        book: ContactBook,
        decisions: Decisions,
        replies: Replies,
        rounds: Rounds,
        state: IStateStore | None,
        commands: Sequence[ComponentCommand],
        followed: FollowedRecords,
    ) -> None:
        self.reads = (DECIDE,) if options.digest else ()
        self._options = options
        self._book = book
        self._decisions = decisions
        self._replies = replies
        self._rounds = rounds
        self._state: Any = state
        self._commands = commands
        self._automatic: OrderedDict[str, None] = OrderedDict()  # by id, until they end
        self._followed = followed

    # --- Life. ---

    async def start(self) -> None:
        """Read rules and expected mail."""
        await self._book.read()

    async def stop(self) -> None:
        """Nothing is open."""

    async def run_periodically(self) -> None:
        """Take up what an import has brought, carry out what is owed, put into Junk what is old, tell users."""
        await self._book.read()
        await self._book.end_old_windows()
        await self._rounds.go()

    def commands(self) -> Sequence[ComponentCommand]:
        """What `mailserver contacts` and `mailserver expect` ask for."""
        return self._commands

    # --- Renamed and removed users. ---

    async def _read_anew(self) -> None:
        await self._book.read_anew()

    # --- Judging. ---

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """Expected mail is accepted, who was refused is refused; the greylist sees who says that he is a contact."""
        if claim_of(recipient.address) is not None:
            return await self._replies.judge_address(recipient.address)
        user = self._user(envelope.peer, recipient)
        if not user:
            return Pass()
        claims = claims_of(envelope)
        expected = self._expected(user, claims)
        contact = claims.contact(await self._book.contacts_of(user))
        if contact is not None and contact.state == "refused":
            return _refused(contact)
        return expected or (Pass() if contact is None else Pass(findings=(self._known(contact, claims, score=0.0),)))

    async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Verdict:
        """The same with what the message shows; and mail from strangers is held where that is wanted."""
        if envelope.peer.login and is_automatic(content):
            self._automatic[envelope.id] = None
            while len(self._automatic) > AUTOMATIC_MOST:
                self._automatic.popitem(last=False)
        if claim_of(recipient.address) is not None:
            return await self._replies.judge(envelope, content, recipient.address)
        user = self._user(envelope.peer, recipient)
        if not user:
            return Pass()
        claims = claims_of(envelope, content)
        expected = self._expected(user, claims)
        contact = claims.contact(await self._book.contacts_of(user))
        if contact is not None and contact.state == "refused":
            return _refused(contact)
        if expected is not None:
            return expected
        if contact is not None and claims.shows(contact):
            return Pass(findings=(self._known(contact, claims, score=self._options.score),))
        if await self._has_written(user, claims):
            facts: Facts = {"result": "pass", "user": user, "aligned": True}
            return Pass(findings=(Finding(FINDING, 0.0, "has written before", facts),))
        if not self._holds(recipient) or is_report(envelope, content):
            await self._remember(user, envelope, claims)
            return Pass()
        return self._stranger(user, claims, contact)

    def _stranger(self, user: str, claims: Claims, contact: Contact | None) -> Verdict:
        subject = claims.subject
        if not subject:
            return Quarantine("it names nobody as its sender: there is nothing to decide about")
        words = f"{subject.partition(':')[2]} has never written to {user}, nor has {user} to him"
        if contact is not None:
            words = f"nothing shows that it is from {contact.subject.partition(':')[2]}, a contact of {user}"
        facts: Facts = {"result": NEW, "user": user, "sender": subject, "evidence": claims.evidence}
        return Quarantine(words, hold=True, findings=(Finding(FINDING, 0.0, words[:1000], facts),))

    def _expected(self, user: str, claims: Claims) -> Verdict | None:
        window = self._book.window(user, claims.domains)
        if window is None:
            return None
        words = f"{user} expects mail" + (f" from {window.domain}" if window.domain else "")
        is_shown = not window.domain or claims.is_shown_from(window.domain)
        found = (Finding(EXPECTED, 0.0, words, {"result": "pass", "user": user, "domain": window.domain, "aligned": is_shown}),)
        return Accept(words, findings=found) if is_shown else Pass(findings=found)

    def _known(self, contact: Contact, claims: Claims, *, score: float) -> Finding:
        shown = claims.proves(contact.subject)
        words = f"{contact.subject.partition(':')[2]} is a contact of {contact.user}{'' if shown else ', or says so'}"
        facts: Facts = {"result": "pass", "user": contact.user, "contact": contact.subject, "aligned": shown}
        return Finding(FINDING, score if shown else 0.0, words, facts)

    def _user(self, peer: Peer, recipient: Recipient) -> str:
        """Whose contacts count, "" where nobody's do: mail of our own users and programs is judged by nobody's."""
        if peer.login or peer.service == "submission" or peer.ip is None or not is_public(str(peer.ip)):
            return ""
        if recipient.address.local.lower() in NEVER or any(peer.ip in network for network in self._options.exempt):
            return ""
        return owner_of(recipient.address, self._options.separator)

    def _holds(self, recipient: Recipient) -> bool:
        holds, scopes = self._book.holds, scopes_of(recipient.address, self._options.separator)
        return next((holds[one] for one in scopes if one in holds), self._options.hold)

    # --- Who has written before: facts that nobody misses. ---

    async def _has_written(self, user: str, claims: Claims) -> bool:
        subjects = [one for one in claims.subjects if claims.proves(one)]
        if self._state is None:
            return False
        try:
            for subject in subjects:
                if await self._state.get(f"written\t{user}\t{subject}") is not None:
                    return True
        except StorageBroken as fault:
            self.log.warn("who has written to {user} before cannot be told: {fault}", user=user, fault=fault)
        return False

    async def _remember(self, user: str, envelope: Envelope, claims: Claims) -> None:
        if self._state is None or sum([one.score for one in envelope.findings]) >= DOUBTFUL:
            return
        try:
            for subject in claims.subjects:
                if claims.proves(subject):
                    await self._state.put(f"written\t{user}\t{subject}", b"1", WRITTEN_SECONDS)
        except StorageBroken as fault:
            self.log.warn("that somebody has written to {user} is not kept: {fault}", user=user, fault=fault)

    # --- Learning. ---

    async def ended(self, envelope: Envelope, how: TransactionEnd) -> None:
        """Who has logged in has written to these, if it was himself: whoever is away answers strangers, too."""
        by_program = envelope.id in self._automatic
        self._automatic.pop(envelope.id, None)
        login, sender = envelope.peer.login, envelope.sender
        if how is not TransactionEnd.ACCEPTED or not self._options.learn or not login or sender is None or by_program:
            return
        if envelope.peer.address == "local" or len(envelope.recipients) > LEARNT_MOST:
            return
        separator = self._options.separator
        users = {owner_of(sender, separator), _owner_of_login(login, separator)} - {""}
        subjects = [f"address:{one}" for one in normal_addresses([to.address for to in envelope.recipients])]
        for user in users:
            await self._book.learn(user, [one for one in subjects if one != f"address:{user}" and f":{DECIDE}+" not in one])

    # --- Decisions that come by mail. ---

    async def read(self, envelope: Envelope, content: Content, address: Address) -> Outcome:
        """A message to a one-time reply address."""
        return await self._replies.read(envelope, address)


def _refused(contact: Contact) -> Verdict:
    words = f"{contact.user} has refused {contact.subject.partition(':')[2]}"
    facts: Facts = {"result": "refused", "user": contact.user, "contact": contact.subject}
    return Refuse(words, findings=(Finding(FINDING, 0.0, words, facts),))


def _owner_of_login(login: str, separator: str) -> str:
    try:
        return owner_of(Address.parse(login, utf8=True), separator)
    except AddressError:
        return ""


@implementer(IComponentFactory)
class ContactsFactory:
    """Makes the filter for ``[[filter]] use = "contacts"``."""

    name = "contacts"
    summary = "Learns whom users write to, lets in what they expect, and may hold mail from strangers until they decide."
    api_version = "1.0"
    replays = True
    provides = (IRecipientFilter, IRecipientContentFilter)
    options = ContactsOptions

    def build(self, options: Any, services: Services) -> Contacts:
        """Return the filter."""
        return contacts_of(options, services.records, services.clock, services=services)


def contacts_of(options: ContactsOptions, records: IRecords, clock: Clock, *, services: Services | None) -> Contacts:
    """The filter over these records; without `services` it can do what can be done without a server."""
    quarantine = None if services is None else services.quarantine
    state = None if services is None else services.state
    book = ContactBook(records, clock=clock, contacts_most=options.contacts)
    name = "contacts" if services is None else services.name
    decisions = Decisions(book, quarantine, name=name, refused=options.refused)
    tokens = Tokens(records, clock)
    return Contacts(
        options,
        book=book,
        decisions=decisions,
        replies=Replies(tokens, decisions, state=state, separator=options.separator),
        rounds=Rounds(
            book, decisions, tokens, records=records, send=None if services is None else services.send,
            hostname="" if services is None else services.hostname,
            junk_seconds=options.junk_after, digest_seconds=options.digest,
        ),
        state=state,
        commands=commands_of(book, decisions, separator=options.separator),
        followed=FollowedRecords(
            records, ContactPlace(), separator=options.separator, state=state, in_state=KeyPart(1), clock=clock
        ),
    )  # fmt: skip


factory = ContactsFactory()
