"""One connection to another host: octets in, events out of the SMTP client core, one write for all that is ready.

A connection is opened, greeted (EHLO) and perhaps encrypted.  Then it carries transactions one after the other, as its `Owner`
hands them over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces.services import TapsConnections
from mailserver.mail.reply import Reply
from mailserver.relay.client_contexts import ClientContexts, Securing
from mailserver.relay.conclusions import Conclusion, HandshakeFacts, TLSFault, concluded
from mailserver.relay.fallbacks import TLSStep
from mailserver.relay.pool import ConnectionRecord, RecordState
from mailserver.relay.streaming import FileStream
from mailserver.relay.token_answers import TokenFailed
from mailserver.relay.transmission import Target, Transmission
from mailserver.smtp.client import events
from mailserver.smtp.client.auth import AuthExchange
from mailserver.smtp.client.offer import NOTHING_OFFERED
from mailserver.smtp.client.session import ClientSession, Phase
from mailserver.smtp.client.states import ClientState
from mailserver.smtp.events import Wait
from mailserver.transport.certificate_faults import words_of
from mailserver.transport.channel_bindings import bindings_of, connection_of
from mailserver.transport.recording import Tap
from mailserver.transport.writing import hang_up, let_go, writer

__all__ = ["Owner", "RelayProtocol"]

NO_LOGIN = Reply.of(451, "4.7.0", "The host offers no way to log in that we know")
NOT_ENCRYPTED = Reply.of(451, "4.7.0", "Without encryption the relay does not log in")
LOOP = Reply.of(451, "4.4.6", "The host calls itself by the name of this one")
UNREADABLE_PASSWORD = Reply.of(451, "4.3.5", "The password for the host cannot be read")
UNREADABLE = Reply.of(451, "4.3.0", "The message could not be read from its file")
GIVEN_UP = Reply.of(451, "4.4.2", "The connection was given up")
FURTHER_ANSWER_SECONDS = 30.0  # in a phase with several replies, for each but the first
IN_THE_CLEAR = HandshakeFacts()

log = Logger()


class Owner(Protocol):
    """Who owns connections, and is told what happens on them.  `waits` are the time-outs of each phase, in seconds."""

    waits: Mapping[Phase, float]
    contexts: ClientContexts
    wall_clock: Callable[[], float]  # Unix time, for certificates

    def seconds(self) -> float: ...

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any: ...

    def tls_step(self, target: Target) -> TLSStep:
        """How TLS begins there."""

    def calls_itself_like_us(self, host: str, target: Target) -> bool: ...

    def opened(self, connection: RelayProtocol) -> None:
        """The connection is ready for its first transaction."""

    def unusable(self, connection: RelayProtocol, why: Reply) -> None:
        """The connection never became ready."""

    def tls_concluded(self, connection: RelayProtocol, facts: HandshakeFacts, conclusion: Conclusion) -> None:
        """What the beginning of TLS came to.  Once for each connection that got so far."""

    def tls_broken(self, connection: RelayProtocol, why: str) -> bool:
        """The TLS handshake failed.  Return whether another connection is tried in another way: then this one is done with."""

    def over(self, connection: RelayProtocol, transmission: Transmission, done: events.Done, lost: bool) -> None:
        """A transaction has ended.  `lost`: the connection has ended with it."""

    def ended(self, connection: RelayProtocol) -> None:
        """No more commands will be sent on the connection."""

    def closed(self, connection: RelayProtocol) -> None:
        """The socket is closed."""


@implementer(IHandshakeListener)
class RelayProtocol(TwistedProtocol):
    """Drives one `ClientSession`.  `deadline` is when the peer's time is over; the owner checks it each second.

    A phase's time begins with the phase and is for a whole reply, however many octets and lines it has.  Where a phase has
    several replies (RCPT, and the content in LMTP) each of them has that time.  All together have that time and
    `FURTHER_ANSWER_SECONDS` for each reply but the first.
    """

    transport: Any  # a TCP or TLS connection: more than ITransport says
    recordings: TapsConnections | None = None  # asked when it begins

    def __init__(self, session: ClientSession, record: ConnectionRecord, target: Target, owner: Owner) -> None:
        self.session = session
        self.record = record
        self.target = target
        self.owner = owner
        self.own_address = ""
        self.tap: Tap | None = None  # takes what is said, where somebody records it
        self.tls = ""  # what is known of its encryption, in words; "" in the clear
        self.facts = IN_THE_CLEAR
        self.tls_step = TLSStep.FULL
        self.deadline = math.inf
        self.transmission: Transmission | None = None
        self.content_sent = False
        self._securing: Securing | None = None
        self._done: events.Done | None = None
        self._exchange: AuthExchange | None = None  # the log-in under way
        self._stream: FileStream | None = None
        self._running = False
        self._closing = False
        self._phase: Phase | None = None  # the one that `deadline` belongs to
        self._phase_ends = math.inf
        self._answers = 0

    def __repr__(self) -> str:
        tls = f", {self.tls}" if self.tls else ""
        return f"<RelayProtocol {self.target}{tls}, {self.session.phase.value}, {self.record.messages} messages>"

    # --- the connection ---

    def connectionMade(self) -> None:
        transport = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self._write = writer(transport)
        if self.recordings is not None:
            key = self.target.key
            self.tap = self.recordings.tap(key.address, key.port, transport.getHost(), is_client=False)
            if self.tap is not None:
                self._write = self.tap.writer(self._write)
        if hasattr(transport, "getHost"):  # a socket that has been closed has none any more
            self.own_address = getattr(transport.getHost(), "host", "")
        self._set_deadline()
        self.tls_step = self.owner.tls_step(self.target)
        if self.target.implicit_tls:
            self._secure()

    def dataReceived(self, data: bytes) -> None:
        if self.tap is not None:
            self.tap.received(data)
        self.session.receive_data(data)
        self._run()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_stream()
        if self._is_securing:
            self._tls_failed(words_of(reason.value))  # type: ignore[arg-type]  # a Failure has one
        self.session.receive_eof()
        self._run()
        self._opening_failed(GIVEN_UP)
        if self.tap is not None:
            self.tap.closed()
        self.owner.closed(self)
        let_go(self.transport, reason)

    def handshakeCompleted(self) -> None:
        """The TLS handshake is done (`IHandshakeListener`)."""
        facts, conclusion = self._what_was_shaken()
        self.facts, self.tls = facts, str(facts)
        if not conclusion.may_go_on:  # before anything is said
            if self.record.state is RecordState.OPENING:
                self.owner.unusable(self, conclusion.refusal)
            self.session.give_up(conclusion.refusal)
            self._run()
            self.transport.abortConnection()
            return
        if self.tap is not None:
            self.tap.encrypted(facts.version)
        if not self.target.implicit_tls:
            self.session.tls_established()
        self._run()

    def time_out(self) -> None:
        """The peer has taken too long: end the connection."""
        self.give_up(Reply.of(451, "4.4.2", f"The host took too long: {self.session.phase.value}"))

    def give_up(self, why: Reply = GIVEN_UP) -> None:
        """End the connection now, whatever it is doing."""
        self._stop_stream()
        self._opening_failed(why)
        self.session.give_up(why)
        self._run()
        self.transport.abortConnection()

    def quit(self) -> None:
        """Send QUIT.  No transaction may be running."""
        if self.session.state in (ClientState.READY, ClientState.REFUSED):
            self.session.quit()
            self._run()
        else:
            self._close()

    @property
    def _is_securing(self) -> bool:
        if self.target.implicit_tls:
            return not self.tls
        return self.session.state in (ClientState.SECURING, ClientState.HANDSHAKE)

    def _opening_failed(self, why: Reply) -> None:
        """Tell the owner, once, that the connection has never become ready."""
        if self.record.state is RecordState.OPENING:
            if self._is_securing:
                self._tls_failed(" ".join(why.lines))
            else:
                self.owner.unusable(self, why)

    @property
    def keeps_requiretls(self) -> bool:
        """Whether the host takes messages with REQUIRETLS."""
        session = self.session
        return session.is_encrypted and session.offer is not None and session.offer.requiretls

    @property
    def has_said_hello(self) -> bool:
        """Whether our first message of TLS was sent."""
        return self._securing is not None

    def _secure(self) -> None:
        """Begin the handshake."""
        target = self.target
        is_small = self.tls_step is not TLSStep.FULL
        self._securing = self.owner.contexts.securing(
            target.demand, target.host, key=target.key, is_small=is_small, certificate=target.certificate
        )
        self.transport.startTLS(self._securing)

    def _what_was_shaken(self) -> tuple[HandshakeFacts, Conclusion]:
        """What the handshake has shown.  Whatever goes wrong here, nothing is said over the connection."""
        try:
            assert self._securing is not None
            facts = self._securing.completed(connection_of(self.transport), self.owner.wall_clock())
        except Exception:  # noqa: BLE001  # an odd certificate, say
            log.failure("the relay stumbled over the certificates of {host}", host=str(self.target))
            facts = HandshakeFacts(fault=TLSFault.HANDSHAKE, detail="its certificates cannot be judged")
        return facts, self._conclude(facts)

    def _conclude(self, facts: HandshakeFacts) -> Conclusion:
        conclusion = concluded(self.target.demand, facts)
        self.owner.tls_concluded(self, facts, conclusion)
        return conclusion

    def _tls_failed(self, words: str) -> None:
        """STARTTLS or the handshake came to nothing.  Tell the owner, once."""
        if self.record.state is not RecordState.OPENING:
            return
        facts = HandshakeFacts(fault=TLSFault.HANDSHAKE, detail=words)
        if self._securing is not None:
            facts = self._securing.failed(words)
        conclusion = self._conclude(facts)
        if not (conclusion.may_retry and self.owner.tls_broken(self, words)):
            self.owner.unusable(self, conclusion.refusal)

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self.transport.loseConnection()
            hang_up(self.transport)  # a host that does not close its side would keep our place there

    def _set_deadline(self, *, anew: bool = False) -> None:
        """Give the peer more time for a new phase, a reply, or (`anew`) progress of our own.  Single octets give it none."""
        session, owner = self.session, self.owner
        phase, now = session.phase, owner.seconds()
        seconds = owner.waits[phase]
        if anew or phase is not self._phase:
            self._phase = phase
            self._phase_ends = now + seconds + FURTHER_ANSWER_SECONDS * max(0, session.answers_due() - 1)
        elif session.answers == self._answers:
            return
        self._answers = session.answers
        self.deadline = min(now + seconds, self._phase_ends)

    # --- the loop ---

    def begin(self, transmission: Transmission) -> None:
        """Send this message.  The connection must be ready."""
        self.transmission = transmission
        self.content_sent = False
        request, form = transmission.request, transmission.form
        if form is not None:
            request = replace(request, size=form.content.size, body=form.body)
        if request.require_tls and not self.keeps_requiretls:  # a report: RFC 8689 section 5
            request = replace(request, require_tls=False)
        self.session.send(request)
        self._phase = None  # a phase of its own, whatever came before
        self._run()

    def _run(self) -> None:
        """Handle events until the peer has to answer, then write what is ready."""
        if self._running:
            return
        session, answers = self.session, self.ANSWERS
        self._running = True
        try:
            while True:
                event: Any = session.next_event()
                if event.__class__ is not Wait:
                    answers[event.__class__](self, event)
                elif self._done is not None:
                    self._over(event is Wait.CLOSED)
                else:
                    break
        finally:
            self._running = False
        ready = session.data_to_send()
        if ready:
            self._write(ready)
        if event is Wait.CLOSED:
            self.deadline = min(self.deadline, self.owner.seconds() + self.owner.waits[Phase.QUIT])
            self.owner.ended(self)
            self._close()
        else:
            self._set_deadline()

    def _over(self, lost: bool) -> None:
        done, self._done = self._done, None
        transmission, self.transmission = self.transmission, None
        self._stop_stream()
        if transmission is not None and done is not None:
            self.owner.over(self, transmission, done, lost)

    # --- events ---

    def _on_greeted(self, event: events.Greeted) -> None:
        pass

    def _on_ready(self, event: events.Ready) -> None:
        session, demand = self.session, self.target.demand
        if self.record.state is not RecordState.OPENING:
            return
        if not self.target.names_host and self.owner.calls_itself_like_us(event.offer.host, self.target):
            self._turn_away(LOOP)
        elif not demand.wants_tls or session.is_encrypted:
            self._login()
        elif demand.allows_clear and self.tls_step is TLSStep.CLEAR:
            self._login()
        elif event.offer.starttls:
            session.start_tls()
        else:
            self._without_tls(HandshakeFacts(fault=TLSFault.NOT_OFFERED))

    def _without_tls(self, facts: HandshakeFacts) -> None:
        """The host does not do STARTTLS: mail goes in the clear, or it does not go."""
        conclusion = self._conclude(facts)
        if conclusion.may_go_on:
            self._login()
        else:
            self._turn_away(conclusion.refusal)

    def _login(self) -> None:
        """Log in, where that is wanted.  All else is done."""
        session, login = self.session, self.target.login
        if login is None:
            self.owner.opened(self)
            return
        if not session.is_encrypted:
            self._turn_away(NOT_ENCRYPTED)
            return
        try:
            exchange = login.exchange((session.offer or NOTHING_OFFERED).auth, bindings_of(self.transport, is_client=True))
        except (OSError, ValueError, TokenFailed) as error:
            self._cannot_log_in(error)
            return
        if isinstance(exchange, Deferred):  # there is no token at this moment: the connection waits, and has its deadline
            exchange.addCallbacks(self._log_in_with, lambda failure: self._cannot_log_in(failure.value))
            exchange.addErrback(lambda failure: log.failure("the relay stumbled over a log-in", failure))
        else:
            self._log_in_with(exchange)

    @property
    def _may_log_in(self) -> bool:
        return self.record.state is RecordState.OPENING and self.session.state is ClientState.READY

    def _log_in_with(self, exchange: AuthExchange | None) -> None:
        if not self._may_log_in:  # it has ended while it waited
            return
        if exchange is None:
            self._turn_away(NO_LOGIN)
        else:
            self._exchange = exchange
            self.session.authenticate(exchange)
        self._run()

    def _cannot_log_in(self, error: BaseException) -> None:
        if not self._may_log_in:
            return
        if isinstance(error, TokenFailed):  # whoever keeps the tokens has logged it
            self._turn_away(Reply.heard(451, "4.7.0", (f"There is no token to log in with: {error}",)))
        else:
            log.error("the relay cannot log in to {host}: {error}", host=str(self.target), error=error)
            self._turn_away(UNREADABLE_PASSWORD)
        self._run()

    def _on_authenticated(self, event: events.Authenticated) -> None:
        exchange, self._exchange = self._exchange, None
        if self.target.login is not None and exchange is not None:
            self.target.login.accepted(exchange)
        self.owner.opened(self)

    def _on_auth_refused(self, event: events.AuthRefused) -> None:
        why = event.doubt or str(event.reply)
        exchange, self._exchange = self._exchange, None
        if heard := getattr(exchange, "heard", ""):  # RFC 7628 section 3.2.2: the reason is in the challenge before
            why = f"{why} ({heard})"
        log.warn("{host} does not let the relay log in: {why}", host=str(self.target), why=why)
        if self.target.login is not None and exchange is not None and event.reply.code >= 500:
            self.target.login.refused(exchange, why)
        self._turn_away(Reply.heard(451, "4.7.0", (f"The host does not let us log in: {why}",)))

    def _on_ready_for_tls(self, event: events.ReadyForTLS) -> None:
        self._secure()

    def _on_tls_refused(self, event: events.TLSRefused) -> None:
        self._without_tls(HandshakeFacts(fault=TLSFault.REFUSED, detail=str(event.reply)))

    def _on_refused(self, event: events.Refused) -> None:
        session, demand = self.session, self.target.demand
        if session.phase is Phase.HELLO and not (session.is_encrypted or demand.allows_clear):  # who knows who says so
            self._conclude(HandshakeFacts(fault=TLSFault.NOT_OFFERED, detail=str(event.reply)))
            self._turn_away(Reply.heard(451, "4.7.4", (f"TLS is demanded, and the host refuses EHLO: {event.reply}",)))
        else:
            self._turn_away(_temporary(event.reply))

    def _turn_away(self, why: Reply) -> None:
        self._opening_failed(why)
        self.session.quit()

    def _on_send_content(self, event: events.SendContent) -> None:
        transmission, session = self.transmission, self.session
        if transmission is None:
            return
        content = transmission.content if transmission.form is None else transmission.form.content
        self.content_sent = False
        if content.data is None:
            self._start_stream(content)
            return
        if content.prefix:
            octets = session.content(content.prefix) + session.content(content.data) + session.end_of_content()
        else:
            octets = session.content(content.data) + session.end_of_content()
        self.content_sent = True
        self._write(octets)

    def _on_done(self, event: events.Done) -> None:
        self._done = event

    def _on_gone(self, event: events.Closing | events.Lost | events.Broken) -> None:
        why = getattr(event, "why", "")
        if event.phase is Phase.TLS and self.record.state is RecordState.OPENING:  # what is no handshake that has failed
            fault = TLSFault.REFUSED if isinstance(event, events.Closing) else TLSFault.HANDSHAKE
            words = why or str(getattr(event, "reply", "the connection was lost"))
            conclusion = self._conclude(HandshakeFacts(fault=fault, detail=words))
            if not self.target.demand.allows_clear:
                self._opening_failed(conclusion.refusal)
        if isinstance(event, events.Closing):
            self._opening_failed(event.reply)
        elif why:
            self._opening_failed(Reply.heard(451, "4.5.0", (f"The host does not keep to the protocol: {why}",)))
        else:
            self._opening_failed(Reply.of(451, "4.4.2", f"The connection was lost in {event.phase.value}"))

    ANSWERS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        events.Greeted: _on_greeted,
        events.Ready: _on_ready,
        events.ReadyForTLS: _on_ready_for_tls,
        events.TLSRefused: _on_tls_refused,
        events.Authenticated: _on_authenticated,
        events.AuthRefused: _on_auth_refused,
        events.Refused: _on_refused,
        events.SendContent: _on_send_content,
        events.Done: _on_done,
        events.Closing: _on_gone,
        events.Lost: _on_gone,
        events.Broken: _on_gone,
    }

    # --- content from a file ---

    def _start_stream(self, content: Any) -> None:
        self._stream = FileStream(
            content,
            run_in_thread=self.owner.run_in_thread,
            write=self._stream_piece,
            ended=self._stream_ended,
            failed=self._stream_failed,
        )
        # Not `_write`: the transport must write the piece itself, since it then asks for the next one.
        self.transport.registerProducer(self._stream, False)

    def _stream_piece(self, piece: bytes) -> None:
        self._write_content(self.session.content(piece))
        self._set_deadline(anew=True)

    def _write_content(self, octets: bytes) -> None:
        if self.tap is not None:
            self.tap.sent(octets)
        self.transport.write(octets)

    def _stream_ended(self) -> None:
        self._stop_stream()
        octets = self.session.end_of_content()
        self.content_sent = True
        if octets:
            self._write_content(octets)
        self._set_deadline()
        self._run()

    def _stream_failed(self, failure: Failure) -> None:
        log.failure("a message cannot be read while it is being sent; the connection is ended before its end", failure)
        self.give_up(UNREADABLE)

    def _stop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.stopProducing()
            self.transport.unregisterProducer()


def _temporary(reply: Reply) -> Reply:
    """The reply as a temporary one.  A host that refuses the connection says nothing of a recipient, whatever its code."""
    if reply.is_transient:
        return reply
    return Reply.heard(451, "4.3.2", (f"The host turns us away: {reply}",))

