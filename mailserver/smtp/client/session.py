"""The client's side of SMTP and LMTP, without I/O: octets in, events out, requests in, octets out.

    session.receive_data(octets)
    while not isinstance(event := session.next_event(), Wait):
        ...                                # Ready: session.send(request); SendContent: stream it; Done: the outcomes
    transport.write(session.data_to_send())

Commands go out together where the peer takes them so (RFC 2920), one at a time otherwise.  Every answer is held against the
command that it belongs to; an answer that belongs to none ends the session, since from there on nothing could be believed.
`docs/smtp-client.md` shows a whole client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from mailserver.mail.answers import Delayed
from mailserver.mail.reply import Reply
from mailserver.smtp.client.auth import AuthExchange, AuthTalk
from mailserver.smtp.client.dialogue import Dialogue
from mailserver.smtp.client.events import (
    Authenticated,
    AuthRefused,
    Broken,
    ClientEvent,
    Closing,
    Greeted,
    Lost,
    Ready,
    ReadyForTLS,
    Refused,
    SendContent,
    TLSRefused,
)
from mailserver.smtp.client.limits import ClientLimits, Phase
from mailserver.smtp.client.offer import NOTHING_OFFERED, Offer
from mailserver.smtp.client.replies import ReplyFault, ReplyReader
from mailserver.smtp.client.request import Request
from mailserver.smtp.client.states import CLIENT_MOVES, PHASES, STATE_PHASES, ClientInput, ClientState, Command
from mailserver.smtp.client.transaction import LEFT_OVER, LOST, NOT_SMTP, UNCERTAIN, ClientTransaction, refused
from mailserver.smtp.events import Wait
from mailserver.smtp.faults import LocalProtocolError
from mailserver.smtp.grammar import OWN_HELLO_NAME

__all__ = ["UNCERTAIN", "ClientLimits", "ClientSession", "LocalProtocolError", "Offer", "Phase", "Request"]

ONLY = -1  # the index of a command that is about no single recipient
NOTHING_ASKED: tuple[Command | None, int] = (None, ONLY)


class ClientSession:
    """One connection.

    `hello_name` is our name in EHLO; `lmtp` makes it LMTP (RFC 2033).  `is_encrypted` says that the connection has TLS from
    the start; `is_authenticated` that the peer has let us in.  `offer` is what the peer has offered last, None before;
    `dialogue` is what was said, for people.  `answers` counts the replies that were heard.  With `helo_after_refusal` HELO
    follows a 550 or 554 to EHLO, too: for callers who can do without extensions.  With `needs_extensions` HELO is never said.
    Raises ValueError for a name that cannot be said.
    """

    __slots__ = (
        "_auth",
        "_awaited",
        "_ended",
        "_events",
        "_is_grouped",
        "_last_phase",
        "_mails",
        "_needs_reset",
        "_out",
        "_replies",
        "_transaction",
        "_unsaid",
        "answers",
        "dialogue",
        "hello_name",
        "helo_after_refusal",
        "is_authenticated",
        "is_encrypted",
        "limits",
        "lmtp",
        "needs_extensions",
        "offer",
        "state",
    )

    def __init__(
        self,
        *,
        hello_name: str,
        lmtp: bool = False,
        limits: ClientLimits | None = None,
        is_encrypted: bool = False,
        helo_after_refusal: bool = False,
        needs_extensions: bool = False,
    ) -> None:
        if OWN_HELLO_NAME.fullmatch(hello_name) is None:
            raise ValueError(f"not a name for EHLO: {hello_name!r}")
        self.hello_name = hello_name
        self.lmtp = lmtp
        self.limits = ClientLimits() if limits is None else limits
        self.is_encrypted = is_encrypted
        self.is_authenticated = False
        self.helo_after_refusal = helo_after_refusal
        self.needs_extensions = needs_extensions
        self.answers = 0
        self.offer: Offer | None = None
        self.dialogue = Dialogue()
        self.state = ClientState.GREETING
        self._replies = ReplyReader(self.limits)
        self._out: list[bytes] = []
        self._events: deque[ClientEvent] = deque()
        self._awaited: deque[tuple[Command, int]] = deque([(Command.CONNECT, ONLY)])  # what has no answer yet
        self._unsaid: deque[tuple[Command, int, bytes]] = deque()  # the commands to say one at a time
        self._auth: AuthTalk | None = None
        self._transaction: ClientTransaction | None = None
        self._needs_reset = False  # the peer has a MAIL of ours that came to nothing
        self._mails = 0
        self._ended = False
        self._is_grouped = False  # what is awaited was said in one group
        self._last_phase = Phase.GREETING

    # --- what the caller does ---

    @property
    def phase(self) -> Phase:
        """What the session waits for, or waited for when it ended: `limits.seconds(phase)` is how long to wait."""
        if self._awaited:
            return PHASES[self._awaited[0][0]]
        return STATE_PHASES.get(self.state, self._last_phase)

    @property
    def is_ready(self) -> bool:
        """`send` may be called, and the peer has not told that it takes no more messages on this connection (MAILMAX)."""
        return self.state is ClientState.READY and not self._events and not self._is_used_up

    def receive_data(self, data: bytes) -> None:
        """Store what the peer has sent.  Nothing happens before `next_event`."""
        if data and self.state is not ClientState.CLOSED:
            self._replies.append(data)

    def receive_eof(self) -> None:
        """The connection has ended, in whatever way; answers that have come are still used."""
        self._ended = True

    def next_event(self) -> ClientEvent | Wait:
        """Return what comes next, or why nothing does."""
        while not self._events:
            if self.state is ClientState.CONTENT and self._transaction_is_uncertain:  # all of a BDAT, without its end
                if not self._ended:
                    return Wait.PAUSED
                self.end_of_content()  # the answer may be here already
            if self.state is ClientState.HANDSHAKE and not self._replies.is_empty:
                self._break(BEHIND_STARTTLS)
                continue
            try:
                reply = self._replies.next_reply(lenient=self._is_lenient)
            except ReplyFault as fault:
                self._break(str(fault))
                continue
            if reply is not None:
                self._hear(reply)
            elif self.state is ClientState.CLOSED:
                return Wait.CLOSED
            elif not self._ended:
                return Wait.PAUSED if self.state is ClientState.HANDSHAKE else Wait.NEED_DATA
            else:
                self.give_up(LOST)
        return self._events.popleft()

    def data_to_send(self) -> bytes:
        """Take what is to be written now."""
        out = self._out
        if not out:
            return b""
        octets = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return octets

    def send(self, request: Request) -> None:
        """Begin a transaction.  It ends with `Done`, at once where the peer's offer does not meet what `request` needs."""
        self._move(ClientInput.SEND)
        transaction = ClientTransaction(request, self._offer, is_encrypted=self.is_encrypted)
        self._transaction = transaction
        self.dialogue.begin(transaction)
        if transaction.is_unfinished:
            self._start_part(transaction)
        else:
            self._conclude(transaction)

    def content(self, data: bytes) -> bytes:
        """The wire form of the next piece of content, after `SendContent`; pieces may have any size.

        In content that is not binary, CR and LF stand in CRLF only.  Raises `LocalProtocolError` where no content is due.
        """
        transaction = self._transaction
        if self.state is not ClientState.CONTENT or transaction is None or transaction.writer is None:
            raise LocalProtocolError(f"content() in the state {self.state.name}")
        return transaction.writer.write(data)

    def end_of_content(self) -> bytes:
        """The content is complete: what to write last."""
        transaction = self._transaction
        if self.state is not ClientState.CONTENT or transaction is None or transaction.writer is None:
            raise LocalProtocolError(f"end_of_content() in the state {self.state.name}")
        octets = transaction.writer.end()
        self._move(ClientInput.CONTENT_ENDED)
        # What is there already answers something else, and `next_event` will tell; but a peer can see the end of BDAT coming.
        if transaction.uses_bdat or self._nothing_waits:
            # RFC 2033 section 4.2: one answer for each recipient that was accepted.
            answers = transaction.accepted if self.lmtp else (ONLY,)
            self._awaited.extend([(Command.END, index) for index in answers])
        return octets

    def start_tls(self) -> None:
        """Say STARTTLS (RFC 3207), which the peer must have offered."""
        if self.is_encrypted or not self._offer.starttls:
            raise LocalProtocolError("STARTTLS is not offered, or TLS is there already")
        self._move(ClientInput.START_TLS)
        self._say(Command.STARTTLS, ONLY, b"STARTTLS\r\n")

    def tls_established(self) -> None:
        """The handshake is done: all that was known of the peer is forgotten (RFC 3207 section 4.2)."""
        self._move(ClientInput.ENCRYPTED)
        self.is_encrypted = True
        self.offer = None
        self._say_hello()

    def authenticate(self, exchange: AuthExchange) -> None:
        """Log in (RFC 4954), with a mechanism that the peer has offered, once in a session."""
        if self.is_authenticated or exchange.mechanism not in self._offer.auth:
            raise LocalProtocolError(f"{exchange.mechanism} is not offered, or the peer has let us in already")
        self._move(ClientInput.AUTHENTICATE)
        self._auth = AuthTalk(exchange)
        self._say(Command.AUTH, ONLY, self._auth.command())

    def reset(self) -> None:
        """Say RSET: `Ready` tells that the peer is still there.  Between two messages none is needed."""
        self._move(ClientInput.RESET)
        self._say(*SAY_RSET)

    def quit(self) -> None:
        """Say QUIT; the end is `Wait.CLOSED`."""
        self._move(ClientInput.QUIT)
        self._awaited.append((Command.QUIT, ONLY))
        self._out.append(b"QUIT\r\n")

    def give_up(self, reply: Reply = LOST) -> None:
        """End the session, in whatever state it is: too slow, say, or the content cannot be read.

        Who has no outcome yet is deferred with `reply`, a 4yz in our own words.  Drop the connection.
        """
        if self.state is not ClientState.CLOSED:
            self._end(Lost(self.phase), reply)

    # --- what is said ---

    @property
    def _offer(self) -> Offer:
        return NOTHING_OFFERED if self.offer is None else self.offer

    @property
    def _transaction_is_uncertain(self) -> bool:
        return self._transaction is not None and self._transaction.is_uncertain

    @property
    def _is_used_up(self) -> bool:
        return 0 < self._offer.mail_max <= self._mails

    @property
    def _is_lenient(self) -> bool:
        """A reply may break the form: there is one answer that it can be.  Never the one behind which TLS begins."""
        awaited = self._awaited
        return not self._is_grouped and (not awaited or (len(awaited) == 1 and awaited[0][0] is not Command.STARTTLS))

    @property
    def _nothing_waits(self) -> bool:
        """No octets are there that nothing has asked for; empty lines do not count."""
        if self._is_lenient:
            self._replies.pass_over_blanks()
        return self._replies.is_empty

    def answers_due(self) -> int:
        """How many answers of the present phase the peer owes, one after the other."""
        if len(self._awaited) == 1 and not self._unsaid:
            return 1
        phase = self.phase
        said = sum([PHASES[command] is phase for command, _ in self._awaited])
        return said + sum([PHASES[command] is phase for command, _, _ in self._unsaid])

    def _move(self, move: ClientInput) -> None:
        state = CLIENT_MOVES[self.state].get(move)
        if state is None:
            raise LocalProtocolError(f"{move.value} in the state {self.state.name}")
        self.state = state

    def _say(self, command: Command, index: int, octets: bytes) -> None:
        """Say a command.  Where something waits that nothing has asked for, say none: it would be taken for its answer."""
        if self._awaited or self._nothing_waits:
            self._awaited.append((command, index))
            self._out.append(octets)

    def _say_hello(self) -> None:
        verb = Command.LHLO if self.lmtp else Command.EHLO
        self._say(verb, ONLY, f"{verb} {self.hello_name}\r\n".encode("ascii"))

    def _start_part(self, transaction: ClientTransaction) -> None:
        """Say the envelope, all at once or its first command."""
        commands = [SAY_RSET] if self._needs_reset else []
        commands.append((Command.MAIL, ONLY, transaction.mail))
        rcpts = transaction.commands
        commands += [(Command.RCPT, index, rcpts[index]) for index in transaction.next_part(self._offer)]
        if not (transaction.uses_bdat or transaction.ends_with_rcpt):
            commands.append(SAY_DATA)
        self._needs_reset = False
        self._mails += 1
        if not self._offer.pipelining or self._replies.is_sloppy:
            self._unsaid.extend(commands[1:])
            self._say(*commands[0])
        elif self._nothing_waits:  # RFC 2920 section 3.1: one group, one write
            self._is_grouped = True
            for command, index, octets in commands:
                self._awaited.append((command, index))
                self._out.append(octets)

    # --- how things end ---

    def _conclude(self, transaction: ClientTransaction) -> None:
        """The transaction is over and the connection is fit for the next one."""
        self._move(ClientInput.PART_OVER)
        self._transaction = None
        self._events.append(transaction.done())

    def _finish_part(self, transaction: ClientTransaction) -> None:
        """All of a part is answered: the next part, or the end."""
        transaction.ask_again()
        if transaction.is_unfinished and self._is_used_up:
            transaction.settle_all(Delayed(LEFT_OVER))
        if transaction.is_unfinished:
            self._move(ClientInput.PART_OVER)
            self._move(ClientInput.SEND)
            self._start_part(transaction)
        else:
            self._conclude(transaction)

    def _end(self, event: ClientEvent, reply: Reply, *, is_answer: bool = False) -> None:
        """The session is over; a transaction that is open has `reply` for those who wait."""
        self._last_phase = self.phase
        transaction = self._transaction
        if transaction is not None:
            transaction.give_up(reply, self._last_phase, is_answer=is_answer)
            self._events.append(transaction.done())
            self._transaction = None
        if self.state not in (ClientState.QUITTING, ClientState.REFUSED):  # there, the end is no news
            self._events.append(event)
        self.state = ClientState.CLOSED
        self.dialogue.end(self._awaited)
        self._awaited.clear()
        self._unsaid.clear()
        self._out.clear()
        self._replies.clear()

    def _break(self, why: str) -> None:
        self._end(Broken(self.phase, why), NOT_SMTP)

    # --- what is heard ---

    def _hear(self, reply: Reply) -> None:
        awaited = self._awaited
        command, index = awaited[0] if awaited else NOTHING_ASKED
        self.answers += 1
        if len(awaited) <= 1:
            self._is_grouped = False
        self.dialogue.heard(command, index, reply)
        if reply.code == 421 or command is None or self.state is ClientState.QUITTING:
            self._hear_the_end(reply)
        elif not ANSWERS[command](self, reply, index):
            self._break(f"{reply.code} is no answer to {command}")

    def _hear_the_end(self, reply: Reply) -> None:
        if reply.code == 421 or self.state is ClientState.QUITTING:
            is_answer = bool(self._awaited) and self._awaited[0] == (Command.END, ONLY)
            self._end(Closing(reply, self.phase), reply, is_answer=is_answer)
            return
        # Nothing was asked.  Yet a peer may refuse content while it is still coming in: that is said before it hangs up.
        transaction = self._transaction
        if self.state is ClientState.CONTENT and transaction is not None and reply.code >= 400:
            transaction.settle_accepted(reply, Phase.CONTENT)
        self._break(f"{reply.code}, and nothing was asked")

    # Each returns False where the reply cannot be one to its command.

    def _answer_greeting(self, reply: Reply, index: int) -> bool:
        if reply.code == 220:
            self._awaited.clear()
            self._move(ClientInput.GREETED)
            self._events.append(Greeted(reply))
            self._say_hello()
            return True
        return self._refuse(reply)

    def _refuse(self, reply: Reply) -> bool:
        if reply.is_positive:
            return False
        self._last_phase = self.phase
        self._awaited.clear()
        self._move(ClientInput.REFUSED)
        self._events.append(Refused(reply))
        return True

    def _answer_ehlo(self, reply: Reply, index: int) -> bool:
        is_unknown = reply.code in HELO_FOLLOWS or (self.helo_after_refusal and reply.code in MAY_BE_UNKNOWN)
        if is_unknown and not (self.is_encrypted or self.needs_extensions):
            # RFC 5321 section 3.2.  Under TLS the peer has known EHLO before: without it, what was offered would be lost.
            self._awaited.clear()
            self._say(Command.HELO, ONLY, f"HELO {self.hello_name}\r\n".encode("ascii"))
            return True
        return self._answer_hello(reply, Offer.parse(reply.lines))

    def _answer_lhlo(self, reply: Reply, index: int) -> bool:
        return self._answer_hello(reply, replace(Offer.parse(reply.lines), prdr=False))  # each has an answer there anyway

    def _answer_helo(self, reply: Reply, index: int) -> bool:
        return self._answer_hello(reply, Offer(host=Offer.parse(reply.lines).host))

    def _answer_hello(self, reply: Reply, offer: Offer) -> bool:
        if reply.code != 250:
            return self._refuse(reply)
        self._awaited.clear()
        self.offer = offer
        self._move(ClientInput.INTRODUCED)
        self._events.append(Ready(offer))
        return True

    def _answer_starttls(self, reply: Reply, index: int) -> bool:
        if reply.code == 220:
            if not self._replies.is_empty:  # RFC 3207 section 5: not to be trusted, and no honest peer sends it
                self._break(BEHIND_STARTTLS)
                return True
            self._awaited.clear()
            self._move(ClientInput.TLS_GRANTED)
            self._events.append(ReadyForTLS())
            return True
        if reply.is_positive:
            return False
        self._awaited.clear()
        self._move(ClientInput.TLS_REFUSED)
        self._events.append(TLSRefused(reply))
        return True

    def _answer_auth(self, reply: Reply, index: int) -> bool:
        talk = self._auth
        if talk is None or (reply.is_positive and reply.code not in (235, 334)):
            return False
        self._awaited.clear()
        if reply.code == 334:
            self._say(Command.RESPONSE, ONLY, talk.answer(reply))
        elif reply.code == 235 and talk.is_complete:
            self._auth = None
            self.is_authenticated = True
            self._move(ClientInput.LOGGED_IN)
            self._events.append(Authenticated(reply))
        elif reply.code == 235:
            self._break("it lets us in before it has proven that it knows the password")
        else:
            self._auth = None
            self._move(ClientInput.NOT_LOGGED_IN)
            self._events.append(AuthRefused(reply, talk.doubt))
        return True

    def _answer_rset(self, reply: Reply, index: int) -> bool:
        if not 200 <= reply.code < 300:
            return False
        self._awaited.popleft()
        if self.state is ClientState.RESETTING:
            self._needs_reset = False
            self._move(ClientInput.RESET_DONE)
            self._events.append(Ready(self._offer))
        else:
            self._go_on()
        return True

    def _answer_mail(self, reply: Reply, index: int) -> bool:
        transaction = self._transaction
        if transaction is None or 300 <= reply.code < 400:
            return False
        self._awaited.popleft()
        transaction.sender_reply = reply
        if reply.code >= 400:
            self._unsaid.clear()
            transaction.settle_all(refused(reply, Phase.MAIL))
        else:
            self._needs_reset = True
        self._go_on()
        return True

    def _answer_rcpt(self, reply: Reply, index: int) -> bool:
        transaction = self._transaction
        if transaction is None or 300 <= reply.code < 400:
            return False
        if self._needs_reset:
            transaction.answer_rcpt(index, reply)
        elif reply.code < 300:  # a recipient, and no sender: of what message?
            return False
        self._awaited.popleft()
        self._go_on()
        return True

    def _go_on(self) -> None:
        """An envelope command is answered: say the next one, or see what came of all."""
        transaction = self._transaction
        if self._awaited or transaction is None:
            return
        if self._unsaid and (self._unsaid[0][0] is not Command.DATA or transaction.accepted):
            self._say(*self._unsaid.popleft())
            return
        self._unsaid.clear()
        if transaction.uses_bdat and transaction.accepted:
            self._let_in(transaction)
        else:
            self._finish_part(transaction)

    def _answer_data(self, reply: Reply, index: int) -> bool:
        transaction = self._transaction
        if transaction is None or (reply.is_positive and reply.code != 354):
            return False
        if reply.code == 354 and self.lmtp and not transaction.accepted:
            return False  # there is no knowing how many answers would follow
        self._awaited.popleft()
        if not reply.is_positive:
            transaction.settle_accepted(reply, Phase.DATA)
            self._finish_part(transaction)
        elif transaction.accepted:
            self._let_in(transaction)
        else:
            # RFC 2920 section 3.1: nobody is left, so an empty message ends it, and its answer means nothing.
            self._move(ClientInput.EMPTY_CONTENT)
            self._say(Command.EMPTY, ONLY, b".\r\n")
        return True

    def _let_in(self, transaction: ClientTransaction) -> None:
        transaction.start_content()
        self._move(ClientInput.LET_IN)
        self._events.append(SEND_CONTENT)

    def _answer_empty(self, reply: Reply, index: int) -> bool:
        transaction = self._transaction
        if transaction is None or 300 <= reply.code < 400:
            return False
        self._awaited.popleft()
        self._needs_reset = False
        self._finish_part(transaction)
        return True

    def _answer_content(self, reply: Reply, index: int) -> bool:
        transaction = self._transaction
        if transaction is None:
            return False
        if reply.code == 353 and index == ONLY and transaction.begin_one_each():
            self._awaited.extendleft([(Command.END, one) for one in reversed(transaction.accepted)])
            return True
        if 300 <= reply.code < 400:
            return False
        self._awaited.popleft()
        transaction.answer_content(reply, None if index == ONLY else index)
        if not self._awaited:
            self._needs_reset = False
            self._finish_part(transaction)
        return True


