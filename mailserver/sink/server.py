"""A mail server for the tests of programs that send mail: it listens on loopback, keeps each message and fails on demand.

    with CaptureServer(users={"ann": "secret"}) as server:
        server.refuse("rcpt", 451, "4.2.1 Try again later")   # once
        my_program(host=server.host, port=server.port)
        (message,) = server.wait_for(1)

It runs in threads of its own, beside any event loop or none, and speaks through the SMTP core of the mail server.
docs/testing-your-program.md goes through it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal

from mailserver.mail.reply import Reply
from mailserver.sink.answers import SinkAnswers, Terms
from mailserver.sink.captured import CapturedMessage
from mailserver.sink.connection import SinkConnection
from mailserver.sink.faults import Delay, FaultBook, HangUp, RefuseFault, Stage, refusal
from mailserver.tls.self_signed import self_signed_pair

__all__ = ["CaptureServer"]

HOST = "127.0.0.1"
HOSTNAME = "localhost"
STOP_SECONDS = 10.0  # for the threads to end; they are cut off, so it takes nearly none
TOO_BUSY = Reply.of(421, "4.3.2", "Too many connections")


class CaptureServer:
    """An SMTP server on a port of `host`: a numeric address, 127.0.0.1 unless another is named.

    `tls` is "starttls" (offered), "implicit" (from the first octet) or "none"; the certificate is made at the start, for
    localhost and 127.0.0.1.  `users` are passwords by name, for AUTH PLAIN and LOGIN; `require_login` and `require_tls`
    refuse MAIL without them (530).  AUTH is refused before a required TLS (538).  `port` 0 takes a free one; a second `start`
    takes the same.  `take`, where it is given, is called with each message in the connection's thread, before the 250.  Then no
    message is kept, and `wait_for` finds none.

    Limits and their replies: `message_octets` (552), `messages_max` kept (452), `connections_max` at once (421), `idle_seconds`
    without a command (421).  Raises ValueError for options that exclude each other.
    """

    hostname = HOSTNAME  # as in the greeting and the certificate

    def __init__(
        self,
        *,
        host: str = HOST,
        port: int = 0,
        tls: Literal["starttls", "implicit", "none"] = "starttls",
        users: Mapping[str, str] | None = None,
        require_login: bool = False,
        require_tls: bool = False,
        message_octets: int = 10_000_000,
        messages_max: int = 1000,
        connections_max: int = 50,
        idle_seconds: float = 60.0,
        take: Callable[[CapturedMessage], None] | None = None,
    ) -> None:
        if tls not in ("starttls", "implicit", "none"):
            raise ValueError(f"tls={tls!r}: 'starttls', 'implicit' or 'none'")
        if require_login and not users:
            raise ValueError("require_login without users: nobody could send")
        if require_tls and tls == "none":
            raise ValueError("require_tls without TLS: nobody could send")
        if min(message_octets, messages_max, connections_max) < 1 or not 0 < idle_seconds <= threading.TIMEOUT_MAX:
            raise ValueError("a bound is above 0")
        self.host = host
        self.port = port
        self.certificate = ""  # path of the certificate (PEM) while the server runs, "" without TLS
        self._tls = tls
        self._terms = Terms(dict(users or {}), tls == "starttls", require_tls, require_login, message_octets)
        self._messages_max = messages_max
        self._connections_max = connections_max
        self._idle_seconds = idle_seconds
        self._take = take
        self._faults = FaultBook()
        self._changed = threading.Condition()  # guards the attributes that follow
        self._messages: list[CapturedMessage] = []
        self._connections: dict[threading.Thread, SinkConnection] = {}
        self._leaving = threading.Event()  # nobody is let in any more
        self._stopping = threading.Event()  # and nobody may stay
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._context: ssl.SSLContext | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    # --- life ---

    def start(self) -> None:
        """Listen.  Connections are taken from now on.  Raises OSError for a port in use, OverflowError for an invalid port,
        RuntimeError where it runs already.
        """
        if self._listener is not None:
            raise RuntimeError("the server runs already")
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family)
        try:
            self._make_certificate()
        except BaseException:
            listener.close()
            self._forget_certificate()
            raise
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._leaving, self._stopping = threading.Event(), threading.Event()
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), name="capture server", daemon=True)
        self._acceptor.start()

    def stop(self, *, answer_seconds: float = 0.0) -> None:
        """Close all connections and stop listening.  Captured messages stay.  Does nothing where the server does not run.

        Replies to commands that have come may still be sent for `answer_seconds`.
        """
        if self._listener is None or self._acceptor is None:
            return
        self._leaving.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(); closing alone does not
        self._acceptor.join(STOP_SECONDS)
        self._listener.close()
        self._listener = self._acceptor = None
        with self._changed:
            open_ones = dict(self._connections)
        if answer_seconds:
            for connection in open_ones.values():
                connection.hear_no_more()
            until = time.monotonic() + answer_seconds
            for thread in open_ones:
                thread.join(max(0.0, until - time.monotonic()))
        self._stopping.set()
        for connection in open_ones.values():
            connection.cut()
        for thread in open_ones:
            thread.join(STOP_SECONDS)
        self._forget_certificate()

    def __enter__(self) -> CaptureServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def client_context(self) -> ssl.SSLContext:
        """A TLS context for clients that trusts only this server's certificate.  Raises RuntimeError without TLS."""
        if not self.certificate:
            raise RuntimeError("the server has no certificate: it does not run, or without TLS")
        return ssl.create_default_context(cafile=self.certificate)

    # --- what came ---

    @property
    def messages(self) -> Sequence[CapturedMessage]:
        """The messages captured so far, oldest first."""
        with self._changed:
            return list(self._messages)

    def wait_for(self, count: int = 1, seconds: float = 10.0) -> list[CapturedMessage]:
        """Return all messages as soon as there are `count`.  Blocks; raises TimeoutError where fewer came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._messages) >= count, seconds):
                raise TimeoutError(f"{len(self._messages)} of {count} messages came within {seconds:g} seconds")
            return list(self._messages)

    def clear(self) -> None:
        """Forget the messages, not the faults."""
        with self._changed:
            self._messages.clear()

    # --- faults ---

    def refuse(
        self,
        stage: Stage,
        code: int = 451,
        text: str = "Try again later",
        *,
        times: int | None = 1,
        address: str | None = None,
    ) -> None:
        """Answer `code` and `text` at `stage`, the next `times` times, None for always.

        `address`: at "mail" and "rcpt" for this one alone.  At "end" the message is not kept.  421 also ends the session.
        Raises ValueError for a combination that is impossible.
        """
        self._faults.order(stage, RefuseFault(refusal(code, text)), times=times, address=address)

    def delay(self, stage: Stage, seconds: float, *, times: int | None = 1, address: str | None = None) -> None:
        """Answer `seconds` late.  At "end" the message is kept before the pause, even if the client has hung up by the 250.

        Raises ValueError for more than an hour.
        """
        self._faults.order(stage, Delay(seconds), times=times, address=address)

    def hang_up(self, stage: Stage, *, keep: bool = False, times: int | None = 1, address: str | None = None) -> None:
        """Close the connection in place of an answer.  With `keep`, at "end" only, the message is kept.  Raises ValueError."""
        self._faults.order(stage, HangUp(keep), times=times, address=address)

    def heal(self) -> None:
        """Forget all faults that were ordered."""
        self._faults.clear()

    # --- the threads ---

    def _accept(self, listener: socket.socket) -> None:
        while not self._leaving.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._leaving.is_set():
                    return
                self._leaving.wait(0.1)  # out of descriptors, or the client has gone already
                continue
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        connection = SinkConnection(
            sock,
            SinkAnswers(self._terms, self._faults),
            terms=self._terms,
            hostname=HOSTNAME,
            context=self._context,
            implicit_tls=self._tls == "implicit",
            idle_seconds=self._idle_seconds,
            keep=self._keep,
            stopping=self._stopping,
        )
        thread = threading.Thread(target=self._run, args=(connection,), name="capture connection", daemon=True)
        with self._changed:
            is_full = len(self._connections) >= self._connections_max
            if not is_full:
                self._connections[thread] = connection
        if is_full:
            with contextlib.suppress(OSError), sock:
                sock.settimeout(1.0)
                sock.sendall(TOO_BUSY.encode())
            return
        try:
            thread.start()
        except RuntimeError:  # no more threads on this host
            with self._changed:
                del self._connections[thread]
            sock.close()

    def _run(self, connection: SinkConnection) -> None:
        try:
            connection.serve()
        finally:
            with self._changed:
                del self._connections[threading.current_thread()]

    def _keep(self, message: CapturedMessage) -> bool:
        if self._take is not None:
            self._take(message)
            return True
        with self._changed:
            if len(self._messages) >= self._messages_max:
                return False
            self._messages.append(message)
            self._changed.notify_all()
            return True

    # --- the certificate ---

    def _make_certificate(self) -> None:
        if self._tls == "none":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="capture-server-")
        pair = self_signed_pair(self._folder.name, HOSTNAME, [self.host])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._context, self.certificate = context, pair.certificate

    def _forget_certificate(self) -> None:
        self._context, self.certificate = None, ""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
