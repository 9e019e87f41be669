"""A client that says what the test says."""

# mypy: disallow-untyped-calls=False
# (Twisted's test transport has no annotations)

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.testing import StringTransport

__all__ = ["SMTPDialogue", "Heard", "SentMail"]

ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?= |$)")
ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{16}\b")


@dataclass(frozen=True, slots=True)
class Heard:
    """One reply: its code and its lines, without the code."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines in one text."""
        return "\n".join(self.lines)

    @property
    def enhanced(self) -> str:
        """The enhanced status code, "" where there is none."""
        found = ENHANCED.match(self.lines[-1]) if self.lines else None
        return found[0] if found else ""

    @property
    def id(self) -> str:
        """The message id that it names, "" where it names none."""
        found = ID.search(self.text)
        return found[0] if found else ""


@dataclass(frozen=True, slots=True)
class SentMail:
    """What a whole transaction has heard: to MAIL, to each RCPT, to the data (with LMTP one for each recipient)."""

    mail: Heard
    recipients: Mapping[str, Heard] = field(default_factory=dict)
    data: tuple[Heard, ...] = ()

    @property
    def last(self) -> Heard:
        """The reply that decided it."""
        return self.data[-1] if self.data else [self.mail, *self.recipients.values()][-1]

    @property
    def code(self) -> int:
        """Its code."""
        return self.last.code

    @property
    def id(self) -> str:
        """The message's id."""
        return self.last.id


class Wire(StringTransport):
    """A transport that notes that it was closed."""

    aborted = False
    handshake: Callable[[], object] = staticmethod(lambda: None)
    """Is called where encryption begins."""

    def startTLS(self, creator: object) -> None:
        """What comes from now on counts as encrypted."""
        self.handshake()

    def pauseProducing(self) -> None:
        """Nothing more is said until the dialogue says it."""

    def resumeProducing(self) -> None:
        """See above."""

    def abortConnection(self) -> None:
        """Cut at once."""
        self.aborted = True


class SMTPDialogue:
    """A connection to the server.  `said` keeps all that was said, by both, as lines."""

    def __init__(self, protocol: Any, wire: Wire, settle: Any, *, lmtp: bool) -> None:
        self._protocol, self._wire, self._settle, self._lmtp = protocol, wire, settle, lmtp
        self._unread = b""
        self.said: list[str] = []

    @property
    def closed(self) -> bool:
        """The server has closed it."""
        return bool(self._wire.disconnecting or self._wire.aborted)

    def heard(self) -> Heard | None:
        """The next reply; None where there is none yet: a filter waits, say, and the clock has to go on."""
        self._settle()
        self._unread += self._wire.value()
        self._wire.clear()
        lines: list[str] = []
        rest = self._unread
        while b"\r\n" in rest:
            line, _, rest = rest.partition(b"\r\n")
            text = line.decode("utf-8", "replace")
            lines.append(text[4:])
            if text[3:4] != "-":
                self._unread = rest
                self.said += [f"S: {text[:3]} {one}" for one in lines]
                return Heard(int(text[:3]), tuple(lines))
        return None

    def send(self, octets: bytes) -> None:
        """Send them as they are."""
        self._protocol.dataReceived(octets)

    def say(self, line: str) -> Heard | None:
        """Send a line; the reply to it, None where there is none yet."""
        self.said.append(f"C: {line}")
        self.send(line.encode() + b"\r\n")
        return self.heard()

    def must(self, line: str) -> Heard:
        """Send a line that is answered at once.  Raises AssertionError where it is not."""
        reply = self.say(line)
        if reply is None:
            raise AssertionError(f"no reply to {line!r}: something waits; use say(), let time pass, then heard()")
        return reply

    def start_tls(self, hello: str = "client.example.net") -> Heard:
        """STARTTLS, and EHLO once more: what was said before is forgotten (RFC 3207 section 4.2).  The reply to EHLO."""
        reply = self.must("STARTTLS")
        if reply.code != 220:
            raise AssertionError(f"STARTTLS is refused: {reply.code} {reply.text}")
        self._settle()
        return self.must(f"{'LHLO' if self._lmtp else 'EHLO'} {hello}")

    def log_in(self, account: str, password: str) -> Heard:
        """AUTH PLAIN."""
        token = base64.b64encode(f"\0{account}\0{password}".encode()).decode()
        return self.must(f"AUTH PLAIN {token}")

    def transaction(
        self, message: bytes, sender: str | None = "sender@example.net", recipients: Sequence[str] = ("alice@example.org",)
    ) -> SentMail:
        """MAIL, RCPT for each recipient, DATA.  It ends with the first refusal that ends it."""
        mail = self.must(f"MAIL FROM:<{sender or ''}>")
        if mail.code != 250:
            return SentMail(mail)
        replies = {one: self.must(f"RCPT TO:<{one}>") for one in recipients}
        taken = [one for one, reply in replies.items() if reply.code == 250]
        if not taken:
            return SentMail(mail, replies)
        go_on = self.must("DATA")
        if go_on.code != 354:
            return SentMail(mail, replies, (go_on,))
        return SentMail(mail, replies, self.content(message, len(taken) if self._lmtp else 1))

    def content(self, message: bytes, replies: int = 1) -> tuple[Heard, ...]:
        """The message after DATA, and what is said to it.  Lines may end with LF alone: they go out with CRLF, dots doubled."""
        octets = re.sub(rb"(?m)^\.", b"..", re.sub(rb"(?<!\r)\n", b"\r\n", message))
        if octets and not octets.endswith(b"\r\n"):
            octets += b"\r\n"
        self.said.append(f"C: ({len(message)} octets)")
        self.send(octets + b".\r\n")
        found = []
        for _ in range(replies):
            reply = self.heard()
            if reply is None:
                raise AssertionError("no reply to the data: something waits for the clock or for another answer")
            found.append(reply)
        return tuple(found)
