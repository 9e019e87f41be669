"""A message goes through the whole judging of a configuration, and nothing comes of it.

The policy is the server's own (`assembly.policy`), with filters that ask the DNS alone and keep what they know in what they are
lent.  They are lent the state and the records of the data folder, in which they change nothing.  There are no listeners, no
queue, no deliveries, no log; accounts are asked as always, since they say who exists.  The DNS is the only one to be asked over
the network, by whatever resolver is given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, TypeVar, TypeVarTuple, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import implementer

from mailserver.assembly.components import Components
from mailserver.assembly.policy import Policy
from mailserver.assembly.server import Server, space_of
from mailserver.config import Configuration
from mailserver.config.filter_order import filter_names
from mailserver.interfaces import (
    IContentFilter,
    IModifier,
    IPeerFilter,
    IQuarantine,
    IRecipientContentFilter,
    IRecipientFilter,
    IScorer,
    ISenderFilter,
    ISigner,
    IWaitingMail,
    Services,
)
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import (
    NO_MAIL_PARAMETERS,
    Envelope,
    MailParameters,
    Peer,
    Recipient,
    RecipientParameters,
    TLSFacts,
)
from mailserver.mail.fetched import FetchFailed
from mailserver.mail.held_copy import HeldCopy
from mailserver.mail.ids import IdSource
from mailserver.mail.mending import mended
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Hold, SetApart
from mailserver.observe.roads import Step
from mailserver.plugins.catalogue import Catalogue
from mailserver.plugins.lent import Lent
from mailserver.plugins.register import Register
from mailserver.receive.after_data import AfterData
from mailserver.receive.judgement import PASSED, Judgement, note_answers, with_worse
from mailserver.receive.judging import Judging
from mailserver.receive.spooling import SpoolBudget
from mailserver.receive.transaction import Transaction
from mailserver.relay.return_paths import ReturnPaths, SenderTable
from mailserver.smtp import replies
from mailserver.state_store.read_only import ReadOnlyRecords, ReadOnlyState
from mailserver.state_store.records_file import RECORDS

__all__ = ["PostedMail", "Rehearsal", "Rehearsed"]

JUDGES = (
    IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter, IRecipientContentFilter, IScorer, IModifier, ISigner
)  # fmt: skip
WITHOUT_END = 1 << 62
Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostedMail:
    """What a peer has said and sent.  `sender` None is the null reverse-path."""

    octets: bytes
    sender: Address | None
    recipients: tuple[Address, ...]
    address: str
    hello: str
    service: str = "mx"
    login: str = ""
    tls: bool = False
    parameters: MailParameters = NO_MAIL_PARAMETERS


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would have come of it: `replies` in order, each with what it answers; `fates` says of each copy where it would go;
    `steps` is the road, `left_out` are filters that were not asked."""

    id: str
    replies: tuple[tuple[str, Reply], ...]
    fates: tuple[tuple[str, str, str], ...]
    steps: tuple[Step, ...]
    left_out: tuple[str, ...]


