"""The domains whose mail is delivered here, and their aliases, checked once when they are loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from mailserver.mail.address import Address, normal_domain, normal_local
from mailserver.routing.patterns import Pattern, RoutingError

__all__ = ["LocalDomain", "Domains", "RoutingError", "subaddresses"]

SEPARATORS_TRIED = 4  # an address with more of them gets no more look-ups than this


@dataclass(frozen=True, slots=True)
class LocalDomain:
    """What is configured for one domain.  Each character of `subaddress` separates a user from a tag.

    `same_as`: another domain, whose names hold here; all else but `disabled` is then without effect.  A `disabled` domain, and
    the `disabled_aliases` of one, take no mail.
    """

    aliases: Mapping[str, Sequence[Address]] = field(default_factory=dict)
    catch_all: Address | None = None
    subaddress: str = "+"
    postmaster: Address | None = None
    patterns: Sequence[Pattern] = ()
    same_as: str | None = None
    disabled: bool = False
    disabled_aliases: Collection[str] = ()


class Domains:
    """All of them.  A key ``*.example.org`` stands for every name below it that has no key of its own.

    `expansion_limit` bounds the addresses that one alias may lead to in the end.  Raises `RoutingError`.
    """

    def __init__(self, domains: Mapping[str, LocalDomain], *, expansion_limit: int = 1000) -> None:
        self._domains = {normal_domain(name): domain for name, domain in domains.items()}
        self._wild = any(name.startswith("*.") for name in self._domains)
        self._aliases: dict[str, dict[str, tuple[Address, ...]]] = {}
        self._keeping: set[tuple[str, str]] = set()
        self._disabled = {
            (name, normal_local(alias)) for name, domain in self._domains.items() for alias in domain.disabled_aliases
        }
        for name, domain in self._domains.items():
            self._aliases[name] = _alias_table(name, domain)
            self._check_patterns(name, domain)
            self._check_same_as(name, domain)
        self._check(expansion_limit)

    def key_of(self, domain_key: str) -> str | None:
        """The key that holds for a domain, None where its mail is not delivered here."""
        if domain_key in self._domains:
            return domain_key
        while self._wild and domain_key:
            domain_key = domain_key.partition(".")[2]
            if f"*.{domain_key}" in self._domains:
                return f"*.{domain_key}"
        return None

    def names_of(self, domain_key: str) -> str:
        """The domain whose names hold in this one: what it is the same as, or itself."""
        key = self.key_of(domain_key)
        other = None if key is None else self._domains[key].same_as
        return domain_key if other is None else normal_domain(other)

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __getitem__(self, key: str) -> LocalDomain:
        return self._domains[key]

    def first(self) -> str | None:
        """The domain that stands for the host where a `postmaster` has none."""
        return next((name for name in self._domains if not name.startswith("*.")), None)

    def alias(self, key: str, local: str) -> tuple[Address, ...] | None:
        """An alias's members.  `local` is in its normal form."""
        return self._aliases[key].get(local)

    def keeps(self, key: str, local: str) -> bool:
        """An alias of this name has itself among its members: the account of this name keeps a copy of what is forwarded.

        Not while it is disabled: the account has its mail, and nothing is forwarded.
        """
        return (key, local) in self._keeping and (key, local) not in self._disabled

    def begins_with_accounts(self, domain_key: str, local: str) -> bool:
        """An account of exactly this name, if there is one, gets all of its mail.  `local` is in its normal form."""
        key = self.key_of(domain_key)
        if key is None:
            return False
        domain = self._domains[key]
        return domain.same_as is None and not domain.disabled and not self.keeps(key, local)

    def is_disabled(self, key: str, local: str) -> bool:
        """An alias of this name takes no mail."""
        return (key, local) in self._disabled

    def is_named(self, key: str, local: str, member: Address) -> bool:
        """The member of an alias has the alias's own name."""
        return self.key_of(self.names_of(member.domain_key)) == key and normal_local(member.local) == local

    def each_alias(self) -> list[tuple[Address, tuple[Address, ...]]]:
        """Every alias with its members."""
        return [
            (Address(local, name), members) for name, table in self._aliases.items() for local, members in table.items()
        ]

    def _check_patterns(self, name: str, domain: LocalDomain) -> None:
        for n, pattern in enumerate(domain.patterns):
            place = pattern.user.rpartition("@")[2] if "@" in pattern.user else name.removeprefix("*.")
            if "{" not in place and self.key_of(normal_domain(place)) is None:
                raise RoutingError(
                    f"its users have accounts in {place}, which is not among the domains", f"{_key(name)}.pattern[{n}]"
                )

    def _check_same_as(self, name: str, domain: LocalDomain) -> None:
        if domain.same_as is None:
            return
        key = self.key_of(normal_domain(domain.same_as))
        if key is None:
            raise RoutingError(f"{domain.same_as} is not among the domains", _key(name, "same_as"))
        if self._domains[key].same_as is not None:
            raise RoutingError(f"{domain.same_as} is itself the same as another: name that one", _key(name, "same_as"))

    def _check(self, limit: int) -> None:
        graph: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for name, table in self._aliases.items():
            for local, members in table.items():
                others = [member for member in members if not self.is_named(name, local, member)]
                if len(others) < len(members):
                    self._keeping.add((name, local))
                graph[name, local] = [found for member in others if (found := self._alias_named_by(member)) is not None]
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            loop = [f"{local}@{name}" for name, local in reversed(error.args[1])]
            key = _key(error.args[1][-1][0], "aliases")
            raise RoutingError(f"{loop[0]} leads back to itself: {' → '.join(loop)}", key) from None
        reach: dict[tuple[str, str], set[object]] = {}
        for name, local in order:
            ends: set[object] = set()
            for member in self._aliases[name][local]:
                inner = None if self.is_named(name, local, member) else self._alias_named_by(member)
                ends |= {member} if inner is None else reach[inner]
            if len(ends) > limit:
                raise RoutingError(f"{local}@{name} leads to more than {limit} addresses", _key(name, "aliases"))
            reach[name, local] = ends

    def _alias_named_by(self, address: Address) -> tuple[str, str] | None:
        """The alias that an alias's member leads to, directly or with a tag."""
        key = self.key_of(self.names_of(address.domain_key))
        if key is None:
            return None
        local = normal_local(address.local)
        for name in (local, *[user for user, _ in subaddresses(local, self._domains[key].subaddress)]):
            if name in self._aliases[key]:
                return key, name
        return None


def subaddresses(local: str, separators: str) -> list[tuple[str, str]]:
    """The ways to divide a local part into user and tag (RFC 5233), the longest user first."""
    places = [n for n, character in enumerate(local) if character in separators and n > 0] if separators else []
    return [(local[:n], local[n + 1 :]) for n in reversed(places[:SEPARATORS_TRIED])]


def _alias_table(name: str, domain: LocalDomain) -> dict[str, tuple[Address, ...]]:
    table: dict[str, tuple[Address, ...]] = {}
    for alias, members in domain.aliases.items():
        local = normal_local(alias)
        if not members:
            raise RoutingError("the alias has no members", _key(name, "aliases", alias))
        if "@" in local:
            raise RoutingError("an alias is named by its local part alone", _key(name, "aliases", alias))
        if local in table:
            raise RoutingError("the alias stands twice, as case makes no difference", _key(name, "aliases", alias))
        table[local] = tuple([Address(member.local, member.domain or name.removeprefix("*.")) for member in members])
    return table


def _key(domain: str, *names: str) -> str:
    return ".".join(["domain", f'"{domain}"', *names])
