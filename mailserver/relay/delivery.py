"""The relay as a delivery: a message's destinations, by hosts, over the pool.

    relay = Relay(book=…, connections=…, connect_settings=…)
    outcomes = await relay.deliver(envelope, content, destinations)

Destinations that share their hosts go in one transaction, up to a number of recipients.  A destination that is known to be out
of reach is deferred at once.  Each destination gets exactly one outcome.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import (
    Candidate,
    IComponent,
    IConcurrentDelivery,
    ICounting,
    IForgiving,
    IHostDelivery,
    IHostFinder,
)
from mailserver.mail import answers
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Delivered, Failed, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient, RecipientParameters
from mailserver.mail.parcel import Destination, one_for_each
from mailserver.mail.reply import Reply
from mailserver.relay.connections import Connections
from mailserver.relay.hosts import Host, HostBook, Hosts
from mailserver.relay.login import RelayLogin
from mailserver.relay.pool import Key
from mailserver.relay.security import Barred, TLSMode, TLSOverride, demanded
from mailserver.relay.sts_keeper import STSKeeper
from mailserver.relay.token_keeper import TokenKeeper
from mailserver.relay.transmission import Target, Targets, Transmission
from mailserver.relay.wishes import NO_WISHES, TLSWishes, wishes_of
from mailserver.smtp.client.session import Request

__all__ = ["ConnectSettings", "Relay"]

BAD_DOMAIN = Reply.of(550, "5.1.2", "The domain of the recipient is no domain name")
TO_SMARTHOST = ""  # the name under which all domains go to the smarthost

Found = Hosts | answers.Delayed | Failed


@dataclass(frozen=True, slots=True)
class ConnectSettings:
    """How to connect: the port, the TLS mode, our own addresses ("" for any), and which address families are used.

    `prefer` says which addresses of a host are tried first, "ipv4" or "ipv6"; "any": as the host has them.  One attempt tries up
    to `hosts_most` hosts and `addresses_most` of their addresses.  `login` is how to log in, None for no login; with
    `implicit_tls` connections are encrypted from the first octet on.
    """

    port: int = 25
    tls: TLSMode = TLSMode.OPPORTUNISTIC
    source_ipv4: str = ""
    source_ipv6: str = ""
    ipv4: bool = True
    ipv6: bool = True
    prefer: str = "any"
    hosts_most: int = 5
    addresses_most: int = 5
    login: RelayLogin | None = None
    implicit_tls: bool = False

    @property
    def identity(self) -> Hashable:
        """What no two connections of different log-ins have in common, for the pool's key."""
        return (self.login, self.implicit_tls) if self.login is not None or self.implicit_tls else None

    def targets(
        self, hosts: Hosts, chance: random.Random, wishes: TLSWishes = NO_WISHES, override: TLSOverride | None = None
    ) -> Targets:
        """The addresses in the order in which they are tried, with what is demanded there.

        A message with REQUIRETLS is tried at all of them: one that takes it may be the last.
        """
        by_host: list[list[Target]] = []
        barred: list[Barred] = []
        identity = self.identity
        for host in hosts.in_order(chance):
            demand = demanded(
                tls=self.tls,
                domain=hosts.domain,
                host=host,
                sts=hosts.sts,
                name_is_sure=hosts.is_authentic,
                requires_tls=wishes.requires_tls,
                tls_not_required=wishes.tls_not_required,
                override=override,
            )
            if isinstance(demand, Barred):
                barred.append(demand)
                continue
            targets = []
            for address in self._addresses(host):
                source = self.source_ipv6 if ":" in address else self.source_ipv4
                key = Key(address, host.port or self.port, demand.value, source, identity)
                targets.append(Target(host.name, key, demand, self.login, self.implicit_tls))
            if targets:
                by_host.append(targets)
        if wishes.requires_tls:
            return Targets([target for targets in by_host for target in targets], barred)
        return Targets(_bounded(by_host[: self.hosts_most], self.addresses_most), barred)

    def _addresses(self, host: Host) -> Sequence[str]:
        """Those of the host that are used, in their order."""
        addresses: Sequence[str] = host.addresses
        if not (self.ipv4 and self.ipv6):
            addresses = [one for one in addresses if (self.ipv6 if ":" in one else self.ipv4)]
        if self.prefer == "any":
            return addresses
        first = self.prefer == "ipv6"
        return sorted(addresses, key=lambda one: (":" in one) is not first)


def _bounded(by_host: Sequence[list[Target]], most: int) -> list[Target]:
    """So many of them: a host with many addresses gives up its last ones, before another host has none."""
    count = sum(map(len, by_host))
    while count > most and max(map(len, by_host)) > 1:
        longest = max(reversed(by_host), key=len)
        longest.pop()
        count -= 1
    return [target for targets in by_host for target in targets][:most]


