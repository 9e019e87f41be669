"""As whom an account may send (RFC 6409 section 6.1).

Its own address, with a subaddress or as a pattern makes it; what is granted to it; and aliases (also catch-all and postmaster)
that lead to its mailbox.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from mailserver.interfaces import Clock
from mailserver.mail.address import Address, AddressError, normal_domain, normal_names
from mailserver.mail.answers import Local, Mailbox, Route
from mailserver.mail.until import still_holds

__all__ = ["SenderRights"]

Name = tuple[str, str]  # normal local part, domain key


class SenderRights:
    """Asks the router and the accounts, and remembers their answers for `remember_seconds`, at most `remembered` of them.

    `route` is `IRouter.route`; `granted_senders` that of `IAuthenticator`; `aliases` False: an alias is nobody's own.
    """

    def __init__(
        self,
        *,
        route: Callable[[Address], Awaitable[Sequence[Route]]],
        granted_senders: Callable[[str], Awaitable[Sequence[str]]],
        clock: Clock,
        aliases: bool = True,
        remember_seconds: float = 10.0,
        remembered: int = 10_000,
    ) -> None:
        self._route = route
        self._granted_senders = granted_senders
        self._clock = clock
        self._aliases = aliases
        self._remember_seconds = remember_seconds
        self._remembered = remembered
        self._answers: OrderedDict[tuple[str, Name], tuple[bool, float]] = OrderedDict()  # and until when it holds

    async def may_send_as(self, account: str, address: Address) -> bool:
        """Whether the address is the account's to use.  What the router or the accounts raise passes: it cannot be told."""
        name = name_of(address)
        if name is None:
            return False
        place, now = (account, name), self._clock.seconds()
        may, until = self._answers.get(place, (False, 0.0))
        if still_holds(until, now, self._remember_seconds):
            return may
        answer = await self._ask(account, address, name)
        self._answers[place] = answer, now + self._remember_seconds
        self._answers.move_to_end(place)
        if len(self._answers) > self._remembered:
            self._answers.popitem(last=False)
        return answer

    async def _ask(self, account: str, address: Address, name: Name) -> bool:
        own = parsed(account)
        if own is not None and name_of(own) == name:
            return True
        if any(is_granted(grant, name) for grant in await self._granted_senders(account)):
            return True
        mailbox = None if own is None else await self._mailbox_of(own)
        if mailbox is None:
            return False
        routes = await self._route(address)
        # An account that keeps and forwards is nobody else's, and its address is not those people's to whom it forwards.
        for route in owners(routes, name) or routes:
            if isinstance(route, Local) and same_owner(route.mailbox, mailbox):
                # An alias has been followed to another address; a subaddress and a pattern are the address itself.
                return self._aliases or name_of(route.address) == name
        return False

    async def _mailbox_of(self, own: Address) -> Mailbox | None:
        name = name_of(own)
        found = [] if name is None else owners(await self._route(own), name)
        return found[0].mailbox if len(found) == 1 else None


def name_of(address: Address) -> Name | None:
    """What is compared; None for an impossible domain."""
    try:
        return normal_names(address)
    except AddressError:
        return None


def owners(routes: Sequence[Route], name: Name) -> list[Local]:
    """Of the routes of an address those that no alias has led to."""
    return [route for route in routes if isinstance(route, Local) and name_of(route.address) == name]


def parsed(text: str) -> Address | None:
    """The address, None for an invalid one."""
    try:
        return Address.parse(text, utf8=True)
    except AddressError:
        return None


def is_granted(grant: str, name: Name) -> bool:
    """`grant` is an address, or ``@`` and a domain."""
    if grant.startswith("@"):
        try:
            return normal_domain(grant[1:]) == name[1]
        except AddressError:
            return False
    address = parsed(grant)
    return address is not None and name_of(address) == name


def same_owner(one: Mailbox, other: Mailbox) -> bool:
    """The same user's, whatever the folder."""
    return (one.user, one.domain, one.system) == (other.user, other.domain, other.system)
