"""Accounts, mailboxes and other hosts in memory, as components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IAccountList, IComponentFactory, IConcurrentDelivery, IDelivery, IDirectory, Services
from mailserver.mail.answers import Delivered, Local, Mailbox, Outcome, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, one_for_each

__all__ = ["ACCOUNTS", "HOSTS", "MAILBOXES", "MemoryAccounts", "MemoryHosts", "MemoryMailboxes"]


class AccountsOptions(Options):
    """Who exists."""

    names: tuple[str, ...] = ("alice@example.org", "bob@example.org", "carol@example.org")
    """Their addresses."""


@implementer(IDirectory, IAccountList)
class MemoryAccounts:
    """Knows the accounts of a test."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """The account's mailbox."""
        return Mailbox(local_part, domain) if f"{local_part}@{domain}" in self._names else None

    async def accounts(self) -> Sequence[str]:
        """All of them."""
        return self._names


@implementer(IDelivery)
class MemoryMailboxes:
    """Keeps what is delivered, by the account's address and the folder ("" for the inbox).

    `answers` has the outcome of the next attempts for an account in place of Delivered, one after the other.
    """

    stores = True

    def __init__(self) -> None:
        self.folders: dict[tuple[str, str], list[bytes]] = {}
        self.answers: dict[str, list[Outcome]] = {}

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """One copy for each mailbox."""
        outcomes: dict[int, Outcome] = {}
        for group in one_for_each(destinations):
            outcome = self._deliver(content, group[0].route)
            outcomes.update({one.index: outcome for one in group})
        return outcomes

    def _deliver(self, content: Content, route: Local | Remote) -> Outcome:
        if not isinstance(route, Local):
            raise TypeError(f"a mailbox gets mail for a mailbox, not for {route}")
        account = f"{route.mailbox.user}@{route.mailbox.domain}"
        if self.answers.get(account):
            return self.answers[account].pop(0)
        self.folders.setdefault((account, "/".join(route.mailbox.place)), []).append(b"".join(content.chunks()))
        return Delivered()

    async def flush(self) -> None:
        """Memory is as durable as the test."""


@implementer(IConcurrentDelivery)
class MemoryHosts:
    """Keeps what goes to other hosts, by the recipient's address.  `answers` as in `MemoryMailboxes`."""

    stores = True
    calls_at_once = 10
    deadline_seconds = 300.0

    def __init__(self) -> None:
        self.sent: dict[str, list[bytes]] = {}
        self.answers: dict[str, list[Outcome]] = {}

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """One copy for each address."""
        outcomes: dict[int, Outcome] = {}
        for one in destinations:
            if not isinstance(one.route, Remote):
                raise TypeError(f"a relay gets mail for other hosts, not for {one.route}")
            address = str(one.route.address)
            if self.answers.get(address):
                outcomes[one.index] = self.answers[address].pop(0)
            else:
                self.sent.setdefault(address, []).append(b"".join(content.chunks()))
                outcomes[one.index] = Delivered()
        return outcomes

    async def flush(self) -> None:
        """Other hosts have said yes."""


@implementer(IComponentFactory)
class _Factory:
    """Makes one of the above."""

    summary = "For tests."
    api_version = "1.0"

    def __init__(self, name: str, provides: Any, options: type[Options], make: Any) -> None:
        self.name, self.provides, self.options, self._make = name, provides, options, make

    def build(self, options: Any, services: Services) -> Any:
        """Return the component."""
        return self._make(options)


ACCOUNTS = _Factory("memory", IDirectory, AccountsOptions, lambda options: MemoryAccounts(options.names))
MAILBOXES = _Factory("memory", IDelivery, Options, lambda _: MemoryMailboxes())
HOSTS = _Factory("memory-hosts", IConcurrentDelivery, Options, lambda _: MemoryHosts())
