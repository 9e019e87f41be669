"""The state of a connection, beside that of its session: the states, the legal moves, the reasons not to read.

As in `mailserver.smtp.server.states`, `MOVES` has all that is legal, and a move that is absent is illegal.  There is one state at
a time, since two that were true together would each undo the other's work: a penalty that ended while a question is open would
take the next command, and the replies would leave in another order than the commands came.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["MOVES", "READING", "Move", "ConnectionState", "Unread"]


class ConnectionState(enum.Enum):
    """Whose turn it is.

    OPEN       Events are taken, replies written.  Only here does the peer's time for a command run.
    ASKED      A question waits for its answer.  No event is taken, so that replies leave in order.  No time-out: a peer that
               heard 421 while its message is being committed would send it again.  When the connection is lost now, the
               transaction is not abandoned: the commit goes on, and the profile is released with its answer.
    PENALTY    A reply is held back.  No event is taken and nothing is written: pipelined commands would else be answered
               before their time.  When the connection is lost now, nothing is under way: the transaction is abandoned at once.
    HANDSHAKE  What comes belongs to TLS.  Nobody could read a reply: who has to go is cut off without one.
    ENDED      Reached by the last words, and again when the connection is lost.  An answer or the end of a penalty that comes
               afterwards finds it and does nothing but release what it held.
    """

    OPEN = "the peer's turn"
    ASKED = "a question waits for its answer"
    PENALTY = "a reply is held back for too many errors"
    HANDSHAKE = "the TLS handshake is under way"
    ENDED = "the last words are said, or the connection is lost"

    __hash__ = object.__hash__  # as in `mailserver.smtp.server.states`


class Move(enum.Enum):
    """What takes a connection from one state to the next."""

    ASK = "a question has no answer yet"
    ANSWER = "its answer is there"
    PENALISE = "a reply is held back"
    FORGIVE = "the pause is over"
    SECURE = "the handshake begins"
    SECURED = "the handshake is done"
    END = "the end"

    __hash__ = object.__hash__


class Unread(enum.Enum):
    """Why we do not read from the peer.

    The reasons come and go by themselves, so they are a set, and only the last one that goes lets us read again.  Were they
    one flag, a disk that has room again would open the socket of a peer whose write buffer is still full.

    SLOW_PEER  The write buffer is full.  No event is taken either: a peer that does not read would fill it with replies.
    SLOW_DISK  The spool is behind.  Events are taken, up to what the session has.  The peer is not slow: its times stand still.
    AHEAD      It has sent `pipelined_octets` while it waits for an answer.  Ends when the session wants octets again.
    """

    SLOW_PEER = "the peer does not read what we write"
    SLOW_DISK = "the disk takes the message more slowly than it comes"
    AHEAD = "the peer has sent enough for now"

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
    ConnectionState.ENDED: {Move.END: ConnectionState.ENDED},  # the last words, then the loss of the connection
}
