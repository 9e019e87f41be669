"""What a milter is told of one SMTP connection, in the order in which it happens.

A milter hears each step when it happens, so that it can refuse a recipient while the peer is there.  What it has not heard it is
told before the next step: where a connection to it was lost or given up, where a reload has brought the filter in the middle of
an SMTP connection, and for programs of this host, who do not say hello.  If it answers otherwise then than it did the first
time, it has failed: what a peer has heard cannot be taken back.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.defer import TimeoutError as Late

from mailserver.api import Clock, Content, Envelope, LookupFailed, Peer, Recipient, RunInThread
from mailserver.filters.milter_answers import Accepted, Answer, BodyPart, Change, Continued, Declined, Skipped
from mailserver.filters.milter_body import NewBody
from mailserver.filters.milter_changes import own_received
from mailserver.filters.milter_connection import MilterConnection, MilterFailed, MilterPool
from mailserver.filters.milter_dialogue import MilterDialogue, Position
from mailserver.filters.milter_macros import ClientName, macros_for, values
from mailserver.filters.milter_wire import CHUNK_OCTETS, MilterStep, texts
from mailserver.plugins.awaiting import within

__all__ = ["MilterSession", "SessionFacts", "Verdicted"]

CONTINUED = Continued()
NAMES_SECONDS = 5.0  # a DNS that hangs keeps no mail away
NOT_XTEXT = re.compile(r"[^!-*,-<>-~]+")
T = TypeVar("T")
CONTENT_STEPS = frozenset({MilterStep.HEADER, MilterStep.END_OF_HEADER, MilterStep.BODY, MilterStep.END})


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What is the same for all of them."""

    hostname: str
    version: str
    daemon_name: str
    client_names: bool
    command_seconds: float
    content_seconds: float
    body_octets_most: int
    run_in_thread: RunInThread
    clock: Clock


@dataclass(slots=True)
class Verdicted:
    """What a milter has said of a message: its last answer, and the changes that it wants.

    `names` are those of the fields that the message had, `own` the place of our Received among them.
    """

    answer: Answer
    names: Sequence[str] = ()
    own: int | None = None
    leading_space: bool = field(kw_only=True)
    changes: list[Change] = field(default_factory=list)
    body: NewBody | None = None


