"""One mail transaction (RFC 5321 section 3.3): from MAIL to the reply after the data.

Each method is a question of the peer and returns the reply.  They are coroutines that rarely wait: only a filter, a directory
or the commit makes them.  Nothing here knows the connection; nothing after the commit comes back here.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailserver.interfaces import CannotTell, TransactionEnd
from mailserver.mail.address import Address, AddressError
from mailserver.mail.answers import (
    Defer,
    Disconnect,
    Finding,
    Local,
    Refuse,
    Refused,
    Remote,
    Route,
    Verdict,
)
from mailserver.mail.envelope import NO_MAIL_PARAMETERS, Envelope, MailParameters, Peer, Recipient, RecipientParameters
from mailserver.mail.mending import mended
from mailserver.mail.outcomes import clean_text
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Holder, with_holders
from mailserver.plugins.awaiting import FAULTS
from mailserver.receive.after_data import AfterData
from mailserver.receive.editing import ROUTES_MOST
from mailserver.receive.judging import PASSED, Judgement, note_answers
from mailserver.receive.profile import Profile
from mailserver.receive.spooling import Spooling
from mailserver.smtp import replies

__all__ = ["ROUTES_MOST", "Transaction"]

log = Logger()

SURPLUS_MOST = 1000  # surplus recipients that count as no error of the peer's, as in Postfix (smtpd_recipient_overshoot_limit)


class Transaction:
    """What one MAIL has begun.  `recipients` are the accepted forward-paths, each with its routes.

    `quarantine` are those who want every message of this connection put aside.  `findings` are those about the peer,
    the sender and the message.
    """

    __slots__ = (
        "aside",
        "discard",
        "discarded",
        "_ended",
        "file_is_queues",
        "has_file",
        "_is_answered_for",
        "posting",
        "quarantine",
        "recipient_findings",
        "_surplus",
        "_route_count",
        "connection",
        "findings",
        "id",
        "parameters",
        "peer",
        "profile",
        "recipients",
        "routes",
        "sender",
        "spooling",
    )

    def __init__(
        self, profile: Profile, peer: Peer, connection: str, id: str = "", *, quarantine: tuple[Holder, ...] = ()
    ) -> None:
        self.profile = profile
        self.peer = peer
        self.connection = connection
        self.id = id or profile.ids.next()
        self.sender: Address | None = None
        self.parameters = NO_MAIL_PARAMETERS
        self.recipients: list[Recipient] = []
        self.routes: list[Sequence[Local | Remote]] = []
        self.spooling: Spooling | None = None
        # From the call of the commit on, the content's file may be the queue's.  It is removed only where the commit says that it
        # has failed: when the waiting is cancelled nobody knows, and a message that is stored without its file is lost.
        self.file_is_queues = False
        self.has_file = False  # a modifier has made one
        self.quarantine = quarantine  # who wants the whole message put aside
        self.aside: list[tuple[Holder, ...]] = []  # who wants the copies of each recipient put aside
        self.discard = ""  # why the whole message is thrown away
        self.discarded: list[str] = []  # why the copy of each recipient is
        self.findings: tuple[Finding, ...] = peer.findings
        self.recipient_findings: list[tuple[Finding, ...]] = []
        self._surplus = 0  # recipients who were sent to another transaction
        self._route_count = 0
        self._ended = self._is_answered_for = False
        self.posting = None if profile.submission is None else profile.submission.posting(self.id, peer, self.note)

    # --- the questions ---

    def mail(self, sender: Address | None, parameters: MailParameters) -> Awaitable[Reply]:
        """MAIL FROM."""
        answer = self._mail(sender, parameters)
        return answer if self.profile.ends is None else self._and_its_end(answer)

    async def _mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        profile = self.profile
        self.sender = sender
        self.parameters = parameters
        if self.peer.tls is None and (profile.tls_required or profile.tls_rules.requires_tls_from(sender)):
            return self.refused("mail", replies.TLS_REQUIRED, "the connection is not encrypted")
        if profile.service == "submission" and not profile.may_relay(self.peer):
            return self.refused("mail", replies.authentication_required(self.id), "submission without authentication")
        if not profile.store.writable:
            return self.refused("mail", replies.storage_broken(self.id), "the store cannot be written")
        if parameters.size is not None and not profile.store.room_for(parameters.size):
            return self.refused("mail", replies.storage_full(self.id), "no room")
        if profile.asks.sender:
            judgement = profile.judging.sender(self.envelope())
            if judgement is not PASSED:
                if isinstance(judgement, Deferred):
                    judgement = await judgement
                refusal = self.weigh("mail", judgement)
                if refusal is not None:
                    return refusal
                self.quarantine = with_holders(self.quarantine, judgement.quarantine)
                self.discard = judgement.discard
                self.findings += judgement.findings
        if self.posting is not None:
            objection = await self.posting.mail(sender)
            if objection is not None:
                return self.refused("mail", objection.reply, objection.why)
        return replies.SENDER_OK

    async def recipient(self, address: Address, parameters: RecipientParameters) -> Reply:
        """RCPT TO."""
        profile = self.profile
        if len(self.recipients) >= profile.limits.recipients:
            self._surplus += 1
            return self.refused("rcpt", replies.too_many_recipients(self.id), "too many recipients", address)
        if self.peer.tls is None and profile.tls_rules.requires_tls_for(address):
            return self.refused("rcpt", replies.TLS_REQUIRED, "the connection is not encrypted", address)
        usable = await self._usable_routes(address)
        if isinstance(usable, Reply):
            return usable
        if self.recipients and self._route_count + len(usable) > max(ROUTES_MOST, profile.limits.recipients):
            self._surplus += 1
            return self.refused("rcpt", replies.too_many_recipients(self.id), "they lead too many ways", address)
        recipient = Recipient(address, parameters)
        aside: tuple[Holder, ...] = ()
        discarded = ""
        findings: tuple[Finding, ...] = ()
        if profile.asks.recipient:
            judgement = profile.judging.recipient(self.envelope(), recipient)
            if judgement is not PASSED:
                if isinstance(judgement, Deferred):
                    judgement = await judgement
                refusal = self.weigh("rcpt", judgement, address)
                if refusal is not None:
                    return refusal
                aside, discarded, findings = judgement.quarantine, judgement.discard, judgement.findings
        if self.posting is not None:
            objection = await self.posting.recipient(address)
            if objection is not None:
                return self.refused("rcpt", objection.reply, objection.why, address)
        self.recipients.append(recipient)
        self.routes.append(usable)
        self._route_count += len(usable)
        self.aside.append(aside)
        self.discarded.append(discarded)
        self.recipient_findings.append(findings)
        return replies.RECIPIENT_OK

    def excuses(self, reply: Reply) -> bool:
        """The reply to RCPT does not count as an error of the peer's, at most `SURPLUS_MOST` times.

        The recipient is for another transaction (RFC 5321 section 4.5.3.1.10).
        """
        return reply.enhanced == replies.ANOTHER_TRANSACTION and self._surplus <= SURPLUS_MOST

    async def _usable_routes(self, address: Address) -> list[Local | Remote] | Reply:
        """Where the recipient goes, or the refusal."""
        profile = self.profile
        try:
            routes = await profile.router.route(address)
        except AddressError as error:
            return self.refused("rcpt", replies.bad_address(self.id), str(error), address)
        except CannotTell as error:  # a directory's or a router's, which has told the log more
            why = clean_text(str(error))
            log.error("{id}: no route for a recipient could be found out: {why}", id=self.id, why=why)
            return self.refused("rcpt", replies.cannot_route(self.id), why, address)
        except FAULTS:
            log.failure("{id}: no route for a recipient could be found out", id=self.id)
            return self.refused("rcpt", replies.cannot_route(self.id), "the router failed", address)
        if self.sender is not None and address.local[:3].upper() == "SRS" and self._is_return_path(address, routes):
            return self.refused("rcpt", replies.BOUNCES_ALONE, "a return path takes bounces alone", address)
        usable: list[Local | Remote] = []
        for route in routes:
            if isinstance(route, Refused):
                return self.refused("rcpt", route.reply, route.why, address)
            if isinstance(route, Remote) and route.address == address and not self._may_relay(address):
                return self.refused("rcpt", replies.relaying_denied(self.id), "relaying denied", address)
            if isinstance(route, Remote) and (refusal := self._not_sent_on(route.address, address)) is not None:
                return refusal
            usable.append(route)
        if not usable:
            return self.refused("rcpt", replies.cannot_route(self.id), "the router knows no route", address)
        if profile.absence is not None:  # asked last: a peer that may not send there learns that, not that a delivery is missing
            try:
                missing = next(filter(None, map(profile.absence.why, usable)), "")
            except CannotTell as error:
                why = clean_text(str(error))
                log.error("{id}: whether a delivery is missing could not be found out: {why}", id=self.id, why=why)
                return self.refused("rcpt", replies.cannot_route(self.id), why, address)
            except FAULTS:
                log.failure("{id}: whether a delivery is missing could not be found out", id=self.id)
                return self.refused("rcpt", replies.cannot_route(self.id), "the delivery failed", address)
            if missing:
                return self.refused("rcpt", replies.LOCAL_ERROR, f"who would deliver it is missing: {missing}", address)
        return usable

    def _may_relay(self, address: Address) -> bool:
        return self.profile.may_relay(self.peer) or self.profile.is_second_for(address)

    def _is_return_path(self, address: Address, routes: Sequence[Route]) -> bool:
        """It is one of forwarded mail, and not somebody whose name begins so."""
        known = self.profile.is_return_path
        if known is None or not known(address):
            return False
        return not any(isinstance(route, Local) and route.address == address for route in routes)

    def _not_sent_on(self, to: Address, address: Address) -> Reply | None:
        """The refusal where the relay takes no mail of this sender there."""
        if not self.profile.relays:
            return self.refused("rcpt", replies.relaying_denied(self.id), "there is no relay", address)
        reason = self.profile.why_not_sent_on(self.sender, to)
        if reason is None:
            return None
        return self.refused("rcpt", replies.not_sent_on(self.id, reason), reason or "its route is none", address)

    def data(self, spooling: Spooling) -> Reply:
        """DATA, or the first BDAT.  A refusal ends the transaction."""
        reply = self._data(spooling)
        if reply.code >= 400:
            self._end(TransactionEnd.REFUSED)
        return reply

    def _data(self, spooling: Spooling) -> Reply:
        store = self.profile.store
        if not store.writable:
            return self.refused("data", replies.storage_broken(self.id), "the store cannot be written")
        if not store.room_for(self.parameters.size or 0):
            return self.refused("data", replies.storage_full(self.id), "no room")
        self.spooling = spooling
        return replies.START_CONTENT

    def end_of_data(self, fault: Reply | None, stray_in_header: bool = False) -> Awaitable[Sequence[Reply]]:
        """The data are complete.  Return one reply, or for LMTP one for each recipient (RFC 2033 section 4.2).

        `stray_in_header` is that of `EndOfData`.
        """
        answers = self._end_of_data(fault, stray_in_header)
        return answers if self.profile.ends is None else self._and_the_end(answers)

    async def _end_of_data(self, fault: Reply | None, stray_in_header: bool) -> Sequence[Reply]:
        spooling = self.spooling
        if spooling is None:
            raise RuntimeError("no data have begun")
        if fault is not None:
            spooling.abandon()
            reply = Reply.of(fault.code, fault.enhanced, f"{fault.lines[0]} ({self.id})")
            return self.same_for_all(self.refused("content", reply, fault.lines[0]))
        try:
            content = await spooling.finish(binary=self.parameters.body == "BINARYMIME")
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reply = (replies.storage_full if full else replies.storage_broken)(self.id)
            return self.same_for_all(self.refused("content", reply, str(error)))
        if stray_in_header:
            self.note("mended", what="stray line ends in the header")
        try:
            content, done = mended(content)
            for what in done:
                self.note("mended", what=what)
            return await AfterData(self).replies(content)
        finally:
            self.afterwards(spooling.release)
            if (content.path is not None or self.has_file) and not self.file_is_queues:
                self.afterwards(spooling.discard_file)

    async def extended(self, verb: str, argument: str) -> Reply:
        """A command that a plugin has added."""
        added = self.profile.service_extensions
        if added is None:  # a reload has taken away what EHLO had announced
            return replies.COMMAND_NOT_OFFERED
        return await added.command(self.id, verb, argument, self.peer, self.envelope())

    def abandon(self, how: TransactionEnd = TransactionEnd.LOST) -> None:
        """RSET, a new EHLO or a lost connection: nothing came of it."""
        if self.spooling is not None:
            self.spooling.abandon()
        self._end(how)

    def leave(self) -> None:
        """The connection is lost while a question is being answered: what goes on with the message goes on."""
        if not self._is_answered_for:
            self._end(TransactionEnd.LOST)

    # --- how it ends, where somebody wants to know: once ---

    def _end(self, how: TransactionEnd) -> None:
        ends = self.profile.ends
        if ends is not None and not self._ended:
            self._ended = True
            ends.transaction(self.envelope(), how)

    async def _and_its_end(self, answer: Awaitable[Reply]) -> Reply:
        reply: Reply | None = None
        try:
            reply = await answer
        finally:
            if reply is None or reply.code >= 400:
                self._end(TransactionEnd.REFUSED)
        return reply

    async def _and_the_end(self, answer: Awaitable[Sequence[Reply]]) -> Sequence[Reply]:
        self._is_answered_for = True
        how = TransactionEnd.LOST  # where the waiting is cancelled nobody knows what has become of it
        try:
            answers = await answer
            how = TransactionEnd.ACCEPTED if any(reply.code < 400 for reply in answers) else TransactionEnd.REFUSED
        except CancelledError:
            raise
        except Exception:
            how = TransactionEnd.REFUSED
            raise
        finally:
            self._end(how)
        return answers

    # --- what is written down and answered; `after_data` goes on with it ---

    def envelope(self, more: tuple[Finding, ...] = ()) -> Envelope:
        """As it is now; `more` was found about the one recipient whose copy is judged."""
        return Envelope(
            self.id,
            self.peer,
            self.sender,
            tuple(self.recipients),
            self.profile.clock.seconds(),
            self.parameters,
            self.findings + more,
        )

    def weigh(self, stage: str, judgement: Judgement, address: Address | None = None) -> Reply | None:
        """Record what the filters have said; return the refusal, if it is one."""
        note_answers(self.profile.note, self.id, judgement, "" if address is None else str(address))
        verdict: Verdict = judgement.verdict
        if isinstance(verdict, Refuse):
            reply = verdict.reply or replies.refused_by_policy(self.id, verdict.enhanced)
            return self.refused(stage, reply, verdict.why, address)
        if isinstance(verdict, Defer):
            reply = verdict.reply or replies.deferred_by_policy(self.id, verdict.enhanced)
            return self.refused(stage, reply, verdict.why, address)
        if isinstance(verdict, Disconnect):
            return self.refused(stage, replies.disconnected_by_policy(self.id), verdict.why, address)
        return None

    def refused(self, stage: str, reply: Reply, why: str, address: Address | None = None) -> Reply:
        """Record the refusal.  Whoever hears it can ask us about it: the message's id is in the words."""
        if not self.parameters.smtputf8:
            reply = reply.in_ascii
        if not any(self.id in line for line in reply.lines):
            reply = replace(reply, lines=(*reply.lines[:-1], f"{reply.lines[-1]} ({self.id})"))
        self.profile.note(
            self.id,
            "refused",
            connection=self.connection,
            peer=self.peer.address,
            hello=self.peer.hello,
            stage=stage,
            sender=str(self.sender) if self.sender is not None else "",
            recipient="" if address is None else str(address),
            reply=str(reply),
            why=why,
        )
        return reply

    def note(self, step: str, **fields: Any) -> None:
        """Record a step of the message's road."""
        self.profile.note(self.id, step, connection=self.connection, peer=self.peer.address, **fields)

    def afterwards(self, work: Callable[..., object], *arguments: object, **named: object) -> None:
        """Do what does not bear on the answer: once a message is durable, nothing that fails may make it be sent again."""
        try:
            work(*arguments, **named)
        except Exception:  # noqa: BLE001  # whatever it is
            log.failure("{id}: the answer stands, but something that follows it has failed", id=self.id)

    def same_for_all(self, reply: Reply) -> Sequence[Reply]:
        """The replies after the data where all recipients have the same one."""
        return (reply,) * len(self.recipients) if self.profile.lmtp else (reply,)
