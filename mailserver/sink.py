"""A server that takes every mail, keeps none, and shows it: for those who write programs that send.

It refuses what it is asked to refuse.  It has threads of its own and needs no reactor, so it runs beside any program's tests; on
loopback only, unless another host is named.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mailserver.mail.address import Address
from mailserver.mail.reply import Reply
from mailserver.smtp import events, replies
from mailserver.smtp.events import Event, Wait
from mailserver.smtp.server import Extensions, ServerSession, SessionLimits

__all__ = ["Caught", "Faults", "Sink", "parse_reply"]

HOSTNAME = "sink.invalid"
READ_OCTETS = 65_536
IDLE_SECONDS = 300.0
LEAVE_SECONDS = 2.0
CONNECTIONS = 100
KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Caught:
    """A mail: `sender` None is the null reverse-path, `content` the octets with CRLF line ends."""

    sender: Address | None
    recipients: tuple[Address, ...]
    content: bytes
    hello: str


@dataclass(slots=True)
class Faults:
    """What goes wrong, from the next command on: a refusal at a stage, `delay_seconds` before each answer, and `drop_at_end`,
    which ends the connection after the dot without an answer: the client cannot know whether the mail was taken.
    """

    mail: Reply | None = None
    rcpt: Reply | None = None
    data: Reply | None = None
    end: Reply | None = None
    delay_seconds: float = 0.0
    drop_at_end: bool = False


@dataclass(slots=True)
class _Transaction:
    sender: Address | None = None
    recipients: list[Address] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)


class _Dropped(Exception):
    """The connection ends without another word."""


class Sink:
    """`with Sink() as sink:` a program can send to `sink.host` and `sink.port`, and `sink.mails` is what came.

    `port` 0 takes a free one.  `caught` is called in the connection's thread for each mail, before its 250.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: Faults | None = None,
        caught: Callable[[Caught], None] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.faults = faults or Faults()
        self.mails: list[Caught] = []
        self._caught = caught
        self._change = threading.Condition()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listen.  Raises OSError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = listener = socket.create_server((self.host, self.port), family=family, backlog=50)
        self.port = listener.getsockname()[1]
        self._run(self._accept, listener)

    def stop(self) -> None:
        """End all connections and wait for their threads."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # which wakes accept
            listener.close()
        self._shut(socket.SHUT_RD)  # an answer that is under way still leaves
        until = time.monotonic() + LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._shut(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _shut(self, how: int) -> None:
        with self._change:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(how)
            self._change.notify_all()

    def __enter__(self) -> Sink:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, count: int = 1, seconds: float = 10.0) -> list[Caught]:
        """The mails, once there are so many.  Raises TimeoutError."""
        with self._change:
            if not self._change.wait_for(lambda: len(self.mails) >= count, seconds):
                raise TimeoutError(f"{len(self.mails)} of {count} mails came within {seconds:g} s")
            return list(self.mails)

    def _run(self, function: Callable[[socket.socket], None], connection: socket.socket) -> None:
        thread = threading.Thread(target=function, args=(connection,), name="mail sink", daemon=True)
        with self._change:
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
            thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # it was closed
                return
            with self._change:
                is_over = self._listener is None or len(self._open) >= CONNECTIONS
                if not is_over:
                    self._open.add(connection)
            if is_over:
                connection.close()
            else:
                self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(IDLE_SECONDS)
            self._converse(connection)
        except (OSError, _Dropped):
            pass  # the client has gone, or is to believe so
        finally:
            with self._change:
                self._open.discard(connection)
            connection.close()

    def _converse(self, connection: socket.socket) -> None:
        session = ServerSession(hostname=HOSTNAME, extensions=Extensions(size=52_428_800), limits=SessionLimits())
        session.greet(replies.greeting(HOSTNAME, lmtp=False))
        transaction, hello = _Transaction(), ""
        connection.sendall(session.data_to_send())
        while True:
            octets = connection.recv(READ_OCTETS)
            if octets:
                session.receive_data(octets)
            else:
                session.receive_eof()
            while not isinstance(event := session.next_event(), Wait):
                if isinstance(event, events.Hello):
                    hello = event.name
                answer = self._answer(event, transaction, hello)
                if answer is not None:
                    self._pause()
                    session.reply(answer)
            connection.sendall(session.data_to_send())
            if event is Wait.CLOSED or not octets:
                return

    def _pause(self) -> None:
        """As long as is asked for, or until the end."""
        until = time.monotonic() + self.faults.delay_seconds
        with self._change:
            self._change.wait_for(lambda: self._listener is None, max(0.0, until - time.monotonic()))

    def _answer(self, event: Event, transaction: _Transaction, hello: str) -> Reply | None:
        faults = self.faults
        match event:
            case events.Hello():
                return replies.OK
            case events.Mail(sender):
                transaction.sender, transaction.recipients, transaction.pieces = sender, [], []
                return faults.mail or replies.SENDER_OK
            case events.Rcpt(address):
                if faults.rcpt is None:
                    transaction.recipients.append(address)
                return faults.rcpt or replies.RECIPIENT_OK
            case events.Data():
                return faults.data or replies.START_CONTENT
            case events.Chunk(data):
                transaction.pieces.append(data)
            case events.EndOfData(fault=None):
                if faults.drop_at_end:
                    raise _Dropped
                if faults.end is None:
                    self._keep(Caught(transaction.sender, tuple(transaction.recipients), b"".join(transaction.pieces), hello))
                return faults.end or replies.OK
            case events.EndOfData(fault=fault):
                return fault
            case events.Verify() | events.Expand() | events.StartTLS() | events.Authenticate() | events.AuthResponse():
                return replies.CANNOT_VERIFY if isinstance(event, events.Verify) else replies.COMMAND_NOT_OFFERED
        return None

    def _keep(self, mail: Caught) -> None:
        if self._caught is not None:
            self._caught(mail)
        with self._change:
            self.mails.append(mail)
            del self.mails[:-KEPT]
            self._change.notify_all()


def parse_reply(text: str) -> Reply:
    """``451 4.3.0 Try again later``, or without the enhanced code.  Raises ValueError."""
    code, _, words = text.partition(" ")
    enhanced, _, rest = words.partition(" ")
    if not (len(code) == 3 and code.isascii() and code.isdigit() and code[0] in "45"):
        raise ValueError(f"{text!r} is no refusal, such as '451 4.3.0 Try again later'")
    has_status = enhanced.count(".") == 2 and enhanced.replace(".", "").isdigit() and enhanced[0] == code[0]
    return Reply.of(int(code), enhanced if has_status else f"{code[0]}.0.0", (rest if has_status else words) or "No")
