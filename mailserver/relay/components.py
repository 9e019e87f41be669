"""The relay's two components and their options: ``[relay] use = "mx"`` and ``use = "smarthost"``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, Field, model_validator
from zope.interface import implementer

from mailserver.config import Count, Duration
from mailserver.config.next_hop import HopKeys, LoginKeys, check_certificate, check_login, next_host_name
from mailserver.config.route_table import RouteTable, next_hop_of_relay
from mailserver.interfaces import IComponentFactory, IConcurrentDelivery, Services
from mailserver.relay.connections import Connections
from mailserver.relay.conversion_forms import EightBit
from mailserver.relay.delivery import Relay
from mailserver.relay.own_ipv6 import OwnIPv6
from mailserver.relay.pace_options import PaceKeys, pace_table
from mailserver.relay.pool import PoolLimits
from mailserver.relay.route_maker import RouteMaker
from mailserver.relay.tls_results import telling, telling_barred
from mailserver.smtp.client.session import ClientLimits

__all__ = [
    "ConfiguredRelay", "MXFactory", "MXOptions", "RelayOptions", "SmarthostFactory", "SmarthostOptions", "pool_limits",
]  # fmt: skip

IDLE_GRACE_SECONDS = 10.0  # the pool says QUIT first
Seconds = Annotated[Duration, Field(gt=0)]


class RelayOptions(PaceKeys, HopKeys):
    """What both kinds of relay can be told."""

    recipients: Count = 100
    """Recipients in one transaction; a message with more goes in several."""
    connections: Count = 500
    """Connections at once, in all."""
    connection_age: Seconds = 300.0
    """How long a connection is used."""
    connection_idle: Seconds = 15.0
    """How long a connection is kept open without a message."""
    connect_timeout: Seconds = 30.0
    """How long to wait for a connection."""
    tls_resumption: bool = True
    """Resume TLS sessions of earlier connections to the same address, for up to an hour."""
    eightbit: Literal["convert", "raw", "refuse"] = "convert"
    """What becomes of 8-bit content for a host that does not offer 8BITMIME: `convert` encodes the parts of the message that need
    it, `raw` sends it as it came, `refuse` returns it."""
    probe: Seconds = 30.0
    """A host that cannot be reached is tried again after this time, then after twice as long, and so on up to 15 minutes, with
    one connection; meanwhile its mail waits in the queue."""

    @model_validator(mode="after")
    def _paces_have_hosts(self) -> Self:
        pace_table(self)
        return self

    @model_validator(mode="after")
    def _certificate_fits(self) -> Self:
        check_certificate(self)
        return self


class MXOptions(RelayOptions):
    """Options of ``use = "mx"``."""

    mta_sts: bool = True
    """Follow the policies that domains publish about their mail exchangers (MTA-STS)."""


class SmarthostOptions(RelayOptions, LoginKeys):
    """Options of ``use = "smarthost"``."""

    host: Annotated[str, AfterValidator(next_host_name)]
    """The host that takes all mail: its name, or its address."""
    look_up_mx: bool = False
    """Take the mail exchangers of `host` instead of the host itself."""
    messages_per_connection: Count = 1000
    """Messages on one connection; then a new one is opened."""

    @model_validator(mode="after")
    def _login_fits(self) -> Self:
        check_login(self)
        return self


class ConnectionOptions(Protocol):
    """The options that every component over the pool has for its connections."""

    @property
    def connections(self) -> int: ...

    @property
    def messages_per_connection(self) -> int: ...

    @property
    def connection_age(self) -> float: ...

    @property
    def connection_idle(self) -> float: ...

    @property
    def probe(self) -> float: ...


def pool_limits(
    options: ConnectionOptions, *, per_destination: int, probe_seconds_most: float = PoolLimits().probe_seconds_most
) -> PoolLimits:
    """The pool's limits, as the options give them."""
    return PoolLimits(
        per_destination=per_destination,
        in_all=options.connections,
        messages=options.messages_per_connection,
        age_seconds=options.connection_age,
        idle_seconds=options.connection_idle,
        probe_seconds=options.probe,
        probe_seconds_most=probe_seconds_most,
    )