class Rehearsal:
    """Judges messages by one configuration.  `resolver` is started and stopped with it, where it can be.

    `also` are names of filters that are asked although they reach other programs, `without` of those that are not asked at all.
    """

    certificates = None

    def __init__(
        self,
        configuration: Configuration,
        catalogue: Catalogue,
        *,
        reactor: Any,
        resolver: Any,
        also: Collection[str] = (),
        without: Collection[str] = (),
    ) -> None:
        self.scorers = _scorers(configuration, catalogue)
        kept, self.left_out = _asked(configuration, catalogue, also, without)
        self.configuration = configuration.model_copy(update={"filter": kept})
        self.catalogue, self.reactor, self.resolver = catalogue, reactor, resolver
        self.noting_resolver = resolver
        self.data = configuration.data
        self.ids = IdSource(time.time)
        self.spool = SpoolBudget(
            one_octets_most=WITHOUT_END, all_octets_most=WITHOUT_END, run_in_thread=lambda *_: fail(OSError("no file is written"))
        )
        self.state = ReadOnlyState(os.path.join(self.data, "state.db"), wall_seconds=reactor.seconds)
        self.records = ReadOnlyRecords(os.path.join(self.data, RECORDS))
        self.return_paths = ReturnPaths(
            keys_directory=configuration.keys_path,
            table=SenderTable(self.records.space("forward")),
            run_in_thread=maybeDeferred,
            clock=reactor,
        )
        self.register = ThreadlessRegister(clock=reactor, call_from_thread=reactor.callFromThread, steady_seconds=time.monotonic)
        self.local = None
        self.remote = object() if configuration.relays else None
        self.steps = self
        self.pools = SimpleNamespace(of=lambda name: maybeDeferred)
        self.logins = SimpleNamespace(authenticator=lambda configuration, directory: None)
        self.queue = _Commits()
        self._noted: list[Step] = []
        self.components = Components(
            catalogue=catalogue, clock=reactor, register=self.register, services=self._services_for, flush=_nothing
        )
        self.policy = Policy(self.configuration, cast(Server, self))

    # --- what the policy asks of a server ---

    def note(self, id: str, step: str, **fields: Any) -> None:
        """A step of the road."""
        self._noted.append(Step(time.time(), id, step, fields))

    def _services_for(self, section: str, name: str, use: str) -> Services:
        configuration = self.configuration
        return Services(
            clock=self.reactor,
            run_in_thread=maybeDeferred,
            state=self.state.space(space_of(section, name, use)),
            records=self.records.space(f"{section}/{name}"),
            resolver=self.resolver,
            hostname=configuration.hostname,
            configuration_directory=configuration.directory,
            data_directory=self.data,
            keys_directory=configuration.keys_path,
            check_password=lambda password, hash: succeed(False),
            room_for=lambda octets: True,
            fetch=_no_fetch,
            send=_no_send,
            quarantine=NothingHeld(),
            waiting_mail=NothingWaits(),
            run_in_process=_in_place,
            is_own_domain=lambda domain: self.policy.router.is_own(domain),
        )

    # --- life ---

    async def start(self) -> None:
        """Start the filters and the accounts.  Raises `StartError`."""
        if hasattr(self.resolver, "start"):
            await self.resolver.start()
        await self.policy.start_components()

    async def stop(self) -> None:
        """End them."""
        await self.policy.stop()
        if hasattr(self.resolver, "stop"):
            await self.resolver.stop()
        self.register.stop()
        self.state.close()
        self.records.close()

    # --- a message ---

    async def judge(self, mail: PostedMail) -> Rehearsed:
        """As a server would, from the connection to the reply after the data."""
        self._noted = []
        self.queue.fates = []
        run = _Run(self, mail)
        await run.all()
        return Rehearsed(
            run.transaction.id, tuple(run.replies), tuple(self.queue.fates), tuple(self._noted), tuple(self.left_out)
        )

    async def weigh(self, envelope: Envelope, recipient: Recipient) -> list[Step]:
        """The steps of those who weigh what the envelope says was found, for one recipient."""
        self._noted = []
        answer = self.policy.judging.weighed(envelope, recipient)
        judgement: Judgement = await answer if isinstance(answer, Deferred) else answer
        note_answers(self.note, envelope.id, judgement, str(recipient.address))
        return self._noted


class _Run:
    """One message on its way."""

    def __init__(self, rehearsal: Rehearsal, mail: PostedMail) -> None:
        self._mail = mail
        self.profile = rehearsal.policy.profile_of(mail.service)
        tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384") if mail.tls else None
        verb = "LHLO" if mail.service == "lmtp" else "EHLO"
        self.peer = Peer(mail.address, 0, mail.service, "", "", None, look_up=rehearsal.resolver.query)
        self._greeted = replace(self.peer, hello=mail.hello, hello_verb=verb, tls=tls, login=mail.login)
        self.connection = rehearsal.ids.next()
        self.transaction = Transaction(self.profile, self.peer, self.connection)
        self.replies: list[tuple[str, Reply]] = []

    async def all(self) -> None:
        """Until something refuses it."""
        if not await self._greet():
            return
        mail, transaction = self._mail, self.transaction
        if not self._goes_on(f"MAIL FROM:<{mail.sender or ''}>", await transaction.mail(mail.sender, mail.parameters)):
            return
        for address in mail.recipients:
            self._goes_on(f"RCPT TO:<{address}>", await transaction.recipient(address, RecipientParameters()))
        if not transaction.recipients:
            return
        content, done = mended(Content.of(mail.octets))
        for what in done:
            transaction.note("mended", what=what)
        answers = await AfterData(transaction).replies(content)
        for n, reply in enumerate(answers):
            name = str(transaction.recipients[n].address) if self.profile.lmtp and n < len(transaction.recipients) else ""
            self.replies.append((f"the data, for {name}" if name else "the data", reply))

    def _goes_on(self, question: str, reply: Reply) -> bool:
        self.replies.append((question, reply))
        return reply.code < 400

    async def _greet(self) -> bool:
        """At connect and after EHLO, as the connection asks."""
        quarantine: tuple[Any, ...] = ()
        judging: Judging = self.profile.judging
        for question, peer in (("the connection", self.peer), (f"EHLO {self._mail.hello}", self._greeted)):
            self.peer = replace(peer, findings=self.peer.findings)
            if self.profile.asks.peer:
                answer = judging.peer(self.peer)
                judgement: Judgement = await answer if isinstance(answer, Deferred) else answer
                if judgement is not PASSED:
                    note_answers(self.profile.note, self.transaction.id, judgement)
                    quarantine = quarantine or judgement.quarantine
                    self.peer = replace(self.peer, findings=with_worse(self.peer.findings, judgement.findings))
                    refusal = self._refusal(judgement)
                    if refusal is not None:
                        self.replies.append((question, refusal))
                        return False
        id = self.transaction.id
        self.transaction = Transaction(self.profile, self.peer, self.connection, id, quarantine=quarantine)
        return True

    def _refusal(self, judgement: Judgement) -> Reply | None:
        kind = type(judgement.verdict).__name__
        reply: Reply | None = {
            "Refuse": replies.PEER_REFUSED, "Defer": replies.PEER_DEFERRED, "Disconnect": replies.PEER_DISCONNECTED
        }.get(kind)  # fmt: skip
        return getattr(judgement.verdict, "reply", None) or reply


