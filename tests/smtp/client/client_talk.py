"""Callers of the client session, for its tests: one with a scripted peer, one joined with the server core in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Outcome
from mailserver.mail.envelope import Recipient, RecipientParameters
from mailserver.mail.reply import Reply
from mailserver.smtp.client.events import ClientEvent, Done, SendContent
from mailserver.smtp.client.session import ClientLimits, ClientSession, Request
from mailserver.smtp.client.states import ClientState
from mailserver.smtp.events import Event, Wait
from mailserver.smtp.server.session import Extensions, SessionLimits
from tests.smtp.server.conversation import EVERYTHING, Conversation, friendly

EHLO_PIPELINING = b"250-mx.example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
EHLO_LOCK_STEP = b"250-mx.example.org\r\n250 8BITMIME\r\n"
CONTENT = b"Subject: x\r\n\r\n.dot\r\n"
STUFFED = b"Subject: x\r\n\r\n..dot\r\n.\r\n"


def to(*names: str, **parameters: object) -> tuple[Recipient, ...]:
    """Recipients at example.org, or at the domain in the name."""
    chosen = RecipientParameters(**parameters)  # type: ignore[arg-type]
    return tuple(
        Recipient(Address(name, "example.org") if "@" not in name else Address(*name.split("@")), chosen) for name in names
    )


def request(*names: str, content: bytes = CONTENT, sender: Address | None = Address("s", "client.example"), **more: object):
    return Request(sender, to(*(names or ("a",))), len(content), **more)  # type: ignore[arg-type]


class Talk:
    """A session with its events and what it has written.  Content is streamed as soon as it is let in."""

    def __init__(
        self,
        *,
        lmtp: bool = False,
        limits: ClientLimits | None = None,
        content: Sequence[bytes] = (CONTENT,),
        is_encrypted: bool = False,
        streams: bool = True,
        helo_after_refusal: bool = False,
        needs_extensions: bool = False,
    ) -> None:
        self.session = ClientSession(
            hello_name="client.example",
            lmtp=lmtp,
            limits=limits,
            is_encrypted=is_encrypted,
            helo_after_refusal=helo_after_refusal,
            needs_extensions=needs_extensions,
        )
        self.events: list[ClientEvent] = []
        self.written = b""
        self.wait = Wait.PAUSED
        self.content = content
        self.streams = streams

    def take(self) -> None:
        session = self.session
        while True:
            event = session.next_event()
            self.written += session.data_to_send()
            if isinstance(event, Wait):
                self.wait = event
                return
            self.events.append(event)
            if isinstance(event, SendContent) and self.streams:
                self.stream()

    def stream(self) -> None:
        for piece in self.content:
            self.written += self.session.content(piece)
        self.written += self.session.end_of_content()

    def hear(self, *pieces: bytes) -> bytes:
        """Let the peer say something; return what is written."""
        before = len(self.written)
        for piece in pieces:
            self.session.receive_data(piece)
            self.take()
        return self.written[before:]

    def eof(self) -> None:
        self.session.receive_eof()
        self.take()

    def ready(self, hello: bytes = EHLO_PIPELINING) -> Talk:
        self.hear(b"220 mx.example.org ESMTP\r\n", hello)
        self.forget()
        return self

    def send(self, *names: str, **more: object) -> bytes:
        """Begin a transaction; return what is written."""
        before = len(self.written)
        more.setdefault("content", b"".join(self.content))
        self.session.send(request(*names, **more))  # type: ignore[arg-type]
        self.take()
        return self.written[before:]

    def forget(self) -> None:
        self.events.clear()
        self.written = b""

    @property
    def done(self) -> Done:
        """The one `Done` that there is."""
        (done,) = [event for event in self.events if isinstance(event, Done)]
        return done

    @property
    def verdicts(self) -> list[str]:
        return [verdict(outcome) for outcome in self.done.outcomes]


def verdict(outcome: Outcome) -> str:
    """An outcome in a word: "ok", "later 451", "never 550"."""
    match outcome:
        case Delivered():
            return "ok"
        case Delayed(reply):
            return f"later {reply.code}"
        case Failed(reply):
            return f"never {reply.code}"


class Joined:
    """A client and a server core, joined in memory; the TLS handshake succeeds at once.

    `step` is how many octets travel at a time, 0 for all that there are.
    """

    def __init__(
        self,
        *,
        lmtp: bool = False,
        extensions: Extensions = EVERYTHING,
        answer: Callable[[Event], Reply | None] = friendly,
        limits: SessionLimits = SessionLimits(message_octets=1_000_000),
        content: Sequence[bytes] = (CONTENT,),
        step: int = 0,
    ) -> None:
        self.server = Conversation(lmtp=lmtp, extensions=extensions, answer=answer, limits=limits, greet=False)
        self.talk = Talk(lmtp=lmtp, content=content)
        self.step = step
        self.server.session.greet(Reply.of(220, "", "mx.example.org ESMTP"))
        self.run()

    def run(self) -> None:
        """Let all travel that there is to travel."""
        self.server.take()
        self.talk.take()
        while self.server.said or self.talk.written:
            said, self.server.said = self.server.said, b""
            for piece in self.pieces(said):
                self.talk.hear(piece)
                if self.talk.session.state is ClientState.HANDSHAKE:
                    self.talk.session.tls_established()
                    self.talk.take()
            written, self.talk.written = self.talk.written, b""
            for piece in self.pieces(written):
                self.server.send(piece)

    def pieces(self, octets: bytes) -> list[bytes]:
        step = self.step or len(octets) or 1
        return [octets[at : at + step] for at in range(0, len(octets), step)]

    def send(self, *names: str, **more: object) -> list[str]:
        """One transaction; return its verdicts."""
        self.talk.events.clear()
        self.server.events.clear()
        self.talk.session.send(request(*names, content=b"".join(self.talk.content), **more))  # type: ignore[arg-type]
        self.run()
        return self.talk.verdicts
