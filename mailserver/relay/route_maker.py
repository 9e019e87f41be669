"""From what `[relay]` and the `[[route]]` tables say to the routes that a relay follows.

What a reload must not lose is kept here: log-ins with their tokens, and what is known of hosts.  Two routes that log in with the
same keys share the log-in, and so their connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mailserver.config.password_file import password_of
from mailserver.config.route_table import NextHop, RouteTable, next_hop_of, next_hop_of_relay
from mailserver.config.schema import Configuration
from mailserver.interfaces import RetryTimes, Services
from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.reply import Reply
from mailserver.mail.route_map import RouteMap
from mailserver.relay.client_certificate import ClientCertificate, renewed
from mailserver.relay.hosts import HostBook, Hosts, Unroutable, domain_hosts, named_hosts
from mailserver.relay.login import PasswordLogin, RelayLogin, TokenLogin
from mailserver.relay.route_facts import facts_of
from mailserver.relay.route_settings import ConnectSettings, RouteSettings
from mailserver.relay.security import TLSMode
from mailserver.relay.sts_fetching import PolicyFetching
from mailserver.relay.sts_keeper import STSKeeper, with_sts
from mailserver.relay.sts_store import KeptPolicies
from mailserver.relay.token_file import TokenFile
from mailserver.relay.token_issuer import Client, TokenIssuer
from mailserver.relay.token_keeper import TokenKeeper

__all__ = ["NO_RELAY", "RouteMaker", "refusal_of", "token_file", "token_hops", "token_issuer"]

NO_RELAY = Delayed(Reply.of(451, "4.3.5", "There is no relay for this recipient"), '[relay] use = "none", and no route')
NO_RESOLVER = Reply.of(451, "4.4.3", "Mail exchangers cannot be found without a resolver")
REFUSED = "5.7.1"
USUAL_REASON = "Mail for this recipient is not sent on"

LookUp = Callable[[str], Awaitable[Hosts]]


class RouteMaker:
    """Of one relay.  With `follows_sts` the mail exchangers of domains carry what MTA-STS says of them."""

    follows_sts = True

    def __init__(self, services: Services) -> None:
        self._services = services
        self.sts: STSKeeper | None = None  # from the first route by domain on
        self._books: dict[tuple[str | None, bool, int], HostBook] = {}
        self._logins: dict[tuple[Any, ...], RelayLogin] = {}
        self._relay: NextHop | None = None
        self._certificates: dict[tuple[str, str], ClientCertificate] = {}
        self._nowhere = HostBook(look_up=self._no_hosts, seconds=services.steady_seconds)

    def routes(self, relay: NextHop | None, tables: Sequence[RouteTable] = ()) -> RouteMap[RouteSettings]:
        """All of a configuration.  `relay` is what `[relay]` itself says, None where it says "none"."""
        before = self._books, self._logins, self._certificates
        self._books, self._logins, self._certificates = {}, {}, {}
        kept = _Kept(*before)
        self._relay = relay
        if relay is None:
            default = RouteSettings(self._nowhere, ConnectSettings(), refusal=NO_RELAY, facts=facts_of(None, None))
        else:
            default = self._settings(relay, kept, None)
        return RouteMap(default, [(table.rule, self._route(table, relay, kept)) for table in tables])

    @property
    def tokens(self) -> Sequence[TokenKeeper]:
        """Those of the routes that were made last."""
        return [login.keeper for login in self._logins.values() if isinstance(login, TokenLogin)]

    def _route(self, table: RouteTable, relay: NextHop | None, kept: _Kept) -> RouteSettings:
        if table.use == "none":
            refusal = Failed(refusal_of(table), f"route {table.label}")
            facts = facts_of(table, None)
            return RouteSettings(self._nowhere, ConnectSettings(), name=table.label, refusal=refusal, facts=facts)
        return self._settings(next_hop_of(table, relay), kept, table)

    def _settings(self, hop: NextHop, kept: _Kept, table: RouteTable | None) -> RouteSettings:
        name = "" if table is None else table.label
        connect_settings = ConnectSettings(
            port=hop.port,
            tls=TLSMode(hop.tls),
            source_ipv4=hop.source_ipv4 or "",
            source_ipv6=hop.source_ipv6 or "",
            ipv4=hop.ip != "ipv6",
            ipv6=hop.ip != "ipv4",
            prefer=hop.prefer,
            hosts_most=hop.hosts_per_attempt,
            addresses_most=hop.addresses_per_attempt,
            login=self._login(hop, kept),
            implicit_tls=hop.implicit_tls,
            certificate=self._certificate(hop, kept),
            names_host=hop.host is not None,
            route=name,
        )
        if hop.host is None:
            self.sts = self.sts or _sts_keeper(self._services)
        book = self._book(hop, kept)
        return RouteSettings(
            book,
            connect_settings,
            by_domain=hop.host is None,
            name=name,
            retry_times=None if table is None else _times_of(table),
            facts=facts_of(table, hop),
        )

    # --- hosts ---

    def _book(self, hop: NextHop, kept: _Kept) -> HostBook:
        """What is known of hosts holds for one port: TLSA records stand below it (RFC 6698 section 3)."""
        place = hop.host, hop.look_up_mx, hop.port
        book = self._books.get(place) or kept.books.get(place)
        if book is None:
            look_up = self._exchangers(hop.port) if hop.host is None else self._named(hop.host, hop.look_up_mx, hop.port)
            book = HostBook(look_up=look_up, seconds=self._services.steady_seconds)
        self._books[place] = book
        return book

    def _exchangers(self, port: int) -> LookUp:
        """Those of a domain, with what MTA-STS says of them."""
        resolver, own_names = self._services.resolver, frozenset({self._services.hostname.lower()})

        async def look_up(domain: str) -> Hosts:
            if resolver is None:
                raise Unroutable(Delayed(NO_RESOLVER, domain))
            return await domain_hosts(domain, resolver=resolver, own_names=own_names, port=port)

        async def look_up_both(domain: str) -> Hosts:
            if self.sts is None or not self.follows_sts:
                return await look_up(domain)
            return await with_sts(look_up, self.sts)(domain)

        return look_up_both

    def _named(self, host: str, look_up_mx: bool, port: int) -> LookUp:
        resolver = self._services.resolver
        return lambda _: named_hosts(host, resolver=resolver, look_up_mx=look_up_mx, port=port)

    async def _no_hosts(self, domain: str) -> Hosts:
        raise Unroutable(NO_RELAY)

    # --- log-ins ---

    def _certificate(self, hop: NextHop, kept: _Kept) -> ClientCertificate | None:
        if hop.client_certificate is None or hop.client_key is None:
            return None
        paths = hop.client_certificate, hop.client_key
        if paths not in self._certificates:
            before = kept.certificates.get(paths)
            self._certificates[paths] = ClientCertificate(*paths) if before is None else renewed(before)
        return self._certificates[paths]

    def _login(self, hop: NextHop, kept: _Kept) -> RelayLogin | None:
        if hop.host is None or not hop.username:
            return None
        whose = (
            hop.host, hop.port, hop.username, hop.password_file, hop.oauth, hop.oauth_client, hop.oauth_secret_file,
            hop.oauth_scopes, hop.oauth_flow, hop.mechanisms,
        )  # fmt: skip
        login = self._logins.get(whose) or kept.logins.get(whose)
        if login is None:
            login = self._token_login(hop, hop.host) if hop.oauth else _password_login(hop)
        self._logins[whose] = login
        return login

    def _token_login(self, hop: NextHop, host: str) -> TokenLogin:
        from twisted.internet import reactor

        services = self._services
        keeper = TokenKeeper(
            host=host,
            file=token_file(hop, services.keys_directory, self._relay),
            renewed=token_issuer(hop, reactor, services.clock.seconds).renewed,
            run_in_thread=services.run_in_thread,
            clock=services.clock,
            needs_person=hop.oauth_flow != "client",
        )
        name = "" if host.startswith("[") or ":" in host else host
        return TokenLogin(hop.username, keeper, host=name, port=hop.port, among=hop.mechanisms)


def _times_of(table: RouteTable) -> RetryTimes | None:
    if table.retry is None and table.warn is None and table.expire is None:
        return None
    return RetryTimes(table.retry, table.warn, table.expire)


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


class _Kept:
    """What the routes before had."""

    def __init__(
        self,
        books: dict[tuple[str | None, bool, int], HostBook],
        logins: dict[tuple[Any, ...], RelayLogin],
        certificates: dict[tuple[str, str], ClientCertificate],
    ) -> None:
        self.books = books
        self.logins = logins
        self.certificates = certificates


def _password_login(hop: NextHop) -> PasswordLogin:
    path = hop.password_file or ""
    return PasswordLogin(hop.username, lambda: password_of(path), hop.mechanisms)


def refusal_of(table: RouteTable) -> Reply:
    """What is said of a recipient whose route is `none`."""
    return Reply.of(550, REFUSED, table.reason or USUAL_REASON)


def token_issuer(hop: NextHop, reactor: Any, seconds: Callable[[], float]) -> TokenIssuer:
    """Who issues the tokens that these options want."""
    client = Client(hop.oauth_client, hop.oauth_secret_file, hop.oauth_scopes, is_itself=hop.oauth_flow == "client")
    return TokenIssuer(hop.oauth, client, reactor=reactor, seconds=seconds)


def token_file(hop: NextHop, keys_directory: str, relay: NextHop | None) -> TokenFile:
    """Where the tokens that these keys want are kept.  `relay` is what `[relay]` says: the same log-in has the same file."""
    whose = _token_owner(hop)
    return TokenFile(keys_directory, whose, is_of_route=relay is None or _token_owner(relay) != whose)


def token_hops(configuration: Configuration) -> list[tuple[NextHop, TokenFile]]:
    """Each log-in with tokens that `[relay]` and its routes have, with the file of its tokens."""
    relay = next_hop_of_relay(configuration.relay.use, configuration.relay.options)
    hops = [relay] if relay is not None else []
    hops += [next_hop_of(route, relay) for route in configuration.route if route.use != "none"]
    found: dict[tuple[str, str, str], NextHop] = {}
    for hop in hops:
        if hop.oauth:
            found.setdefault(_token_owner(hop), hop)
    return [(hop, token_file(hop, configuration.keys_path, relay)) for hop in found.values()]


def _token_owner(hop: NextHop) -> tuple[str, str, str]:
    return hop.oauth, hop.oauth_client, hop.username
