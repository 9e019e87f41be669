"""One connection of the sink, in a thread: the socket, TLS and time-outs.  `SinkAnswers` decides."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

from mailserver.mail.reply import Reply
from mailserver.sink.answers import SinkAction, SinkAnswers, Terms
from mailserver.sink.captured import CapturedMessage
from mailserver.smtp.events import StartTLS, Wait
from mailserver.smtp.server.limits import SessionLimits
from mailserver.smtp.server.session import ServerSession

__all__ = ["SinkConnection"]

READ_OCTETS = 65536
LINGER_SECONDS = 1.0
LINGER_READS = 64
MAILBOX_FULL = Reply.of(452, "4.3.1", "No room for more messages")
IDLE = Reply.of(421, "4.4.2", "Nothing came for too long")

Keep = Callable[[CapturedMessage], bool]


class HungUp(Exception):
    """The connection is to end without another reply."""


class SinkConnection:
    """Serves one client until it leaves or is sent away, or until `stopping` is set and `cut` called.

    `keep(message)` stores a message, or returns False where the limit is reached.
    """

    def __init__(
        self,
        sock: socket.socket,
        answers: SinkAnswers,
        *,
        terms: Terms,
        hostname: str,
        context: ssl.SSLContext | None,
        implicit_tls: bool,
        idle_seconds: float,
        keep: Keep,
        stopping: threading.Event,
    ) -> None:
        self._socket = sock
        self._answers = answers
        self._terms = terms
        self._context = context
        self._implicit_tls = implicit_tls
        self._idle_seconds = idle_seconds
        self._keep = keep
        self._stopping = stopping
        self._hostname = hostname
        self._lingers = False
        self._session = ServerSession(
            hostname=hostname,
            extensions=terms.extensions(secured=False),
            limits=SessionLimits(message_octets=terms.message_octets),
        )

    def serve(self) -> None:
        """Talk to the client.  Never raises for anything that a client can do."""
        try:
            self._socket.settimeout(self._idle_seconds)
            if self._implicit_tls:
                self._shake_hands()
            self._talk()
        except (OSError, HungUp):  # ssl.SSLError is an OSError
            pass
        else:
            self._linger()
        finally:
            self._socket.close()

    def hear_no_more(self) -> None:
        """Read no more from the client.  Called in another thread.  What has come is still answered."""
        if self._lingers:  # what comes now is read to its end, and not by anybody
            return
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def cut(self) -> None:
        """End the connection from another thread, after `stopping` was set."""
        with contextlib.suppress(OSError):
            # The plain socket's shutdown: SSLSocket's own would remove the TLS state while the other thread uses it.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _talk(self) -> None:
        session = self._session
        greeting = Reply.of(220, "", f"{self._hostname} ESMTP")
        action = self._answers.connected(greeting)
        self._wait(action)
        session.greet(action.reply or greeting)
        while True:
            event = session.next_event()
            if event is Wait.CLOSED:
                self._lingers = True  # before the client can have the last reply
                self._send()
                return
            if isinstance(event, Wait):
                self._send()
                self._read()
                continue
            reply = self._done(self._answers.act(event))
            if reply is None:
                continue
            session.reply(reply)
            if isinstance(event, StartTLS) and reply.code == 220:
                self._send()
                self._shake_hands()
                session.tls_established()

    def _done(self, action: SinkAction) -> Reply | None:
        """Do what has to be done before the reply, which is returned."""
        reply = action.reply
        if action.message is not None and not self._keep(action.message) and reply is not None:
            reply = MAILBOX_FULL
        self._wait(action)
        return reply

    def _wait(self, action: SinkAction) -> None:
        if action.delay_seconds or action.hang_up:
            self._send()  # the answers to earlier commands are not late
        if action.delay_seconds and self._stopping.wait(action.delay_seconds):
            raise HungUp
        if action.hang_up:
            raise HungUp

    def _read(self) -> None:
        try:
            octets = self._socket.recv(READ_OCTETS)
        except TimeoutError:
            self._session.close(IDLE)
            return
        if octets:
            self._session.receive_data(octets)
        else:
            self._session.receive_eof()

    def _send(self) -> None:
        octets = self._session.data_to_send()
        if octets:
            self._socket.sendall(octets)

    def _shake_hands(self) -> None:
        if self._context is None:
            raise HungUp
        secured = self._context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = secured
        if self._stopping.is_set():  # `cut` may have met the socket that is already closed
            raise HungUp
        secured.do_handshake()
        self._answers.secured(secured.version() or "TLS")
        self._session.extensions = self._terms.extensions(secured=True)

    def _linger(self) -> None:
        """Let the last reply arrive.  Closing with unread octets would reset the connection, and the reply could be lost."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            socket.socket.settimeout(self._socket, LINGER_SECONDS)
            for _ in range(LINGER_READS):
                if self._stopping.is_set() or not self._socket.recv(READ_OCTETS):
                    return
