"""Finds the routes of a recipient.

First, in every domain of ours: a return path of a forwarded message leads to its sender (`OpensReturnPaths`).  Then,
in a disabled domain: none (550 5.2.1), but for the roles.  In a domain that is the same as another: those of the same name
there.  In every other domain that is delivered here, the first that fits:

1. an account of exactly this name (no difference of case), unless an alias of this name has itself among its members;
2. an alias: all its members, through aliases of aliases, to other hosts too; the member of its own name is the account; a
   disabled alias has none (550 5.2.1); then an address whose mail a component reads itself (`IMailReader`);
3. a subaddress, ``user+tag``: the user's (or the alias's) mail, for a user into the folder that the tag names, if there is one;
4. an address pattern;
5. ``postmaster`` (RFC 5321 section 4.5.1) and ``abuse`` (RFC 2142): who is configured, else the first account;
6. the catch-all;
7. none: 550 5.1.1.

Before all of this a plugin's router (`[router] use`) is asked about each address, members of aliases included; what it does not
know goes this way.

Mail for other domains is `Remote`; whether this peer may send it there is decided by `receive`.  A percent sign, a ``!`` or an @
in a local part means nothing here: such a name exists or it does not, and never leads to another host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.interfaces import CannotTell, Clock, IAccountList, IDirectory, IHostAccounts, IRouter
from mailserver.mail.address import Address, AddressError, normal_domain, normal_local, normal_names
from mailserver.mail.answers import Local, Mailbox, NotMine, Refused, Remote, Route
from mailserver.mail.outcomes import clean_text
from mailserver.mail.reply import Reply
from mailserver.plugins.awaiting import now_or_later, within
from mailserver.plugins.left_behind import LeftBehind
from mailserver.routing.domains import Domains, LocalDomain, subaddresses
from mailserver.routing.patterns import Pattern, RoutingError, folder_parts

__all__ = ["NOBODY", "LocalDomain", "Hop", "Pattern", "Router", "RoutingError"]

ROLES = ("postmaster", "abuse")
NO_SUCH_USER = Reply.of(550, "5.1.1", "There is no such user here")
DISABLED = Reply.of(550, "5.2.1", "This address is disabled and takes no mail")  # RFC 3463 section 3.3

NO_RETURN_PATH = Reply.of(550, "5.1.1", "This return path is not valid, or not any more")

NOBODY: Mapping[str, str] = MappingProxyType({})

log = Logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a route: what the address is to us, and where that leads.

    `how` is "same domain", "account", "alias", "subaddress", "pattern", "role", "catch-all", "elsewhere", "own name",
    "reader" (a component reads it), "return path", "disabled", "nobody" or "router" (a plugin's).
    """

    address: Address
    how: str
    leads_to: Route | tuple[Address, ...]


class OpensReturnPaths(Protocol):
    """Return paths of forwarded mail (`mailserver.relay.return_paths`)."""

    def is_one(self, address: Address) -> bool: ...

    async def opened(self, address: Address) -> Address | Any: ...


Member = Address | Local
"""Where an alias leads: an address to go on with, or its own account."""

Step = tuple[str, Route | Sequence[Member]]
Named = Local | Refused | Sequence[Member]