class _Call:
    """One call of `deliver`: the outcomes so far, and how many transmissions have not ended."""

    __slots__ = ("_followers", "_withdraw", "open", "outcomes", "transmissions", "waiting")

    def __init__(self, withdraw: Callable[[Transmission], None]) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.open = 0
        self.transmissions: list[Transmission] = []
        self.waiting: Deferred[Mapping[int, Outcome]] | None = None
        self._withdraw = withdraw
        self._followers: dict[int, list[int]] = {}

    def one_for_each(self, destinations: Sequence[Destination]) -> list[Destination]:
        """The first destination of each address.  Others with the same address get its outcome."""
        leaders: list[Destination] = []
        for leader, *others in one_for_each(destinations):
            leaders.append(leader)
            if others:
                self._followers[leader.index] = [other.index for other in others]
        return leaders

    def report(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        for follower in self._followers.get(index, ()):  # only the first one's DSN wishes were sent to the host
            same = replace(outcome, notifies=False) if isinstance(outcome, Delivered) else outcome
            self.outcomes[follower] = same

    def ended(self) -> None:
        self.open -= 1
        if self.open:
            return
        self.transmissions.clear()  # they refer to this call and to the message: a cycle would keep both until garbage collection
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(self.outcomes)

    def answer(self) -> Awaitable[Mapping[int, Outcome]]:
        if not self.open:
            return _known(self.outcomes)
        self.waiting = Deferred(self._cancel)
        return self.waiting

    def _cancel(self, _: object) -> None:
        for transmission in self.transmissions:
            self._withdraw(transmission)
        self.transmissions.clear()


async def _known(outcomes: Mapping[int, Outcome]) -> Mapping[int, Outcome]:
    return outcomes


@implementer(IConcurrentDelivery, IComponent, ICounting, IForgiving, IHostFinder, IHostDelivery)
class Relay:
    """Sends mail to other hosts.

    `book` says where a domain's mail goes.  With `by_domain` False one look-up of the empty name serves all domains: a
    smarthost.  A transaction has up to `recipients_most` recipients.
    """

    stores = True
    log = Logger()

    def __init__(
        self,
        *,
        book: HostBook,
        connections: Connections,
        connect_settings: ConnectSettings,
        by_domain: bool = True,
        recipients_most: int = 100,
        calls_at_once: int = 2000,
        deadline_seconds: float = 14_400.0,
        stop_seconds: float = 5.0,
        chance: random.Random | None = None,
        tokens: TokenKeeper | None = None,
        sts: STSKeeper | None = None,
    ) -> None:
        self.connections = connections
        self._tokens = tokens
        self._sts = sts
        self.calls_at_once = calls_at_once
        self.deadline_seconds = deadline_seconds
        self._book = book
        self._connect_settings = connect_settings
        self._by_domain = self.takes_hosts = by_domain  # a smarthost's password is for the smarthost
        self._recipients_most = recipients_most
        self._stop_seconds = stop_seconds
        self._chance = chance or random.Random()
        self._last_hosts: Hosts | None = None
        self._last_targets = Targets(())
        self.tls_override: Callable[[str], TLSOverride | None] | None = None  # what an administrator has said of a domain

    def __repr__(self) -> str:
        return f"<Relay: {self.connections.pool!r}>"

    # --- life ---

    async def start(self) -> None:
        """Begin the timers.  No connection is opened before there is mail."""
        self.connections.start()
        if self._tokens is not None:
            self._tokens.start()
        if self._sts is not None:
            self._sts.start()

    async def stop(self) -> None:
        """Stop.  Running transactions have a few seconds to end."""
        if self._tokens is not None:
            await self._tokens.stop()
        if self._sts is not None:
            await self._sts.stop()
        await self.connections.stop(self._stop_seconds)
        self.log.info("the relay has stopped: {pool}", pool=repr(self.connections.pool))

    async def flush(self) -> None:
        """Do nothing: the host that took a message keeps it durably."""

    # --- for people ---

    def counts(self) -> Mapping[str, int | float]:
        """Counts since the start: the pool's `PoolCounts` and its `hit_rate`; and `connections`, the number open now.

        With tokens: `token_seconds_left` and `token_failures` (`TokenKeeper.counts`); with MTA-STS: `sts_policies` and
        `sts_failures`.
        """
        pool = self.connections.pool
        others = {} if self._tokens is None else self._tokens.counts()
        others |= {} if self._sts is None else self._sts.counts()
        return {
            "connections": pool.connections, **asdict(pool.counts), "hit_rate": round(pool.counts.hit_rate, 4), **others
        }  # fmt: skip

    def doubts(self) -> Sequence[str]:
        """What a postmaster should know of the log-in, in sentences."""
        doubt = "" if self._tokens is None else self._tokens.doubt()
        return (doubt,) if doubt else ()

    def forgive(self) -> None:
        """Connect again to hosts that were out of reach, and repeat look-ups that failed (`IForgiving`)."""
        self._book.forgive()
        self.connections.forgive()

    async def hosts_for(self, address: Address) -> Sequence[Candidate] | Outcome:
        """The hosts that mail for this address would be offered to, or the outcome where none is found."""
        found = self._book.find(address.domain_key if self._by_domain else TO_SMARTHOST)
        hosts = await found if isinstance(found, Deferred) else found
        if not isinstance(hosts, Hosts):
            return hosts
        port = self._connect_settings.port
        return [
            Candidate(one.name, one.addresses, port, rank) for rank, group in enumerate(hosts.groups) for one in group
        ]

    # --- delivering ---

    def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Awaitable[Mapping[int, Outcome]]:
        """Send the message to each destination's hosts.  An address that several destinations share gets it once.

        The outcomes are keyed by the destinations' indexes.
        """
        call = _Call(self.connections.withdraw)
        destinations = call.one_for_each(destinations)
        if not self._by_domain:
            self._route(call, envelope, content, TO_SMARTHOST, destinations)
            return call.answer()
        domains: dict[str, list[Destination]] = {}
        for destination in destinations:
            try:
                domains.setdefault(destination.route.address.domain_key or "?", []).append(destination)
            except AddressError as error:
                call.report(destination.index, Failed(BAD_DOMAIN, str(error)))
        for domain, shared in domains.items():
            self._route(call, envelope, content, domain, shared)
        return call.answer()

    def deliver_to(
        self, hosts: Sequence[Candidate], envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Awaitable[Mapping[int, Outcome]]:
        """As `deliver`, to these hosts.  Raises ValueError where it may not be told any."""
        if not self.takes_hosts:
            raise ValueError("a smarthost's password is for the smarthost alone")
        ranks = sorted({one.rank for one in hosts})
        groups = [
            tuple([Host(one.name, one.addresses, one.port) for one in hosts if one.rank == rank]) for rank in ranks
        ]
        call = _Call(self.connections.withdraw)
        self._send(Hosts(tuple(groups)), call, envelope, content, call.one_for_each(destinations))
        return call.answer()

    def _route(
        self, call: _Call, envelope: Envelope, content: Content, domain: str, destinations: Sequence[Destination]
    ) -> None:
        """Find the hosts of a domain, at once where they are known."""
        found = self._book.find(domain)
        if not isinstance(found, Deferred):
            self._send(found, call, envelope, content, destinations)
            return
        call.open += 1

        def later(found: Found) -> None:
            try:
                if call.waiting is None or not call.waiting.called:  # else the caller has given up
                    self._send(found, call, envelope, content, destinations)
            finally:
                call.ended()

        found.addCallback(later).addErrback(self._stumbled)

    def _stumbled(self, failure: Failure) -> None:
        """Log an error of our own.  The caller defers each destination without an outcome."""
        self.log.failure("the relay stumbled over a message", failure)

    def _send(
        self, found: Found, call: _Call, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> None:
        if not isinstance(found, Hosts):
            for destination in destinations:
                call.report(destination.index, found)
            return
        is_final = self.connections.is_lmtp
        targets = self._targets(found, NO_WISHES if is_final else wishes_of(envelope, content))
        most = self._recipients_most
        for start in range(0, len(destinations), most):
            part = destinations[start : start + most]
            transmission = Transmission(
                request_of(envelope, content, part, is_final=is_final),
                content,
                tuple([destination.index for destination in part]),
                targets.addresses,
                call.report,
                call.ended,
                barred=targets.barred,
            )
            call.open += 1
            call.transmissions.append(transmission)
            self.connections.submit(transmission)

    def _targets(self, hosts: Hosts, wishes: TLSWishes) -> Targets:
        override = None if self.tls_override is None else self.tls_override(hosts.domain)
        if wishes is not NO_WISHES or override is not None:
            return self._connect_settings.targets(hosts, self._chance, wishes, override)
        if hosts is self._last_hosts:
            return self._last_targets
        targets = self._connect_settings.targets(hosts, self._chance)
        if all(len(group) == 1 for group in hosts.groups):  # one order, which holds as long as the hosts
            self._last_hosts, self._last_targets = hosts, targets
        return targets


def request_of(
    envelope: Envelope, content: Content, destinations: Sequence[Destination], *, is_final: bool = False
) -> Request:
    """The request to the SMTP client.  `is_final`: it goes into a mail store, and no further.

    A message needs SMTPUTF8 where it came with it and has a non-ASCII header (RFC 6531 section 3.2).  The client itself sees
    whether an address needs it.
    """
    parameters = envelope.parameters
    return Request(
        sender=envelope.sender,
        recipients=tuple([_recipient(destination) for destination in destinations]),
        size=content.size,
        body="BINARYMIME" if content.binary else parameters.body,
        smtputf8=parameters.smtputf8 and not content.head.isascii(),
        ret=parameters.ret,
        envid=parameters.envid,
        require_tls=parameters.requiretls and not is_final,
    )


def _recipient(destination: Destination) -> Recipient:
    """The recipient at its final address.  After an alias ORCPT names the original address (RFC 3461 section 5.2.7.1)."""
    recipient, address = destination.recipient, destination.route.address
    if recipient.address is address or recipient.address == address:
        return recipient
    given = recipient.parameters
    return Recipient(address, RecipientParameters(given.notify, given.orcpt or _original(recipient.address)))


def _original(address: Address) -> tuple[str, str]:
    return ("rfc822" if address.is_ascii else "utf-8", str(address))
