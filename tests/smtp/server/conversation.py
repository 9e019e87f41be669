"""A caller of the session that answers every question, for the tests of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mailserver.mail.reply import Reply
from mailserver.smtp.events import (
    Authenticate,
    AuthResponse,
    Chunk,
    Closed,
    Data,
    EndOfData,
    Event,
    Expand,
    Extended,
    Hello,
    Mail,
    Rcpt,
    Rejected,
    StartTLS,
    Verify,
    Wait,
)
from mailserver.smtp.server.session import Extensions, ServerSession, SessionLimits

GREETING = Reply.of(220, "", "mx.example.org ESMTP")
OK = Reply.of(250, "2.0.0", "OK")
NO = Reply.of(550, "5.7.1", "No")
GO_ON = Reply.of(354, "", "Go on")
VERIFIED = Reply.of(252, "2.1.5", "Perhaps")
READY_FOR_TLS = Reply.of(220, "2.0.0", "Go ahead")
CHALLENGE = Reply.of(334, "", "Y2hhbGxlbmdl")
LOGGED_IN = Reply.of(235, "2.7.0", "Welcome")

QUESTIONS = (Hello, Mail, Rcpt, Data, EndOfData, Verify, Expand, Extended, StartTLS, Authenticate, AuthResponse)
EVERYTHING = Extensions(size=1_000_000, starttls=True, auth=("PLAIN", "LOGIN"), recipients_max=100, mail_max=20)


def friendly(event: Event) -> Reply:
    """Yes to all."""
    match event:
        case Data():
            return GO_ON
        case EndOfData(fault=Reply() as fault):
            return fault
        case StartTLS():
            return READY_FOR_TLS
        case Authenticate(initial=None):
            return CHALLENGE
        case Authenticate() | AuthResponse():
            return LOGGED_IN
        case Verify() | Expand():
            return VERIFIED
    return OK


class Conversation:
    """A session, its events and what it has said.

    `answer` returns the reply to a question, or None to leave it open.
    """

    def __init__(
        self,
        *,
        lmtp: bool = False,
        extensions: Extensions = EVERYTHING,
        limits: SessionLimits = SessionLimits(message_octets=1_000_000),
        lf_lines: bool = False,
        lf_ends_data: bool = True,
        answer: Callable[[Event], Reply | None] = friendly,
        greet: bool = True,
    ) -> None:
        self.session = ServerSession(
            hostname="mx.example.org", lmtp=lmtp, extensions=extensions, limits=limits, lf_lines=lf_lines
        )
        self.session.lf_ends_data &= lf_ends_data
        self.answer = answer
        self.events: list[Event] = []
        self.said = b""
        self.wait = Wait.PAUSED
        if greet:
            self.session.greet(GREETING)
            self.take()
            self.said = b""

    def take(self) -> None:
        """Take all events that there are; the TLS handshake succeeds at once."""
        session = self.session
        while True:
            event = session.next_event()
            self.said += session.data_to_send()
            if isinstance(event, Wait):
                self.wait = event
                return
            self.events.append(event)
            if not isinstance(event, QUESTIONS):
                continue
            reply = self.answer(event)
            if reply is None:
                continue
            session.reply(reply)
            self.said += session.data_to_send()
            if isinstance(event, StartTLS) and reply.code == 220:
                session.tls_established()

    def send(self, *pieces: bytes) -> bytes:
        """Let the peer send; return what the session says to it."""
        before = len(self.said)
        for piece in pieces:
            self.session.receive_data(piece)
            self.take()
        return self.said[before:]

    def say_hello(self) -> Conversation:
        """EHLO, or LHLO; what came of it is forgotten."""
        self.send(b"LHLO client.example\r\n" if self.session.lmtp else b"EHLO client.example\r\n")
        self.forget()
        return self

    def address(self, recipients: int = 1, parameters: bytes = b"") -> Conversation:
        """Hello, MAIL and RCPT."""
        self.say_hello()
        self.send(b"MAIL FROM:<a@client.example>" + parameters + b"\r\n")
        for n in range(recipients):
            self.send(b"RCPT TO:<u%d@example.org>\r\n" % n)
        self.forget()
        return self

    def forget(self) -> None:
        """Forget the events and what was said."""
        self.events.clear()
        self.said = b""

    @property
    def content(self) -> bytes:
        """The content of all messages without a fault, one after the other."""
        return b"".join(content for content, end in self.messages if end is None or end.fault is None)

    @property
    def messages(self) -> list[tuple[bytes, EndOfData | None]]:
        """Each message's content and end; the end is None where it did not come."""
        return list(messages_of(self.events))

    @property
    def codes(self) -> list[int]:
        """The codes of the replies, one for each."""
        return [int(line[:3]) for line in self.said.split(b"\r\n") if line[3:4] == b" "]

    @property
    def rejected(self) -> list[tuple[str, int, str]]:
        """What the session refused by itself."""
        return [(e.command, e.reply.code, e.reply.enhanced) for e in self.events if isinstance(e, Rejected)]


def messages_of(events: Iterable[Event]) -> Iterable[tuple[bytes, EndOfData | None]]:
    """The messages among events."""
    content, is_open = b"", False
    for event in events:
        if isinstance(event, Chunk):
            content, is_open = content + event.data, True
        elif isinstance(event, EndOfData):
            yield content, event
            content, is_open = b"", False
    if is_open:
        yield content, None


def story(conversation: Conversation) -> tuple[object, ...]:
    """All that must not depend on how the octets arrived: the events with their chunks joined, the octets said, the end.

    Of a message with a fault, how much came before the fault was known does depend on it, so its chunks are left out, as are
    those of a message that has not ended or was cut off.
    """
    events: list[object] = []
    chunks: list[bytes] = []
    for event in conversation.events:
        if isinstance(event, Chunk):
            chunks.append(event.data)
            continue
        if chunks and not isinstance(event, Closed) and not (isinstance(event, EndOfData) and event.fault is not None):
            events.append(b"".join(chunks))
        chunks.clear()
        events.append(event)
    return tuple(events), conversation.said, conversation.wait, conversation.session.state
