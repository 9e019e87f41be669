"""The relay's two components and their options: ``[relay] use = "mx"`` and ``use = "smarthost"``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, Field, model_validator
from zope.interface import implementer

from mailserver.config import Count, Duration
from mailserver.config.next_hop import HopKeys, LoginKeys, check_login, next_host_name
from mailserver.config.password_file import password_of
from mailserver.interfaces import IComponentFactory, IConcurrentDelivery, Services
from mailserver.relay.connections import Connections
from mailserver.relay.conversion_forms import EightBit
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.hosts import HostBook, Hosts, domain_hosts, named_hosts
from mailserver.relay.login import PasswordLogin, RelayLogin, TokenLogin
from mailserver.relay.pool import PoolLimits
from mailserver.relay.security import TLSMode
from mailserver.relay.sts_fetching import PolicyFetching
from mailserver.relay.sts_keeper import STSKeeper, with_sts
from mailserver.relay.sts_store import KeptPolicies
from mailserver.relay.token_file import TokenFile
from mailserver.relay.token_issuer import Client, TokenIssuer
from mailserver.relay.token_keeper import TokenKeeper
from mailserver.smtp.client.session import ClientLimits

__all__ = [
    "MXFactory", "MXOptions", "SmarthostFactory", "SmarthostOptions", "pool_limits", "token_file", "token_issuer",
]  # fmt: skip

IDLE_GRACE_SECONDS = 10.0  # the pool says QUIT first
Seconds = Annotated[Duration, Field(gt=0)]


class RelayOptions(HopKeys):
    """What both kinds of relay can be told."""

    recipients: Count = 100
    """Recipients in one transaction; a message with more goes in several."""
    connections: Count = 500
    """Connections at once, in all."""
    connections_per_host: Count = 20
    """Connections at once to one address of a host."""
    messages_per_connection: Count = 100
    """Messages on one connection; then a new one is opened."""
    connection_age: Seconds = 300.0
    """How long a connection is used."""
    connection_idle: Seconds = 15.0
    """How long a connection is kept open without a message."""
    connect_timeout: Seconds = 30.0
    """How long to wait for a connection."""
    eightbit: Literal["convert", "raw", "refuse"] = "convert"
    """What becomes of 8-bit content for a host that does not offer 8BITMIME: `convert` encodes the parts of the message that need
    it, `raw` sends it as it came, `refuse` returns it."""
    probe: Seconds = 30.0
    """A host that cannot be reached is tried again after this time, then after twice as long, and so on up to 15 minutes, with
    one connection; meanwhile its mail waits in the queue."""


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


def _relay(
    options: RelayOptions,
    services: Services,
    *,
    look_up: Callable[[str], Awaitable[Hosts]],
    by_domain: bool,
    login: RelayLogin | None = None,
    implicit_tls: bool = False,
    sts: STSKeeper | None = None,
) -> Relay:
    from twisted.internet import reactor

    network: Any = reactor
    connections = Connections(
        clock=services.clock,
        connect_tcp=network.connectTCP,
        run_in_thread=services.run_in_thread,
        own_name=services.hostname,
        pool_limits=pool_limits(options, per_destination=options.connections_per_host),
        client_limits=ClientLimits(
            connect_seconds=options.connect_timeout, idle_seconds=options.connection_idle + IDLE_GRACE_SECONDS
        ),
        avoids_itself=by_domain,
        eight_bit=EightBit(options.eightbit),
        directory=services.data_directory,
        room_for=services.room_for,
        seconds=services.steady_seconds,
        recordings=services.recordings,
    )
    connect_settings = ConnectSettings(
        port=options.port,
        tls=TLSMode(options.tls),
        source_ipv4=options.source_ipv4 or "",
        source_ipv6=options.source_ipv6 or "",
        ipv4=options.ip != "ipv6",
        ipv6=options.ip != "ipv4",
        prefer=options.prefer,
        hosts_most=options.hosts_per_attempt,
        addresses_most=options.addresses_per_attempt,
        login=login,
        implicit_tls=implicit_tls,
    )
    book = HostBook(look_up=look_up if sts is None else with_sts(look_up, sts), seconds=services.steady_seconds)
    return Relay(
        book=book,
        connections=connections,
        connect_settings=connect_settings,
        by_domain=by_domain,
        recipients_most=options.recipients,
        tokens=login.keeper if isinstance(login, TokenLogin) else None,
        sts=sts,
    )


def _sts_keeper(services: Services) -> STSKeeper | None:
    """None for what is built without a server."""
    fetch: Any = services.fetch
    if fetch is None:
        return None
    return STSKeeper(
        resolver=services.resolver,
        fetching=PolicyFetching(fetch),
        kept=KeptPolicies(services.state, services.clock),
        clock=services.clock,
        seconds=services.steady_seconds,
    )


def token_issuer(options: SmarthostOptions, reactor: Any, seconds: Callable[[], float]) -> TokenIssuer:
    """Who issues the tokens that these options want."""
    client = Client(
        options.oauth_client, options.oauth_secret_file, options.oauth_scopes, is_itself=options.oauth_flow == "client"
    )
    return TokenIssuer(options.oauth, client, reactor=reactor, seconds=seconds)


def token_file(options: SmarthostOptions, keys_directory: str) -> TokenFile:
    """Where the tokens that these options want are kept."""
    return TokenFile(keys_directory, (options.oauth, options.oauth_client, options.username))


def _token_login(options: SmarthostOptions, services: Services) -> TokenLogin:
    from twisted.internet import reactor

    keeper = TokenKeeper(
        host=options.host,
        file=token_file(options, services.keys_directory),
        renewed=token_issuer(options, reactor, services.clock.seconds).renewed,
        run_in_thread=services.run_in_thread,
        clock=services.clock,
        needs_person=options.oauth_flow != "client",
    )
    name = "" if options.host.startswith("[") or ":" in options.host else options.host
    return TokenLogin(options.username, keeper, host=name, port=options.port, among=options.mechanisms)


@implementer(IComponentFactory)
class MXFactory:
    """Makes the relay that finds each domain's own hosts."""

    name = "mx"
    summary = "Sends mail for other domains to their mail exchangers."
    api_version = "1.0"
    provides = IConcurrentDelivery
    options = MXOptions

    def build(self, options: MXOptions, services: Services) -> Relay:
        """Make the relay.  Raises ValueError where the services have no resolver."""
        resolver = services.resolver
        if resolver is None:
            raise ValueError("mail exchangers cannot be found without a resolver")
        own_names = frozenset({services.hostname.lower()})
        return _relay(
            options,
            services,
            look_up=lambda domain: domain_hosts(
                domain, resolver=resolver, own_names=own_names, port=options.port
            ),
            by_domain=True,
            sts=_sts_keeper(services) if options.mta_sts else None,
        )


@implementer(IComponentFactory)
class SmarthostFactory:
    """Makes the relay that hands everything to one host."""

    name = "smarthost"
    summary = "Sends mail for other domains to one host, which takes it further."
    api_version = "1.0"
    provides = IConcurrentDelivery
    options = SmarthostOptions

    def build(self, options: SmarthostOptions, services: Services) -> Relay:
        """Make the relay.  Raises no errors."""
        path = options.password_file
        login: RelayLogin | None = None
        if path is not None:
            login = PasswordLogin(options.username, lambda: password_of(path), options.mechanisms)
        elif options.oauth:
            login = _token_login(options, services)
        return _relay(
            options,
            services,
            look_up=lambda _: named_hosts(
                options.host, resolver=services.resolver, look_up_mx=options.look_up_mx, port=options.port
            ),
            by_domain=False,
            login=login,
            implicit_tls=options.implicit_tls,
        )
