"""Stops the sending of an account that looks as if others had taken it over.  Its mailbox receives as before.

Signals are counted for each account: log-ins from new networks, new recipients, recipients who do not exist, refusals of other
hosts, complaints.  Several kinds of them within one window stop it, or one alone that is far beyond what anybody does.  The
rules, in words, are in docs/filters.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.api import (
    Address,
    AttemptVerdict,
    CannotTell,
    ComponentCommand,
    Content,
    Defer,
    Delivered,
    Destination,
    DomainName,
    Duration,
    Envelope,
    Finding,
    IAccountFollower,
    IAttemptFilter,
    ICommands,
    IComponent,
    IComponentFactory,
    IContentFilter,
    IMailReader,
    IObserver,
    IPeriodic,
    ISenderFilter,
    MailAddress,
    Network,
    Options,
    Outcome,
    Pass,
    Peer,
    Postpone,
    Proceed,
    Reply,
    Services,
    StorageBroken,
    StorageFault,
    Verdict,
)
from mailserver.filters.account_book import AccountBook
from mailserver.filters.account_commands import commands_of
from mailserver.filters.account_complaints import Complaints
from mailserver.filters.account_memory import AccountMemory, account_network
from mailserver.filters.account_notes import warning_to_postmaster
from mailserver.filters.account_outcomes import AccountOutcomes, remember_latest
from mailserver.filters.account_records import LOGINS_MOST, StoppedAccount, account_of_login
from mailserver.filters.account_renames import AccountRenames, Stage
from mailserver.filters.account_rounds import POSTMASTER, AccountRounds
from mailserver.filters.account_sessions import AccountSessions
from mailserver.filters.account_signals import SIGNALS, SignalLimits, Suspicion, weighed
from mailserver.filters.evidence import normal_addresses
from mailserver.filters.followed_names import FollowedNames

__all__ = ["AccountGuard", "AccountGuardOptions", "factory"]

FINDING = "account"
LEARNT = ("networks", "recipients")  # signals that say "new": of an account of which nothing is known, everything is
Facts = dict[str, str | int | float | bool | None]
Limit = Annotated[int, Field(ge=0, le=1_000_000)]
Days = Annotated[Duration, Field(ge=0, le=366 * 86_400)]
Window = Annotated[Duration, Field(ge=60, le=30 * 86_400)]

TAKEN_OVER = Reply.of(
    450, "4.7.1",
    "Sending is stopped for this account: it looks as if others used it.",
    "You receive mail as before. Have your password changed, and ask postmaster to unlock the account.",
)  # fmt: skip
STOPPED_BY_HAND = Reply.of(
    450, "4.7.1",
    "Sending is stopped for this account by the postmaster of this host.",
    "You receive mail as before. Please ask him.",
)  # fmt: skip


class AccountGuardOptions(Options):
    """What is counted, and what follows."""

    action: Literal["stop", "tell"] = "stop"
    """`tell`: postmaster is told and nothing is stopped, for the first weeks."""
    window: Window = 86_400.0
    """What is counted is counted within this time, from the first of it on."""
    signals: Annotated[int, Field(ge=2, le=5)] = 2
    """So many kinds of signals together stop an account."""
    networks: Limit = 1
    """From so many new networks on log-ins are a signal (an IPv4 /16 or an IPv6 /32 not used within 30 days). 0: never."""
    networks_alone: Limit = 20
    """From so many on they stop the account alone. 0: never."""
    recipients: Limit = 50
    """The same of recipients it has never written to."""
    recipients_alone: Limit = 1000
    """The same."""
    unknown: Limit = 10
    """The same of recipients in our domains who do not exist."""
    unknown_alone: Limit = 200
    """The same."""
    refusals: Limit = 10
    """The same of recipients whom other hosts have refused."""
    refusals_alone: Limit = 200
    """The same."""
    complaints: Limit = 3
    """The same of messages that others have complained about (ARF, RFC 5965)."""
    complaints_alone: Limit = 20
    """The same."""
    learning: Days = 7 * 86_400.0
    """For so long after an account was first seen to send, its networks and recipients are learnt: they count only for the limits
    beyond which one signal is enough."""
    without: tuple[str, ...] = ()
    """Accounts of which nothing is counted: those of newsletters."""
    exempt: tuple[Network, ...] = ()
    """Networks from which a log-in is no signal: a webmail's."""
    complaints_to: str = Field(default="fbl", pattern=r"^[a-z0-9._\-]{0,64}$")
    """The mail for this name in each of our domains is read as complaints, beside what comes to `abuse` and `postmaster`. Empty:
    there is no such address."""
    reporters: tuple[DomainName, ...] = ()
    """Domains whose complaints count, where DKIM or SPF shows that they are theirs. Empty: those of any domain that is shown."""
    postmaster: MailAddress | None = None
    """Who is told, beside the user. Absent: postmaster."""