class _Commits:
    """In the place of the queue: notes where each copy would go, as (recipient, destination, what)."""

    writable = True

    def __init__(self) -> None:
        self.fates: list[tuple[str, str, str]] = []

    def room_for(self, octets: int) -> bool:
        """Nothing is written."""
        return True

    def spool_path(self, id: str) -> str:
        """Nobody writes there: all is in memory."""
        return os.path.join(os.devnull, id)

    def commit(
        self,
        envelope: Envelope,
        content: Content,
        destinations: tuple[Destination, ...],
        set_apart: Mapping[int, SetApart] = {},
    ) -> Deferred[None]:
        """Note it."""
        for one in destinations:
            apart = set_apart.get(one.index)
            what = "" if apart is None else f"held: {apart.kind}" if isinstance(apart, Hold) else "returned"
            self.fates.append((str(one.recipient.address), _place(one.route), what))
        return succeed(None)


class ThreadlessRegister(Register):
    """Lends what a server lends; work for a thread is done at once."""

    def lend(self, kind: str, name: str, services: Services) -> tuple[Lent, Services]:
        """Without threads."""
        lent, services = super().lend(kind, name, services)
        return lent, replace(services, run_in_thread=maybeDeferred, new_threads=lambda use, most: NoThreads())


class NoThreads:
    """In the place of threads of a component's own."""

    def run(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]:
        """Run it at once."""
        return maybeDeferred(function, *arguments)

    def stop(self) -> None:
        """None runs."""


@implementer(IQuarantine)
class NothingHeld:
    """In the place of a quarantine."""

    async def held(
        self, recipient: str = "", finding: str = "", sender: str = "", after: str = "", most: int = 100
    ) -> Sequence[HeldCopy]:
        """None."""
        return []

    async def release(self, ids: Sequence[str], by: str = "") -> Sequence[str]:
        """Of none."""
        return []

    async def to_junk(self, ids: Sequence[str], by: str = "") -> Sequence[str]:
        """Of none."""
        return []

    async def drop(self, ids: Sequence[str], by: str = "") -> Sequence[str]:
        """Of none."""
        return []


@implementer(IWaitingMail)
class NothingWaits:
    """In the place of a queue."""

    async def hold(
        self, login: str, why: str, *, since: float | None = None, before: float | None = None
    ) -> tuple[int, int]:
        """None."""
        return 0, 0

    async def release(
        self, login: str, by: str = "", *, since: float | None = None, before: float | None = None
    ) -> tuple[int, int]:
        """None."""
        return 0, 0


def _place(route: Local | Remote) -> str:
    if isinstance(route, Remote):
        return str(route.address)
    box = route.mailbox
    return "/".join((f"{box.user}@{box.domain}" if box.domain else box.user, *box.place))


def _in_place(function: Callable[[*Arguments], T], /, *arguments: *Arguments, seconds: float = 60.0) -> Deferred[T]:
    """In the place of a process."""
    return maybeDeferred(function, *arguments)


async def _no_fetch(url: str, **named: Any) -> Any:
    raise FetchFailed("nothing is fetched for a replay")


async def _no_send(*arguments: Any, **named: Any) -> Any:
    raise OSError("nothing is sent for a replay")


def _nothing() -> Awaitable[None]:
    return succeed(None)


def _scorers(configuration: Configuration, catalogue: Catalogue) -> set[str]:
    """The names of those who weigh and do nothing else."""
    names = filter_names([(table.use, table.name) for table in configuration.filter])
    return {
        name
        for name, table in zip(names, configuration.filter, strict=True)
        if all(one.isOrExtends(IScorer) for one in _provided(catalogue.factory("filter", table.use)))
    }


def _provided(factory: Any) -> tuple[Any, ...]:
    return tuple(factory.provides) if isinstance(factory.provides, tuple | list) else (factory.provides,)


def _asked(
    configuration: Configuration, catalogue: Catalogue, also: Collection[str], without: Collection[str]
) -> tuple[list[Any], list[str]]:
    """The tables of the filters that are asked, and the names of the judges that are not."""
    names = filter_names([(table.use, table.name) for table in configuration.filter])
    kept, left_out = [], []
    for name, table in zip(names, configuration.filter, strict=True):
        factory = catalogue.factory("filter", table.use)
        if not any(one.isOrExtends(judge) for one in _provided(factory) for judge in JUDGES) or name in without:
            continue
        if name in also or getattr(factory, "replays", False):
            kept.append(table.model_copy(update={"name": name}))
        else:
            left_out.append(name)
    there = {table.name for table in kept}
    return [table.model_copy(update={"after": [one for one in table.after if one in there]}) for table in kept], left_out
