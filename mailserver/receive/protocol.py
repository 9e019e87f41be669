"""What one connection says: the greeting, encryption, logins, and the answers of a `Transaction`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import Denied, LoggedIn, TransactionEnd
from mailserver.mail.answers import Defer, Disconnect, Refuse
from mailserver.mail.envelope import TLSFacts
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import with_holders
from mailserver.receive.connection import Connection
from mailserver.receive.judging import PASSED, Judgement, note_answers, with_worse
from mailserver.receive.login_replies import reply_to
from mailserver.receive.spooling import Spooling
from mailserver.receive.states import ConnectionState, Move
from mailserver.receive.throttle import Progress
from mailserver.receive.transaction import Transaction
from mailserver.sasl.steps import Challenge, ChannelBindings
from mailserver.smtp import events, replies
from mailserver.smtp.server.states import State as SessionState
from mailserver.transport.writing import let_go, writer

__all__ = ["ReceiveProtocol"]


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class ReceiveProtocol(Connection):
    """Drives one `ServerSession` and asks a `Transaction` what to answer."""

    __slots__ = ()

    # --- the connection begins and ends ---

    def connectionMade(self) -> None:
        profile, transport = self.profile, self.transport
        self.began = self.since = profile.seconds()
        self._write = writer(transport)
        if self.recordings is not None:
            self.tap = self.recordings.tap(self.peer.address, self.peer.port, transport.getHost(), is_client=True)
            if self.tap is not None:
                self._write = self.tap.writer(self._write)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        profile.note(
            self.connection, "connected", peer=self.peer.address, port=self.peer.port, service=profile.service, via=self.via
        )
        refusal = self.factory.opened(self, self.peer.address)
        if profile.encryption is not None and profile.encryption.implicit:
            self._move(Move.SECURE)
        if refusal is not None and self.state is ConnectionState.HANDSHAKE:  # words would cost a handshake
            profile.note(self.connection, "rejected", peer=self.peer.address, reply=str(refusal), why="no room")
            self._abort()
            return
        if refusal is not None:
            self._turn_away(refusal, "no room for the connection")
        elif self.state is ConnectionState.OPEN:
            self._welcome()
        self._run()

    def _welcome(self) -> None:
        """The peer is there, encrypted if it has to be from the start: ask who it is, and greet it."""
        if self.profile.asks.peer and self._hold_profile():
            self._hear(self.profile.judging.peer(self.peer), self._peer_judged)
        elif self.session.state is SessionState.GREETING:
            self._greet_in_time()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        state = self.state
        self._move(Move.END)
        try:
            self._leave(state, reason)
        finally:  # whatever that meets with, the place is free again
            self.factory.closed(self)
            self.profile.note(self.connection, "closed", messages=self.messages, errors=self.errors)
            self._tell_end()
            if self.tap is not None:
                self.tap.closed()
            let_go(self.transport, reason)

    def _leave(self, state: ConnectionState, reason: Failure) -> None:
        """The peer has gone: abandon what is not complete, leave to its end what is being answered."""
        if state is ConnectionState.HANDSHAKE and self.profile.encryption is not None:
            why = self.profile.encryption.fault(self.transport, reason)
            self.profile.note(self.connection, "handshake_failed", peer=self.peer.address, why=why)
        if self.login is not None:
            self.login.cancel()
        if state is ConnectionState.ASKED:  # a message that is being committed goes on; `_answered` releases the profile
            if self.transaction is not None:
                self.transaction.leave()
        else:
            if self.transaction is not None:
                self.transaction.abandon()
            self._release_profile()
        self.transaction = self.blamed = self.login = None

    def _tell_end(self) -> None:
        """By the profile in force: the parts of the connection's own may have stopped with a reload."""
        ends = self.factory.profile.ends
        if ends is not None:
            ends.peer(self.peer)

    def readConnectionLost(self) -> None:
        """The peer has closed its half: answer what it has asked, then close ours."""
        self.session.receive_eof()
        self._run()

    # --- greeting ---

    def _peer_judged(self, judgement: Judgement | None) -> None:
        self._release_profile()
        if judgement is None:
            self._turn_away(replies.LOCAL_ERROR_CLOSING, "a filter failed")
            return
        self._take_up(judgement)
        self.found_at_connect = self.peer.findings
        match judgement.verdict:
            case Refuse(why, reply=reply):
                self._turn_away(replies.PEER_REFUSED if reply is None else reply.in_ascii, why)
            case Defer(why, enhanced, reply=reply):  # 421, since that is the end of the connection
                self._turn_away(
                    replace(replies.PEER_DEFERRED, enhanced=enhanced) if reply is None else replace(reply.in_ascii, code=421), why
                )
            case Disconnect(why):
                self._turn_away(replies.PEER_DISCONNECTED, why)
            case _:
                self._greet_in_time()

    def _take_up(self, judgement: Judgement) -> None:
        """What is said of a peer holds for every message of the connection."""
        if judgement is PASSED:
            return
        note_answers(self.profile.note, self.connection, judgement)
        self.quarantine = with_holders(self.quarantine, judgement.quarantine)
        if judgement.findings:
            self.peer = replace(self.peer, findings=with_worse(self.peer.findings, judgement.findings))

    def _greet_in_time(self) -> None:
        delay = self.profile.limits.greeting_delay_seconds
        if delay and self.profile.service == "mx":
            self._wait(Move.ASK)
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
        self._move(Move.SECURE)
        self.transport.startTLS(encryption.creator)

    def handshakeCompleted(self) -> None:
        """TLS is there (`IHandshakeListener`): all that was said before it is forgotten (RFC 3207 section 4.2)."""
        encryption, session = self.profile.encryption, self.session
        if self.state is not ConnectionState.HANDSHAKE or encryption is None:
            return
        self._move(Move.SECURED)
        self.since = self.profile.seconds()
        tls = encryption.facts(self.transport)
        self.peer = replace(
            self.peer, tls=tls, hello="", hello_verb="", login="", login_mechanism="", login_note="",
            findings=self.found_at_connect,
        )
        self.profile.note(self.connection, "encrypted", **_tls_fields(tls))
        if self.tap is not None:
            self.tap.encrypted(tls.version)
        if session.state is SessionState.HANDSHAKE:
            session.tls_established()
        else:
            self._welcome()
        self._run()

    # --- login ---

    def _on_authenticate(self, event: events.Authenticate) -> None:
        if not self._hold_profile():
            return
        authenticator, encryption = self.profile.authenticator, self.profile.encryption
        # A reload may have taken away what EHLO had announced.
        if authenticator is None or event.mechanism not in authenticator.mechanisms(self.peer):
            self._release_profile()
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
        self._release_profile()
        if isinstance(answer, LoggedIn):
            self.peer = replace(self.peer, login=answer.account, login_mechanism=answer.method, login_note=answer.note)
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
            self._release_profile()

    # --- events ---

    def _on_hello(self, event: events.Hello) -> None:
        if not self._hold_profile():
            return
        answered = self._hello_judged if not self.peer.hello else self._hello_again_judged
        self.peer = replace(self.peer, hello=event.name, hello_verb=event.verb)
        self.session.extensions = self.profile.offer(self.peer)
        self.session.limits = self.profile.session_limits
        judging = self.profile.judging
        self._hear(judging.peer(self.peer) if self.profile.asks.peer else PASSED, answered)

    def _hello_again_judged(self, judgement: Judgement | None) -> None:
        self._hello_judged(judgement)
        self._count_junk()

    def _hello_judged(self, judgement: Judgement | None) -> None:
        self._release_profile()
        reply = replies.LOCAL_ERROR
        if judgement is not None:
            self._take_up(judgement)
            match judgement.verdict:
                case Refuse(reply=said):
                    reply = replies.HELLO_REFUSED if said is None else said.in_ascii
                case Defer(_, enhanced, reply=said):
                    reply = replace(replies.HELLO_DEFERRED, enhanced=enhanced) if said is None else said.in_ascii
                case Disconnect(why):
                    self._say_goodbye(replies.PEER_DISCONNECTED, why)
                    return
                case _:
                    reply = replies.OK
        self._reply(reply)

    def _say_goodbye(self, reply: Reply, why: str) -> None:
        """A filter wants to hear no more of this peer."""
        self.profile.note(self.connection, "rejected", peer=self.peer.address, reply=str(reply), why=why)
        self.session.reply(reply)

    def _on_mail(self, event: events.Mail) -> None:
        if not self._hold_profile():
            return
        if self.messages >= self.profile.limits.messages_per_connection:
            self.session.close(replies.TOO_MANY_MESSAGES)
            return
        self.transaction = transaction = Transaction(
            self.profile, self.peer, self.connection, quarantine=self.quarantine
        )
        self._ask(transaction.mail(event.sender, event.parameters), self._mail_answered)

    def _mail_answered(self, reply: Reply | None) -> None:
        if reply is not None and reply.code < 400:
            self.session.reply(reply)
            return
        self._forget_transaction()
        if reply is not None and reply.code == 421:
            self.session.reply(reply)
        else:
            self._reply(reply)

    def _forget_transaction(self) -> None:
        self.transaction = self.blamed = None
        self._release_profile()

    def _on_rcpt(self, event: events.Rcpt) -> None:
        if self.transaction is None:
            raise RuntimeError("RCPT without MAIL")
        self._ask(self.transaction.recipient(event.address, event.parameters), self._recipient_answered)

    def _recipient_answered(self, reply: Reply | None) -> None:
        is_taken = reply is not None and reply.code < 400
        if reply is not None and (is_taken or (self.transaction is not None and self.transaction.excuses(reply))):
            self.session.reply(reply)
        else:
            self._refuse_for_message(reply)

    def _refuse_for_message(self, refusal: Reply | None) -> None:
        self.session.reply(refusal or replies.LOCAL_ERROR)
        self._count_for_message()

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
            self.progress = Progress(profile.limits.pace, profile.seconds())
            self.session.reply(reply)
        else:
            self._refuse_for_message(reply)
            self._forget_transaction()  # it is over

    def _on_chunk(self, event: events.Chunk) -> None:
        transaction, progress = self.transaction, self.progress
        if transaction is None or transaction.spooling is None or progress is None:
            raise RuntimeError("content without DATA")
        transaction.spooling.write(event.data)
        progress.received(len(event.data), self.profile.seconds())

    def _on_end_of_data(self, event: events.EndOfData) -> None:
        if self.transaction is None:
            raise RuntimeError("data without MAIL")
        self.progress = None
        self._ask(self.transaction.end_of_data(event.fault, event.stray_in_header), self._content_answered)

    def _content_answered(self, answers: Sequence[Reply] | None) -> None:
        if self.transaction is None:
            raise RuntimeError("an answer without data")
        if answers is None:
            answers = (replies.LOCAL_ERROR,) * (len(self.transaction.recipients) if self.profile.lmtp else 1)
        self.messages += 1
        best = worst = answers[0].code
        if len(answers) > 1:
            codes = [answer.code for answer in answers]
            best, worst = min(codes), max(codes)
        if best < 400:
            self.errors = self.junk = 0
        if self.profile.lmtp:
            self.session.reply_each(answers)
        elif len(answers) > 1:
            self.session.reply_each(answers[:-1], answers[-1])
        else:
            self.session.reply(answers[0])
        if worst >= 400:
            self._count_for_message()
        self._forget_transaction()

    def _on_reset(self, event: events.Reset) -> None:
        self.progress = None
        if self.transaction is not None:
            self.transaction.abandon(TransactionEnd.RESET)
            self._forget_transaction()
        if event.verb == "RSET":  # EHLO has its own turn
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
        if self.transaction is not None:
            self.transaction.abandon(TransactionEnd.RESET)

    def _on_extended(self, event: events.Extended) -> None:
        """A transaction that is open holds the profile already."""
        if self.transaction is not None:
            self._ask(self.transaction.extended(event.verb, event.argument), self._extended_answered)
        elif self._hold_profile():
            added = self.profile.service_extensions
            if added is None:  # a reload has taken away what EHLO had announced
                self._extended_answered(replies.COMMAND_NOT_OFFERED)
            else:
                self._ask(added.command(self.connection, event.verb, event.argument, self.peer, None), self._extended_answered)

    def _extended_answered(self, reply: Reply | None) -> None:
        if self.transaction is None:
            self._release_profile()
        self._reply(reply)
        if reply is not None and reply.code < 400:
            self._count_junk()

    def _on_rejected(self, event: events.Rejected) -> None:
        self._forget_login()  # where an exchange was going on, this has ended it
        self.profile.note(self.connection, "rejected", command=event.command, reply=str(event.reply))
        self._count()

    def _on_closed(self, event: events.Closed) -> None:
        self.profile.note(self.connection, "rejected", peer=self.peer.address, reply=str(event.reply))

    def _reply(self, reply: Reply | None) -> None:
        reply = reply or replies.LOCAL_ERROR
        self.session.reply(reply)
        if reply.code >= 400:
            self._count()

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
        events.Extended: _on_extended,
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
        "group": tls.group,
        "server_name": tls.server_name,
        "client_certificate": tls.client_certificate,
        "verified": tls.client_verified if tls.client_certificate else None,
        "fault": tls.client_fault,
    }