@implementer(
    ISenderFilter, IContentFilter, IAttemptFilter, IObserver, IMailReader, IComponent, IPeriodic, ICommands, IAccountFollower
)
class AccountGuard:
    """At MAIL it looks at the log-in, after the data at the recipients, before an attempt whether the account is stopped."""

    cost = 2.0  # behind SPF and DKIM, which say whose complaint it is
    hard = True  # no entry of a list lets an account send that is stopped
    interval_seconds = 5.0
    deadline_seconds = 300.0
    log = Logger()

    def __init__(self, options: AccountGuardOptions, services: Services) -> None:
        self._options = options
        self._services = services
        self._clock = services.clock
        self.reads = (options.complaints_to,) if options.complaints_to else ()
        self._thresholds = {
            name: SignalLimits(getattr(options, name), getattr(options, f"{name}_alone")) for name in SIGNALS
        }
        self._while_learning = self._thresholds | {
            name: replace(self._thresholds[name], suspicious=0) for name in LEARNT
        }
        self._without = frozenset([account_of_login(one) for one in options.without])
        self._memory = AccountMemory(
            services.state, services.clock, window_seconds=options.window, learning_seconds=options.learning
        )
        self.book = AccountBook(services.records)
        self._outcomes = AccountOutcomes(
            self._memory, self._count, in_reactor=services.in_reactor, is_own_domain=services.is_own_domain,
            owner=lambda login, received_at: self.book.names.owner(login, received_at),
        )  # fmt: skip
        self._complaints = Complaints(
            self._memory, names=self.reads, reporters=options.reporters,
            is_own_domain=services.is_own_domain, run_in_thread=services.run_in_thread,
        )  # fmt: skip
        self._rounds = AccountRounds(
            self.book, services.waiting_mail, services.send,
            begin_anew=self._memory.begin_anew, hostname=services.hostname, postmaster=options.postmaster,
        )  # fmt: skip
        self._renames = AccountRenames(self.book, self._rounds, services.records, services.state, services.clock)
        self._sessions = AccountSessions()
        self._logins: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # of an account, the latest last
        self._under_way: set[Deferred[None]] = set()

    # --- Life. ---

    async def start(self) -> None:
        """Read who is stopped.  Where that cannot be, nobody with a login sends before it can."""
        try:
            await self.book.read()
        except StorageFault as fault:
            self.log.error("which accounts are stopped cannot be read: {fault}", fault=fault)
        await self._rounds.begin_anew()

    async def stop(self) -> None:
        """What is owed stands in the records."""
        for one in list(self._under_way):
            one.cancel()

    async def run_periodically(self) -> None:
        """Take up what commands have changed while no server ran, and do what is owed."""
        try:
            await self.book.read()
        finally:  # what is owed does not wait for that
            await self._rounds.go()

    def commands(self) -> Sequence[ComponentCommand]:
        """What `mailserver user lock`, `unlock`, `show` and `list` ask for."""
        return commands_of(self.book, self._clock, begin_anew=self._memory.begin_anew, go=self._rounds.go)

    # --- Renamed and removed users. ---

    async def accounts_renamed(self, accounts: Mapping[str, str], stage: Stage) -> None:
        """Who is stopped, why and what was counted; the mail in the queue is the new name's, too."""
        await self._renames.renamed(accounts, stage)
        if stage == "complete":
            self._forget_logins(accounts)

    async def account_removed(self, account: str) -> None:
        """Forget that he was stopped, and what was counted.  What is held of his mail stays so."""
        await self._renames.removed(account)
        self._forget_logins({account: account})

    async def kept_of_account(self, account: str) -> int:
        """Whether he is stopped, or is owed a release."""
        return await self._renames.count(account)

    def _forget_logins(self, accounts: Mapping[str, str]) -> None:
        names = FollowedNames(accounts, "")
        for account in [one for one in self._logins if names.has(one)]:
            del self._logins[account]

    # --- Judging. ---

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """A stopped account hears that it is; of another the log-in is looked at."""
        account = self._account_of(envelope.peer)
        if not account:
            return Pass()
        if not self.book.is_read:
            await self.book.read()
        if account not in self.book.stopped and account not in self._without:
            try:
                await self._look_at_login(account, envelope.peer)
            except StorageBroken as fault:  # nothing is counted; mail goes on
                self.log.warn("log-ins of {account} cannot be counted: {fault}", account=account, fault=fault)
        return self._no(account) or Pass()

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """Whom the account writes to; and what others complain about."""
        account = self._account_of(envelope.peer)
        if not account:
            return await self._look_for_complaint(envelope, content)
        if account in self.book.stopped or account in self._without:
            return self._no(account) or Pass()
        try:
            found = await self._look_at_recipients(account, envelope)
        except StorageBroken as fault:
            self.log.warn("recipients of {account} cannot be counted: {fault}", account=account, fault=fault)
            return self._no(account) or Pass()
        return self._no(account) or (Pass(findings=(_finding(found),)) if found.counting else Pass())

    def _account_of(self, peer: Peer) -> str:
        """Who sends: one whose connection is older than the rename of his account by the new name, "" for nobody."""
        login = _login_of(peer)
        return login and self.book.names.owner(login, self._sessions.since(peer, self._clock.seconds()))

    def _no(self, account: str) -> Defer | None:
        stopped = self.book.stopped.get(account)
        if stopped is None:
            return None
        words = f"the account is stopped: {stopped.words}"[:1000]
        found = Finding(FINDING, 0.0, words, {"result": "stopped", **{one.signal: one.count for one in stopped.seen}})
        return Defer(words, findings=(found,), reply=STOPPED_BY_HAND if stopped.by else TAKEN_OVER)

    # --- What the account does. ---

    async def _look_at_login(self, account: str, peer: Peer) -> None:
        words = f"{peer.address}{', ' + peer.login_note if peer.login_note else ''}"
        before = self._logins.pop(account, ())
        remember_latest(self._logins, account, (*[one for one in before if one != words], words)[-LOGINS_MOST:])
        ip = peer.ip
        if ip is None or any(ip in network for network in self._options.exempt):
            return
        network = account_network(ip)
        if await self._memory.is_new_network(account, network):
            await self._count(account, "networks", network, f"{network}: {words}")

    async def _look_at_recipients(self, account: str, envelope: Envelope) -> Suspicion:
        addresses = [one for one in normal_addresses([to.address for to in envelope.recipients]) if one != account]
        for address in await self._memory.new_recipients(account, addresses):
            await self._memory.count(account, "recipients", address)
        return await self._weigh(account)

    async def _count(self, account: str, signal: str, what: str, example: str = "") -> None:
        """One more of a signal, and what follows from it."""
        if account not in self._without and await self._memory.count(account, signal, what, example):
            await self._weigh(account)

    async def _weigh(self, account: str) -> Suspicion:
        thresholds = self._while_learning if await self._memory.is_learning(account) else self._thresholds
        found = weighed(await self._memory.seen(account), thresholds, self._options.signals)
        if found.stops and account not in self.book.stopped:
            if self._options.action == "stop":
                await self._stop(account, found)
            elif await self._memory.is_first(account, self._options.window):
                await self._warn(account, found)
        return found

    async def _stop(self, account: str, found: Suspicion) -> None:
        logins = self._logins.get(account, ())
        stopped = StoppedAccount(account, self._clock.seconds(), found.counting, logins)
        self.log.warn("the account {account} is stopped: {words}; log-ins: {logins}", account=account, words=found.words,
                      logins="; ".join(logins) or "none since the start")  # fmt: skip
        try:
            await self.book.keep(stopped)
        except StorageFault as fault:
            words = "that the account {account} is stopped cannot be written yet: {fault}"
            self.log.error(words, account=account, fault=fault)
        self._services.clock.callLater(0, self._go, account)  # nobody's question waits for a look through the queue

    async def _warn(self, account: str, found: Suspicion) -> None:
        words = "the account {account} would be stopped: {words}"
        self.log.warn(words, account=account, words=found.words)
        note = warning_to_postmaster(
            account, found.counting, self._logins.get(account, ()), hostname=self._services.hostname
        )
        try:
            await self._services.send(note, sender=None, recipients=[self._options.postmaster or POSTMASTER])
        except (StorageFault, CannotTell, ValueError) as error:
            await self._memory.forget_first(account)
            self.log.error("postmaster cannot be told of {account}: {error}", account=account, error=str(error))

    def _go(self, account: str) -> None:
        going: Deferred[None] = Deferred.fromCoroutine(self._rounds.go(account))
        self._under_way.add(going)
        going.addErrback(self._tell_fault, account)
        going.addBoth(lambda _: self._under_way.discard(going))

    def _tell_fault(self, failure: Failure, account: str) -> None:
        if not failure.check(CancelledError):  # at the stop: it stands in the records
            self.log.failure("what follows for {account} waits", failure, account=account)

    # --- On its way out. ---

    async def before_attempt(self, envelope: Envelope, content: Content, destination: Destination) -> AttemptVerdict:
        """Nothing of a stopped account leaves; of others it is remembered what has left."""
        login = _login_of(envelope.peer)
        if not login:
            return Proceed()
        if not self.book.is_read:
            await self.book.read()
        account = self.book.names.owner(login, envelope.received_at)
        if account in self.book.stopped:
            self._rounds.look_again(account)
            return Postpone("the account is stopped")
        await self._outcomes.leaves(account, envelope, content)
        return Proceed()

    def observe(self, step: Mapping[str, object]) -> None:
        """What comes of it.  In a thread of its own."""
        self._outcomes.observe(step)

    # --- Complaints. ---

    async def _look_for_complaint(self, envelope: Envelope, content: Content) -> Verdict:
        """It goes on to whoever reads it."""
        try:
            found = await self._complaints.find(envelope, content)
            if found is None:
                return Pass()
            if found.account:
                await self._count(found.account, "complaints", found.message_id, found.words)
        except StorageBroken as fault:
            self.log.warn("{id}: a complaint cannot be counted: {fault}", id=envelope.id, fault=fault)
            return Pass()
        facts: Facts = {"result": "complaint", "account": found.account, "counts": bool(found.account)}
        return Pass(findings=(Finding(FINDING, 0.0, found.words[:1000], facts),))

    async def read(self, envelope: Envelope, content: Content, address: Address) -> Outcome:
        """Mail to the address for complaints: what it says was counted when it came."""
        return Delivered("read as a complaint when it came")


def _finding(found: Suspicion) -> Finding:
    facts: Facts = {one.signal: one.count for one in found.counting}
    return Finding(FINDING, 0.0, found.words[:1000], {"result": "would stop" if found.stops else "suspicious", **facts})


def _login_of(peer: Peer) -> str:
    """The account that sends, "" where nobody has logged in; a program of this host is none."""
    return "" if peer.address == "local" else account_of_login(peer.login)


@implementer(IComponentFactory)
class AccountGuardFactory:
    """Makes the filter for ``[[filter]] use = "account_guard"``."""

    name = "account_guard"
    summary = "Stops the sending of accounts that look as if others had taken them over."
    api_version = "1.1"
    provides = (ISenderFilter, IContentFilter, IAttemptFilter, IObserver)
    options = AccountGuardOptions

    def build(self, options: Any, services: Services) -> AccountGuard:
        """Return the filter."""
        return AccountGuard(options, services)


factory = AccountGuardFactory()
