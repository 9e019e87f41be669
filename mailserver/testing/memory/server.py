"""Joins the parts in memory to the server's own policy."""

# mypy: disallow-untyped-calls=False
# (Twisted's protocols have no annotations)

from __future__ import annotations

import functools
import os
import tomllib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from mailserver.assembly.components import Components, Owned
from mailserver.assembly.policy import Policy
from mailserver.assembly.server import Server
from mailserver.config import Configuration, parse
from mailserver.delivery.readers import WithReaders
from mailserver.interfaces import Services
from mailserver.mail.envelope import TLSFacts
from mailserver.mail.ids import IdSource
from mailserver.plugins.asked_delivery import AskedDelivery
from mailserver.plugins.catalogue import Catalogue, FoundPlugin, discover
from mailserver.plugins.lent import Lent
from mailserver.plugins.register import Register
from mailserver.queue.report_policies import ReportPolicies
from mailserver.receive.encryption import Encryption
from mailserver.receive.factory import ReceiveFactory, peer_at
from mailserver.receive.spooling import SpoolBudget
from mailserver.receive.throttle import Admission
from mailserver.relay.attempts import Attempts
from mailserver.relay.forwards import Forwards
from mailserver.relay.return_paths import ReturnPaths, SenderTable
from mailserver.sasl.steps import ChannelBindings
from mailserver.testing.memory.dialogue import SMTPDialogue, Wire
from mailserver.testing.memory.ends import ACCOUNTS, HOSTS, MAILBOXES
from mailserver.testing.memory.logins import MemoryAuthenticator
from mailserver.testing.memory.queue import MemoryQueue
from mailserver.testing.quarantine import MemoryQuarantine
from mailserver.testing.records import MemoryRecords
from mailserver.testing.state import MemoryState

__all__ = ["MemoryServer"]

Step = Mapping[str, Any]
HEAD = 'hostname = "mx.example.org"\ndata = "data"\n'
USUAL = {  # what a test need not say
    "listen": "".join(
        f'[[listen]]\nservice = "{service}"\nendpoint = "tcp:{port}"\ntls = "none"\n'
        for service, port in (("mx", 25), ("submission", 587), ("lmtp", 24))
    ),
    "accounts": '[accounts]\nuse = "memory"\n',
    "delivery": '[delivery]\nuse = "memory"\n',
    "relay": '[relay]\nuse = "memory-hosts"\n',
    "domain": '[domain."example.org"]\n',
}


@functools.cache
def shipped() -> Catalogue:
    """What is installed: searched once."""
    return discover()


def shown(tls: TLSFacts) -> Encryption:
    """Encryption without any: each handshake succeeds, and shows this."""
    return Encryption(
        implicit=False,
        creator=None,
        facts=lambda transport: tls,
        bindings=lambda transport: ChannelBindings(),
        fault=lambda transport, failure: failure.getErrorMessage(),
    )


class MemoryRegister:
    """Lends what the test's services have, and counts nothing."""

    def lend(self, kind: str, name: str, services: Services) -> tuple[Lent, Services]:
        """As they are."""
        return Lent(kind, name), services

    def built(self, lent: Lent, component: Any, use: str = "") -> None:
        """It is there."""

    def of(self, component: Any) -> None:
        """Nobody asks `mailserver plugins`."""

    def begin(self, component: Any) -> None:
        """It has started."""

    def observing(self, component: Any) -> Callable[[Step], None]:
        """An observer is told at once."""
        observe: Callable[[Step], None] = component.observe
        return observe

    async def end(self, component: Any, stop: Callable[[], Awaitable[None]], flush: Callable[[], Awaitable[Any]]) -> None:
        """Stop it."""
        await stop()


async def _at_its_time(_: str) -> None:
    """A deferred message is tried again by the schedule."""


async def _nothing() -> None:
    """No log is written."""


