"""The relay as a delivery: a message's destinations, by hosts, over the pool.

    relay = Relay(book=…, connections=…, connect_settings=…)
    outcomes = await relay.deliver(envelope, content, destinations)

Destinations that share their hosts go in one transaction, up to a number of recipients.  A destination that is known to be out
of reach is deferred at once.  Each destination gets exactly one outcome.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import (
    Candidate,
    DestinationState,
    IComponent,
    IConcurrentDelivery,
    ICounting,
    IDestinations,
    IForgiving,
    IHostDelivery,
    IHostFinder,
    IRetrySchedule,
    RetryTimes,
)
from mailserver.mail import answers
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import Failed, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient, RecipientParameters
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.route_map import ANYBODY, RouteMap
from mailserver.relay.connections import Connections
from mailserver.relay.destination_states import destination_states
from mailserver.relay.explored import explored_hosts, explored_override, explored_sts
from mailserver.relay.hosts import Host, HostBook, Hosts
from mailserver.relay.own_ipv6 import OwnIPv6
from mailserver.relay.probing import probed
from mailserver.relay.relay_call import RelayCall, Told
from mailserver.relay.route_settings import ConnectSettings, RouteSettings
from mailserver.relay.security import Barred, TLSOverride
from mailserver.relay.sts_keeper import STSKeeper
from mailserver.relay.tls_history import TLSHistory
from mailserver.relay.token_keeper import TokenKeeper
from mailserver.relay.transmission import Targets, Transmission
from mailserver.relay.wishes import NO_WISHES, TLSWishes, wishes_of
from mailserver.smtp.client.session import Request

__all__ = ["ConnectSettings", "Relay"]

BAD_DOMAIN = Reply.of(550, "5.1.2", "The domain of the recipient is no domain name")
TO_SMARTHOST = ""  # the name under which all domains go to the smarthost

Found = Hosts | answers.Delayed | Failed


@implementer(
    IConcurrentDelivery, IComponent, ICounting, IDestinations, IForgiving, IHostFinder, IHostDelivery, IRetrySchedule
)  # fmt: skip
class Relay:
    """Sends mail to other hosts.

    `routes` says how, by sender and recipient (`follow` brings others).  Before that all mail goes one way: `book` says where a
    domain's mail goes; with `by_domain` False one look-up of the empty name serves all domains: a smarthost.  A transaction has
    up to `recipients_most` recipients.
    """

    stores = True
    tells_early = True
    """`deliver` and `deliver_to` take a function that is told outcomes while others are under way, each once."""
    log = Logger()
    _is_running = False
    own_ipv6: OwnIPv6 | None = None  # where it is to be looked at

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
        tokens: Iterable[TokenKeeper] = (),
        sts: STSKeeper | None = None,
    ) -> None:
        self.connections = connections
        self.history = TLSHistory()
        """What was seen of other hosts' TLS."""
        connections.tls_seen.append(self.history.add)
        self.barred_seen: Callable[[Hosts, Host, Barred], None] | None = None  # is told of hosts that may not be used
        self._tokens: Sequence[TokenKeeper] = tuple(tokens)
        self._sts = sts
        self.calls_at_once = calls_at_once
        self.deadline_seconds = deadline_seconds
        self.routes = RouteMap(RouteSettings(book, connect_settings, by_domain))
        self.takes_hosts = by_domain  # a smarthost's password is for the smarthost
        self._recipients_most = recipients_most
        self._stop_seconds = stop_seconds
        self._chance = chance or random.Random()
        self._last_way: tuple[Hosts, RouteSettings] | None = None
        self._last_targets = Targets(())
        self.tls_override: Callable[[str], TLSOverride | None] | None = None  # what an administrator has said of a domain

    def __repr__(self) -> str:
        return f"<Relay: {self.connections.pool!r}>"

    # --- life ---

    async def start(self) -> None:
        """Begin the timers.  No connection is opened before there is mail."""
        self.connections.start()
        self._is_running = True
        for keeper in self._tokens:
            keeper.start()
        if self._sts is not None:
            self._sts.start()
        if self.own_ipv6 is not None:
            self.own_ipv6.start()

    async def stop(self) -> None:
        """Stop.  Running transactions have a few seconds to end."""
        self._is_running = False
        if self.own_ipv6 is not None:
            self.own_ipv6.stop()
        ended = self.connections.stop(self._stop_seconds)  # first: a look-up that is cut short must not lead to a connection
        await DeferredList([Deferred.fromCoroutine(keeper.stop()) for keeper in self._tokens], consumeErrors=True)
        if self._sts is not None:
            await self._sts.stop()
        await ended
        self.log.info("the relay has stopped: {pool}", pool=repr(self.connections.pool))

    def follow(
        self,
        routes: RouteMap[RouteSettings],
        *,
        tokens: Iterable[TokenKeeper] = (),
        sts: STSKeeper | None = None,
        recipients_most: int | None = None,
    ) -> None:
        """From now on these routes hold, for each attempt that begins.  What is under way ends as it began."""
        self.routes = routes
        self.forget_order()
        self._recipients_most = recipients_most or self._recipients_most
        before, self._tokens = self._tokens, tuple(tokens)
        is_new, self._sts = sts is not self._sts, sts
        if not self._is_running:
            return
        if sts is not None and is_new:
            sts.start()
        for keeper in self._tokens:
            if keeper not in before:
                keeper.start()
        for keeper in before:
            if keeper not in self._tokens:
                Deferred.fromCoroutine(keeper.stop()).addErrback(self._stumbled)

    def forget_order(self) -> None:
        """Decide anew which addresses are tried in which order."""
        self._last_way = None

    async def flush(self) -> None:
        """Do nothing: the host that took a message keeps it durably."""

    # --- for people ---

    def counts(self) -> Mapping[str, int | float]:
        """Counts since the start: the pool's `PoolCounts` and its `hit_rate`; and `connections`, the number open now.

        With tokens: `token_seconds_left`, of the one that ends first, and `token_failures` (`TokenKeeper.counts`); with MTA-STS:
        `sts_policies` and `sts_failures`.
        """
        pool = self.connections.pool
        others = _together([keeper.counts() for keeper in self._tokens])
        others |= {} if self._sts is None else self._sts.counts()
        return {
            "connections": pool.connections, **asdict(pool.counts), "hit_rate": round(pool.counts.hit_rate, 4), **others
        }  # fmt: skip

    def doubts(self) -> Sequence[str]:
        """What a postmaster should know of the log-in, in sentences."""
        return tuple([doubt for keeper in self._tokens if (doubt := keeper.doubt())])

    def forgive(self) -> None:
        """Connect again to hosts that were out of reach, and repeat look-ups that failed (`IForgiving`)."""
        for book in {settings.book for settings in self.routes.ways}:
            book.forgive()
        self.connections.forgive()

    def destinations(self, most: int) -> Sequence[DestinationState]:
        """How mail goes to each host or operator (`IDestinations`)."""
        return destination_states(self.connections.pool, self.connections.seconds(), most)

    async def hosts_for(self, address: Address, sender: Address | None = ANYBODY) -> Sequence[Candidate] | Outcome:
        """The hosts that mail for this address would be offered to, or the outcome where none is found."""
        settings = self.routes.route_for(sender, address)
        hosts = await self._found(settings, address)
        if not isinstance(hosts, Hosts):
            return hosts
        port = settings.connect_settings.port
        return [
            Candidate(one.name, one.addresses, port, rank) for rank, group in enumerate(hosts.groups) for one in group
        ]

    def way_for(self, sender: Address | None, address: Address) -> Mapping[str, Any]:
        """What holds for mail of this sender to this address (`route_facts`)."""
        return self.routes.route_for(sender, address).facts

    async def explored(
        self, address: Address, sender: Address | None = ANYBODY, wishes: TLSWishes = NO_WISHES
    ) -> dict[str, Any] | answers.Delayed | Failed:
        """What is known of the hosts' TLS, what would be demanded of each, and what was seen last: in plain values.

        The outcome where no hosts are found.  Raises `AddressError` for an impossible domain.
        """
        settings = self.routes.route_for(sender, address)
        hosts = await self._found(settings, address)
        if not isinstance(hosts, Hosts):
            return hosts
        override, connect = self._override(hosts), settings.connect_settings
        decided = [(host, connect.demand(hosts, host, wishes, override)) for group in hosts.groups for host in group]
        seconds_left = None if self._sts is None else await self._sts.seconds_left(hosts.domain)
        return {
            "domain": hosts.domain,
            "route": settings.name,
            "is_authentic": hosts.is_authentic,
            "port": connect.port,
            "tls": connect.tls.value,
            "mta_sts": explored_sts(hosts.sts, seconds_left),
            "override": explored_override(override),
            "hosts": explored_hosts(hosts, decided, self.history.of(hosts.domain)),
        }

    async def _found(self, settings: RouteSettings, address: Address) -> Found:
        if settings.refusal is not None:
            return settings.refusal
        found = settings.book.find(address.domain_key if settings.by_domain else TO_SMARTHOST)
        return await found if isinstance(found, Deferred) else found

    def _override(self, hosts: Hosts) -> TLSOverride | None:
        return None if self.tls_override is None else self.tls_override(hosts.domain)

    async def probe(self, address: Address, sender: Address | None) -> dict[str, Any] | answers.Delayed | Failed:
        """Ask the hosts of this address up to RCPT and send nothing, in plain values; the outcome where no hosts are found.

        Raises `AddressError` for an impossible domain.  Cancelling it ends it.
        """
        settings = self.routes.route_for(sender, address)
        hosts = await self._found(settings, address)
        if not isinstance(hosts, Hosts):
            return hosts
        targets = self._targets(settings, hosts, NO_WISHES)
        request = Request(sender, (Recipient(address),), 0, envelope_only=True)
        found = await probed(self.connections, targets.addresses, request)
        return {"attempts": [one.as_facts() for one in found], "barred": [one.why for one in targets.barred]}

    # --- delivering ---

    def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination], told: Told | None = None
    ) -> Awaitable[Mapping[int, Outcome]]:
        """Send the message to each destination's hosts.  An address that several destinations share gets it once.

        The outcomes are keyed by the destinations' indexes.
        """
        call = RelayCall(self.connections.withdraw, told)
        destinations = call.one_for_each(destinations)
        routes = self.routes
        if routes.is_single:  # as most are
            self._follow_route(routes.default, call, envelope, content, destinations)
        else:
            for settings, same in self._by_route(envelope, destinations):
                self._follow_route(settings, call, envelope, content, same)
        return call.answer()

    def _follow_route(
        self,
        settings: RouteSettings,
        call: RelayCall,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
    ) -> None:
        if settings.refusal is not None:
            for destination in destinations:
                call.report(destination.index, settings.refusal)
        elif settings.by_domain:
            for domain, shared in _by_domain(call, destinations).items():
                self._route(settings, call, envelope, content, domain, shared)
        else:
            self._route(settings, call, envelope, content, TO_SMARTHOST, destinations)

    def _by_route(
        self, envelope: Envelope, destinations: Sequence[Destination]
    ) -> Iterable[tuple[RouteSettings, Sequence[Destination]]]:
        """The destinations of each route: none of another route is ever in their transactions."""
        found: dict[RouteSettings, list[Destination]] = {}
        for destination in destinations:
            settings = self.routes.route_for(envelope.sender, destination.route.address)
            found.setdefault(settings, []).append(destination)
        return found.items()

    def deliver_to(
        self,
        hosts: Sequence[Candidate],
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
        told: Told | None = None,
    ) -> Awaitable[Mapping[int, Outcome]]:
        """As `deliver`, to these hosts; but what has a route to a host of its own goes there.

        Raises ValueError where it may not be told any.
        """
        if not self.takes_hosts:
            raise ValueError("a smarthost's password is for the smarthost alone")
        ranks = sorted({one.rank for one in hosts})
        groups = [
            tuple([Host(one.name, one.addresses, one.port) for one in hosts if one.rank == rank]) for rank in ranks
        ]
        call = RelayCall(self.connections.withdraw, told)
        for settings, same in self._by_route(envelope, call.one_for_each(destinations)):
            if settings.refusal is not None:
                for destination in same:
                    call.report(destination.index, settings.refusal)
            elif settings.by_domain:
                for override, those in self._by_override(same):
                    self._send(settings, Hosts(tuple(groups)), call, envelope, content, those, override)
            else:
                self._route(settings, call, envelope, content, TO_SMARTHOST, same)
        return call.answer()

    def _by_override(self, destinations: Sequence[Destination]) -> Iterable[tuple[TLSOverride | None, Sequence[Destination]]]:
        """Whoever names the hosts of a domain: what an administrator has said of the domain holds."""
        if self.tls_override is None:
            return [(None, destinations)]
        found: dict[TLSOverride | None, list[Destination]] = {}
        for destination in destinations:
            try:
                override = self.tls_override(destination.route.address.domain_key)
            except AddressError:
                override = None
            found.setdefault(override, []).append(destination)
        return found.items()

    def retry_times(self, sender: Address | None, address: Address) -> RetryTimes | None:
        """As `IRetrySchedule`."""
        return self.routes.route_for(sender, address).retry_times

    @property
    def longest_retry_times(self) -> Sequence[RetryTimes]:
        """As `IRetrySchedule`."""
        return [settings.retry_times for settings in self.routes.ways if settings.retry_times is not None]

    def _route(
        self,
        settings: RouteSettings,
        call: RelayCall,
        envelope: Envelope,
        content: Content,
        domain: str,
        destinations: Sequence[Destination],
    ) -> None:
        """Find the hosts of a domain, at once where they are known."""
        try:
            found = settings.book.find(domain)
        except Exception:  # noqa: BLE001  as in `_send`
            self.log.failure("the hosts of {domain} could not be looked for", domain=domain)
            return
        if not isinstance(found, Deferred):
            self._send(settings, found, call, envelope, content, destinations)
            return
        call.open += 1

        def later(found: Found) -> None:
            try:
                if call.waiting is None or not call.waiting.called:  # else the caller has given up
                    self._send(settings, found, call, envelope, content, destinations)
            finally:
                call.ended()

        found.addCallback(later).addErrback(self._stumbled)

    def _stumbled(self, failure: Failure) -> None:
        """Log an error of our own.  The caller defers each destination without an outcome."""
        self.log.failure("the relay stumbled over a message", failure)

    def _send(
        self,
        settings: RouteSettings,
        found: Found,
        call: RelayCall,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
        override: TLSOverride | None = None,
    ) -> None:
        """`override`, where it is given, counts in the place of the one for the hosts' domain.

        A fault of ours is nothing that the message's other destinations have to do with: they may be on their way.
        """
        try:
            self._submit(settings, found, call, envelope, content, destinations, override)
        except Exception:  # noqa: BLE001  those without an outcome are deferred
            self.log.failure("{id}: the relay stumbled over some of its destinations", id=envelope.id)

    def _submit(
        self,
        settings: RouteSettings,
        found: Found,
        call: RelayCall,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
        override: TLSOverride | None,
    ) -> None:
        if not isinstance(found, Hosts):
            for destination in destinations:
                call.report(destination.index, found)
            return
        is_final = self.connections.is_lmtp
        wishes = NO_WISHES if is_final else wishes_of(envelope, content)
        targets = self._targets(settings, found, wishes, override)
        if targets.barred and self.barred_seen is not None:
            self._tell_barred(settings, found, wishes)
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
                said=call.tell,
            )
            call.open += 1
            call.transmissions.append(transmission)
            self.connections.submit(transmission)

    def _tell_barred(self, settings: RouteSettings, hosts: Hosts, wishes: TLSWishes) -> None:
        """Of hosts that may not be used, where that is not the message's own wish."""
        if wishes.requires_tls or self.barred_seen is None:
            return
        override = self._override(hosts)
        try:
            for host in [host for group in hosts.groups for host in group]:
                decision = settings.connect_settings.demand(hosts, host, wishes, override)
                if isinstance(decision, Barred):
                    self.barred_seen(hosts, host, decision)
        except Exception:  # noqa: BLE001  # whoever counts is no reason not to send
            self.log.failure("what is told of hosts that may not be used could not be taken")

    def _targets(
        self, settings: RouteSettings, hosts: Hosts, wishes: TLSWishes, override: TLSOverride | None = None
    ) -> Targets:
        override = override or self._override(hosts)
        connect, own = settings.connect_settings, self.own_ipv6
        spares_ipv6 = (
            own is not None and settings.by_domain and connect.leaves_family_open and own.is_missing(connect.source_ipv6)
        )
        if wishes is not NO_WISHES or override is not None:
            return connect.targets(hosts, self._chance, wishes, override, spares_ipv6=spares_ipv6)
        last = self._last_way
        if last is not None and last[0] is hosts and last[1] is settings:
            return self._last_targets
        targets = connect.targets(hosts, self._chance, spares_ipv6=spares_ipv6)
        if all(len(group) == 1 for group in hosts.groups):  # one order, which holds as long as the hosts
            self._last_way, self._last_targets = (hosts, settings), targets
        return targets