def _client_limits(options: RelayOptions) -> ClientLimits:
    """How long the client waits, as the options say it."""
    return ClientLimits(
        connect_seconds=options.connect_timeout, idle_seconds=options.connection_idle + IDLE_GRACE_SECONDS
    )


class ConfiguredRelay(Relay):
    """The relay of a configuration: `[relay]` and its `[[route]]` tables, which a reload may replace (`configure`)."""

    def __init__(self, use: str, options: RelayOptions, services: Services) -> None:
        from twisted.internet import reactor

        network: Any = reactor
        self._maker = RouteMaker(services)
        connections = Connections(
            clock=services.clock,
            connect_tcp=network.connectTCP,
            run_in_thread=services.run_in_thread,
            own_name=services.hostname,
            pool_limits=pool_limits(options, per_destination=options.connections_per_host),
            client_limits=_client_limits(options),
            avoids_itself=True,
            eight_bit=EightBit(options.eightbit),
            directory=services.data_directory,
            room_for=services.room_for,
            seconds=services.steady_seconds,
            recordings=services.recordings,
            paces=pace_table(options),
            resumes=options.tls_resumption,
        )
        nothing = self._maker.routes(None).default
        super().__init__(book=nothing.book, connections=connections, connect_settings=nothing.connect_settings)
        if services.tls_results is not None:
            connections.tls_seen.append(telling(services.tls_results.tell))
            self.barred_seen = telling_barred(services.tls_results.tell)
        if services.resolver is not None:
            self.own_ipv6 = OwnIPv6(
                resolver=services.resolver, clock=services.clock, sources=self._open_sources, changed=self.forget_order
            )
        self._follow(use, options, ())
        self.takes_hosts = use != "smarthost"  # the password is for the smarthost alone

    def _open_sources(self) -> list[str]:
        """Our addresses for connections by domain for which nobody has said which family to use."""
        ways = [way for way in self.routes.ways if way.by_domain and way.refusal is None]
        return [way.connect_settings.source_ipv6 for way in ways if way.connect_settings.leaves_family_open]

    def configure(self, use: str, options: Any, tables: Sequence[RouteTable]) -> None:
        """Go on by these, for attempts and connections that begin from now on.  No errors: they were checked.

        `use` is "mx", "smarthost" or "none", which has no options.
        """
        kept = options if isinstance(options, RelayOptions) else MXOptions()
        self.connections.change(
            pool_limits=pool_limits(kept, per_destination=kept.connections_per_host),
            client_limits=_client_limits(kept),
            eight_bit=EightBit(kept.eightbit),
            paces=pace_table(kept),
            resumes=kept.tls_resumption,
        )
        self._follow(use, options, tables)

    def _follow(self, use: str, options: Any, tables: Sequence[RouteTable]) -> None:
        maker = self._maker
        maker.follows_sts = getattr(options, "mta_sts", True)
        routes = maker.routes(next_hop_of_relay(use, options), tables)
        most = options.recipients if isinstance(options, RelayOptions) else MXOptions().recipients
        self.follow(routes, tokens=maker.tokens, sts=maker.sts, recipients_most=most)
        if self.own_ipv6 is not None:
            self.own_ipv6.look()


@implementer(IComponentFactory)
class MXFactory:
    """Makes the relay that finds each domain's own hosts."""

    name = "mx"
    summary = "Sends mail for other domains to their mail exchangers."
    api_version = "1.0"
    provides = IConcurrentDelivery
    options = MXOptions

    def build(self, options: MXOptions, services: Services) -> ConfiguredRelay:
        """Make the relay.  Raises ValueError where the services have no resolver."""
        if services.resolver is None:
            raise ValueError("mail exchangers cannot be found without a resolver")
        return ConfiguredRelay("mx", options, services)


@implementer(IComponentFactory)
class SmarthostFactory:
    """Makes the relay that hands everything to one host."""

    name = "smarthost"
    summary = "Sends mail for other domains to one host, which takes it further."
    api_version = "1.0"
    provides = IConcurrentDelivery
    options = SmarthostOptions

    def build(self, options: SmarthostOptions, services: Services) -> ConfiguredRelay:
        """Make the relay.  Raises no errors."""
        return ConfiguredRelay("smarthost", options, services)