class MilterSession:
    """One SMTP connection's."""

    def __init__(self, pool: MilterPool, facts: SessionFacts) -> None:
        self._pool = pool
        self._facts = facts
        self._lock = DeferredLock()
        self._connection: MilterConnection | None = None
        self._client: ClientName | None = None
        self._refused: list[Recipient] = []  # by the milter, in the message `_refused_in`
        self._refused_in = ""
        self.is_over = False  # the peer is gone, or was a program of this host
        self._ended = ""  # the message that ended last
        self._wants_fresh = False
        self._forget()

    def _forget(self) -> None:
        """The milter knows nothing."""
        self._hello: object = None  # what it was told last
        self._of_peer: Answer | None = None  # its word on the connection, if that is the last
        self._of_hello: Answer | None = None
        self._forget_message()

    def _forget_message(self) -> None:
        self._id = ""
        self._of_message: Answer | None = None  # its last word on the message
        self._told = self._taken = 0  # recipients that it has taken; those of them who were accepted by everybody
        self._known = 0  # so many of those who were accepted it has heard of
        self._last: Recipient | None = None  # whom it has taken, and of whom nobody knows yet whether others do

    # --- the questions ---

    async def judge_peer(self, peer: Peer) -> Answer:
        """At connect, and when the peer has said its name.  Raises `MilterFailed`."""
        return await self._ask(lambda: self._introduced(peer))

    async def judge_sender(self, envelope: Envelope) -> Answer:
        """At MAIL."""
        return await self._ask(lambda: self._begun(envelope))

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Answer:
        """At RCPT."""
        return await self._ask(lambda: self._with(envelope, recipient))

    async def begin_data(self, envelope: Envelope) -> Answer:
        """Before the message: it knows the recipients who were accepted, and nobody else."""
        return await self._ask(lambda: self._data(envelope))

    async def judge_message(self, envelope: Envelope, content: Content) -> Verdicted:
        """The message itself.  Raises OSError where it cannot be read, too."""
        return await self._ask(lambda: self._message(envelope, content))

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._in_turn(question)
        finally:
            self._settle()

    async def _in_turn(self, question: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            try:
                try:
                    return await question()
                except MilterFailed:
                    connection = self._connection
                    if connection is None or not connection.was_used or connection.answers:
                        raise
                self._drop()  # it had stood idle for too long: nothing was answered, so all can be said again
                self._wants_fresh = True
                return await question()
            except BaseException:
                self._drop()
                raise
            finally:
                self._wants_fresh = False

    # --- how it ends ---

    @property
    def is_idle(self) -> bool:
        """It has a connection that could serve another, since it is between messages."""
        return self._connection is not None and not self._lock.locked and not self._id

    def end_message(self, id: str) -> None:
        """The transaction is over, however."""
        self._ended = id
        self._settle()

    def over(self) -> None:
        """There will be no other message: give the connection back when this one is over."""
        self.is_over = True
        self._settle()

    @property
    def is_in_message(self) -> bool:
        """One is under way."""
        return bool(self._id)

    def _settle(self) -> None:
        """When nothing is asked: what is over is over, and who is between messages leaves his connection to who waits for one."""
        if self._lock.locked:
            return
        if self._id and self._id == self._ended:
            self._abort()
        if not self._id and (self.is_over or self._pool.is_wanted):
            self.release()

    def release(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        self._forget()
        if connection is not None:
            self._pool.give_back(connection)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.cut()
        self.release()

    def _abort(self) -> None:
        self._forget_message()
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.write(connection.dialogue.abort())

    # --- the steps ---

    async def _introduced(self, peer: Peer) -> Answer:
        if self._connection is not None and not self._connection.is_open:
            self._drop()
        if self._connection is None:
            if self._client is None:
                self._client = await self._client_of(peer)
            self._connection = await self._pool.take(fresh=self._wants_fresh)
            answer = await self._say(MilterStep.CONNECT, _connect_data(peer, self._client), peer)
            if not isinstance(answer, Continued):
                self._of_peer = answer
        if self._of_peer is not None:
            return self._of_peer
        name = self._facts.hostname if peer.address == "local" else peer.hello
        if name and (name, peer.tls) != self._hello:
            self._abort()
            self._hello = (name, peer.tls)
            answer = await self._say(MilterStep.HELO, texts((name,)), peer)
            self._of_hello = None
            if isinstance(answer, Accepted):
                self._of_peer = answer
            elif not isinstance(answer, Continued):
                self._of_hello = answer
        return self._of_peer or self._of_hello or CONTINUED

    async def _begun(self, envelope: Envelope) -> Answer:
        answer = await self._introduced(envelope.peer)
        if not isinstance(answer, Continued):
            return answer
        is_judged = self._dialogue.position is Position.OVER and self._of_message is None
        if self._id != envelope.id or is_judged:
            self._abort()
            self._id = envelope.id
            self._end_if_last(await self._say(MilterStep.MAIL, texts(_mail_data(envelope)), envelope.peer, envelope))
        return self._of_message or CONTINUED

    async def _with(self, envelope: Envelope, recipient: Recipient) -> Answer:
        answer = await self._accepted_so_far(envelope)
        if not isinstance(answer, Continued):
            return answer
        self._last = None
        answer = await self._rcpt(envelope, recipient)
        if isinstance(answer, Continued):
            self._last = recipient
        elif isinstance(answer, Declined):
            if self._refused_in != envelope.id:
                self._refused, self._refused_in = [], envelope.id
            self._refused.append(recipient)
        return answer

    async def _accepted_so_far(self, envelope: Envelope) -> Answer:
        """Tell it those that it does not know."""
        answer = await self._begun(envelope)
        while isinstance(answer, Continued) and self._known < len(envelope.recipients):
            recipient = envelope.recipients[self._known]
            if self._last is not None and self._last == recipient:
                self._last = None
                self._taken += 1
            elif self._refused_in != envelope.id or recipient not in self._refused:  # else others have overruled it
                answer = await self._rcpt(envelope, recipient)
                if isinstance(answer, Declined):
                    raise MilterFailed(f"the milter refuses a recipient that was accepted: {answer}")
                self._taken += 1
            self._known += 1
        return answer

    async def _rcpt(self, envelope: Envelope, recipient: Recipient) -> Answer:
        answer = await self._say(MilterStep.RCPT, texts(_rcpt_data(recipient)), envelope.peer, envelope, recipient)
        if isinstance(answer, Continued):
            self._told += 1
        elif not isinstance(answer, Declined):
            self._end_if_last(answer)
        return answer

    async def _data(self, envelope: Envelope) -> Answer:
        answer = await self._accepted_so_far(envelope)
        if isinstance(answer, Continued) and self._told != self._taken:  # others have refused whom it has taken
            self._abort()
            answer = await self._accepted_so_far(envelope)
        if isinstance(answer, Continued) and self._dialogue.position in (Position.MAIL, Position.RCPT):
            self._end_if_last(await self._say(MilterStep.DATA, b"", envelope.peer, envelope))
        return self._of_message or answer

    async def _message(self, envelope: Envelope, content: Content) -> Verdicted:
        answer = await self._data(envelope)
        if not isinstance(answer, Continued):
            return Verdicted(answer, leading_space=False)
        if content.has_cut_head:
            raise MilterFailed("the header section has no end")
        fields = [(_name_of(one.raw), one.raw) for one in content.headers]
        own = own_received([(name.decode("latin-1").lower(), raw) for name, raw in fields], envelope.id)
        names = [name.decode("latin-1").lower() for name, _ in fields]
        found = Verdicted(CONTINUED, names, own, leading_space=self._dialogue.keeps_leading_space)
        shown = [one for place, one in enumerate(fields) if place != own and one[0]]
        answer = await self._fields(shown)
        if isinstance(answer, Continued):
            answer = await self._say(MilterStep.END_OF_HEADER, b"", envelope.peer, envelope)
        if isinstance(answer, Continued):
            answer = await self._text(content)
        if isinstance(answer, Continued):
            answer = await self._end(envelope, found)
        else:
            self._of_message = answer
        found.answer = answer
        return found

    async def _fields(self, fields: Sequence[tuple[bytes, bytes]]) -> Answer:
        """The fields, until it has an answer, or has heard enough of them."""
        dialogue = self._dialogue
        for name, raw in fields:
            if not dialogue.wants(MilterStep.HEADER):
                break
            value = raw.partition(b":")[2].replace(b"\r\n", b"\n").replace(b"\0", b"?")
            if not dialogue.keeps_leading_space and value.startswith(b" "):
                value = value[1:]  # one blank, as Sendmail and Postfix do it
            answer = await self._say(MilterStep.HEADER, name + b"\0" + value + b"\0")
            if not isinstance(answer, Continued | Skipped):
                return answer
        return CONTINUED

    async def _text(self, content: Content) -> Answer:
        """The body, until it has an answer, or has heard enough of it."""
        pieces, is_in_file = _body_of(content), content.path is not None
        while self._dialogue.wants(MilterStep.BODY):
            piece: bytes | None = await self._facts.run_in_thread(_next, pieces) if is_in_file else _next(pieces)
            if piece is None:
                break
            answer = await self._say(MilterStep.BODY, piece)
            if not isinstance(answer, Continued | Skipped):
                return answer
        return CONTINUED

    async def _end(self, envelope: Envelope, found: Verdicted) -> Answer:
        """The last question, and whatever it wants to have changed."""
        heard = await self._heard(MilterStep.END, b"", envelope.peer, envelope)
        while isinstance(heard, Change):
            if isinstance(heard, BodyPart):
                if found.body is None:
                    found.body = NewBody(self._facts.body_octets_most, self._facts.run_in_thread)
                await found.body.add(heard.octets)
            else:
                found.changes.append(heard)
            heard = await self._open.answer(self._facts.content_seconds)
        return heard

    def _end_if_last(self, answer: Answer) -> None:
        if not isinstance(answer, Continued):
            self._of_message = answer

    # --- one command ---

    @property
    def _open(self) -> MilterConnection:
        if self._connection is None:
            raise MilterFailed("there is no connection to the milter")
        return self._connection

    @property
    def _dialogue(self) -> MilterDialogue:
        return self._open.dialogue

    async def _say(self, step: MilterStep, data: bytes, *about: Any) -> Answer:
        """Its answer.  `about` is the peer, the envelope and the recipient, as far as the command has macros of them."""
        heard = await self._heard(step, data, *about)
        if isinstance(heard, Change):
            raise MilterFailed("the milter changes a message that it has not seen")
        return heard

    async def _heard(
        self,
        step: MilterStep,
        data: bytes,
        peer: Peer | None = None,
        envelope: Envelope | None = None,
        recipient: Recipient | None = None,
    ) -> Answer | Change:
        connection, facts = self._open, self._facts
        dialogue = connection.dialogue
        macros = None
        if peer is not None and dialogue.wants(step):
            known = values(
                hostname=facts.hostname,
                version=facts.version,
                daemon_name=facts.daemon_name,
                client=self._client or ClientName(),
                peer=peer,
                envelope=envelope,
                recipient=recipient,
            )
            macros = macros_for(step, dialogue.macros(step), known)
        connection.write(dialogue.say(step, data, macros))
        seconds = facts.content_seconds if step in CONTENT_STEPS else facts.command_seconds
        if dialogue.awaits is None:
            await connection.drained(seconds)
            return CONTINUED
        return await connection.answer(seconds)

    async def _client_of(self, peer: Peer) -> ClientName:
        if not self._facts.client_names or peer.address == "local":
            return ClientName()
        try:
            names = await within(NAMES_SECONDS, Deferred.fromCoroutine(peer.names()), self._facts.clock)
        except (LookupFailed, Late):
            return ClientName(could_tell=False)
        return ClientName(names[0] if names else "")


def _connect_data(peer: Peer, client: ClientName) -> bytes:
    if peer.address == "local":
        return b"localhost\x004" + struct.pack("!H", 0) + b"127.0.0.1\0"
    ip = peer.ip
    if ip is None:
        return b"unknown\0U"
    family = b"4" if ip.version == 4 else b"6"
    return texts((client.name or f"[{ip}]",)) + family + struct.pack("!H", peer.port) + texts((str(ip),))


def _mail_data(envelope: Envelope) -> Sequence[str]:
    """The path and the parameters of MAIL, as they came."""
    sender, given = envelope.sender, envelope.parameters
    parameters = {
        "SIZE": "" if given.size is None else str(given.size),
        "BODY": "" if given.body == "7BIT" else given.body,
        "RET": given.ret or "",
        "ENVID": _xtext(given.envid or ""),
        "AUTH": _xtext(given.auth or ""),
    }
    said = [f"{keyword}={value}" for keyword, value in parameters.items() if value]
    return [f"<{'' if sender is None else sender.path}>", *said, *(["SMTPUTF8"] if given.smtputf8 else [])]


def _rcpt_data(recipient: Recipient) -> Sequence[str]:
    given = recipient.parameters
    said = [] if given.notify is None else ["NOTIFY=" + ",".join(sorted(given.notify))]
    if given.orcpt is not None:
        said.append(f"ORCPT={given.orcpt[0]};{_xtext(given.orcpt[1])}")
    return [f"<{recipient.address.path}>", *said]


def _xtext(text: str) -> str:
    """RFC 3461 section 4."""
    return NOT_XTEXT.sub(lambda found: "".join([f"+{octet:02X}" for octet in found[0].encode("utf-8", "replace")]), text)


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


def _name_of(raw: bytes) -> bytes:
    """As the edits find it; b"" for a line that is no field."""
    name, colon, _ = raw.partition(b":")
    return name.rstrip() if colon and b"\0" not in name else b""


def _body_of(content: Content) -> Iterator[bytes]:
    """What follows the header section, in pieces as a milter takes them."""
    in_head = len(content.head)
    for piece in content.chunks(CHUNK_OCTETS):
        for at in range(min(in_head, len(piece)), len(piece), CHUNK_OCTETS):
            yield piece[at : at + CHUNK_OCTETS]
        in_head = max(0, in_head - len(piece))