def _by_domain(call: RelayCall, destinations: Sequence[Destination]) -> dict[str, list[Destination]]:
    domains: dict[str, list[Destination]] = {}
    for destination in destinations:
        try:
            domains.setdefault(destination.route.address.domain_key or "?", []).append(destination)
        except AddressError as error:
            call.report(destination.index, Failed(BAD_DOMAIN, str(error)))
    return domains


def _together(counts: Sequence[Mapping[str, int | float]]) -> dict[str, int | float]:
    """The least time that a token is good for, and the failures of all."""
    if not counts:
        return {}
    return {
        "token_seconds_left": min(one["token_seconds_left"] for one in counts),
        "token_failures": sum(one["token_failures"] for one in counts),
    }


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
    """The recipient at its final address.  After an alias ORCPT names the original address (RFC 3461 section 5.2.7.1).

    Where the sender is to hear nothing, whoever he is, the next host is not asked to tell him of a success or a delay.
    """
    recipient, address = destination.recipient, destination.route.address
    if recipient.address is address or recipient.address == address:
        return recipient
    given = recipient.parameters
    notify = given.notify
    if destination.quiet:
        notify = frozenset({"FAILURE"} if notify is None or "FAILURE" in notify else {"NEVER"})
    return Recipient(address, RecipientParameters(notify, given.orcpt or _original(recipient.address)))


def _original(address: Address) -> tuple[str, str]:
    return ("rfc822" if address.is_ascii else "utf-8", str(address))