class MemoryServer:
    """A server in memory.  `text` is its configuration, `factories` are components beside those that are installed.

    What the configuration does not say is usual: `example.org` with alice, bob and carol, mailboxes and other hosts in memory,
    listeners for mx, submission and lmtp.  `steps` are all steps that observers see, in their order.
    """

    certificates = None

    def __init__(
        self,
        text: str,
        factories: tuple[Any, ...],
        *,
        clock: Clock,
        state: MemoryState,
        records: MemoryRecords,
        quarantine: MemoryQuarantine,
        services: Callable[[str], Services],
        folder: str,
    ) -> None:
        said = tomllib.loads(text)
        toml = ("" if "hostname" in said else HEAD) + text + "\n" + "".join(USUAL[key] for key in USUAL if key not in said)
        own = [FoundPlugin(one, "the test") for one in (*factories, ACCOUNTS, MAILBOXES, HOSTS)]
        mine = {one.name for one in own}
        self.catalogue = Catalogue([*own, *(one for one in shipped().found if one.name not in mine)])
        self.configuration: Configuration = parse(
            toml, file="mailserver.toml", directory=folder, options_of=self.catalogue.options_of
        )
        self.reactor = self.clock = clock
        self.data = folder
        self._services = services
        self.state = state
        self.resolver = self.noting_resolver = services("core").resolver
        self.ids = IdSource(clock.seconds)
        self.spool = SpoolBudget(
            one_octets_most=self.configuration.limits.memory_bytes,
            all_octets_most=self.configuration.limits.memory_bytes_total,
            run_in_thread=maybeDeferred,
        )
        self.steps_seen: list[Step] = []
        self._records = records
        self.register = MemoryRegister()
        self.components = Components(
            catalogue=self.catalogue,
            clock=clock,
            register=cast(Register, self.register),
            services=self._services_for,
            flush=_nothing,
        )
        self._lasting: list[Owned] = []
        self.local = self._delivery("delivery", self.configuration.delivery)
        self.readers = WithReaders(self.local, clock=clock, again=_at_its_time)
        relay = self.configuration.relay
        self.remote = None if relay.use == "none" else self._delivery("relay", relay)
        self.forwards = self._forwards(records)
        self.attempts = Attempts(clock=clock, seconds=clock.seconds, note=self.note, forwards=self.forwards)
        self.report_policies = ReportPolicies(seconds=clock.seconds, note=self.note)
        self.queue = MemoryQueue(
            clock=clock,
            attempts=self.attempts,
            folder=folder,
            local=self.readers,
            remote=self.remote,
            retry_seconds=self.configuration.queue.retry,
            expire_seconds=self.configuration.queue.expire,
            note=self.note,
            quarantine=quarantine,
            warn_seconds=self.configuration.queue.warn,
            judge_report=self.report_policies.judge,
        )
        self.policy = Policy(self.configuration, cast(Server, self))
        self.admission = Admission(connections=1000, connections_per_network=1000)
        self._factories: dict[str, ReceiveFactory] = {}
        self._encrypted: list[ReceiveFactory] = []
        for listen in self.configuration.listen:
            self._factories.setdefault(listen.service, ReceiveFactory(self.policy.profiles[listen.endpoint], self.admission))

    def _forwards(self, records: MemoryRecords) -> Forwards:
        """What leaves by an alias has a return path, as on the server."""
        self.return_paths = ReturnPaths(
            keys_directory=os.path.join(self.data, "keys"),
            table=SenderTable(records.space("forward")),
            run_in_thread=maybeDeferred,
            clock=self.clock,
        )
        return Forwards(
            paths=self.return_paths,
            hostname=self.configuration.hostname,
            is_own=lambda domain: self.policy.router.is_own(domain),
            note=self.note,
        )

    # --- what the policy asks of a server ---

    @property
    def steps(self) -> MemoryServer:
        """`note` is its own."""
        return self

    @property
    def pools(self) -> MemoryServer:
        """Work for a thread is done at once."""
        return self

    @property
    def logins(self) -> MemoryServer:
        """One password for all."""
        return self

    def of(self, kind: str) -> Any:
        """As `pools`: what runs a function."""
        return maybeDeferred

    def authenticator(self, configuration: Configuration, directory: Any) -> MemoryAuthenticator:
        """Lets every account in with one password."""
        return MemoryAuthenticator(directory)

    def serve_with(self, router: Any, judging: Any, generation: Any) -> None:
        """Reports are not routed here, and copies that nobody could judge are not judged again."""

    def _services_for(self, section: str, name: str, use: str) -> Services:
        return replace(self._services(name), is_own_domain=lambda domain: self.policy.router.is_own(domain))

    def _delivery(self, section: str, table: Any) -> AskedDelivery:
        owned = self.components.take(section, table)
        self._lasting.append(owned)
        return AskedDelivery(owned.component, owned.asking, prepare_seconds=float(self.configuration.limits.start_seconds))

    # --- life ---

    async def start(self) -> None:
        """Start everything; the listeners' clocks begin."""
        for owned in self._lasting:
            await self.components.start(owned, float(self.configuration.limits.start_seconds))
        await self.policy.start()
        for factory in self._factories.values():
            factory.startFactory()

    async def stop(self) -> None:
        """Stop everything."""
        for factory in (*self._factories.values(), *self._encrypted):
            factory.shut_down()
        await self.policy.stop()
        for owned in self._lasting:
            await self.components.let_go(owned, float(self.configuration.limits.stop_seconds))

    def note(self, id: str, step: str, **fields: Any) -> None:
        """A step of a message's or a connection's road: kept, and told to the observers."""
        seen = MappingProxyType({"time": self.clock.seconds(), "id": id, "step": step, **fields})
        self.steps_seen.append(seen)
        observers: Any = self.policy.observers if hasattr(self, "policy") else ()  # what `observing` has returned
        for observe in observers:
            observe(seen)

    # --- what a test asks ---

    def records(self, name: str) -> MemoryRecords:
        """The records of the component that the configuration calls so."""
        return self._records.space(name)

    def component(self, name: str, section: str = "") -> Any:
        """The component that the configuration calls so; `section` is the table's where two have the name.  Raises KeyError."""
        for owned in self.components:
            if owned.name == name and section in ("", owned.section):
                return owned.component
        raise KeyError(name)

    def connect(
        self, address: str, *, service: str, settle: Callable[[], None], tls: TLSFacts | None = None
    ) -> SMTPDialogue:
        """A new connection; its greeting has not been read.  `tls`: STARTTLS is offered, and a handshake shows this."""
        factory = self._factories[service]
        if tls is not None:
            factory = ReceiveFactory(replace(factory.profile, encryption=shown(tls)), self.admission)
            factory.startFactory()
            self._encrypted.append(factory)
        peer: Any = UNIXAddress(b"/run/lmtp") if address == "unix" else IPv4Address("TCP", address, 40025)
        if ":" in address:
            peer = IPv6Address("TCP", address, 40025)
        protocol = factory.protocol_for(peer_at(peer, factory.profile))
        wire = Wire(peerAddress=peer)
        wire.handshake = lambda: self.clock.callLater(0, protocol.handshakeCompleted)
        protocol.makeConnection(wire)
        return SMTPDialogue(protocol, wire, settle, lmtp=service == "lmtp")

    def road(self, id: str) -> list[Step]:
        """The steps of one message or connection."""
        return [one for one in self.steps_seen if one["id"] == id]

    def counts(self) -> Counter[str]:
        """How often each step was taken."""
        return Counter([one["step"] for one in self.steps_seen])


