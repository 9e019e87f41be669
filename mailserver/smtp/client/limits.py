"""How much a client takes from its peer, and how long it waits for it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["ClientLimits", "Phase"]


class Phase(enum.Enum):
    """What a client is waiting for."""

    CONNECT = "connecting"  # the caller's: a session knows nothing of it
    GREETING = "the greeting"
    HELLO = "the answer to EHLO"
    TLS = "STARTTLS and the handshake"
    AUTH = "the answer to AUTH"
    IDLE = "the next message"
    RESET = "the answer to RSET"
    MAIL = "the answer to MAIL"
    RCPT = "the answer to RCPT"
    DATA = "the answer to DATA"
    CONTENT = "room for more content"
    END = "the answer to the content"
    QUIT = "the answer to QUIT"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Lengths in octets, times in seconds; one value serves many sessions.

    A reply has up to `reply_lines` lines of `reply_line_octets`, their CRLFs included (RFC 5321 section 4.5.3.1.5 asks for
    512, which EHLO lines and the reasons of large sites exceed), and up to `reply_octets` in all.

    The times are those of RFC 5321 section 4.5.3.2 where it names one; `content_seconds` is for each piece of content to be
    written, `end_seconds` for the answer to the whole.  A session knows no clock: its caller takes `seconds(session.phase)`.
    """

    reply_line_octets: int = 2048
    reply_lines: int = 128
    reply_octets: int = 16384
    connect_seconds: float = 30.0
    greeting_seconds: float = 300.0
    hello_seconds: float = 300.0
    tls_seconds: float = 60.0
    auth_seconds: float = 120.0
    idle_seconds: float = 60.0
    reset_seconds: float = 30.0
    mail_seconds: float = 300.0
    rcpt_seconds: float = 300.0
    data_seconds: float = 120.0
    content_seconds: float = 180.0
    end_seconds: float = 600.0
    quit_seconds: float = 10.0

    def seconds(self, phase: Phase) -> float:
        """How long to wait for one whole answer in `phase`.  Octets that come do not make it longer."""
        seconds: float = getattr(self, f"{phase.name.lower()}_seconds")
        return seconds
