"""A client's conversation: its states, what moves it, and the table of legal moves.

An illegal move is absent from the table.  The end (`CLOSED`) can be reached from everywhere and stands in no row.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from mailserver.smtp.client.limits import Phase
from mailserver.smtp.vocabulary import CommandVerb

__all__ = ["CLIENT_MOVES", "PHASES", "STATE_PHASES", "ClientInput", "ClientState", "Command"]


class ClientState(enum.Enum):
    """Where a session stands."""

    GREETING = "the peer has not greeted"
    HELLO = "EHLO, LHLO or HELO said"
    READY = "introduced, no transaction"
    SECURING = "STARTTLS said"
    HANDSHAKE = "the caller establishes TLS"
    LOGGING_IN = "AUTH said, or a response"
    ENVELOPE = "MAIL, RCPT and DATA said, or some of them"
    CONTENT = "the caller streams content"
    END = "the content is sent"
    RESETTING = "RSET said"
    REFUSED = "the peer wants nothing of us"
    QUITTING = "QUIT said"
    CLOSED = "over"

    __hash__ = object.__hash__


class Command(enum.StrEnum):
    """What an answer of the peer can belong to."""

    CONNECT = "the connection"  # answered by the greeting
    EHLO = CommandVerb.EHLO
    LHLO = CommandVerb.LHLO
    HELO = CommandVerb.HELO
    STARTTLS = CommandVerb.STARTTLS
    AUTH = CommandVerb.AUTH
    RESPONSE = "a response"
    RSET = CommandVerb.RSET
    MAIL = CommandVerb.MAIL
    RCPT = CommandVerb.RCPT
    DATA = CommandVerb.DATA
    EMPTY = "an empty message"
    END = "the content"
    QUIT = CommandVerb.QUIT

    __hash__ = str.__hash__  # Enum's own is a Python function


class ClientInput(enum.Enum):
    """What moves a session: acts of the caller, and what the peer's answers mean."""

    START_TLS = "start_tls()"
    ENCRYPTED = "tls_established()"
    AUTHENTICATE = "authenticate()"
    SEND = "send()"
    CONTENT_ENDED = "end_of_content()"
    RESET = "reset()"
    QUIT = "quit()"

    GREETED = "220"
    INTRODUCED = "250 to EHLO"
    REFUSED = "4yz or 5yz to the greeting or to EHLO"
    TLS_GRANTED = "220 to STARTTLS"
    TLS_REFUSED = "4yz or 5yz to STARTTLS"
    LOGGED_IN = "235"
    NOT_LOGGED_IN = "4yz or 5yz to AUTH"
    LET_IN = "354, or recipients for BDAT"
    EMPTY_CONTENT = "354 though no recipient is left"
    PART_OVER = "all is answered"
    RESET_DONE = "250 to RSET"

    __hash__ = object.__hash__


CLIENT_MOVES: Mapping[ClientState, Mapping[ClientInput, ClientState]] = {
    ClientState.GREETING: {
        ClientInput.GREETED: ClientState.HELLO,
        ClientInput.REFUSED: ClientState.REFUSED,
    },
    ClientState.HELLO: {
        ClientInput.INTRODUCED: ClientState.READY,
        ClientInput.REFUSED: ClientState.REFUSED,
    },
    ClientState.READY: {
        ClientInput.START_TLS: ClientState.SECURING,
        ClientInput.AUTHENTICATE: ClientState.LOGGING_IN,
        ClientInput.SEND: ClientState.ENVELOPE,
        ClientInput.RESET: ClientState.RESETTING,
        ClientInput.QUIT: ClientState.QUITTING,
    },
    ClientState.SECURING: {
        ClientInput.TLS_GRANTED: ClientState.HANDSHAKE,
        ClientInput.TLS_REFUSED: ClientState.READY,
    },
    ClientState.HANDSHAKE: {ClientInput.ENCRYPTED: ClientState.HELLO},
    ClientState.LOGGING_IN: {
        ClientInput.LOGGED_IN: ClientState.READY,
        ClientInput.NOT_LOGGED_IN: ClientState.READY,
    },
    ClientState.ENVELOPE: {
        ClientInput.LET_IN: ClientState.CONTENT,
        ClientInput.EMPTY_CONTENT: ClientState.END,
        ClientInput.PART_OVER: ClientState.READY,
    },
    ClientState.CONTENT: {ClientInput.CONTENT_ENDED: ClientState.END},
    ClientState.END: {ClientInput.PART_OVER: ClientState.READY},
    ClientState.RESETTING: {ClientInput.RESET_DONE: ClientState.READY},
    ClientState.REFUSED: {ClientInput.QUIT: ClientState.QUITTING},
    ClientState.QUITTING: {},
    ClientState.CLOSED: {},
}

# What is waited for while a command has no answer.
PHASES: Mapping[Command, Phase] = {
    Command.CONNECT: Phase.GREETING,
    Command.EHLO: Phase.HELLO,
    Command.HELO: Phase.HELLO,
    Command.LHLO: Phase.HELLO,
    Command.STARTTLS: Phase.TLS,
    Command.AUTH: Phase.AUTH,
    Command.RESPONSE: Phase.AUTH,
    Command.RSET: Phase.RESET,
    Command.MAIL: Phase.MAIL,
    Command.RCPT: Phase.RCPT,
    Command.DATA: Phase.DATA,
    Command.EMPTY: Phase.END,
    Command.END: Phase.END,
    Command.QUIT: Phase.QUIT,
}
# Where no command waits for its answer; in the other states one always does, or did when the session ended.
STATE_PHASES: Mapping[ClientState, Phase] = {
    ClientState.HELLO: Phase.HELLO,
    ClientState.READY: Phase.IDLE,
    ClientState.HANDSHAKE: Phase.TLS,
    ClientState.ENVELOPE: Phase.MAIL,
    ClientState.CONTENT: Phase.CONTENT,
    ClientState.END: Phase.END,
    ClientState.RESETTING: Phase.RESET,
    ClientState.SECURING: Phase.TLS,
    ClientState.LOGGING_IN: Phase.AUTH,
}
