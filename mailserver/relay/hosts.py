"""Where a domain's mail goes: hosts with their addresses, in the order in which they are tried (RFC 5321 section 5.1).

    MX records               by preference, in random order among equals
    no MX record             the domain's own addresses
    one MX record "0 ."      the domain takes no mail: failed, 5.1.10 (RFC 7505)
    our own name among them  it and all that is not better is left out; nothing better: a loop, 5.4.6
    [192.0.2.1]              that address
    the name does not exist  failed, 5.1.2
    no host has an address   failed, 5.4.4
    the DNS cannot tell      deferred, 4.4.3

A smarthost is one host for all domains.  Its name is looked up for addresses; MX records count only where that is asked for.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from mailserver.interfaces import IResolver
from mailserver.mail.answers import Delayed, Failed
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.reply import Reply
from mailserver.plugins.awaiting import now_or_later
from mailserver.relay.tlsa import AddressAnswer, tlsa_of
from mailserver.trust.dane import NO_TLSA, TLSAAnswer, TLSAState
from mailserver.trust.mta_sts import STSAnswer

__all__ = ["Host", "HostBook", "Hosts", "Unroutable", "domain_hosts", "literal_address", "named_hosts"]

SMTP_PORT = 25
HOSTS_MOST = 10  # mail exchangers of a domain that are used
ADDRESSES_MOST = 8  # of one host
PREFERENCE_MOST = 65535  # RFC 1035 section 3.3.9
KEEP_SECONDS_LEAST = 5.0
KEEP_SECONDS_MOST = 300.0
KEEP_FAULT_SECONDS = 30.0  # less than the queue's first pause
DOMAINS_KEPT = 10_000

NOT_SURE = TLSAAnswer(why="the MX answer is not secure, or the name server is not believed")
NULL_MX = Reply.of(556, "5.1.10", "The domain takes no mail (null MX)")
NO_DOMAIN = Reply.of(550, "5.1.2", "The domain does not exist")
NO_LITERAL = Reply.of(550, "5.1.3", "The address literal is of no kind that is known here")
NO_ADDRESS = Reply.of(550, "5.4.4", "No mail host of the domain has an address")
LOOP = Reply.of(554, "5.4.6", "Mail for the domain comes back to this host")
NO_SMARTHOST = Reply.of(451, "4.3.5", "The smarthost has no address")
NO_ANSWER = Reply.of(451, "4.4.3", "The DNS does not answer for the domain")


@dataclass(frozen=True, slots=True)
class Host:
    """One host: its name (for TLS and the log), and its numeric addresses in the order in which they are tried.

    `port` is 0 where it is the usual one.  `tlsa` is what the DNS says about its certificates.
    """

    name: str
    addresses: tuple[str, ...]
    port: int = 0
    tlsa: TLSAAnswer = NO_TLSA


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of a domain in groups of equal preference, best first.  They are valid for `ttl_seconds`.

    `is_authentic`: that these are the domain's hosts is sure, by an MX answer that is secure (or securely says that there is no
    MX record), or because the configuration names them.  `sts` is what MTA-STS says about `domain`.
    """

    groups: tuple[tuple[Host, ...], ...]
    ttl_seconds: float = KEEP_SECONDS_MOST
    domain: str = ""
    is_authentic: bool = False
    sts: STSAnswer | None = None

    def in_order(self, chance: random.Random) -> list[Host]:
        """The hosts in one order of trying them: random among equals, so that they share the load (RFC 5321 section 5.1)."""
        hosts: list[Host] = []
        for group in self.groups:
            hosts += group if len(group) == 1 else chance.sample(group, len(group))
        return hosts


class Unroutable(Exception):
    """No host was found.  `outcome` says why, and whether the failure is permanent."""

    def __init__(self, outcome: Delayed | Failed) -> None:
        super().__init__(outcome.note)
        self.outcome = outcome


