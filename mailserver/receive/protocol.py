"""One connection: octets in, events out of the SMTP core, answers back, one write for all that are ready.

While a question is open the core is paused, so that replies leave in order; what the peer sends meanwhile waits in a
bounded buffer, and behind that in its own socket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.awaiting import now_or_later
from mailserver.interfaces import Denied, LoggedIn
from mailserver.mail.answers import Defer, Refuse
from mailserver.mail.envelope import Peer, TLSFacts
from mailserver.mail.reply import Reply
from mailserver.receive.judging import Judgement, note_findings
from mailserver.receive.log_in import reply_to
from mailserver.receive.profile import Profile
from mailserver.receive.spooling import Spooling
from mailserver.receive.throttle import Progress
from mailserver.receive.transaction import Transaction
from mailserver.sasl.steps import Challenge, ChannelBindings
from mailserver.smtp import events, replies
from mailserver.smtp.events import Wait
from mailserver.smtp.server import ServerSession
from mailserver.smtp.states import State
from mailserver.writing import writer

if TYPE_CHECKING:
    from mailserver.receive.factory import ReceiveFactory

__all__ = ["ReceiveProtocol"]

log = Logger()

LINGER_SECONDS = 30.0  # how long a peer may take to read our last words


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class ReceiveProtocol(Protocol):
    """Drives one `ServerSession` and asks a `Transaction` what to answer."""

    __slots__ = (
        "_paused_at",
        "_write",
        "choked",
        "began",
        "connection",
        "denials",
        "ended",
        "eof",
        "errors",
        "factory",
        "held",
        "junk",
        "leaving",
        "login",
        "messages",
        "peer",
        "penalised",
        "profile",
        "progress",
        "securing",
        "session",
        "since",
        "spool_full",
        "transaction",
        "waiting",
    )

    factory: ReceiveFactory
    transport: Any  # a TCP, Unix or TLS connection: more than ITransport says

    def __init__(self, profile: Profile, peer: Peer, session: ServerSession) -> None:
        self.profile = profile
        self.peer = peer
        self.session = session
        self.connection = profile.ids.next()
        self.transaction: Transaction | None = None
        self.began = self.since = 0.0  # `since`: when the peer's time to give a command, or to read our last words, began
        self.held = False  # we do not read
        self.progress: Progress | None = None  # of the data that come in
        self.messages = self.errors = self.junk = self.denials = 0
        self.login: Any = None  # the exchange that is going on (`ILogin`)
        self.securing = False  # the TLS handshake is going on
        self.waiting = False  # an answer of ours, or the end of a penalty, is awaited: the peer's clock stands still
        self.penalised = False  # too many errors: the reply is held back a while
        self.choked = False  # the peer does not read what we write
        self.spool_full = False  # the disk is slower than the peer
        self.eof = False  # the peer has said all that it will say
        self.leaving = False  # the server stops: say goodbye at the next chance
        self.ended = False  # nothing more will be read or answered

    # --- the connection begins and ends ---

    def connectionMade(self) -> None:
        profile, transport = self.profile, self.transport
        self.began = self.since = profile.clock.seconds()
        self._write = writer(transport)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        profile.note(self.connection, "connected", peer=self.peer.address, port=self.peer.port, service=profile.service)
        refusal = self.factory.opened(self)
        self.securing = profile.encryption is not None and profile.encryption.implicit
        if refusal is not None and self.securing:  # words would cost a handshake
            profile.note(self.connection, "rejected", peer=self.peer.address, reply=str(refusal), why="no room")
            self._abort()
            return
        if refusal is not None:
            self._turn_away(refusal, "no room for the connection")
        elif not self.securing:
            self._welcome()
        self._run()

    def _welcome(self) -> None:
        """The peer is there, encrypted if it has to be from the start: ask who it is, and greet it."""
        profile = self.profile
        if profile.asks.peer:
            self._hear(profile.judging.peer(self.peer), self._peer_judged)
        else:
            self._greet_in_time()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        if self.securing and self.profile.encryption is not None:
            why = self.profile.encryption.fault(self.transport, reason)
            self.profile.note(self.connection, "handshake_failed", peer=self.peer.address, why=why)
        self._forget_login()
        if self.transaction is not None and not self.waiting:  # what is being committed goes its way
            self.transaction.abandon()
        self.transaction = None
        self.factory.closed(self)
        self.profile.note(self.connection, "closed", messages=self.messages, errors=self.errors)

    def readConnectionLost(self) -> None:
        """The peer has closed its half: answer what it has asked, then close ours."""
        self.eof = True
        self.session.receive_eof()
        self._run()

    def writeConnectionLost(self) -> None:
        self.transport.abortConnection()

    def shut_down(self) -> None:
        """The server stops: say 421 as soon as no message is under way (RFC 5321 section 3.8)."""
        self.leaving = True
        if self.securing:
            self._abort()
        else:
            self._run()

    def check(self, now: float, stress: bool) -> None:
        """Called each second: end what takes too long (RFC 5321 section 4.5.3.2)."""
        if self.ended:
            if now >= self.since + LINGER_SECONDS:
                self.transport.abortConnection()
            return
        if self.waiting:
            return
        if self.progress is not None:
            slowness = None if self.spool_full else self.progress.slowness(now, stress=stress)
            if slowness is None:
                return
            why = slowness.value
        elif self.securing:
            encryption = self.profile.encryption
            if encryption is None or now < self.since + encryption.handshake_seconds:
                return
            why = "the TLS handshake takes too long"
        elif now >= self.profile.limits.pace.command_deadline(self.since, stress=stress):
            why = "no command for too long"
        elif now >= self.began + self.profile.limits.pace.login_seconds and not self.profile.may_relay(self.peer):
            why = "no log-in for too long"
        else:
            return
        self.profile.note(self.connection, "timeout", peer=self.peer.address, why=why)
        if self.securing:
            self._abort()
            return
        self.session.close(replies.TIMEOUT)
        self.choked = False
        self._run()

    # --- octets ---

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if self.securing:  # a wrapper in between has kept the end of the handshake to itself
            self.handshakeCompleted()
        session.receive_data(data)
        if not self.waiting:
            self._run()
        elif session.buffered > self.profile.limits.pipelined_octets:
            self._hold()

    def pauseProducing(self) -> None:
        """The write buffer is full: a peer that does not read gets nothing more done."""
        self.choked = True
        self._hold()

    def resumeProducing(self) -> None:
        self.choked = False
        self._run()

    def stopProducing(self) -> None:
        self.choked = True

    # --- the loop ---

    def _run(self) -> None:
        """Take events until octets, an answer or the peer's attention are wanted; write what is ready."""
        session, answers = self.session, self.ANSWERS
        moved = False
        event: object = None
        while not (self.waiting or self.choked or self.ended):
            event = session.next_event()
            if event.__class__ is Wait:
                break
            moved = True
            answers[event.__class__](self, event)
        if self.ended or self.penalised:
            return
        if self.leaving and not self.waiting and self.progress is None and event is not Wait.CLOSED:
            session.close(replies.SHUTTING_DOWN)
            event = Wait.CLOSED
        ready = session.data_to_send()
        if ready:
            self._write(ready)
        if event is Wait.CLOSED or (self.eof and event is Wait.NEED_DATA):
            self._end()
        elif not self.waiting:
            if moved:
                self.since = self.profile.clock.seconds()
            if self.held and not (self.choked or self.spool_full):
                self.held = False
                self.transport.resumeProducing()

    def _hold(self) -> None:
        self.held = True
        self.transport.pauseProducing()

    def _ask(self, question: Awaitable[Any], answered: Callable[[Any], None]) -> None:
        """Hand the answer to `answered`: at once where it is there, later where it has to be waited for."""
        try:
            answer = now_or_later(question)
        except Exception:  # noqa: BLE001  # the peer hears 451, the log the rest
            log.failure("{id}: a question of the peer could not be answered", id=self.connection)
            answered(None)
            return
        if answer.__class__ is Deferred:
            self._hear(answer, answered)
        else:
            answered(answer)

    def _hear(self, answer: Any, answered: Callable[[Any], None]) -> None:
        if not isinstance(answer, Deferred):
            answered(answer)
            return
        self.waiting = True
        answer.addCallbacks(self._answered, self._not_answered, callbackArgs=(answered,), errbackArgs=(answered,))

    def _answered(self, answer: Any, answered: Callable[[Any], None]) -> None:
        self.waiting = False
        if not self.ended:
            self.since = self.profile.clock.seconds()
            answered(answer)
            self._run()

    def _not_answered(self, failure: Failure, answered: Callable[[Any], None]) -> None:
        log.failure("{id}: a question of the peer could not be answered", failure, id=self.connection)
        self._answered(None, answered)

    def _abort(self) -> None:
        """End it amid a handshake: there is nobody who could read a reply."""
        self.ended = True
        self.transport.abortConnection()

    def _end(self) -> None:
        self.ended = True
        self.since = self.profile.clock.seconds()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # --- patience ---

    def _count(self, reply: Reply) -> None:
        """An error costs patience: first a pause before each reply, then the connection."""
        if reply.code < 400:
            return
        self.errors += 1
        patience = self.profile.limits.patience
        if patience.is_over(self.errors, stress=self.factory.stress):
            self.profile.note(self.connection, "rejected", peer=self.peer.address, why="too many errors")
            self.session.close(replies.TOO_MANY_ERRORS)
            return
        delay = patience.delay_seconds(self.errors)
        if delay:
            self.waiting = self.penalised = True
            self.profile.clock.callLater(delay, self._forgive)

    def _forgive(self) -> None:
        self.waiting = self.penalised = False
        if not self.ended:
            self.since = self.profile.clock.seconds()
            self._write(self.session.data_to_send())
            self._run()

    def _count_junk(self) -> None:
        self.junk += 1
        if self.profile.limits.patience.errors_of_junk(self.junk, stress=self.factory.stress):
            self._count(replies.TOO_MANY_ERRORS)

    def _pause_for_spool(self) -> None:
        self.spool_full = True
        self._paused_at = self.profile.clock.seconds()
        self._hold()

    def _spool_has_room(self) -> None:
        self.spool_full = False
        if self.progress is not None:
            self.progress.excuse(self.profile.clock.seconds() - self._paused_at)
        if self.held and not (self.ended or self.choked or self.waiting):
            self.held = False
            self.transport.resumeProducing()

    # --- greeting ---

    def _peer_judged(self, judgement: Judgement | None) -> None:
        if judgement is None:
            self._turn_away(replies.LOCAL_ERROR_CLOSING, "a filter failed")
            return
        note_findings(self.profile.note, self.connection, judgement)
        if isinstance(judgement.verdict, Refuse):
            self._turn_away(replies.PEER_REFUSED, judgement.verdict.why)
        elif isinstance(judgement.verdict, Defer):
            self._turn_away(replies.PEER_DEFERRED, judgement.verdict.why)
        else:
            self._greet_in_time()

    def _greet_in_time(self) -> None:
        delay = self.profile.limits.greeting_delay_seconds
        if delay and self.profile.service == "mx":
            self.waiting = True
            self.profile.clock.callLater(delay, self._answered, None, self._greet)
        else:
            self._greet()

    def _greet(self, _: object = None) -> None:
        if self.session.buffered and self.profile.limits.greeting_delay_seconds:
            self._turn_away(replies.EARLY_TALKER, "talked before the greeting")  # RFC 5321 section 4.3.1
        else:
            self.session.greet(replies.greeting(self.profile.hostname, self.profile.lmtp))

    def _turn_away(self, reply: Reply, why: str) -> None:
        self.profile.note(self.connection, "rejected", peer=self.peer.address, reply=str(reply), why=why)
        self.session.greet(reply)

    # --- encryption ---

    def _on_starttls(self, event: events.StartTLS) -> None:
        encryption = self.profile.encryption
        if encryption is None:
            self._reply(replies.TLS_UNAVAILABLE)
            return
        self.session.reply(replies.TLS_READY)
        self._write(self.session.data_to_send())
        self.securing = True
        self.transport.startTLS(encryption.creator)

    def handshakeCompleted(self) -> None:
        """TLS is there (`IHandshakeListener`): all that was said before it is forgotten (RFC 3207 section 4.2)."""
        encryption, session = self.profile.encryption, self.session
        if not self.securing or self.ended or encryption is None:
            return
        self.securing = False
        self.since = self.profile.clock.seconds()
        tls = encryption.facts(self.transport)
        self.peer = replace(self.peer, tls=tls, hello="", hello_verb="", login="")
        self.profile.note(self.connection, "encrypted", **_tls_fields(tls))
        if session.state is State.HANDSHAKE:
            session.tls_established()
        else:
            self._welcome()
        self._run()

    # --- logging in ---

    def _on_authenticate(self, event: events.Authenticate) -> None:
        authenticator, encryption = self.profile.authenticator, self.profile.encryption
        if authenticator is None:
            self._reply(replies.AUTH_UNAVAILABLE)
            return
        encrypted = encryption is not None and self.peer.tls is not None
        bindings = encryption.bindings(self.transport) if encryption is not None and encrypted else ChannelBindings()
        self.login = authenticator.begin(event.mechanism, self.peer, bindings)
        self._ask(self.login.respond(event.initial), self._login_answered)

    def _on_auth_response(self, event: events.AuthResponse) -> None:
        self._ask(self.login.respond(event.data), self._login_answered)

    def _login_answered(self, answer: Challenge | LoggedIn | Denied | None) -> None:
        reply, profile = reply_to(answer), self.profile
        if isinstance(answer, Challenge):
            self.session.reply(reply)
            return
        self.login = None
        if isinstance(answer, LoggedIn):
            self.peer = replace(self.peer, login=answer.account)
            profile.note(
                self.connection, "login", peer=self.peer.address, account=answer.account, method=answer.method, note=answer.note
            )
            self.session.reply(reply)
            return
        if isinstance(answer, Denied):
            profile.note(
                self.connection,
                "login_failed",
                peer=self.peer.address,
                service=profile.service,
                username=answer.username,
                why=answer.why,
            )
        self.denials += 1
        self._reply(reply)
        if self.denials >= profile.failures_per_connection:
            self.session.close(replies.TOO_MANY_FAILED_LOGINS)

    def _forget_login(self) -> None:
        login, self.login = self.login, None
        if login is not None:
            login.cancel()

    # --- events ---

    def _on_hello(self, event: events.Hello) -> None:
        self.peer = replace(self.peer, hello=event.name, hello_verb=event.verb)
        self.session.extensions = self.profile.offer(self.peer)
        judging = self.profile.judging
        if self.profile.asks.peer:
            self._hear(judging.peer(self.peer), self._hello_judged)
        else:
            self.session.reply(replies.OK)

    def _hello_judged(self, judgement: Judgement | None) -> None:
        reply = replies.LOCAL_ERROR
        if judgement is not None:
            note_findings(self.profile.note, self.connection, judgement)
            verdict = judgement.verdict
            reply = replies.OK
            if isinstance(verdict, Refuse):
                reply = replies.HELLO_REFUSED
            elif isinstance(verdict, Defer):
                reply = replies.HELLO_DEFERRED
        self._reply(reply)

    def _on_mail(self, event: events.Mail) -> None:
        if self.messages >= self.profile.limits.messages_per_connection:
            self.session.close(replies.TOO_MANY_MESSAGES)
            return
        self.transaction = transaction = Transaction(self.profile, self.peer, self.connection)
        self._ask(transaction.mail(event.sender, event.parameters), self._mail_answered)

    def _mail_answered(self, reply: Reply | None) -> None:
        if reply is None or reply.code >= 400:
            self.transaction = None
        self._reply(reply)

    def _on_rcpt(self, event: events.Rcpt) -> None:
        if self.transaction is None:
            raise RuntimeError("RCPT without MAIL")
        self._ask(self.transaction.recipient(event.address, event.parameters), self._recipient_answered)

    def _recipient_answered(self, reply: Reply | None) -> None:
        if reply is not None and self.transaction is not None and self.transaction.excuses(reply):
            self.session.reply(reply)
        else:
            self._reply(reply)

    def _on_data(self, event: events.Data) -> None:
        transaction, profile = self.transaction, self.profile
        if transaction is None:
            raise RuntimeError("DATA without MAIL")
        spooling = Spooling(
            path=profile.store.spool_path(transaction.id),
            spool=profile.spool,
            pause=self._pause_for_spool,
            resume=self._spool_has_room,
        )
        reply = transaction.data(spooling)
        if reply.code < 400:
            self.progress = Progress(profile.limits.pace, profile.clock.seconds())
        self._reply(reply)

    def _on_chunk(self, event: events.Chunk) -> None:
        transaction, progress = self.transaction, self.progress
        if transaction is None or transaction.spooling is None or progress is None:
            raise RuntimeError("content without DATA")
        transaction.spooling.write(event.data)
        progress.received(len(event.data), self.profile.clock.seconds())

    def _on_end_of_data(self, event: events.EndOfData) -> None:
        if self.transaction is None:
            raise RuntimeError("data without MAIL")
        self.progress = None
        self._ask(self.transaction.end_of_data(event.fault), self._content_answered)

    def _content_answered(self, answers: Sequence[Reply] | None) -> None:
        recipients = len(self.transaction.recipients) if self.transaction is not None else 0
        self.transaction = None
        self.messages += 1
        self.errors = self.junk = 0
        if answers is None:
            answers = (replies.LOCAL_ERROR,)
            if self.profile.lmtp:
                answers *= recipients
        if self.profile.lmtp:
            self.session.reply_each(answers)
            for answer in answers:
                self._count(answer)
        else:
            self._reply(answers[0])

    def _on_reset(self, event: events.Reset) -> None:
        self.progress = None
        if self.transaction is not None:
            self.transaction.abandon()
            self.transaction = None
        self._count_junk()

    def _on_junk(self, event: events.Noop | events.Help) -> None:
        self._count_junk()

    def _on_verify(self, event: events.Verify) -> None:
        self.session.reply(replies.CANNOT_VERIFY)  # RFC 5321 section 3.5.3: 252 tells nothing
        self._count_junk()

    def _on_expand(self, event: events.Expand) -> None:
        self.session.reply(replies.NO_EXPANSION)
        self._count_junk()

    def _on_quit(self, event: events.Quit) -> None:
        pass

    def _on_rejected(self, event: events.Rejected) -> None:
        if event.command == "AUTH":  # it also ends an exchange that was going on
            self._forget_login()
        self.profile.note(self.connection, "rejected", command=event.command, reply=str(event.reply))
        self._count(event.reply)

    def _on_closed(self, event: events.Closed) -> None:
        self.profile.note(self.connection, "rejected", peer=self.peer.address, reply=str(event.reply))

    def _reply(self, reply: Reply | None) -> None:
        reply = reply or replies.LOCAL_ERROR
        self.session.reply(reply)
        if reply.code >= 400:
            self._count(reply)

    ANSWERS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        events.Hello: _on_hello,
        events.Mail: _on_mail,
        events.Rcpt: _on_rcpt,
        events.Data: _on_data,
        events.Chunk: _on_chunk,
        events.EndOfData: _on_end_of_data,
        events.Reset: _on_reset,
        events.Noop: _on_junk,
        events.Help: _on_junk,
        events.Verify: _on_verify,
        events.Expand: _on_expand,
        events.StartTLS: _on_starttls,
        events.Authenticate: _on_authenticate,
        events.AuthResponse: _on_auth_response,
        events.Quit: _on_quit,
        events.Rejected: _on_rejected,
        events.Closed: _on_closed,
    }


def _tls_fields(tls: TLSFacts) -> dict[str, Any]:
    """For the log and the road."""
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "server_name": tls.server_name,
        "client_certificate": tls.client_certificate,
        "verified": tls.client_verified if tls.client_certificate else None,
        "fault": tls.client_fault,
    }
