"""Keeps accounts from writing again and again to mailboxes that do not exist.

An address whose own host has said at RCPT, on two different days, that there is no such mailbox gets no more mail from the
account that has written to it.  The account hears so at RCPT, and how to undo it.  Only an answer about the very address counts
(5.1.1, 5.1.2, 5.1.6, 5.1.10): a policy (5.7.x), a full mailbox or a refused content says nothing of whether the mailbox exists.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Annotated, Any

from pydantic import Field
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Address,
    AddressError,
    AttemptVerdict,
    ComponentCommand,
    Content,
    Destination,
    Duration,
    Envelope,
    IAccountFollower,
    IAttemptFilter,
    ICommands,
    IComponentFactory,
    IObserver,
    IRecipientFilter,
    Options,
    Pass,
    Proceed,
    Recipient,
    Refuse,
    Reply,
    Services,
    StorageBroken,
    Verdict,
)
from mailserver.filters.account_outcomes import remember_latest
from mailserver.filters.account_records import account_of_login
from mailserver.filters.followed_records import FollowedRecords, FollowsAccounts, KeyPart
from mailserver.filters.suppression_book import Suppression, SuppressionBook, address_named
from mailserver.filters.suppression_commands import commands_of

__all__ = ["Suppressions", "SuppressionsOptions", "factory"]

NO_MAILBOX = re.compile(r"5[0-9][0-9][ -](5\.1\.(?:1|2|6|10))(?![0-9.])")
WORDS = {"5.1.1": "no such mailbox", "5.1.2": "no such host", "5.1.6": "the mailbox has moved", "5.1.10": "takes no mail"}
LINE_CHARACTERS = 400
COMPLAINT_SECONDS = 3600.0


class SuppressionsOptions(Options):
    """When an address gets no more mail, and for how long."""

    expire: Annotated[Duration, Field(ge=86_400, le=3650 * 86_400)] = 90 * 86_400.0
    """How long an address gets none; then it is tried again. What a person has added stays."""
    within: Annotated[Duration, Field(ge=2 * 86_400, le=366 * 86_400)] = 30 * 86_400.0
    """How long a first refusal is remembered: a second one counts on another day (of UTC) within this time."""
    addresses: Annotated[int, Field(ge=10, le=100_000)] = 1000
    """How many are kept of each account."""


def account_of(envelope: Envelope, is_own_domain: Callable[[str], bool]) -> str:
    """Whose mail it is: the login's, or ``@domain`` of a sender of ours without one; "" for anybody else's."""
    if envelope.peer.login:
        return account_of_login(envelope.peer.login)
    sender = envelope.sender
    if sender is None or sender.is_literal:
        return ""
    try:
        return f"@{sender.domain_key}" if is_own_domain(sender.domain) else ""
    except AddressError:
        return ""


@implementer(IRecipientFilter, IAttemptFilter, IObserver, ICommands, IAccountFollower)
class Suppressions(FollowsAccounts):
    """Refuses at RCPT; learns from what becomes of messages."""

    hard = True  # an allow entry does not make a mailbox
    log = Logger()

    def __init__(self, options: SuppressionsOptions, services: Services) -> None:
        self._options = options
        self._clock = services.clock
        self._in_reactor = services.in_reactor
        self._is_own_domain = services.is_own_domain
        self._book = SuppressionBook(
            services.records, clock=services.clock, most=options.addresses, within_seconds=options.within,
            expire_seconds=options.expire,
        )  # fmt: skip
        self._followed = FollowedRecords(services.records, KeyPart(1), separator="", clock=services.clock)
        self._leaving: OrderedDict[str, str] = OrderedDict()  # whose it is, by message and address
        self._complained_at = float("-inf")

    def commands(self) -> Sequence[ComponentCommand]:
        """``list``, ``remove`` and ``add``."""
        return commands_of(self._book, within_seconds=self._options.within, expire_seconds=self._options.expire)

    async def _read_anew(self) -> None:
        self._book.read_anew()

    # --- At RCPT. ---

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """No for an address that gets no more mail of this account.  While the records cannot be read, every address does."""
        account = account_of(envelope, self._is_own_domain)
        address = address_named(recipient.address) if account else ""
        if not address:
            return Pass()
        try:
            there = await self._book.get(account, address)
        except StorageBroken as fault:
            self._complain(fault)
            return Pass()
        if there is None or not there.since:
            return Pass()
        until = there.end(self._options.within, self._options.expire)
        return Refuse(f"{account} writes to {address} no more", enhanced="5.1.1", reply=_reply(there, until))

    # --- What becomes of messages. ---

    async def before_attempt(self, envelope: Envelope, content: Content, destination: Destination) -> AttemptVerdict:
        """It is remembered whose the message is, since steps do not say.  To an alias's members the account has not written."""
        address = destination.recipient.address
        account = account_of(envelope, self._is_own_domain) if address == destination.route.address else ""
        if account:
            remember_latest(self._leaving, f"{envelope.id} {address}", account)
        return Proceed()

    def observe(self, step: Mapping[str, object]) -> None:
        """One step, in the observer's thread."""
        name = step.get("step")
        if name not in ("failed", "delivered"):
            return
        status = ""
        if name == "failed":
            if step.get("phase") != "RCPT" or not step.get("peer"):  # its host's own answer, about the very address
                return
            found = NO_MAILBOX.match(str(step.get("reply") or ""))
            if found is None:
                return
            status = found[1]
        call: Future[None] = self._in_reactor(self._learn, f"{step.get('id')} {step.get('recipient')}", status)
        call.add_done_callback(_tell_fault)

    async def _learn(self, what: str, status: str) -> None:
        account = self._leaving.pop(what, "")
        if not account:
            return
        try:
            address = address_named(Address.parse(what.partition(" ")[2], utf8=True))
            if status:
                await self._book.refused(account, address, status)
            else:
                await self._book.reached(account, address)
        except StorageBroken as fault:
            self._complain(fault)

    def _complain(self, fault: Exception) -> None:
        now = self._clock.seconds()
        if not 0 <= now - self._complained_at < COMPLAINT_SECONDS:
            self._complained_at = now
            self.log.warn("which addresses get no mail cannot be read or written: {fault}", fault=fault)


