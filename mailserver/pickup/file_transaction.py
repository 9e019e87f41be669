"""One file of the pickup folder in one transaction, as a connection has one: the same router, filters and limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.interfaces import TransactionEnd
from mailserver.mail.answers import Local, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.mending import mended
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.report import Original, RecipientReport, failure_report, parameters_for
from mailserver.pickup.file_format import PickupFault
from mailserver.pickup.folder import PIECE_OCTETS, OpenedFile
from mailserver.receive.profile import Profile
from mailserver.receive.spooling import Spooling
from mailserver.receive.transaction import Transaction
from mailserver.smtp import replies
from mailserver.smtp.server.data import ChunkReader, normalized

__all__ = ["RecipientAnswers", "PickupDeferred", "FileTransaction"]

ANOTHER_TRANSACTION = "4.5.3"  # too many recipients for one
HEADER_OCTETS = 32_768  # of a refused message, in the report

Answered = tuple[Recipient, Reply]


class PickupDeferred(Exception):
    """The message can be taken later; the words say why not now."""


@dataclass(slots=True)
class RecipientAnswers:
    """What the recipients have heard.  `others` want a transaction of their own."""

    accepted: list[Recipient] = field(default_factory=list)
    deferred: list[Answered] = field(default_factory=list)
    refused: list[Answered] = field(default_factory=list)
    others: list[Recipient] = field(default_factory=list)

    def add(self, recipients: Sequence[Recipient], reply: Reply) -> None:
        """Recipients who all hear the same negative reply."""
        (self.deferred if reply.is_transient else self.refused).extend([(one, reply) for one in recipients])


class FileTransaction:
    """A transaction for a file.  `user` is the name of whose file it is; `stops()` says that the server is about to end."""

    def __init__(
        self,
        profile: Profile,
        opened: OpenedFile,
        *,
        id: str,
        user: str,
        run_in_thread: Callable[..., Deferred[Any]],
        stops: Callable[[], bool],
    ) -> None:
        self.id = id
        self._profile = profile
        self._opened = opened
        self._run_in_thread = run_in_thread
        self._stops = stops
        self._peer = Peer("local", 0, "submission", hello=f"userid {opened.uid}", login=user)
        self._transaction = Transaction(profile, self._peer, "", id)

    async def ask(self, recipients: Sequence[Recipient]) -> RecipientAnswers:
        """MAIL and RCPT: what becomes of each recipient, before any of them has the message."""
        envelope, answers = self._opened.envelope, RecipientAnswers()
        self._profile.note(self.id, "handed_over", user=self._peer.login, uid=self._opened.uid)
        reply = await self._transaction.mail(envelope.sender, envelope.parameters)
        if not reply.is_positive:
            answers.add(recipients, reply)
            return answers
        for place, one in enumerate(recipients):
            reply = await self._transaction.recipient(one.address, one.parameters)
            if answers.accepted and reply.enhanced == ANOTHER_TRANSACTION:
                # Nor do those behind him fit.  To ask each of them in each transaction would take the square of their number.
                answers.others.extend(recipients[place:])
                break
            if reply.is_positive:
                answers.accepted.append(one)
            else:
                answers.add([one], reply)
        if not answers.accepted:
            self._transaction.abandon(TransactionEnd.REFUSED)
        return answers

    async def content(self) -> Reply:
        """Give the message to those who were accepted; the reply after the data.  Raises `PickupDeferred`, OSError."""
        profile, opened = self._profile, self._opened
        flow = Flow()
        spooling = Spooling(
            path=profile.store.spool_path(self.id), spool=profile.spool, pause=flow.pause, resume=flow.resume
        )
        reply = self._transaction.data(spooling)
        if reply.code >= 400:
            return reply
        fault: Reply | None = replies.MESSAGE_TOO_LARGE
        stray_in_header = False
        try:
            if opened.size <= profile.session_limits.message_octets:
                reader = await self._read_into(spooling, flow)
                fault, stray_in_header = reader.fault, reader.stray_in_header
        except BaseException:
            self._transaction.abandon()
            raise
        (reply, *_) = await self._transaction.end_of_data(fault, stray_in_header)
        return reply

    async def _read_into(self, spooling: Spooling, flow: Flow) -> ChunkReader:
        """Read as much as stood in the file when it was opened.  Returns who knows what is wrong with the message."""
        opened = self._opened
        reader = ChunkReader(self._profile.session_limits, converts=True, is_binary=False)
        spooling.write(reader.read(opened.start, is_last=opened.is_whole))
        left = opened.size - len(opened.start)
        at = 0 if opened.is_whole else os.lseek(opened.descriptor, 0, os.SEEK_CUR)
        while left > 0 and reader.fault is None:
            if self._stops():
                raise PickupDeferred("the server stops")
            piece = await self._run_in_thread(os.pread, opened.descriptor, min(PIECE_OCTETS, left), at)
            if not piece:
                break
            at, left = at + len(piece), left - len(piece)
            spooling.write(reader.read(piece, is_last=left == 0))
            await flow.goes_on()
        if left != 0 or not opened.is_unchanged:
            raise PickupDeferred("somebody still writes to it")
        return reader

    async def report(self, told: Sequence[RecipientReport], *, id: str, now: float) -> None:
        """Tell the sender of recipients who will not get it.

        Raises `PickupFault` where there is nobody to tell, `StorageFault`, and whatever the router raises.
        """
        profile, sender = self._profile, self._opened.envelope.sender
        if sender is None:
            raise PickupFault("refused, and it has no sender")
        original = Original(self._envelope(now), self._head(), False)
        octets = failure_report(original, told, id=id, hostname=profile.hostname, made_at=now)
        recipient = Recipient(sender)
        routes = await profile.router.route(sender)
        places = [one for one in routes if isinstance(one, Local) or (isinstance(one, Remote) and profile.relays)]
        if not places:
            raise PickupFault(f"refused ({told[0].reply}), and its sender {sender} cannot be told")
        peer = Peer("127.0.0.1", 0, "report", profile.hostname)
        envelope = Envelope(id, peer, None, (recipient,), now, parameters_for(octets, sender))
        destinations = tuple([Destination(n, recipient, place) for n, place in enumerate(places)])
        await profile.store.commit(envelope, Content.of(octets), destinations)
        profile.note(self.id, "reported", condition="failure", report=id, recipient=str(sender))
        profile.note(id, "accepted", sender="", recipients=[str(sender)], size=len(octets), about=self.id)

    def _envelope(self, now: float) -> Envelope:
        envelope = self._opened.envelope
        return Envelope(self.id, self._peer, envelope.sender, envelope.recipients, now, envelope.parameters)

    def _head(self) -> bytes:
        """The header as the queue would have it: with CRLF, up to the text, whether an empty line divides the two or not."""
        content, _ = mended(Content.of(normalized(self._opened.start[:HEADER_OCTETS])))
        return content.headers.without(frozenset())


class Flow:
    """Back-pressure of the disk: the file is read no faster than the spool is written."""

    def __init__(self) -> None:
        self._paused: Deferred[None] | None = None

    def pause(self) -> None:
        if self._paused is None:
            self._paused = Deferred()

    def resume(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    async def goes_on(self) -> None:
        """Return when more may come."""
        if self._paused is not None:
            await self._paused
