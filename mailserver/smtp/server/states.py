"""The conversation: its states, what moves it, and the table of legal moves.

Two laws: all that decides whether a move is legal stands in `MOVES`, and an illegal move is absent from it.  A verb that
moves nowhere (NOOP) names its own state.  Whether an extension is offered, or an argument well formed, is decided elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from mailserver.smtp.vocabulary import CommandVerb

__all__ = ["MOVES", "Input", "State"]


class State(enum.Enum):
    """Where a session stands between two inputs."""

    GREETING = "nothing said yet"
    STRANGER = "greeted, no EHLO yet"
    READY = "introduced, no transaction"
    SENDER = "a reverse-path, no accepted recipient"
    RECIPIENTS = "at least one accepted recipient"
    CONTENT = "inside the octets of DATA"
    CHUNK = "inside the octets of a BDAT"
    BETWEEN = "between two BDATs of a message"
    EXCHANGE = "the next line belongs to AUTH"
    HANDSHAKE = "STARTTLS said, TLS not yet established"
    CLOSED = "over"

    # Members are compared by identity anyway; Enum's own __hash__ is a Python function and costs 0.2 us per look-up.
    __hash__ = object.__hash__


class Input(enum.StrEnum):
    """What moves a session: the verbs of the peer (upper case), and what the session or its caller finds (lower case)."""

    EHLO = CommandVerb.EHLO
    HELO = CommandVerb.HELO
    LHLO = CommandVerb.LHLO
    MAIL = CommandVerb.MAIL
    RCPT = CommandVerb.RCPT
    DATA = CommandVerb.DATA
    BDAT = CommandVerb.BDAT
    RSET = CommandVerb.RSET
    NOOP = CommandVerb.NOOP
    VRFY = CommandVerb.VRFY
    EXPN = CommandVerb.EXPN
    HELP = CommandVerb.HELP
    QUIT = CommandVerb.QUIT
    STARTTLS = CommandVerb.STARTTLS
    AUTH = CommandVerb.AUTH
    EXTENDED = "extended"  # a command of an extension beside the server's own …
    EXTENDED_ANYWHERE = "extended anywhere"  # … and one that may come amid a transaction

    GREETED = "greeted"  # 220 was said
    PART_RECEIVED = "part received"  # a BDAT without LAST is complete
    MESSAGE_ENDED = "message ended"  # accepted, refused or given up: the transaction is over
    CHALLENGED = "challenged"  # 334 was said
    EXCHANGE_ENDED = "exchange ended"  # AUTH succeeded, failed or was cancelled
    ENCRYPTED = "encrypted"  # TLS is established


def _moves(state: State, introduced: State, **moves: State) -> dict[str, State]:
    """A row: what may be said at any time between messages (RFC 5321 section 4.1.4), and the state's own moves."""
    row: dict[str, State] = dict.fromkeys(("EHLO", "HELO", "LHLO"), State.READY)
    row |= dict.fromkeys(("NOOP", "VRFY", "EXPN", "HELP"), state)
    return row | {"RSET": introduced, "QUIT": State.CLOSED} | moves


MOVES: Mapping[State, Mapping[str, State]] = {
    State.GREETING: {Input.GREETED: State.STRANGER},
    State.STRANGER: _moves(State.STRANGER, State.STRANGER),
    # STARTTLS and AUTH are not allowed during a transaction (RFC 3207 section 4, RFC 4954 section 4).
    State.READY: _moves(State.READY, State.READY, MAIL=State.SENDER, STARTTLS=State.HANDSHAKE, AUTH=State.EXCHANGE)
    | {Input.EXTENDED: State.READY, Input.EXTENDED_ANYWHERE: State.READY},
    State.SENDER: _moves(State.SENDER, State.READY, RCPT=State.RECIPIENTS) | {Input.EXTENDED_ANYWHERE: State.SENDER},
    State.RECIPIENTS: _moves(
        State.RECIPIENTS, State.READY, RCPT=State.RECIPIENTS, DATA=State.CONTENT, BDAT=State.CHUNK
    )
    | {Input.EXTENDED_ANYWHERE: State.RECIPIENTS},
    State.CONTENT: {Input.MESSAGE_ENDED: State.READY},
    State.CHUNK: {Input.PART_RECEIVED: State.BETWEEN, Input.MESSAGE_ENDED: State.READY},
    # Once the first BDAT is in, neither MAIL, RCPT nor DATA may follow before LAST or RSET (RFC 3030 section 2).
    State.BETWEEN: _moves(State.BETWEEN, State.READY, BDAT=State.CHUNK),
    State.EXCHANGE: {Input.CHALLENGED: State.EXCHANGE, Input.EXCHANGE_ENDED: State.READY},
    State.HANDSHAKE: {Input.ENCRYPTED: State.STRANGER},
    State.CLOSED: {},
}
