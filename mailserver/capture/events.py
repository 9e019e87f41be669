"""What is said in a dialogue, as events.  Times are in nanoseconds since 1970."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from mailserver.capture.view import SmtpView
from mailserver.mail.quick import quick

__all__ = ["ContentStretch", "ContentEnd", "Encrypted", "Event", "CommandReply", "NotCaptured", "ReplyCause"]


class ReplyCause(enum.Enum):
    """What a reply answers."""

    GREETING = "greeting"  # the connection itself
    COMMAND = "command"
    RESPONSE = "response"  # of AUTH: a secret
    CONTENT = "content"  # the end of the data
    UNKNOWN = "unknown"  # octets of the client that were not captured
    NOTHING = "nothing"  # the server says it by itself, or what it answers came before the capture


@quick
@dataclass(frozen=True, slots=True)
class CommandReply:
    """What a client said and the reply to it.

    `time` is that of the last octet of the command, or of the reply where there is none; `replied` that of the reply's last
    octet.  `command` is a line with its end, None unless `cause` is COMMAND or RESPONSE, and for all replies to it but the first;
    `reply` has all its lines, None where none was captured.  `verb` is that of the command, in upper case.
    """

    time: int
    cause: ReplyCause
    command: bytes | None
    replied: int | None
    reply: bytes | None
    verb: str = ""

    @property
    def view(self) -> SmtpView:
        """The command's fields."""
        return SmtpView(self.command or b"")

    @property
    def reply_view(self) -> SmtpView:
        """The reply's fields."""
        return SmtpView(self.reply or b"")


@quick
@dataclass(frozen=True, slots=True)
class ContentStretch:
    """A stretch of a message's content, its dots undone."""

    time: int
    octets: bytes


@quick
@dataclass(frozen=True, slots=True)
class ContentEnd:
    """A message's content has ended.  `size` is in octets; `is_whole`: from its first to its last one, none of them lost."""

    time: int
    began: int
    size: int
    is_whole: bool


@quick
@dataclass(frozen=True, slots=True)
class NotCaptured:
    """So many octets of one side were not captured."""

    time: int
    is_client: bool
    count: int


@quick
@dataclass(frozen=True, slots=True)
class Encrypted:
    """From here on TLS: no more can be read."""

    time: int


Event: TypeAlias = CommandReply | ContentStretch | ContentEnd | NotCaptured | Encrypted
