"""Which of several ways mail for another host takes, by its recipient's domain and its sender: pure.

    domain    "partner.example"     that domain
              "*.example.org"       every name below example.org, but not example.org itself
              "*"                   any
    sender    "alice@example.org"   that address, whatever the case of its letters
              "example.org"         any address in that domain
              "*.example.org"       any address in a domain below
              "<>"                  the null reverse-path, which reports have (RFC 5321 section 4.5.5)
              "*"                   any

Of the rules that fit, the one with the most specific domain is taken, in the order above, of names below a domain those below the
longest; of several with this same domain the one with the most specific sender.  So the recipient counts before the sender, as
with Postfix, whose transport_maps go before sender_dependent_relayhost_maps.  Two rules with the same domain and the same sender
contradict each other (`clashes`); any other two are in an order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mailserver.mail.address import Address, AddressError, normal_local

__all__ = ["ANY", "ANYBODY", "NULL_SENDER", "Clash", "RouteMap", "RouteRule", "clashes", "one_of"]

ANY = "*"
NULL_SENDER = "<>"
ANYBODY = Address("anybody", "sender.invalid")  # a sender of whom no rule knows (RFC 6761 section 6.4)

Way = TypeVar("Way")


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Holds for each of the domains with each of the senders; all of them as they are compared, empty for any."""

    domains: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Each domain with each sender."""
        for domain in self.domains or (ANY,):
            for sender in self.senders or (ANY,):
                yield domain, sender


@dataclass(frozen=True, slots=True)
class Clash:
    """Two rules, by their numbers, hold for the same domain and the same sender."""

    first: int
    second: int
    domain: str
    sender: str


class RouteMap(Generic[Way]):
    """What is found by rules, and `default` where none fits."""

    def __init__(self, default: Way, rules: Iterable[tuple[RouteRule, Way]] = ()) -> None:
        self.default = default
        self._by_domain: dict[str, dict[str, Way]] = {}
        self.is_single = True  # there are no rules
        for rule, way in rules:
            self.is_single = False
            for domain, sender in rule.pairs():
                self._by_domain.setdefault(domain, {}).setdefault(sender, way)

    @property
    def ways(self) -> Sequence[Way]:
        """All that there are, `default` the first; one may be there several times."""
        return [self.default, *[way for ways in self._by_domain.values() for way in ways.values()]]

    def route_for(self, sender: Address | None, address: Address) -> Way:
        """The way of mail from `sender` (None: the null reverse-path) to `address`."""
        if self.is_single:
            return self.default
        senders: Sequence[str] = ()
        for domain in _domains(address):
            by_sender = self._by_domain.get(domain)
            if by_sender is None:
                continue
            senders = senders or _senders(sender)
            for one in senders:
                if one in by_sender:
                    return by_sender[one]
        return self.default


def one_of(domains: Sequence[str]) -> Callable[[Address], bool]:
    """A function: whether an address is in one of these domains, each written as a rule has it."""
    if not domains:
        return lambda address: False
    known = frozenset(domains)
    return lambda address: any(domain in known for domain in _domains(address)[:-1])


def clashes(rules: Sequence[RouteRule]) -> list[Clash]:
    """The rules that contradict an earlier one, or themselves."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for number, rule in enumerate(rules):
        for pair in rule.pairs():
            first = seen.setdefault(pair, number)
            if first != number:
                found.append(Clash(first, number, *pair))
    return found


def _domains(address: Address) -> Sequence[str]:
    """What may stand for the address's domain, the most specific first."""
    try:
        return (*_wider(address.domain_key), ANY)
    except AddressError:
        return (ANY,)  # a domain that cannot be: whoever sends there says so


def _senders(sender: Address | None) -> Sequence[str]:
    if sender is None:
        return (NULL_SENDER, ANY)
    try:
        domain = sender.domain_key
    except AddressError:
        return (ANY,)
    return (f"{normal_local(sender.local)}@{domain}", *_wider(domain), ANY)


def _wider(domain: str) -> Sequence[str]:
    """The domain, and those below which it is, the longest first."""
    labels = domain.split(".")
    return [domain, *["*." + ".".join(labels[n:]) for n in range(1, len(labels))]]