def literal_address(domain: str) -> str | None:
    """The address in ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``; None for any other text (RFC 5321 section 4.1.3)."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    inner = domain[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return str(ipaddress.IPv6Address(inner[5:]))
        return str(ipaddress.IPv4Address(inner))
    except ValueError:
        return None


async def domain_hosts(domain: str, *, resolver: IResolver, own_names: Collection[str] = (), port: int = SMTP_PORT) -> Hosts:
    """The hosts of `domain` (lower case, A-labels, or an address literal).  `own_names` are ours, in lower case.

    `port` is the one that is connected to: TLSA records are a port's.  Raises `Unroutable`.
    """
    if domain.startswith("["):
        address = literal_address(domain)
        if address is None:
            raise Unroutable(Failed(NO_LITERAL, f"{domain} cannot be connected to"))
        return Hosts(((Host(domain, (address,)),),), domain=domain)
    answer = await _ask(resolver, domain, "MX")
    if not answer.name_exists:
        raise Unroutable(Failed(NO_DOMAIN, f"{domain} does not exist (MX)"))
    exchangers = sorted(
        {(mx.preference, mx.exchange.rstrip(".").lower()) for mx in answer.exchanges if mx.exchange != "."}
    )
    if not exchangers:
        if answer.records:  # RFC 7505 section 3: the exchanger is the root, a null MX
            raise Unroutable(Failed(NULL_MX, f"{domain} has a null MX"))
        exchangers = [(0, domain)]  # the implicit MX
    usable = _before_ourselves(exchangers, own_names)
    if not usable:
        raise Unroutable(Failed(LOOP, f"{domain}: this host is its best mail exchanger, but takes no mail for it"))
    way = _Way(domain, tuple(filter(None, (domain, answer.canonical_name))), answer.authenticated, port)
    return await _with_addresses(way, usable[:HOSTS_MOST], resolver, answer.ttl_seconds)


async def named_hosts(
    name: str, *, resolver: IResolver | None, look_up_mx: bool = False, port: int = SMTP_PORT
) -> Hosts:
    """The hosts of a smarthost: a numeric address, in brackets or bare, or a name.  Raises `Unroutable`."""
    address = literal_address(name) or _numeric(name)
    if address is not None:
        return Hosts(((Host(name, (address,)),),), domain=name, is_authentic=True)
    if resolver is None:
        raise Unroutable(Delayed(NO_ANSWER, f"{name}: no resolver is configured"))
    try:
        if look_up_mx:
            return await domain_hosts(name, resolver=resolver, port=port)
        return await _with_addresses(_Way(name, (name,), True, port), [(0, name)], resolver, 0)
    except Unroutable as error:  # the configuration or the DNS is wrong; recipients must not fail for that
        raise Unroutable(Delayed(NO_SMARTHOST, str(error))) from error


# --- the parts ---


def _before_ourselves(exchangers: Sequence[tuple[int, str]], own_names: Collection[str]) -> list[tuple[int, str]]:
    """The exchangers before our own name.  It, and all of equal or worse preference, must not be used (RFC 5321 section 5.1)."""
    own = min((preference for preference, name in exchangers if name in own_names), default=PREFERENCE_MOST + 1)
    return [(preference, name) for preference, name in exchangers if preference < own]


@dataclass(frozen=True, slots=True)
class _Way:
    """How hosts are come to: `domain`, all `names` of it, whether what leads from them to the hosts `is_sure`, the port there."""

    domain: str
    names: tuple[str, ...]
    is_sure: bool
    port: int


async def _with_addresses(
    way: _Way, exchangers: Sequence[tuple[int, str]], resolver: IResolver, ttl_seconds: float
) -> Hosts:
    """Look up all hosts at the same time.  One whose look-up fails is left out where others have addresses."""
    found: list[Any] = await gatherResults(
        [_begun(_host(name, way, resolver)) for _, name in exchangers], consumeErrors=True
    )
    groups: dict[int, list[Host]] = {}
    ttls = [ttl_seconds] if ttl_seconds else []
    failure = ""
    for (preference, _), (host, ttl, why) in zip(exchangers, found, strict=True):
        failure = failure or why
        if host.addresses:
            groups.setdefault(preference, []).append(host)
            ttls.append(ttl)
    if groups:
        ordered = tuple(tuple(group) for _, group in sorted(groups.items()))
        return Hosts(ordered, min(ttls), way.domain, way.is_sure)
    if failure:
        raise Unroutable(Delayed(NO_ANSWER, f"{way.domain}: {failure}"))
    names = ", ".join(name for _, name in exchangers)
    raise Unroutable(Failed(NO_ADDRESS, f"{way.domain}: no address for {names}"))


async def _host(name: str, way: _Way, resolver: IResolver) -> tuple[Host, float, str]:
    """The host, for how many seconds that is good, and why a look-up of its addresses failed, or ""."""
    found = await _addresses(name, resolver)
    ttl, tlsa = found.ttl_seconds, NOT_SURE
    if way.is_sure:
        tlsa, tlsa_ttl = await tlsa_of(name, found, next_hops=way.names, port=way.port, resolver=resolver)
        if tlsa.state is TLSAState.FAILED:
            tlsa_ttl = KEEP_FAULT_SECONDS
        ttl = min(ttl, tlsa_ttl) if tlsa_ttl else ttl
    return Host(name, found.addresses[:ADDRESSES_MOST], tlsa=tlsa), ttl, found.failure


async def _addresses(name: str, resolver: IResolver) -> AddressAnswer:
    """The addresses of a host, IPv4 first."""
    answers: list[Answer] = []
    failure = ""
    for record_type in ("A", "AAAA"):
        try:
            answers.append(await resolver.query(name, record_type))
        except LookupFailed as error:
            failure = f"{record_type} of {name}: {error}"
    with_addresses = [one for one in answers if any(map(_numeric, one.records))]
    texts = [text for one in with_addresses for text in map(_numeric, one.records) if text]
    return AddressAnswer(
        tuple(dict.fromkeys(texts)),
        min([one.ttl_seconds for one in with_addresses], default=0.0),
        failure,
        bool(with_addresses) and all(one.authenticated for one in with_addresses),
        next((one.canonical_name for one in with_addresses if one.canonical_name), ""),
    )


def _numeric(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


async def _ask(resolver: IResolver, name: str, record_type: str) -> Answer:
    try:
        answer: Answer = await resolver.query(name, record_type)
    except LookupFailed as error:
        raise Unroutable(Delayed(NO_ANSWER, f"{record_type} of {name}: {error}")) from error
    return answer


def _begun(awaitable: Awaitable[Any]) -> Deferred[Any]:
    answer = now_or_later(awaitable)
    if isinstance(answer, Deferred):
        return answer
    done: Deferred[Any] = Deferred()
    done.callback(answer)
    return done


# --- remembering ---


@dataclass(slots=True)
class _Page:
    """What is known of one domain: its hosts, or why none was found, or who waits for the look-up."""

    answer: Hosts | Delayed | Failed | None = None
    good_until: float = 0.0
    asking: list[Deferred[Hosts | Delayed | Failed]] = field(default_factory=list)


class HostBook:
    """Remembers the hosts of domains for a while, so that a message to a known domain costs no look-up.

    `look_up(domain)` finds them (raises `Unroutable`).  One look-up serves all who ask meanwhile.  Failures are remembered,
    too: a dead name server costs one question in half a minute for each domain.
    """

    def __init__(self, *, look_up: Callable[[str], Awaitable[Hosts]], seconds: Callable[[], float]) -> None:
        self._look_up = look_up
        self._seconds = seconds
        self._pages: dict[str, _Page] = {}

    def find(self, domain: str) -> Hosts | Delayed | Failed | Deferred[Hosts | Delayed | Failed]:
        """The hosts, or the outcome for the recipients.  At once where it is known, else in a Deferred that never fails."""
        page = self._pages.get(domain)
        if page is not None:
            if page.asking:
                return self._wait(page)
            if page.answer is not None and self._seconds() < page.good_until:
                return page.answer
        page = self._pages[domain] = _Page()
        try:
            answer = now_or_later(self._look_up(domain))
        except Exception as error:  # noqa: BLE001  a resolver's fault means "cannot tell"
            return self._keep(domain, page, error)
        if not isinstance(answer, Deferred):
            return self._keep(domain, page, answer)
        waiting = self._wait(page)
        answer.addCallbacks(
            lambda hosts: self._answered(domain, page, hosts),
            lambda failure: self._answered(domain, page, failure.value),
        )
        return waiting

    def forgive(self) -> None:
        """Forget the domains for which no hosts were found."""
        for domain, page in list(self._pages.items()):
            if not page.asking and not isinstance(page.answer, Hosts):
                del self._pages[domain]

    def _wait(self, page: _Page) -> Deferred[Hosts | Delayed | Failed]:
        waiting: Deferred[Hosts | Delayed | Failed] = Deferred()
        page.asking.append(waiting)
        return waiting

    def _answered(self, domain: str, page: _Page, answer: Hosts | BaseException) -> None:
        asking, page.asking = page.asking, []
        kept = self._keep(domain, page, answer)
        for waiting in asking:
            if not waiting.called:
                waiting.callback(kept)

    def _keep(self, domain: str, page: _Page, answer: Hosts | BaseException) -> Hosts | Delayed | Failed:
        keep_seconds = KEEP_FAULT_SECONDS
        kept: Hosts | Delayed | Failed
        if isinstance(answer, Hosts):
            kept = answer
            keep_seconds = min(max(answer.ttl_seconds, KEEP_SECONDS_LEAST), KEEP_SECONDS_MOST)
        elif isinstance(answer, Unroutable):
            kept = answer.outcome
        else:
            kept = Delayed(NO_ANSWER, f"{domain}: the look-up failed: {answer!r}"[:500])
        page.answer = kept
        page.good_until = self._seconds() + keep_seconds
        if len(self._pages) > DOMAINS_KEPT:
            self._forget()
        return kept

    def _forget(self) -> None:
        """Drop the oldest pages.  Their domains are looked up again when they are asked for."""
        for domain, page in list(self._pages.items())[: DOMAINS_KEPT // 2]:
            if not page.asking:
                del self._pages[domain]
