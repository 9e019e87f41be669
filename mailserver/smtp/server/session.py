"""The server's side of SMTP and LMTP, without I/O: octets in, events out, answers in, octets out.

    session.greet(...)
    session.receive_data(octets)
    while True:
        event = session.next_event()       # an Event, or a Wait that says why there is none
        ...                                # session.reply(...) where the event is a question
    transport.write(session.data_to_send())

One question is open at a time: until it is answered there is no next event, so replies cannot come out of order (RFC 5321
section 4.3.1), and pipelined commands wait in the buffer (RFC 2920).  All that is ready leaves in one `data_to_send`.
`docs/smtp-core.md` shows a whole server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mailserver.mail.reply import Reply
from mailserver.smtp import replies
from mailserver.smtp.events import (
    Authenticate,
    AuthResponse,
    Chunk,
    Closed,
    Data,
    EndOfData,
    Event,
    Expand,
    Extended,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rejected,
    Reset,
    StartTLS,
    Verify,
    Wait,
)
from mailserver.smtp.faults import LocalProtocolError
from mailserver.smtp.server.buffer import LineFault, ReceiveBuffer
from mailserver.smtp.server.commands import (
    command_text,
    parse_auth,
    parse_base64,
    parse_bdat,
    parse_hello,
    parse_mail,
    parse_question,
    parse_rcpt,
    parse_starttls,
)
from mailserver.smtp.server.extensions import Extensions
from mailserver.smtp.server.limits import SessionLimits
from mailserver.smtp.server.refusals import AUTH_LINE_FAULTS, LINE_FAULTS, out_of_order
from mailserver.smtp.server.states import MOVES, Input, State
from mailserver.smtp.server.transaction import ServerTransaction, ThrowAway

__all__ = ["Extensions", "LocalProtocolError", "ServerSession", "SessionLimits"]

# They are compared for each command, and a global is found sooner than a member of an enum.
NEED_DATA, PAUSED, CLOSED, MESSAGE_ENDED = Wait.NEED_DATA, Wait.PAUSED, Wait.CLOSED, Input.MESSAGE_ENDED


class ServerSession:
    """One connection.

    `hostname` is the name in the EHLO reply; `lmtp` makes it LMTP (RFC 2033).  `extensions` may be set at any time and holds
    from the next command on.

    `lf_lines` is for peers known to end their lines with LF alone: LF ends command lines, and stray line ends are mended whatever
    the limits say.  While `lf_ends_data` is true, LF.LF ends the data, too.  It is so at first with `lf_lines`, and never again
    after a CRLF, a login, TLS, BDAT, or octets that came before the answer to those before them; the caller may set it to False.

    `data_was_early` says of the last DATA that octets had come after it before 354 was said (RFC 2920 section 3.1).
    """

    __slots__ = (
        "_authenticated",
        "_buffer",
        "_discard",
        "_ended",
        "_next",
        "_out",
        "_question",
        "_secured",
        "_transaction",
        "data_was_early",
        "extensions",
        "hostname",
        "lf_ends_data",
        "lf_lines",
        "limits",
        "lmtp",
        "state",
    )

    def __init__(
        self,
        *,
        hostname: str,
        extensions: Extensions,
        limits: SessionLimits,
        lmtp: bool = False,
        lf_lines: bool = False,
    ) -> None:
        self.hostname = hostname
        self.lmtp = lmtp
        self.extensions = extensions
        self.limits = limits
        self.lf_lines = self.lf_ends_data = lf_lines
        self.data_was_early = False
        self.state = State.GREETING
        self._buffer = ReceiveBuffer(bare_lf_ends_lines=lf_lines)
        self._out: list[bytes] = []
        self._question: Event | None = None
        self._next: Event | None = None  # an event found together with the last one
        self._transaction: ServerTransaction | None = None
        self._discard: ThrowAway | None = None
        self._ended = False
        self._secured = False
        self._authenticated = False

    # --- what the caller does ---

    @property
    def buffered(self) -> int:
        """Octets received and not used yet.  Stop reading from the peer where this grows."""
        return self._buffer.octets

    def greet(self, reply: Reply) -> None:
        """Say the greeting: 220 opens the session, any other code ends it (RFC 5321 section 3.1)."""
        if self.state is not State.GREETING:
            raise LocalProtocolError(f"greet() in the state {self.state.name}")
        if self.lf_ends_data:
            self._doubt_lf()
        if reply.code == 220:
            self._say_plain(reply)
            self.state = MOVES[State.GREETING][Input.GREETED]
        else:
            self.close(reply)

    def receive_data(self, data: bytes) -> None:
        """Store what the peer has sent.  Nothing happens before `next_event`."""
        # What comes between the 220 to STARTTLS and the handshake is not to be trusted (RFC 3207 section 5).
        if data and self.state not in DEAF:
            self._buffer.append(data)

    def receive_eof(self) -> None:
        """The peer will send nothing more; complete commands that wait are still served."""
        self._ended = True

    def next_event(self) -> Event | Wait:
        """Return what comes next, or why nothing does."""
        if self._question is not None:
            return PAUSED
        buffer = self._buffer
        while True:
            event: Event | Wait | None = self._next
            if event is not None:
                self._next = None
            elif buffer.at == len(buffer.data) and self._discard is None and self.state in NEED_OCTETS and buffer.is_exhausted:
                event = NEED_DATA
            else:
                event = READERS[self.state](self)
            if event is None:  # what was done is not an event
                continue
            if type(event) in ANSWERS:
                self._question = event  # type: ignore[assignment]
            elif event is NEED_DATA and self._ended:
                self._end()
                return CLOSED
            return event

    def reply(self, reply: Reply) -> None:
        """Answer the open question; a 421 ends the session.  Raises `LocalProtocolError` where none is open.

        At the end of data in LMTP the same reply is given for each recipient.
        """
        question = self._question
        if question is None:
            raise LocalProtocolError("no question is open")
        if self.lf_ends_data:
            self._doubt_lf()
        if reply.code == 421:
            self.close(reply)
        else:
            ANSWERS[type(question)](self, question, reply)
            self._question = None

    def reply_each(self, answers: Sequence[Reply], overall: Reply | None = None) -> None:
        """Answer `EndOfData` for each accepted recipient, in LMTP (RFC 2033 section 4.2) or, with `overall` for all, in PRDR."""
        transaction, question = self._transaction, self._question
        if transaction is None or not isinstance(question, EndOfData):
            raise LocalProtocolError("reply_each() answers the end of data")
        said = transaction.one_each(answers, overall, lmtp=self.lmtp)
        if self.lf_ends_data:
            self._doubt_lf()
        self._settle(question, said)
        self._question = None

    def tls_established(self) -> None:
        """The handshake after `StartTLS` is done: the peer is a stranger again (RFC 3207 section 4.2)."""
        if self.state is not State.HANDSHAKE:
            raise LocalProtocolError("tls_established() without STARTTLS")
        self._secured = True
        self.lf_ends_data = False
        self._authenticated = False
        if self.extensions.starttls:  # it must not be offered any more (RFC 3207 section 4.2)
            self.extensions = replace(self.extensions, starttls=False)
        self.state = MOVES[State.HANDSHAKE][Input.ENCRYPTED]

    def close(self, reply: Reply) -> None:
        """Say `reply` (a 421, as a rule) and end the session, in whatever state it is, also with a question open."""
        if self.state is State.GREETING:
            self._say_plain(reply)
        elif self.state not in (State.CLOSED, State.HANDSHAKE):  # plain text would break the handshake
            self._say(reply)
        self._end()

    def data_to_send(self) -> bytes:
        """Take what is to be written now."""
        out = self._out
        if not out:
            return b""
        octets = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return octets

    # --- what is said, and how things end ---

    def _say(self, reply: Reply) -> None:
        if self.extensions.enhancedstatuscodes:
            self._out.append(reply.encode())
        else:
            self._say_plain(reply)

    def _say_plain(self, reply: Reply) -> None:
        """Without the enhanced code: the greeting and the answer to EHLO have none (RFC 2034 section 4)."""
        self._out.append((Reply(reply.code, "", reply.lines) if reply.enhanced else reply).encode())

    def _reject(self, command: str, reply: Reply) -> Rejected:
        self._say(reply)
        return Rejected(command, reply)

    def _hang_up(self, reply: Reply) -> Closed:
        self._say(reply)
        self._end()
        return Closed(reply)

    def _end(self) -> None:
        self.state = State.CLOSED
        self._question = self._next = self._transaction = self._discard = None
        self._buffer.clear()

    def _open_transaction(self) -> ServerTransaction:
        """The transaction that there is in the states after MAIL."""
        if self._transaction is None:
            raise LocalProtocolError(f"no transaction in the state {self.state.name}")
        return self._transaction

    def _forget_transaction(self) -> None:
        self._transaction = None
        self.state = MOVES[self.state]["RSET"]

    def _doubt_lf(self) -> None:
        """A peer that has sent a CRLF, or more than it has had answers for, is not so simple that LF.LF could end its data."""
        if self._buffer.crlf_seen or not self._buffer.is_exhausted:
            self.lf_ends_data = False

    # --- reading, by state; None: something was done, look again ---

    def _read_command(self) -> Event | Wait | None:
        if self._discard is not None:
            return self._throw_away(self._discard)
        line = self._buffer.next_line(self.limits.command_line_octets, self.limits.auth_line_octets)
        if line is None:
            return NEED_DATA
        if self.lf_ends_data:
            self._doubt_lf()
        if isinstance(line, LineFault):
            return self._reject("", LINE_FAULTS[line])
        text = command_text(line)
        if text is None:
            return self._reject("", replies.BAD_OCTETS)
        # White space before the CRLF is tolerated (RFC 5321 section 4.1.1).
        verb, _, argument = text.rstrip(" ").partition(" ")
        verb = verb.upper()
        if verb != "BDAT":  # how many octets follow must not be a matter of taste
            argument = argument.lstrip(" ")
        command = COMMANDS.get(verb)
        if command is None:
            return self._extended(verb, argument)
        if verb in MOVES[self.state]:
            return command(self, verb, argument)
        return self._out_of_order(verb, argument)

    def _out_of_order(self, verb: str, argument: str) -> Event | None:
        reply = out_of_order(self.state, verb, lmtp=self.lmtp)
        return self._refuse_chunk(argument, reply) if verb == "BDAT" else self._reject(verb, reply)

    def _extended(self, verb: str, argument: str) -> Event | None:
        anywhere = self.extensions.added_commands.get(verb) if self.extensions.added else None
        if anywhere is None:
            return self._reject("", replies.COMMAND_UNKNOWN)
        if (Input.EXTENDED_ANYWHERE if anywhere else Input.EXTENDED) in MOVES[self.state]:
            return Extended(verb, argument)
        return self._out_of_order(verb, argument)

    def _throw_away(self, discard: ThrowAway) -> Event | Wait | None:
        if not discard.is_done(self._buffer):
            return NEED_DATA
        self._discard = None
        for reply in discard.answers:
            self._say(reply)
        return discard.event

    def _read_content(self) -> Event | Wait | None:
        transaction = self._open_transaction()
        content, self._next = transaction.read_data(self._buffer)
        if self.lf_ends_data:
            self.lf_ends_data = transaction.lf_ends_data
        if transaction.is_cut_off:
            return self._hang_up(replies.MESSAGE_TOO_LARGE)
        return Chunk(content) if content else None

    def _read_chunk(self) -> Event | Wait | None:
        transaction = self._open_transaction()
        if transaction.chunk_octets and self._buffer.is_exhausted:
            return NEED_DATA
        content, self._next = transaction.read_chunk(self._buffer)
        if self._next is None and not transaction.chunk_octets:
            self._say(replies.CHUNK_RECEIVED)
            self.state = MOVES[self.state][Input.PART_RECEIVED]
        return Chunk(content) if content else None

    def _read_exchange(self) -> Event | Wait:
        most = self.limits.auth_line_octets
        line = self._buffer.next_line(most, most)
        if line is None:
            return NEED_DATA
        if isinstance(line, LineFault):
            refusal = AUTH_LINE_FAULTS[line]
        elif line.rstrip(b" \t") == b"*":  # RFC 4954 section 4
            refusal = replies.AUTH_CANCELLED
        else:
            response = parse_base64(line)
            if response is not None:
                return AuthResponse(response)
            refusal = replies.AUTH_BAD_BASE64
        self.state = MOVES[self.state][Input.EXCHANGE_ENDED]
        return self._reject("AUTH", refusal)

    def _wait_for_caller(self) -> Wait:
        return PAUSED

    def _stay_closed(self) -> Wait:
        return CLOSED

    # --- commands ---

    def _hello(self, verb: str, argument: str) -> Event:
        refusal = None if (verb == "LHLO") == self.lmtp else replies.HELLO_WRONG_PROTOCOL
        hello = refusal or parse_hello(verb, argument)
        if isinstance(hello, Reply):
            self._say_plain(hello)
            return Rejected(verb, hello)
        if self._transaction is None:
            return hello
        self._forget_transaction()  # RFC 5321 section 4.1.4
        self._next = hello
        return Reset(verb)

    def _mail(self, verb: str, argument: str) -> Event:
        takes_auth = self._authenticated or bool(self.extensions.auth)
        mail = parse_mail(argument, self.extensions, takes_auth=takes_auth)
        if isinstance(mail, Reply):
            return self._reject(verb, mail)
        size = mail.parameters.size
        if size is not None and 0 < self.limits.message_octets < size:  # RFC 1870 section 6.1
            return self._reject(verb, replies.MESSAGE_TOO_LARGE)
        return mail

    def _rcpt(self, verb: str, argument: str) -> Event:
        rcpt = parse_rcpt(argument, self.extensions, smtputf8=self._open_transaction().smtputf8)
        return self._reject(verb, rcpt) if isinstance(rcpt, Reply) else rcpt

    def _data(self, verb: str, argument: str) -> Event:
        if argument:
            return self._reject(verb, replies.ARGUMENT_NOT_ALLOWED)
        if self._open_transaction().is_binary:
            return self._reject(verb, replies.BINARY_NEEDS_BDAT)
        return DATA

    def _bdat(self, verb: str, argument: str) -> Event | None:
        self.lf_ends_data = False
        if not self.extensions.chunking:
            return self._refuse_chunk(argument, replies.COMMAND_NOT_OFFERED)
        chunk, transaction = parse_bdat(argument), self._open_transaction()
        if isinstance(chunk, Reply):
            return self._reject(verb, chunk)
        if 0 < self.limits.cut_off_octets < transaction.size + chunk.octets:
            return self._hang_up(replies.MESSAGE_TOO_LARGE)
        transaction.chunk_octets, transaction.chunk_is_last = chunk.octets, chunk.is_last
        if transaction.content is None:
            return FIRST_BDAT
        self.state = MOVES[self.state]["BDAT"]
        return None

    def _refuse_chunk(self, argument: str, reply: Reply) -> Event | None:
        self.lf_ends_data = False
        chunk = parse_bdat(argument)
        if isinstance(chunk, Reply):
            return self._reject("BDAT", chunk)
        if 0 < self.limits.cut_off_octets < chunk.octets:
            return self._hang_up(replies.MESSAGE_TOO_LARGE)
        self._discard = ThrowAway(chunk.octets, (reply,), Rejected("BDAT", reply))
        return None

    def _rset(self, verb: str, argument: str) -> Event:
        if argument:
            return self._reject(verb, replies.ARGUMENT_NOT_ALLOWED)
        self._forget_transaction()
        self._say(replies.OK)
        return Reset()

    def _noop(self, verb: str, argument: str) -> Event:
        self._say(replies.OK)
        return Noop()

    def _help(self, verb: str, argument: str) -> Event:
        self._say(replies.HELP_LMTP if self.lmtp else replies.HELP_SMTP)
        return Help(argument)

    def _ask_about(self, verb: str, argument: str) -> Event:
        question = parse_question(verb, argument, self.extensions)
        return self._reject(verb, question) if isinstance(question, Reply) else question

    def _quit(self, verb: str, argument: str) -> Event:
        if argument:
            return self._reject(verb, replies.ARGUMENT_NOT_ALLOWED)
        self._say(replies.GOODBYE)
        self._end()
        return Quit()

    def _starttls(self, verb: str, argument: str) -> Event:
        question = parse_starttls(argument, self.extensions, secured=self._secured)
        return self._reject(verb, question) if isinstance(question, Reply) else question

    def _auth(self, verb: str, argument: str) -> Event:
        exchange = parse_auth(argument, self.extensions, authenticated=self._authenticated)
        return self._reject(verb, exchange) if isinstance(exchange, Reply) else exchange

    # --- answers ---

    def _answer_hello(self, hello: Hello, reply: Reply) -> None:
        if 300 <= reply.code < 400:
            raise LocalProtocolError(f"{reply.code} is no answer to {hello.verb}")
        if not reply.is_positive:
            self._say_plain(reply)
            return
        lines = b"" if hello.verb == "HELO" else self.extensions.octets
        self._out.append(f"250{'-' if lines else ' '}{self.hostname}\r\n".encode() + lines)
        self.state = MOVES[self.state][hello.verb]

    def _answer_mail(self, mail: Mail, reply: Reply) -> None:
        if reply.code < 300:
            self._say(reply)
            self._transaction = ServerTransaction(mail)
            self.state = MOVES[self.state]["MAIL"]
        else:
            self._say_final(reply)

    def _answer_rcpt(self, rcpt: Rcpt, reply: Reply) -> None:
        if reply.code < 300:
            self._say(reply)
            self._open_transaction().recipients += 1
            self.state = MOVES[self.state]["RCPT"]
        else:
            self._say_final(reply)

    def _answer_data(self, data: Data, reply: Reply) -> None:
        transaction = self._open_transaction()
        if not reply.is_positive:
            if data.chunking:
                answers = transaction.answers(reply) if self.lmtp else (reply,)
                self._discard = ThrowAway(transaction.chunk_octets, answers, None)
            else:
                self._say(reply)
            self._forget_transaction()
        elif data.chunking:
            transaction.start_chunks(self.limits, converts=self.lf_lines)
            self.state = MOVES[self.state]["BDAT"]
        else:
            self._out.append(reply.encode() if reply.code == 354 else START_CONTENT)
            self.data_was_early = self._buffer.octets > 0
            transaction.start_data(self.limits, converts=self.lf_lines, lf_ends=self.lf_ends_data)
            self.state = MOVES[self.state]["DATA"]

    def _answer_end(self, end: EndOfData, reply: Reply) -> None:
        self._settle(end, self._open_transaction().answers(reply) if self.lmtp else (reply,))

    def _settle(self, end: EndOfData, answers: Sequence[Reply]) -> None:
        for reply in answers:
            if (300 <= reply.code < 400 and reply is not replies.ONE_EACH) or (reply.code < 300 and end.fault is not None):
                raise LocalProtocolError(f"{reply.code} is no answer to this end of data")
        for reply in answers:
            self._say(reply)
        self._transaction = None
        self.state = MOVES[self.state][MESSAGE_ENDED]

    def _answer_question(self, question: Verify | Expand | Extended, reply: Reply) -> None:
        self._say_final(reply)

    def _answer_starttls(self, question: StartTLS, reply: Reply) -> None:
        if reply.is_positive and reply.code != 220:
            raise LocalProtocolError(f"{reply.code} is no answer to STARTTLS")
        self._say(reply)
        if reply.is_positive:
            # Commands that came in plain text before the handshake are not the peer's (RFC 3207 section 5).
            self._buffer.clear()
            self.state = MOVES[self.state]["STARTTLS"]

    def _answer_auth(self, question: Authenticate | AuthResponse, reply: Reply) -> None:
        if reply.is_positive and reply.code not in (235, 334):
            raise LocalProtocolError(f"{reply.code} is no answer to AUTH")
        self._say(reply)
        self.lf_ends_data = False
        is_first = isinstance(question, Authenticate)
        if reply.code == 334:
            self.state = MOVES[self.state]["AUTH" if is_first else Input.CHALLENGED]
        else:
            self._authenticated = reply.code == 235
            self.state = self.state if is_first else MOVES[self.state][Input.EXCHANGE_ENDED]

    def _say_final(self, reply: Reply) -> None:
        if 300 <= reply.code < 400:
            raise LocalProtocolError(f"{reply.code} is no answer to this question")
        self._say(reply)


# Where nothing can happen without octets; a BDAT may be complete without any.
NEED_OCTETS = frozenset(
    {State.STRANGER, State.READY, State.SENDER, State.RECIPIENTS, State.CONTENT, State.BETWEEN, State.EXCHANGE}
)
DEAF = frozenset({State.HANDSHAKE, State.CLOSED})  # what comes then is not looked at
DATA = Data(chunking=False)
FIRST_BDAT = Data(chunking=True)
START_CONTENT = replies.START_CONTENT.encode()
READERS: Mapping[State, Callable[[ServerSession], Event | Wait | None]] = {
    State.GREETING: ServerSession._wait_for_caller,
    State.STRANGER: ServerSession._read_command,
    State.READY: ServerSession._read_command,
    State.SENDER: ServerSession._read_command,
    State.RECIPIENTS: ServerSession._read_command,
    State.CONTENT: ServerSession._read_content,
    State.CHUNK: ServerSession._read_chunk,
    State.BETWEEN: ServerSession._read_command,
    State.EXCHANGE: ServerSession._read_exchange,
    State.HANDSHAKE: ServerSession._wait_for_caller,
    State.CLOSED: ServerSession._stay_closed,
}
COMMANDS: Mapping[str, Callable[[ServerSession, str, str], Event | None]] = {
    "EHLO": ServerSession._hello,
    "HELO": ServerSession._hello,
    "LHLO": ServerSession._hello,
    "MAIL": ServerSession._mail,
    "RCPT": ServerSession._rcpt,
    "DATA": ServerSession._data,
    "BDAT": ServerSession._bdat,
    "RSET": ServerSession._rset,
    "NOOP": ServerSession._noop,
    "VRFY": ServerSession._ask_about,
    "EXPN": ServerSession._ask_about,
    "HELP": ServerSession._help,
    "QUIT": ServerSession._quit,
    "STARTTLS": ServerSession._starttls,
    "AUTH": ServerSession._auth,
}
# The events that are questions, and what an answer does.
ANSWERS: Mapping[type[object], Callable[[ServerSession, Any, Reply], None]] = {
    Hello: ServerSession._answer_hello,
    Mail: ServerSession._answer_mail,
    Rcpt: ServerSession._answer_rcpt,
    Data: ServerSession._answer_data,
    EndOfData: ServerSession._answer_end,
    Verify: ServerSession._answer_question,
    Expand: ServerSession._answer_question,
    Extended: ServerSession._answer_question,
    StartTLS: ServerSession._answer_starttls,
    Authenticate: ServerSession._answer_auth,
    AuthResponse: ServerSession._answer_auth,
}
