"""A session in lines for people, and its messages: events in, both out.

Text of others is made printable, and what AUTH says is masked unless it is asked for.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from mailserver.capture.events import (
    CommandReply,
    ContentEnd,
    ContentStretch,
    Encrypted,
    Event,
    NotCaptured,
    ReplyCause,
)
from mailserver.capture.masking import SIGNATURE
from mailserver.capture.pairing import RESETS
from mailserver.capture.printable import printable
from mailserver.capture.session import Session
from mailserver.capture.view import HIDDEN
from mailserver.mail.quick import maker
from mailserver.smtp.vocabulary import CommandVerb

__all__ = ["CapturedTransaction", "Speaker", "Transcript", "TranscriptLine"]

RECIPIENTS = 1000  # of a message that are kept
ADDRESSES = 2000  # of a session
MESSAGES = 2000  # of a session: later ones are counted only
TEXT_LENGTH = 2000  # characters of a line
MAIL, RCPT, BDAT, AUTH = [str(one) for one in (CommandVerb.MAIL, CommandVerb.RCPT, CommandVerb.BDAT, CommandVerb.AUTH)]
# What nearly every client says; the view reads all the others.  Its path has neither blanks nor quotes.
PLAIN_PATH = re.compile(rb"(?:MAIL FROM|RCPT TO):<([!#-;=?-\[\]-~]*)>(?: |\r?\n)")
REPLIED = (ReplyCause.COMMAND, ReplyCause.RESPONSE, ReplyCause.CONTENT)  # what has a reply of its own


class Speaker:
    """Who says a line."""

    CLIENT = "C"
    SERVER = "S"
    NOBODY = "*"  # what is to be said of the capture


class TranscriptLine(NamedTuple):
    """One line of a dialogue; `time` is None where a reply of several lines goes on."""

    time: int | None
    speaker: str
    text: str


_line = maker(TranscriptLine)


@dataclass(slots=True)
class CapturedTransaction:
    """A message and its envelope, as far as they were captured.

    `recipients` are those that were accepted, `refused` the others; `replies` the ones to the content.
    """

    number: int
    sender: str | None = None
    recipients: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    size: int = 0
    is_whole: bool = False
    ended: int = 0
    replies: list[str] = field(default_factory=list)
    saved: str = ""


class Transcript:
    """The lines and the messages of one session.

    `addresses` are those of MAIL and RCPT that have been named so far, in lower case.  `coming` is the message whose content
    is read, or will be next; `left_out` of `messages` were too many.
    """

    def __init__(self, session: Session, *, has_secrets: bool = False) -> None:
        self.session = session
        self.messages: list[CapturedTransaction] = []
        self.left_out = 0
        self.addresses: set[str] = set()
        self.is_encrypted = False
        self._has_secrets = has_secrets
        self.coming = CapturedTransaction(1)
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._refused: list[str] = []
        # Content may be there before the replies to MAIL and RCPT (BDAT, pipelined): its own reply closes its envelope.
        self._without_reply: deque[CapturedTransaction] = deque()
        self._replied: CapturedTransaction | None = None

    def add(self, event: Event) -> list[TranscriptLine]:
        """Take an event; return its lines."""
        match event:
            case CommandReply():
                self._note(event)
                return self._exchange(event)
            case ContentStretch():
                return []
            case ContentEnd():
                return [self._content_end(event)]
            case NotCaptured():
                who = "client" if event.is_client else "server"
                return [TranscriptLine(event.time, Speaker.NOBODY, f"{event.count:,} octets of the {who} were not captured")]
            case Encrypted():
                self.is_encrypted = True
                return [TranscriptLine(event.time, Speaker.NOBODY, "TLS from here on")]

    # --- lines ---

    def _exchange(self, event: CommandReply) -> list[TranscriptLine]:
        lines = []
        if event.command is not None:
            lines.append(_line((event.time, Speaker.CLIENT, self._command(event, event.command))))
        if event.reply is not None:
            time = event.replied
            if event.reply.startswith(b"334 ") and not self._has_secrets and SIGNATURE.match(event.reply) is not None:
                return [*lines, TranscriptLine(time, Speaker.SERVER, f"334 {HIDDEN}")]
            if event.verb == AUTH and not self._has_secrets and event.reply_view.reply_code is None:  # the end of one
                return [*lines, TranscriptLine(time, Speaker.SERVER, HIDDEN)]
            for line in _text(event.reply).rstrip("\r\n").split("\n"):
                lines.append(_line((time, Speaker.SERVER, _cut(line.rstrip("\r")))))
                time = None
        elif event.cause in REPLIED:
            lines.append(TranscriptLine(None, Speaker.NOBODY, "no reply was captured"))
        return lines

    def _command(self, event: CommandReply, line: bytes) -> str:
        if not self._has_secrets and event.cause is ReplyCause.RESPONSE:
            return HIDDEN
        if not self._has_secrets and event.verb == AUTH:
            return event.view.summary().removeprefix("SMTP ")
        return _cut(_text(line).removesuffix("\n").removesuffix("\r"))

    def _content_end(self, event: ContentEnd) -> TranscriptLine:
        message, self.coming = self.coming, CapturedTransaction(self.coming.number + 1)
        message.size, message.is_whole, message.ended = event.size, event.is_whole, event.time
        if len(self.messages) < MESSAGES:
            self.messages.append(message)
        else:
            self.left_out += 1
        self._without_reply.append(message)
        if len(self._without_reply) > MESSAGES:
            self._without_reply.popleft()
        words = f"content of {event.size:,} octets" + ("" if event.is_whole else ", not whole")
        return TranscriptLine(event.time, Speaker.CLIENT, f"({words})")

    # --- messages ---

    def _note(self, event: CommandReply) -> None:
        """What a command and its reply say of the envelope."""
        command, reply = event.command, event.reply
        verb = event.verb if command is not None else None
        code = reply[:1] if reply is not None else b"2"  # one that was not captured is taken for a yes
        if verb == RCPT and (path := _path(event, command)) is not None:
            self._name(path)
            named = self._recipients if code == b"2" else self._refused
            if len(named) < RECIPIENTS:
                named.append(path)
        elif verb in RESETS:
            self._sender, self._recipients, self._refused = None, [], []
            if verb == MAIL and (path := _path(event, command)) is not None:
                self._name(path)
                self._sender = path if code == b"2" else None
        is_end = event.cause is ReplyCause.CONTENT or (verb == BDAT and event.view.is_last_chunk)
        if is_end and self._without_reply and (self._replied is None or verb is not None):
            message = self._replied = self._without_reply.popleft()
            message.sender, message.recipients, message.refused = self._sender, self._recipients, self._refused
        elif verb is not None:
            self._replied = None
        if self._replied is not None and reply is not None and len(self._replied.replies) < RECIPIENTS:
            self._replied.replies.append(printable(_reply_text(event, reply)))

    def _name(self, path: str) -> None:
        if len(self.addresses) < ADDRESSES:
            self.addresses.add(path.lower())

    def finish(self) -> None:
        """The session has ended: what is left has no reply."""
        for message in self._without_reply:
            message.sender, message.recipients, message.refused = self._sender, self._recipients, self._refused


def _path(event: CommandReply, command: bytes | None) -> str | None:
    """The path of MAIL or RCPT."""
    if command is not None and (found := PLAIN_PATH.match(command)) is not None:
        return found[1].decode("ascii")
    view = event.view
    return view.reverse_path if event.verb == MAIL else view.forward_path


def _reply_text(event: CommandReply, reply: bytes) -> str:
    if reply.find(b"\n") == len(reply) - 1:  # of one line
        return _text(reply).removesuffix("\n").removesuffix("\r")
    return event.reply_view.text


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _cut(text: str) -> str:
    if not text.isprintable():
        text = printable(text)
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + " ..."
