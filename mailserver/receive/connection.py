"""Drives a connection: octets, turns, time, patience, back-pressure.  `mailserver.receive.protocol` says what is answered.

While a question is open the session is paused, so that replies leave in order; what the peer sends meanwhile waits in a
bounded buffer, and behind that in its own socket.  `mailserver.receive.states` says whose turn it is, and why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.mail.answers import Finding
from mailserver.mail.envelope import Peer
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Holder
from mailserver.plugins.awaiting import now_or_later
from mailserver.plugins.generation import Generation
from mailserver.receive.listener import Listener
from mailserver.receive.profile import Profile
from mailserver.receive.states import MOVES, READING, ConnectionState, Move, Unread
from mailserver.receive.throttle import Progress
from mailserver.receive.transaction import Transaction
from mailserver.smtp import replies
from mailserver.smtp.events import Hello, Wait
from mailserver.smtp.server.session import ServerSession
from mailserver.transport.recording import Recordings, Tap
from mailserver.transport.writing import hang_up

__all__ = ["Connection"]

log = Logger()

LINGER_SECONDS = 30.0  # how long a peer may take to read our last words
GOODBYE_SECONDS = 2.0  # how long a listener that goes away waits for the peers' goodbyes, where TLS has one
# They are compared for each command, and a global is found sooner than a member of an enum.
OPEN, ASKED, PENALTY, HANDSHAKE, ENDED = (
    ConnectionState.OPEN,
    ConnectionState.ASKED,
    ConnectionState.PENALTY,
    ConnectionState.HANDSHAKE,
    ConnectionState.ENDED,
)
SLOW_PEER, SLOW_DISK, AHEAD = Unread.SLOW_PEER, Unread.SLOW_DISK, Unread.AHEAD
CLOSED = Wait.CLOSED
AT_ONCE = frozenset({Reply, tuple, list})  # what a `Transaction` answers; to ask whether it is a Deferred takes ten times as long


class Connection(Protocol):
    """One connection, without what is said on it: `ANSWERS` has what is done about each event of its `ServerSession`."""

    __slots__ = (
        "_asked_at",
        "_paused_at",
        "_write",
        "began",
        "blamed",
        "connection",
        "denials",
        "errors",
        "factory",
        "found_at_connect",
        "junk",
        "login",
        "messages",
        "peer",
        "profile",
        "progress",
        "quarantine",
        "session",
        "since",
        "state",
        "transaction",
        "unread",
        "uses",
        "via",
    )

    factory: Listener
    transport: Any  # a TCP, Unix or TLS connection: more than ITransport says
    _write: Callable[[bytes], None]
    recordings: Recordings | None = None  # asked when it begins
    tap: Tap | None = None  # takes what is said, where somebody records it
    handshakeCompleted: Callable[[], None]  # TLS is there
    ANSWERS: ClassVar[Mapping[type, Callable[[Any, Any], None]]]

    def __init__(self, profile: Profile, peer: Peer, session: ServerSession, *, via: str = "") -> None:
        self.profile = profile
        self.peer = peer
        self.session = session
        self.via = via  # the proxy's address, where there is one between us
        self.connection = profile.ids.next()
        self.transaction: Transaction | None = None
        self.blamed: Transaction | None = None  # LMTP: a refusal of this transaction has been counted, and no other will be
        # `since`: when the peer's time for a command, or for reading our last words, began.  A wait of ours moves it on.
        self.began = self.since = 0.0
        self.state = OPEN
        # Held from the first question of a greeting, a login or a transaction to its end.  A reload stops the parts that it
        # has replaced when nobody holds them: else a filter that MAIL has asked could be gone at the end of the data.
        self.uses: Generation | None = None
        self.unread = READING
        # Between DATA and the end of the data: the times of data hold in place of those of commands, and a listener that goes
        # away lets the message come to its end.
        self.progress: Progress | None = None
        self.messages = self.errors = self.junk = self.denials = 0
        self.found_at_connect: tuple[Finding, ...] = ()  # what encryption does not take back
        self.quarantine: tuple[Holder, ...] = ()  # who wants every message of this connection put aside
        self.login: Any = None  # the exchange that is going on (`ILogin`)

    # --- its end ---

    def writeConnectionLost(self) -> None:
        self.transport.abortConnection()

    def shut_down(self) -> None:
        """The listener goes away: say 421 as soon as no message is under way (RFC 5321 section 3.8)."""
        if self.state is HANDSHAKE:
            self._abort()
        else:
            self._run()

    def check(self, now: float, stress: bool) -> None:
        """Called each second: end what takes too long (RFC 5321 section 4.5.3.2)."""
        state = self.state
        if state is ENDED:
            if now >= self.since + LINGER_SECONDS:
                self.transport.abortConnection()
            elif self.factory.is_leaving and now >= self.since + GOODBYE_SECONDS:
                hang_up(self.transport)
            return
        if state is ASKED or state is PENALTY:  # we are the ones who are waited for
            return
        if self.progress is not None:
            slowness = None if SLOW_DISK in self.unread else self.progress.slowness(now, stress=stress)
            if slowness is None:
                return
            why = slowness.value
        elif state is HANDSHAKE:
            encryption = self.profile.encryption
            if encryption is None or now < self.since + encryption.handshake_seconds:
                return
            why = "the TLS handshake takes too long"
        elif now >= self.profile.limits.pace.command_deadline(self.since, stress=stress):
            why = "no command for too long"
        elif now >= self.began + self.profile.limits.pace.login_seconds and not self.profile.may_relay(self.peer):
            why = "no login for too long"
        else:
            return
        self.profile.note(self.connection, "timeout", peer=self.peer.address, why=why)
        if state is HANDSHAKE:
            self._abort()
            return
        self.session.close(replies.TIMEOUT)
        self.unread -= {SLOW_PEER}  # else `_run` would take no event, and a peer that reads nothing would never be ended
        self._run()

    # --- octets ---

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if self.state is HANDSHAKE:  # deciphered octets: it is done, and what wraps the transport has not told
            self.handshakeCompleted()
        if self.tap is not None:
            self.tap.received(data)
        session.receive_data(data)
        if self.state is OPEN:
            self._run()
        elif session.buffered > self.profile.limits.pipelined_octets:
            self._stop_reading(AHEAD)

    def pauseProducing(self) -> None:
        """The write buffer is full: a peer that does not read gets nothing more done."""
        self._stop_reading(SLOW_PEER)

    def resumeProducing(self) -> None:
        self.unread -= {SLOW_PEER}
        self._run()
        self._read_again()

    def stopProducing(self) -> None:
        self.unread |= {SLOW_PEER}

    def _stop_reading(self, why: Unread) -> None:
        self.unread |= {why}
        self.transport.pauseProducing()

    def _read_again(self) -> None:
        if not self.unread and self.state is not ENDED:
            self.transport.resumeProducing()

    # --- the loop ---

    def _move(self, move: Move) -> None:
        """Raises KeyError for a move that is not legal: a fault of ours, which ends the connection."""
        self.state = MOVES[self.state][move]

    def _run(self) -> None:
        """Take events until octets, an answer or the peer's attention are wanted; write what is ready."""
        session, answers = self.session, self.ANSWERS
        is_new = False
        event: object = None
        while self.state is OPEN and (not self.unread or SLOW_PEER not in self.unread):
            event = session.next_event()
            kind = event.__class__
            if kind is Wait:
                break
            if kind is not Hello or not self.peer.hello:  # a peer that only repeats EHLO gets no new time
                is_new = True
            answers[kind](self, event)
        if is_new:
            self.since = self.profile.seconds()
        state = self.state
        # ENDED: the connection was lost amid this turn.  PENALTY: the reply that is ready is held back.
        if state is ENDED or state is PENALTY:
            return
        # Not in ASKED: the peer hears its answer first.  Not amid data: see `progress`.  Not after CLOSED: goodbye is said.
        if self.factory.is_leaving and state is OPEN and self.progress is None and event is not CLOSED:
            session.close(replies.SHUTTING_DOWN)
            event = CLOSED
        ready = session.data_to_send()
        if ready:
            self._write(ready)
        if event is CLOSED:
            self._end()
        elif state is OPEN and AHEAD in self.unread:  # the session has used what waited
            self.unread -= {AHEAD}
            self._read_again()

    def _ask(self, question: Awaitable[Any], answered: Callable[[Any], None]) -> None:
        """Hand the answer to `answered`: at once where it is there, later where it has to be waited for."""
        try:
            answer = now_or_later(question)
        except Exception:  # noqa: BLE001  # the peer hears 451, the log the rest
            log.failure("{id}: a question of the peer could not be answered", id=self.connection)
            answered(None)
            return
        if answer.__class__ in AT_ONCE:
            answered(answer)
        else:
            self._hear(answer, answered)

    def _hear(self, answer: Any, answered: Callable[[Any], None]) -> None:
        if not isinstance(answer, Deferred):
            answered(answer)
            return
        self._wait(Move.ASK)
        answer.addCallbacks(self._answered, self._not_answered, callbackArgs=(answered,), errbackArgs=(answered,))
        answer.addErrback(self._broken)

    def _answered(self, answer: Any, answered: Callable[[Any], None]) -> None:
        if self._has_waited(Move.ANSWER):
            answered(answer)
            self._run()
        else:  # the connection was lost meanwhile; `_leave` has left the profile to us
            self._release_profile()

    def _not_answered(self, failure: Failure, answered: Callable[[Any], None]) -> None:
        log.failure("{id}: a question of the peer could not be answered", failure, id=self.connection)
        self._answered(None, answered)

    def _wait(self, move: Move) -> None:
        """The peer's clock stands still."""
        self._move(move)
        self._asked_at = self.profile.seconds()

    def _has_waited(self, move: Move) -> bool:
        """The peer's clock goes on; False where the connection has ended meanwhile."""
        if self.state is ENDED:
            return False
        self._move(move)
        self.since += self.profile.seconds() - self._asked_at
        return True

    def _broken(self, failure: Failure) -> None:
        """A fault of ours while an answer is worked on.  Nothing would drive the connection any further, so it is cut.

        Twisted does the same for what `dataReceived` raises.
        """
        log.failure("{id}: the connection cannot go on", failure, id=self.connection)
        self.transport.abortConnection()

    # --- the profile that serves now ---

    def _hold_profile(self) -> bool:
        """Serve what begins now with the profile that the last reload has brought; its parts stay until `_release_profile`.

        False where nothing may begin any more, and goodbye is said: the listener goes away, or is one of another service now.
        """
        profile = self.factory.profile
        if self.factory.is_leaving or profile.service != self.profile.service:
            self.session.close(replies.SHUTTING_DOWN)
            return False
        self.profile = profile  # but for what EHLO has announced: that is the session's until the next EHLO
        self.uses = profile.generation
        self.uses.begin()
        return True

    def _release_profile(self) -> None:
        """What had begun has ended.  Again, or with nothing held, it does nothing: a loss and an answer may both come here."""
        uses, self.uses = self.uses, None
        if uses is not None:
            uses.end()

    def _abort(self) -> None:
        """End it amid a handshake: there is nobody who could read a reply."""
        self._move(Move.END)
        self.transport.abortConnection()

    def _end(self) -> None:
        self._move(Move.END)
        self.since = self.profile.seconds()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # --- patience ---

    def _count(self) -> None:
        """An error costs patience: first a pause before each reply, then the connection."""
        self.errors += 1
        patience = self.profile.limits.patience
        if patience.is_over(self.errors, stress=self.factory.stress):
            self.profile.note(self.connection, "rejected", peer=self.peer.address, why="too many errors")
            self.session.close(replies.TOO_MANY_ERRORS)
            return
        delay = patience.delay_seconds(self.errors)
        if delay and self.state is OPEN:  # two errors in one turn (EHLO that is junk and refused) make one pause
            self._wait(Move.PENALISE)
            self.profile.clock.callLater(delay, self._forgive)

    def _forgive(self) -> None:
        if self._has_waited(Move.FORGIVE):
            self._write(self.session.data_to_send())
            self._run()

    def _count_junk(self) -> None:
        self.junk += 1
        if self.profile.limits.patience.errors_of_junk(self.junk, stress=self.factory.stress):
            self._count()

    def _count_for_message(self) -> None:
        """A recipient is refused, or the message.

        What speaks LMTP to us is a mail system that goes on with the others (RFC 2033 section 4.2): one error a message.
        """
        if self.profile.lmtp:
            if self.blamed is self.transaction:
                return
            self.blamed = self.transaction
        self._count()

    # --- the disk's back-pressure ---

    def _pause_for_spool(self) -> None:
        self._paused_at = self.profile.seconds()
        self._stop_reading(SLOW_DISK)

    def _spool_has_room(self) -> None:
        self.unread -= {SLOW_DISK}
        if self.progress is not None:
            self.progress.excuse(self.profile.seconds() - self._paused_at)
        self._read_again()