def _reply(there: Suppression, until: float) -> Reply:
    """What the account hears: since when, why, and how to undo it.  No words of the other host."""
    if there.by:
        first = f"You send nothing to this address any more: it was put on your list on {_day(there.since)}"
    else:
        words = WORDS.get(there.status, "no such mailbox")
        first = (
            f"Its host has refused this address on {_day(there.first)} and on {_day(there.since)} ({there.status}, {words}). "
            f"Until {_day(until)} nothing is sent there"
        )
    undo = f"mailserver suppression remove {there.account} {there.address}"
    if not undo.isascii() or not undo.isprintable() or len(undo) > LINE_CHARACTERS:
        undo = "mailserver suppression remove"
    # The last line is not the command: the transaction's id comes behind it.
    return Reply.of(550, "5.1.1", first, f"To have it tried again: {undo}", "If it exists by now, ask your postmaster for that")


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(min(moment, 253_402_300_799.0)))


def _tell_fault(call: Future[None]) -> None:
    """What nobody foresaw would be lost with the answer.  A server that stops learns no more: RuntimeError."""
    if not call.cancelled() and (error := call.exception()) is not None and not isinstance(error, RuntimeError):
        Suppressions.log.error("a step could not be learnt from: {error}", error=f"{type(error).__name__}: {error}")


@implementer(IComponentFactory)
class SuppressionsFactory:
    """Makes the filter for ``[[filter]] use = "suppression"``."""

    name = "suppression"
    summary = "Keeps accounts from writing to mailboxes that do not exist, after their hosts have said so on two days."
    api_version = "1.0"
    provides = (IRecipientFilter, IAttemptFilter, IObserver)
    options = SuppressionsOptions

    def build(self, options: Any, services: Services) -> Suppressions:
        """Return the filter."""
        return Suppressions(options, services)


factory = SuppressionsFactory()
