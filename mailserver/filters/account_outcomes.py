"""What comes of the mail that accounts hand in: recipients here who do not exist, and what other hosts refuse.

Steps come in an observer's thread and name a connection, or a message, and no account.  So it is remembered who has logged in on
a connection, and whose a message is that is about to leave: that is asked before each attempt, after a restart, too.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from twisted.logger import Logger

from mailserver.api import Address, AddressError, Content, Envelope, InReactor, StorageBroken
from mailserver.filters.account_memory import AccountMemory
from mailserver.filters.account_records import account_of_login

__all__ = ["AccountOutcomes", "remember_latest"]

REMEMBERED_MOST = 20_000
MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")  # as in `trust.arf`
NO_SUCH_USER = re.compile(r"550[ -]5\.1\.1 ")
REFUSED = re.compile(r"55[0134][ -](?!5\.[34]\.)")  # not for its size, nor since no host could be reached
OF_THIS_HOST = "by a policy of this host"  # another component's `GiveUp`


class AccountOutcomes:
    """`count(account, signal, what, example)` counts one more, in the reactor's thread; `owner` as `AccountNames.owner`."""

    log = Logger()

    def __init__(
        self,
        memory: AccountMemory,
        count: Callable[[str, str, str, str], Awaitable[None]],
        *,
        in_reactor: InReactor,
        is_own_domain: Callable[[str], bool],
        owner: Callable[[str, float], str] = lambda login, received_at: login,
    ) -> None:
        self._memory = memory
        self._count = count
        self._in_reactor = in_reactor
        self._is_own_domain = is_own_domain
        self._owner = owner
        self._messages: OrderedDict[str, tuple[str, float]] = OrderedDict()  # whose, and since when; the reactor's thread
        self._connections: OrderedDict[str, str] = OrderedDict()  # who has logged in; the observer's thread

    async def leaves(self, account: str, envelope: Envelope, content: Content) -> None:
        """A message of the account is about to leave."""
        if envelope.id in self._messages:
            return
        remember_latest(self._messages, envelope.id, (account, envelope.received_at))
        identity = MESSAGE_ID.search(content.headers.get("Message-ID") or "")
        try:
            await self._memory.remember_sent(account, identity[0] if identity else "")
        except StorageBroken as fault:
            self.log.warn("{id}: who has sent it is not remembered: {fault}", id=envelope.id, fault=fault)

    def observe(self, step: Mapping[str, object]) -> None:
        """One step, in the observer's thread."""
        call: Future[None] | None = None  # nobody waits for it
        match step.get("step"):
            case "login":
                remember_latest(self._connections, str(step.get("id")), account_of_login(str(step.get("account") or "")))
            case "closed":
                self._connections.pop(str(step.get("id")), None)
            case "refused" if step.get("stage") == "rcpt" and NO_SUCH_USER.match(str(step.get("reply") or "")):
                account = self._connections.get(str(step.get("connection")))
                if account:
                    call = self._in_reactor(self._counted, account, "unknown", str(step.get("recipient")), "")
            case "failed" if REFUSED.match(reply := str(step.get("reply") or "")) and OF_THIS_HOST not in reply:
                call = self._in_reactor(self._failed, str(step.get("id")), str(step.get("recipient")), reply)
        if call is not None:
            call.add_done_callback(_tell_fault)

    async def _failed(self, id: str, recipient: str, reply: str) -> None:
        account, since = self._messages.get(id, ("", 0.0))
        account = account and self._owner(account, since)
        if account and not self._is_ours(recipient) and await self._sent_since(account, since):
            await self._counted(account, "refusals", recipient, f"{recipient}: {reply}")

    def _is_ours(self, recipient: str) -> bool:
        try:
            return self._is_own_domain(Address.parse(recipient, utf8=True).domain)
        except AddressError:
            return False

    async def _sent_since(self, account: str, since: float) -> bool:
        """It was sent after the account was last let go: what was held before goes on being refused."""
        try:
            return since >= await self._memory.anew_at(account)
        except StorageBroken:
            return False

    async def _counted(self, account: str, signal: str, what: str, example: str) -> None:
        try:
            await self._count(account, signal, what, example)
        except StorageBroken as fault:
            self.log.warn("what has come of mail of {account} cannot be counted: {fault}", account=account, fault=fault)


def remember_latest(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Keep it; of `REMEMBERED_MOST` the oldest leave."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > REMEMBERED_MOST:
        kept.popitem(last=False)


def _tell_fault(call: Future[None]) -> None:
    """What nobody foresaw would be lost with the answer.  A server that stops counts no more: RuntimeError."""
    if not call.cancelled() and (error := call.exception()) is not None and not isinstance(error, RuntimeError):
        AccountOutcomes.log.error("a step could not be counted: {error}", error=f"{type(error).__name__}: {error}")
