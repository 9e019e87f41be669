"""What a submission server asks of a message and does for it (RFC 6409), beside what holds for every message.

`Submission` is shared by all connections; each transaction of somebody whom it concerns gets a `Posting`.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.mail.address import Address
from mailserver.mail.completion import author_as_written, completion
from mailserver.mail.content import Content
from mailserver.mail.edits import DropHeader, EditError, apply_edits, with_value
from mailserver.mail.envelope import Peer
from mailserver.mail.long_lines import short_lines
from mailserver.mail.originators import OriginatorError, originators
from mailserver.mail.reply import Reply
from mailserver.receive.submission.allowance import Allowance
from mailserver.receive.submission.sender_rights import SenderRights, parsed
from mailserver.smtp import replies

__all__ = ["Objection", "Posting", "Submission"]

log = Logger()

# All recipients would read whom the author has told in secret (RFC 5322 section 3.6.3, RFC 6409 section 8).  Mail that only
# passes through keeps its header: a signature may cover it.
BLIND_COPIES = (DropHeader("Bcc"), DropHeader("Resent-Bcc"))


@dataclass(frozen=True, slots=True)
class Objection:
    """No, or not now.  `why` is for the log alone."""

    reply: Reply
    why: str


async def in_this_one(function: Callable[..., Any], *arguments: Any) -> Any:
    """In place of a thread."""
    return function(*arguments)


class Submission:
    """The policy.  `rights` is None where everybody may send as anybody; `allowance` None where nothing is counted.

    `header_from` says that the From field has to name an own address, too (it means nothing without `rights`), `complete` that
    missing fields are added.
    """

    def __init__(
        self,
        *,
        hostname: str,
        clock: Clock,
        rights: SenderRights | None,
        allowance: Allowance | None,
        header_from: bool = True,
        complete: bool = True,
        run_in_thread: Callable[..., Awaitable[Any]] = in_this_one,
    ) -> None:
        self.hostname = hostname
        self.clock = clock
        self.rights = rights
        self.allowance = allowance
        self.header_from = header_from
        self.complete = complete
        self.run_in_thread = run_in_thread

    def posting(self, id: str, peer: Peer, note: Callable[..., None] = lambda step, **fields: None) -> Posting | None:
        """For one transaction; None for a peer whom submission does not concern.  `note` records a step of the message's road.

        Who has logged in is an account, on every listener.  Others on a submission listener (`relay.networks`) and programs of
        this host have no account: their messages are completed, nothing else.
        """
        account = "" if peer.address == "local" else peer.login
        return Posting(self, id, account, note) if account or peer.service == "submission" else None


class Posting:
    """One message that a user hands in.  `account` is "" for somebody who has not logged in."""

    __slots__ = ("_account", "_claim", "_id", "_note", "_policy")

    def __init__(self, policy: Submission, id: str, account: str, note: Callable[..., None]) -> None:
        self._policy = policy
        self._id = id
        self._account = account
        self._note = note
        counts = bool(account) and policy.allowance is not None
        self._claim = policy.allowance.claim(account) if counts and policy.allowance is not None else None

    async def mail(self, sender: Address | None) -> Objection | None:
        """At MAIL.  The null reverse-path is everybody's: a mail program's read receipts have it.  Its From is not."""
        if sender is not None and self._account and self._policy.rights is not None:
            why = f"{self._account} may not send as {sender}"
            objection = await self._unless_own(sender, replies.sender_not_owned(self._id), why)
            if objection is not None:
                return objection
        return self._over(await self._claim.message()) if self._claim is not None else None

    async def recipient(self, address: Address) -> Objection | None:
        """At RCPT, when nothing else stands in the way: the recipient is counted."""
        return self._over(await self._claim.recipient(address)) if self._claim is not None else None

    async def content(self, content: Content, *, smtputf8: bool = False, signs: bool = False) -> Content | Objection:
        """After the data, before filters see it: the message, completed, and without its blind copies.  Raises OSError.

        `signs`: it will be signed, so octets above 127 are encoded now, and no host on its way has to.
        """
        policy = self._policy
        if content.has_cut_head:
            return self._not_understood(OriginatorError("The header section is too long"))
        try:
            content = apply_edits(content, BLIND_COPIES)
        except EditError as error:
            return self._not_understood(error)
        author = parsed(self._account) if self._account else None
        if self._account and policy.rights is not None and policy.header_from:
            adds_from = policy.complete and author is not None and author_as_written(author, smtputf8) != ""
            checked = await self._with_own_originators(content, adds_from)
            if isinstance(checked, Objection):
                return checked
            content = checked
        fields = self._missing_fields(content, author, smtputf8) if policy.complete else b""
        if fields:
            content = content.with_prefix(fields)
        return await self._with_short_lines(content, seven_bit=signs)

    def _missing_fields(self, content: Content, author: Address | None, smtputf8: bool) -> bytes:
        policy = self._policy
        return completion(
            content,
            id=self._id,
            hostname=policy.hostname,
            seconds=policy.clock.seconds(),
            author=author,
            smtputf8=smtputf8,
        )

    async def _with_short_lines(self, content: Content, *, seven_bit: bool) -> Content | Objection:
        """What is handed in has no line that somebody on its way might cut (RFC 5322 section 2.1.1)."""
        run_in_thread = self._policy.run_in_thread
        try:
            if content.path is None:
                short = short_lines(content, seven_bit=seven_bit)
            else:
                short = await run_in_thread(functools.partial(short_lines, content, seven_bit=seven_bit))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return Objection((replies.storage_full if full else replies.storage_broken)(self._id), str(error))
        if short is not content:
            what = "octets above 127, or lines of more than 998" if seven_bit else "lines of more than 998 octets"
            self._note("mended", what=what)
        return short

    async def charge(self) -> Objection | None:
        """Just before the commit; `settle` has to follow."""
        return self._over(await self._claim.charge()) if self._claim is not None else None

    def settle(self, accepted: bool) -> None:
        """After the commit, whatever came of it.  Nobody waits for it, and nothing that goes wrong here concerns the message."""
        if self._claim is not None:
            settled = Deferred.fromCoroutine(self._claim.settle(accepted))
            settled.addErrback(lambda failure: log.failure("{id}: its allowance could not be settled", failure, id=self._id))

    async def _with_own_originators(self, content: Content, adds_from: bool) -> Content | Objection:
        """The message with its From and Sender fields mended, if every author and the sender are the account's."""
        try:
            found = originators(content.head)
            for name, value in found.mended.items():
                content = with_value(content, name, value)
        except (OriginatorError, EditError) as error:
            return self._not_understood(error)
        if not found.authors and not adds_from:
            return Objection(replies.header_not_understood(self._id, "There is no From field"), f"{self._account}: no From")
        foreign: Objection | None = None
        for address in (*found.authors, *([] if found.sender is None else [found.sender])):
            objection = await self._unless_own_in_header(address)
            if objection is not None and objection.reply.is_transient:
                return objection
            foreign = foreign or objection
        if foreign is not None:
            return foreign
        for name in found.mended:
            self._note("mended", what=f"the {name} field")
        if found.foreign:
            what = "a name in the From field holds an address of another domain"
            self._note("noticed", what=what, addresses=list(found.foreign))
        return content

    def _not_understood(self, error: Exception) -> Objection:
        return Objection(replies.header_not_understood(self._id, str(error)), f"{self._account}: {error}")

    async def _unless_own_in_header(self, address: Address) -> Objection | None:
        why = f"{self._account} may not write as {address}"
        return await self._unless_own(address, replies.header_from_not_owned(self._id), why)

    async def _unless_own(self, address: Address, reply: Reply, why: str) -> Objection | None:
        rights = self._policy.rights
        if rights is None:
            return None
        try:
            return None if await rights.may_send_as(self._account, address) else Objection(reply, why)
        except Exception:  # noqa: BLE001  # whatever a directory raises means "cannot tell"
            log.failure("{id}: whose address the sender is could not be found out", id=self._id)
            return Objection(replies.cannot_check_sender(self._id), "the router or the accounts failed")

    def _over(self, limit: str | None) -> Objection | None:
        if limit is None:
            return None
        return Objection(replies.allowance_spent(self._id, limit), f"{self._account} has sent {limit}")
