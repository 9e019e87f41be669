"""Where a connection stands, apart from what its session has to say: the states, the legal moves, the reasons not to read.

Two laws, as in `mailserver.smtp.server.states`: all that decides whether a move is legal stands in `MOVES`, and an
illegal move is absent from it.  One state at a time: while a question is open there is no penalty, and what ends a
penalty can end nothing else.  A peer whose question counted as answered while its message was being committed would
hear 421, and send it again.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["MOVES", "READING", "Move", "ConnectionState", "Unread"]


class ConnectionState(enum.Enum):
    """Whose turn it is."""

    OPEN = "the peer's turn: its clock runs"
    ASKED = "an answer of ours is awaited"
    PENALTY = "a reply is held back for too many errors"
    HANDSHAKE = "TLS is being agreed on"
    ENDED = "the last words are said, or the connection is lost: nothing is read or answered any more"

    __hash__ = object.__hash__  # as in `mailserver.smtp.server.states`


class Move(enum.Enum):
    """What takes a connection from one state to the next."""

    ASK = "a question has no answer yet"
    ANSWER = "it has"
    PENALISE = "the reply waits"
    FORGIVE = "it has waited"
    SECURE = "the handshake begins"
    SECURED = "it is done"
    END = "the end"

    __hash__ = object.__hash__


class Unread(enum.Enum):
    """Why we do not read from the peer.  There may be several reasons at once; the last one that goes lets us read again."""

    SLOW_PEER = "it does not read what we write"
    SLOW_DISK = "the disk takes its message more slowly than it comes"
    AHEAD = "it has sent enough while it waits for an answer"

    __hash__ = object.__hash__


READING: frozenset[Unread] = frozenset()  # no reason

MOVES: Mapping[ConnectionState, Mapping[Move, ConnectionState]] = {
    ConnectionState.OPEN: {
        Move.ASK: ConnectionState.ASKED,
        Move.PENALISE: ConnectionState.PENALTY,
        Move.SECURE: ConnectionState.HANDSHAKE,
        Move.END: ConnectionState.ENDED,
    },
    ConnectionState.ASKED: {Move.ANSWER: ConnectionState.OPEN, Move.END: ConnectionState.ENDED},
    ConnectionState.PENALTY: {Move.FORGIVE: ConnectionState.OPEN, Move.END: ConnectionState.ENDED},
    ConnectionState.HANDSHAKE: {Move.SECURED: ConnectionState.OPEN, Move.END: ConnectionState.ENDED},
    ConnectionState.ENDED: {Move.END: ConnectionState.ENDED},  # goodbye was said, then the connection goes
}