SAY_RSET = (Command.RSET, ONLY, b"RSET\r\n")
SAY_DATA = (Command.DATA, ONLY, b"DATA\r\n")
SEND_CONTENT = SendContent()
HELO_FOLLOWS = frozenset({500, 501, 502, 504})
MAY_BE_UNKNOWN = frozenset({550, 554})  # old gateways say so of a command that they do not know
BEHIND_STARTTLS = "octets in the clear behind the 220 to STARTTLS"
# What an answer does.  Whatever is said to QUIT means the same.
ANSWERS: Mapping[Command, Callable[[ClientSession, Reply, int], bool]] = {
    Command.CONNECT: ClientSession._answer_greeting,
    Command.EHLO: ClientSession._answer_ehlo,
    Command.LHLO: ClientSession._answer_lhlo,
    Command.HELO: ClientSession._answer_helo,
    Command.STARTTLS: ClientSession._answer_starttls,
    Command.AUTH: ClientSession._answer_auth,
    Command.RESPONSE: ClientSession._answer_auth,
    Command.RSET: ClientSession._answer_rset,
    Command.MAIL: ClientSession._answer_mail,
    Command.RCPT: ClientSession._answer_rcpt,
    Command.DATA: ClientSession._answer_data,
    Command.EMPTY: ClientSession._answer_empty,
    Command.END: ClientSession._answer_content,
}
