"""The relay's two components and their options: ``[relay] use = "mx"`` and ``use = "smarthost"``."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field, model_validator
from zope.interface import implementer

from mailserver.config import Count, Duration, FilePath, Options
from mailserver.config.password_file import password_of
from mailserver.config.values import host_name
from mailserver.interfaces import IComponentFactory, IConcurrentDelivery, Services
from mailserver.relay.connections import Connections
from mailserver.relay.conversion_forms import EightBit
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.hosts import HostBook, Hosts, domain_hosts, named_hosts
from mailserver.relay.login import PasswordLogin, RelayLogin, TokenLogin
from mailserver.relay.pool import PoolLimits
from mailserver.relay.security import TLSMode
from mailserver.relay.token_answers import checked_url
from mailserver.relay.token_file import TokenFile
from mailserver.relay.token_issuer import Client, TokenIssuer
from mailserver.relay.token_keeper import TokenKeeper
from mailserver.sasl.oauth import TOKEN_MECHANISMS
from mailserver.smtp.client.session import ClientLimits

__all__ = [
    "MXFactory", "MXOptions", "SmarthostFactory", "SmarthostOptions", "pool_limits", "smarthost_name", "token_file",
    "token_issuer",
]  # fmt: skip

IDLE_GRACE_SECONDS = 10.0  # the pool says QUIT first
Seconds = Annotated[Duration, Field(gt=0)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _address(kind: type) -> Callable[[str], str]:
    def checked(value: str) -> str:
        try:
            return str(kind(value))
        except ValueError:
            raise ValueError(f"{value!r} is no {kind.__name__.removesuffix('Address')} address") from None

    return checked


def smarthost_name(value: str) -> str:
    """Check the smarthost's name: a host name, or a numeric address with or without brackets."""
    bare = value.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare.removeprefix("IPv6:")))
    except ValueError:
        return host_name(value)


def _issuer(value: str) -> str:
    return checked_url(value) if value else value


class RelayOptions(Options):
    """What both kinds of relay can be told."""

    port: Port = 25
    """The port on the other side."""
    tls: Literal["none", "opportunistic", "required", "verified"] = "opportunistic"
    """`opportunistic` encrypts where it is offered and works, whatever the certificate; `required` never sends in the clear;
    `verified` also wants a certificate of the host's name that the system's authorities vouch for."""
    ip: Literal["any", "ipv4", "ipv6"] = "any"
    """Which addresses of a host are used; `any`: IPv4 first."""
    source_ipv4: Annotated[str, AfterValidator(_address(ipaddress.IPv4Address))] | None = None
    """Our own address on IPv4 connections."""
    source_ipv6: Annotated[str, AfterValidator(_address(ipaddress.IPv6Address))] | None = None
    """Our own address on IPv6 connections."""
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


class SmarthostOptions(RelayOptions):
    """Options of ``use = "smarthost"``."""

    host: Annotated[str, AfterValidator(smarthost_name)]
    """The host that takes all mail: its name, or its address."""
    look_up_mx: bool = False
    """Take the mail exchangers of `host` instead of the host itself."""
    messages_per_connection: Count = 1000
    """Messages on one connection; then a new one is opened."""
    implicit_tls: bool = False
    """Encrypt from the first octet on, as on port 465 (RFC 8314)."""
    username: str = ""
    """Log in to `host` as this user."""
    password_file: FilePath | None = None
    """A file whose first line is the password; it is read at each login."""
    oauth: Annotated[str, AfterValidator(_issuer)] = ""
    """Log in with tokens in the place of a password: the URL of who issues them, as OpenID Connect knows it."""
    oauth_client: str = ""
    """Our id at the issuer."""
    oauth_secret_file: FilePath | None = None
    """A file whose first line is our secret at the issuer, where it wants one; it is read each time."""
    oauth_scopes: tuple[str, ...] = ()
    """What the tokens shall be good for, in the issuer's words."""
    oauth_flow: Literal["device", "code", "client"] = "device"
    """How the first token is had (`mailserver smarthost login`): `device`, a person enters a code on any device; `code`, a
    person's browser is sent back with one; `client`, nobody is asked, the secret is enough."""
    mechanisms: tuple[
        Literal["OAUTHBEARER", "XOAUTH2", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"], ...
    ] = ("OAUTHBEARER", "XOAUTH2", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5")
    """How to log in; the first in the order of the default that the host offers is taken. The first two are for `oauth`, the
    others for a password."""

    @model_validator(mode="after")
    def _what_belongs_together(self) -> SmarthostOptions:
        if self.oauth and self.password_file is not None:
            raise ValueError("password_file and oauth are two ways to log in: leave one out")
        if bool(self.username) != (self.password_file is not None or bool(self.oauth)):
            raise ValueError("username needs a password_file or oauth, and each of them needs a username")
        if self.oauth and not (self.oauth_client and self.oauth_scopes):
            raise ValueError("oauth needs oauth_client and oauth_scopes")
        if not self.oauth and (self.oauth_client or self.oauth_scopes or self.oauth_secret_file is not None):
            raise ValueError("oauth_client, oauth_scopes and oauth_secret_file need oauth")
        if self.oauth and self.oauth_flow == "client" and self.oauth_secret_file is None:
            raise ValueError('oauth_flow = "client" needs an oauth_secret_file')
        if self.oauth and not set(self.mechanisms) & set(TOKEN_MECHANISMS):
            raise ValueError("mechanisms leaves none for oauth")
        if (self.username or self.implicit_tls) and self.tls not in ("required", "verified"):
            raise ValueError('a login and implicit_tls need tls = "verified" (or "required", which believes any certificate)')
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
        login=login,
        implicit_tls=implicit_tls,
    )
    book = HostBook(look_up=look_up, seconds=services.steady_seconds)
    return Relay(
        book=book,
        connections=connections,
        connect_settings=connect_settings,
        by_domain=by_domain,
        recipients_most=options.recipients,
        tokens=login.keeper if isinstance(login, TokenLogin) else None,
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
            look_up=lambda domain: domain_hosts(domain, resolver=resolver, own_names=own_names),
            by_domain=True,
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
            look_up=lambda _: named_hosts(options.host, resolver=services.resolver, look_up_mx=options.look_up_mx),
            by_domain=False,
            login=login,
            implicit_tls=options.implicit_tls,
        )