@implementer(IRouter)
class Router:
    """Routes by the domains' tables and a directory.

    `before` is a plugin's router, which is asked first.  `readers` names the components that read mail, by the local parts that
    they have in every domain.  Where no route is found within `seconds` of the clock, `route` raises
    `CannotTell`.  `postmaster` gets mail for the roles where the domain names nobody; None: the directory's first account.
    `return_paths` opens the return paths of forwarded mail.
    `hostname` is delivered here for these roles alone, unless it is among `domains`; so are the address literals in
    `own_addresses` (where that is empty, every literal).  Raises `RoutingError` for tables that contradict themselves.
    """

    def __init__(
        self,
        *,
        directory: IDirectory,
        domains: Mapping[str, LocalDomain],
        hostname: str,
        postmaster: Address | None = None,
        own_addresses: Collection[str] = (),
        expansion_limit: int = 1000,
        before: Any = None,
        readers: Mapping[str, str] = NOBODY,
        clock: Clock | None = None,
        seconds: float = 120.0,
        return_paths: OpensReturnPaths | None = None,
    ) -> None:
        self._return_paths = return_paths
        self._directory = directory
        self._domains = Domains(domains, expansion_limit=expansion_limit)
        self._hostname = normal_domain(hostname)
        self._postmaster = postmaster
        self._own_addresses = {ipaddress.ip_address(text) for text in own_addresses}
        self._before = before
        self._readers = readers
        self._clock = clock
        self._seconds = seconds
        self.left = LeftBehind()

    async def route(self, address: Address) -> Sequence[Route]:
        """The routes.  Raises `AddressError` for an impossible domain; what the directory raises passes."""
        local, domain_key = normal_names(address)
        if self._before is None and self._domains.begins_with_accounts(domain_key, local):
            mailbox = await self._find(local, domain_key)
            if mailbox is not None:
                return (Local(address, mailbox),)
        return await self._in_time(self._expanded(address))

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """One bound for all that an address needs: an alias asks for each of its members."""
        answer = now_or_later(work)
        if not isinstance(answer, Deferred):
            return answer
        if self._clock is None:
            return await answer
        try:
            return await within(self._seconds, answer, self._clock, self.left.add)
        except Late:
            raise CannotTell(f"no route was found within {self._seconds:g} seconds") from None

    def is_own(self, domain: str) -> bool:
        """Whether mail for this domain is delivered here.  No errors."""
        try:
            return self._domains.key_of(normal_domain(domain)) is not None
        except AddressError:
            return False

    def table_of(self, domain: str) -> str:
        """The `[domain]` table that holds for a domain, such as ``*.example.org``; "" where its mail is not delivered here."""
        try:
            return self._domains.key_of(normal_domain(domain)) or ""
        except AddressError:
            return ""

    def is_return_path(self, address: Address) -> bool:
        """The address is a return path of forwarded mail, or looks like one: it takes bounces alone.  No errors."""
        paths = self._return_paths
        if paths is None or not paths.is_one(address):
            return False
        return self.is_own(address.domain) or address.domain.lower() == self._hostname

    async def _find(self, local: str, domain_key: str) -> Mailbox | None:
        return await self._directory.find(local, domain_key)

    async def explain(self, address: Address) -> tuple[Sequence[Route], Sequence[Hop]]:
        """The routes, and how they were found."""
        hops: list[Hop] = []
        return await self._in_time(self._expanded(address, hops.append)), hops

    async def faults(self, *, relays: bool = True) -> list[str]:
        """What leads nowhere or has no effect, a sentence each.  `relays`: mail for other hosts is sent there."""
        found: list[str] = []
        for alias, members in self._domains.each_alias():
            where = f"alias {alias}"
            keeps = self._domains.keeps(alias.domain, alias.local)
            if not alias.domain.startswith("*."):
                has_account = await self._find(alias.local, alias.domain) is not None
                if has_account and not keeps:
                    found.append(f"{where}: an account has this name and gets its mail; the alias is without effect")
                if keeps and not has_account:
                    found.append(f"{where}: it names itself, and there is no account of this name")
            for member in members:
                found += await self._leads_nowhere(where, member, relays)
        for name in self._domains:
            domain, where = self._domains[name], f'domain "{name}"'
            for key, address in (("catch_all", domain.catch_all), ("postmaster", domain.postmaster)):
                if address is not None:
                    found += await self._leads_nowhere(f"{where}: {key}", address, relays)
            for pattern in domain.patterns:
                if "{" not in pattern.user:
                    place = "" if "@" in pattern.user else f"@{self._account_domain(name)}"
                    user, _, user_domain = f"{pattern.user}{place}".rpartition("@")
                    found += await self._leads_nowhere(f"{where}: pattern {pattern.rule!r}", Address(user, user_domain), relays)
        found += await self._unread()
        found += await self._accounts_without_mail()
        found += await self._unnamed_postmasters()
        if all(isinstance(route, Refused) for route in await self.route(Address("postmaster", ""))):
            found.append("nobody gets mail for postmaster: add an account, or configure `postmaster`")
        return found

    async def _unread(self) -> list[str]:
        """Addresses that a component would read, and that are somebody's."""
        return [
            f"{local}@{name.removeprefix('*.')}: the filter {reader} reads this address, but an account or alias has its mail"
            for local, reader in self._readers.items()
            for name in self._domains
            if self._domains[name].same_as is None
            and (self._domains.alias(name, local) or await self._find(local, name.removeprefix("*.")) is not None)
        ]

    async def _accounts_without_mail(self) -> list[str]:
        """Accounts in a domain that has another one's names."""
        if not IAccountList.providedBy(self._directory) or all(self._domains[name].same_as is None for name in self._domains):
            return []
        found = []
        for account in await self._directory.accounts():
            domain = account.rpartition("@")[2]
            other = self._domains.names_of(domain)
            if other != domain:
                found.append(f"account {account}: it gets no mail, as {domain} is the same as {other}")
        return found

    async def _unnamed_postmasters(self) -> list[str]:
        """Domains whose postmaster would be whichever user of the host comes first."""
        if not IHostAccounts.providedBy(self._directory) or self._postmaster is not None:
            return []
        return [
            f'domain "{name}": no `postmaster` is set: his mail would go to whichever user of the host comes first'
            for name in self._domains
            if self._domains[name].postmaster is None
            and self._domains[name].same_as is None
            and self._domains.alias(name, "postmaster") is None
            and await self._find("postmaster", name.removeprefix("*.")) is None
        ]

    async def _leads_nowhere(self, what: str, address: Address, relays: bool) -> list[str]:
        """Why mail for the address is refused, a sentence or none."""
        for route in await self.route(address):
            if isinstance(route, Refused):
                return [f"{what}: {route.why}"]
            if isinstance(route, Remote) and not relays:
                return [f'{what}: {route.address} is another host\'s, and nothing is sent there ([relay] use = "none")']
        return []

    async def _expanded(self, address: Address, tell: Callable[[Hop], None] | None = None) -> Sequence[Route]:
        """Follow aliases until only mailboxes and other hosts are left, each of them once."""
        routes: dict[object, Route] = {}
        refused: list[Refused] = []
        seen: set[tuple[str, str]] = set()
        waiting: list[Member] = [address]
        while waiting:
            at = waiting.pop(0)
            if isinstance(at, Local):
                routes.setdefault(at.mailbox, at)
                if tell is not None:
                    tell(Hop(at.address, "account", at))
                continue
            name = normal_names(at)
            if name in seen:
                continue
            seen.add(name)
            how, further = "router", tuple[Member, ...]()
            step: Route | Sequence[Member] | None = await self._returned(at, *name)
            if step is not None:
                how = "return path"
                ends: Sequence[Route] | None = (step,) if isinstance(step, Refused) else ()
                further = () if isinstance(step, Local | Remote | Refused) else tuple(step)
            else:
                ends = await self._known_before(at, *name)
            if ends is None:
                how, step = await self._step(at, *name)
                ends, further = ((step,), ()) if isinstance(step, Local | Remote | Refused) else ((), tuple(step))
            if tell is not None:
                tell(Hop(at, how, ends[0] if len(ends) == 1 else _addresses_of((*ends, *further))))
            for route in ends:
                if isinstance(route, Refused):
                    refused.append(route)
                else:
                    routes.setdefault(_place_of(route), route)
            waiting += further
        if not routes and normal_local(address.local) in ROLES:
            return await self._first_account(refused)
        if routes and refused:
            log.warn("{address} also leads to nowhere: {why}", address=str(address), why=[r.why for r in refused])
        return tuple(routes.values()) or (refused[0] if refused else _nobody(address),)

    async def _returned(self, address: Address, local: str, domain_key: str) -> Refused | Sequence[Member] | None:
        """Where a return path leads; None where it is none.  One that was not made here is nobody's, whatever the catch-all."""
        paths = self._return_paths
        if paths is None or not self.is_return_path(address):
            return None
        found = await paths.opened(address)
        if isinstance(found, Address):
            return [found]
        key = self._domains.key_of(domain_key)
        if key is not None and await self._named(address, local, domain_key, key) is not None:
            return None  # somebody's name begins so
        return Refused(NO_RETURN_PATH, clean_text(found.why))

    async def _known_before(self, address: Address, local: str, domain_key: str) -> Sequence[Route] | None:
        """What a plugin's router says, None where there is none or it does not know the address."""
        if self._before is None:
            return None
        key = self._domains.key_of(domain_key)
        if key is not None and self._domains[key].disabled and local not in ROLES:
            return None  # the administrator's word
        answer: Sequence[Route] | NotMine = await self._before.route(address)
        return None if isinstance(answer, NotMine) else answer

    async def _step(self, address: Address, local: str, domain_key: str) -> Step:
        """One step: how the address was understood, and a route or the addresses to go on with."""
        key = self._domains.key_of(domain_key)
        if key is None:
            found = self._elsewhere(address, local, domain_key)
            return ("elsewhere" if isinstance(found, Remote) else "own name"), found
        domain = self._domains[key]
        if domain.disabled and local not in ROLES:
            return "disabled", Refused(DISABLED, f"the domain {key} is disabled")
        if domain.same_as is not None:
            return "same domain", [Address(address.local, domain.same_as)]
        named = await self._named(address, local, domain_key, key)
        if named is not None:
            return _how(named), named
        for user, tag in subaddresses(local, domain.subaddress):
            named = await self._named(address, user, domain_key, key)
            if named is not None:
                return "subaddress", _in_folder(named, folder_parts(tag), named_by_address=True)
        named = await self._by_pattern(address, local, domain_key, domain)
        if named is not None:
            return "pattern", named
        if local in ROLES:
            postmaster = domain.postmaster or self._postmaster
            return "role", [postmaster] if postmaster is not None else _nobody(address)
        return ("catch-all", [domain.catch_all]) if domain.catch_all is not None else ("nobody", _nobody(address))

    async def _named(self, address: Address, local: str, domain_key: str, key: str) -> Named | None:
        if self._domains.keeps(key, local):
            return await self._kept_and_forwarded(address, local, key)
        mailbox = await self._find(local, domain_key)
        if mailbox is not None:
            return Local(address, mailbox)
        if self._domains.is_disabled(key, local):
            return Refused(DISABLED, f"the alias {local}@{domain_key} is disabled")
        members = self._domains.alias(key, local)
        if members is None and local in self._readers:
            return Local(address, Mailbox(local, domain_key, reader=self._readers[local]))
        return members

    async def _kept_and_forwarded(self, address: Address, local: str, key: str) -> Sequence[Member]:
        """The members of an alias that names its own account; the account is left out where it does not exist."""
        members: list[Member] = []
        for member in self._domains.alias(key, local) or ():
            if not self._domains.is_named(key, local, member):
                members.append(member)
                continue
            mailbox = await self._find(local, self._domains.names_of(member.domain_key))
            if mailbox is not None:
                members.append(Local(address, mailbox))
        return members

    async def _by_pattern(
        self, address: Address, local: str, domain_key: str, domain: LocalDomain
    ) -> Named | None:
        for pattern in domain.patterns:
            values = pattern.match(local, domain_key)
            if values is None:
                continue
            user, folder, named_by_address = pattern.target(values)
            user_local, at, user_domain = user.rpartition("@")
            if not at:
                user_local, user_domain = user, self._account_domain(domain_key)
            user_domain = self._domains.names_of(normal_domain(user_domain))
            key = self._domains.key_of(user_domain)
            if key is None:
                continue
            found = await self._named(address, normal_local(user_local), user_domain, key)
            if found is not None:
                return _in_folder(found, folder, named_by_address)
        return None

    def _account_domain(self, domain_key: str) -> str:
        """Where a pattern's users have their accounts: ``*.example.org`` stands for accounts of example.org."""
        key = self._domains.key_of(domain_key) or domain_key
        return key.removeprefix("*.") if key.startswith("*.") else domain_key

    def _elsewhere(self, address: Address, local: str, domain_key: str) -> Route | Sequence[Address]:
        """Not one of the domains: another host's, or our own name or number, where only the roles exist."""
        if domain_key.startswith("[") and not self._is_own(domain_key, local):
            return Remote(address)
        if domain_key and not domain_key.startswith("[") and domain_key != self._hostname:
            return Remote(address)
        if local not in ROLES:
            return _nobody(address)
        domain = self._hostname if self._domains.key_of(self._hostname) else self._domains.first()
        if domain is not None:
            return [Address(local, domain)]
        return [self._postmaster] if self._postmaster is not None else _nobody(address)

    def _is_own(self, literal: str, local: str) -> bool:
        if not self._own_addresses:
            return local in ROLES
        try:
            return ipaddress.ip_address(literal[1:-1].removeprefix("ipv6:")) in self._own_addresses
        except ValueError:
            return False

    async def _first_account(self, refused: Sequence[Refused]) -> Sequence[Route]:
        if IAccountList.providedBy(self._directory):
            for account in (await self._directory.accounts())[:1]:
                address = Address.parse(account, utf8=True)
                mailbox = await self._find(*normal_names(address))
                if mailbox is not None:
                    return (Local(address, mailbox),)
        return refused[:1] or (Refused(NO_SUCH_USER, "there is no postmaster and no account"),)


def _how(named: Named) -> str:
    if isinstance(named, Local):
        return "reader" if named.mailbox.reader else "account"
    return "disabled" if isinstance(named, Refused) else "alias"


def _in_folder(found: Named, folder: tuple[str, ...], named_by_address: bool) -> Named:
    """A user's own mailbox with the folder; an alias's other members choose their folders themselves."""
    if not folder or isinstance(found, Refused):
        return found
    if isinstance(found, Local):
        if found.mailbox.reader:
            return found
        mailbox: Mailbox = replace(found.mailbox, folder=folder, folder_must_exist=named_by_address)
        return Local(found.address, mailbox)
    return [
        Local(one.address, replace(one.mailbox, folder=folder, folder_must_exist=named_by_address))
        if isinstance(one, Local)
        else one
        for one in found
    ]


def _place_of(route: Local | Remote) -> object:
    """What makes two routes one."""
    return route.mailbox if isinstance(route, Local) else normal_names(route.address)


def _addresses_of(members: Sequence[Member | Route]) -> tuple[Address, ...]:
    return tuple([one if isinstance(one, Address) else one.address for one in members if not isinstance(one, Refused)])


def _nobody(address: Address) -> Refused:
    return Refused(NO_SUCH_USER, f"there is no user {address}")
