"""Stops the sending of an account that looks as if others had taken it over.  Its mailbox receives as before.

Signals are counted for each account: log-ins from new networks, new recipients, recipients who do not exist, refusals of other
hosts, complaints.  Several kinds of them within one window stop it, or one alone that is far beyond what anybody does.  The
rules, in words, are in docs/filters.md.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Address,
    AddressError,
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
    normal_local,
)
from mailserver.filters.account_book import AccountBook
from mailserver.filters.account_commands import commands_of
from mailserver.filters.account_memory import AccountMemory, account_network
from mailserver.filters.account_notes import warning_to_postmaster
from mailserver.filters.account_records import LOGINS_MOST, StoppedAccount, account_name
from mailserver.filters.account_rounds import POSTMASTER, AccountRounds
from mailserver.filters.account_signals import SIGNALS, SignalLimits, Suspicion, weighed
from mailserver.filters.evidence import is_answered_for, normal_addresses, proved_domains
from mailserver.trust.arf import read_complaint

__all__ = ["AccountGuard", "AccountGuardOptions", "factory"]

FINDING = "account"
ROLES = ("abuse", "postmaster")  # people read these: complaints to them are looked at on their way
KINDS = frozenset(["abuse", "fraud", "virus"])
LEARNT = ("networks", "recipients")  # signals that say "new": of an account of which nothing is known, everything is
REMEMBERED_MOST = 20_000  # connections, messages on their way out, accounts
MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")  # as in `trust.arf`
NO_SUCH_USER = re.compile(r"550[ -]5\.1\.1 ")
REFUSED = re.compile(r"55[0134][ -](?!5\.[34]\.)")  # not for its size, nor since no host could be reached in time
OF_THIS_HOST = "by a policy of this host"  # another component's `GiveUp`
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
    """Domains whose complaints count, where DKIM, SPF or DMARC shows that they are theirs. Empty: those of any domain that is
    shown."""
    postmaster: MailAddress | None = None
    """Who is told, beside the user. Absent: postmaster."""


@implementer(ISenderFilter, IContentFilter, IAttemptFilter, IObserver, IMailReader, IComponent, IPeriodic, ICommands)
class AccountGuard:
    """At MAIL it looks at the log-in, after the data at the recipients, before an attempt whether the account is stopped."""

    cost = 0.1
    hard = True  # no entry of a list lets an account send that is stopped
    interval_seconds = 5.0
    deadline_seconds = 300.0
    log = Logger()

    def __init__(self, options: AccountGuardOptions, services: Services) -> None:
        self._options = options
        self._services = services
        self._clock = services.clock
        self.reads = (options.complaints_to,) if options.complaints_to else ()
        self._complaints_at = frozenset([*self.reads, *ROLES])
        self._thresholds = {
            name: SignalLimits(getattr(options, name), getattr(options, f"{name}_alone")) for name in SIGNALS
        }
        self._while_learning = self._thresholds | {
            name: replace(self._thresholds[name], suspicious=0) for name in LEARNT
        }
        self._without = frozenset([_account(one) for one in options.without])
        self._memory = AccountMemory(
            services.state, services.clock, window_seconds=options.window, learning_seconds=options.learning
        )
        self.book = AccountBook(services.records)
        self._rounds = AccountRounds(
            self.book, services.waiting_mail, services.send,
            begin_anew=self._memory.begin_anew, hostname=services.hostname, postmaster=options.postmaster,
        )  # fmt: skip
        self._logins: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # of an account, the latest last
        self._messages: OrderedDict[str, tuple[str, float]] = OrderedDict()  # on their way out: whose, and since when
        self._connections: OrderedDict[str, str] = OrderedDict()  # who has logged in on it; the observer's thread alone
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
        await self.book.read()
        await self._rounds.go()

    def commands(self) -> Sequence[ComponentCommand]:
        """What `mailserver user lock`, `unlock`, `show` and `list` ask for."""
        return commands_of(self.book, self._clock, begin_anew=self._memory.begin_anew, go=self._rounds.go)

    # --- Judging. ---

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """A stopped account hears that it is; of another the log-in is looked at."""
        account = _login_of(envelope.peer)
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
        account = _login_of(envelope.peer)
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
        _remember(self._logins, account, (*[one for one in before if one != words], words)[-LOGINS_MOST:])
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
            self.log.error("postmaster cannot be told of {account}: {error}", account=account, error=str(error))

    def _go(self, account: str) -> None:
        going: Deferred[None] = Deferred.fromCoroutine(self._rounds.go(account))
        self._under_way.add(going)
        going.addErrback(lambda failure: self.log.failure("what follows for {account} waits", failure, account=account))
        going.addBoth(lambda _: self._under_way.discard(going))

    # --- On its way out. ---

    async def before_attempt(self, envelope: Envelope, content: Content, destination: Destination) -> AttemptVerdict:
        """Nothing of a stopped account leaves; of others it is remembered what has left."""
        account = _login_of(envelope.peer)
        if not account:
            return Proceed()
        if not self.book.is_read:
            await self.book.read()
        if account in self.book.stopped:
            self._rounds.look_again(account)
            return Postpone("the account is stopped")
        if envelope.id not in self._messages:
            _remember(self._messages, envelope.id, (account, envelope.received_at))
            identity = MESSAGE_ID.search(content.headers.get("Message-ID") or "")
            try:
                await self._memory.remember_sent(account, identity[0] if identity else "")
            except StorageBroken as fault:
                self.log.warn("{id}: who has sent it is not remembered: {fault}", id=envelope.id, fault=fault)
        return Proceed()

    def observe(self, step: Mapping[str, object]) -> None:
        """Log-ins, recipients who do not exist, and what other hosts have refused.  In a thread of its own."""
        call: Future[None] | None = None  # nobody waits for it
        match step.get("step"):
            case "login":
                _remember(self._connections, str(step.get("id")), _account(str(step.get("account") or "")))
            case "closed":
                self._connections.pop(str(step.get("id")), None)
            case "refused" if step.get("stage") == "rcpt" and NO_SUCH_USER.match(str(step.get("reply") or "")):
                account = self._connections.get(str(step.get("connection")))
                if account:
                    call = self._services.in_reactor(self._observed, account, "unknown", str(step.get("recipient")), "")
            case "failed" if REFUSED.match(reply := str(step.get("reply") or "")) and OF_THIS_HOST not in reply:
                call = self._services.in_reactor(self._refused, str(step.get("id")), str(step.get("recipient")), reply)
        if call is not None:
            call.add_done_callback(_tell_fault)

    async def _refused(self, id: str, recipient: str, reply: str) -> None:
        account, since = self._messages.get(id, ("", 0.0))
        try:
            is_ours = self._services.is_own_domain(Address.parse(recipient, utf8=True).domain)
        except AddressError:
            is_ours = False
        if account and not is_ours and await self._sent_since(account, since):
            await self._observed(account, "refusals", recipient, f"{recipient}: {reply}")

    async def _sent_since(self, account: str, since: float) -> bool:
        """It was sent after the account was last let go: what was held before goes on being refused."""
        try:
            return since >= await self._memory.anew_at(account)
        except StorageBroken:
            return False

    async def _observed(self, account: str, signal: str, what: str, example: str) -> None:
        try:
            await self._count(account, signal, what, example)
        except StorageBroken as fault:
            self.log.warn("what has come of mail of {account} cannot be counted: {fault}", account=account, fault=fault)

    # --- Complaints. ---

    async def _look_for_complaint(self, envelope: Envelope, content: Content) -> Verdict:
        """It goes on to whoever reads it.  It counts where it is shown whose it is, and an account here has sent that mail."""
        kind = (content.headers.get("Content-Type") or "").lower()
        if envelope.peer.login or not kind.startswith("multipart/report") or not self._is_for_us(envelope):
            return Pass()
        complaint = await self._services.run_in_thread(read_complaint, content)
        if complaint is None or complaint.kind not in KINDS:
            return Pass()
        reporters = proved_domains(envelope)
        wanted = self._options.reporters
        known = sorted([one for one in reporters if not wanted or is_answered_for(one, wanted)])
        account = ""
        try:
            account = await self._memory.sender_of(complaint.message_id) if known else ""
            if account:
                example = f"{complaint.kind}: {known[0]} about {complaint.message_id}"
                await self._count(account, "complaints", complaint.message_id, example)
        except StorageBroken as fault:
            self.log.warn("{id}: a complaint cannot be counted: {fault}", id=envelope.id, fault=fault)
        if account:
            words = f"a complaint of {known[0]} about {account}"
        else:
            words = "a complaint about nothing that is known here" if known else "a complaint, and nothing shows whose"
        return Pass(findings=(Finding(FINDING, 0.0, words[:1000], {"result": "complaint", "counts": bool(account)}),))

    def _is_for_us(self, envelope: Envelope) -> bool:
        return any(
            normal_local(one.address.local).partition("+")[0] in self._complaints_at
            and (not one.address.domain or self._services.is_own_domain(one.address.domain))
            for one in envelope.recipients
        )

    async def read(self, envelope: Envelope, content: Content, address: Address) -> Outcome:
        """Mail to the address for complaints: what it says was counted when it came."""
        return Delivered("read as a complaint when it came")


def _tell_fault(call: Future[None]) -> None:
    """What nobody foresaw would be lost with the answer."""
    if not call.cancelled() and (error := call.exception()) is not None and not isinstance(error, RuntimeError):
        AccountGuard.log.error("a step could not be counted: {error}", error=f"{type(error).__name__}: {error}")


def _finding(found: Suspicion) -> Finding:
    facts: dict[str, str | int | float | bool | None] = {one.signal: one.count for one in found.counting}
    return Finding(FINDING, 0.0, found.words[:1000], {"result": "would stop" if found.stops else "suspicious", **facts})


def _login_of(peer: Peer) -> str:
    """The account that sends, "" where nobody has logged in; a program of this host is none."""
    return "" if peer.address == "local" else _account(peer.login)


def _account(login: str) -> str:
    try:
        return account_name(login) if login else ""
    except ValueError:
        return ""


def _remember(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > REMEMBERED_MOST:
        kept.popitem(last=False)


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
