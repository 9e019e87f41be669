"""Load over STARTTLS, which smtp-source cannot do: one blocking client in a process of its own for each session."""

from __future__ import annotations

import multiprocessing
import os
import socket
import ssl
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

from bench.load import SENDER
from bench.servers import ACCOUNT

__all__ = ["Sent", "Way", "send"]

GIVE_UP_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Way:
    """How the messages are sent.  `reconnect`: a connection for each; `resume`: with the session of the one before."""

    encrypted: bool = True
    reconnect: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it.  `processor_seconds` are those of the clients."""

    messages: int
    seconds: float
    handshakes: int
    resumed: int
    processor_seconds: float


def send(port: int, way: Way, *, messages: int, octets: int, sessions: int) -> Sent:
    """Send them all, side by side.  Raises RuntimeError for any refusal, and for handshakes that are not as `way` wants them."""
    each = max(1, messages // sessions)
    begins = multiprocessing.Barrier(sessions + 1)
    results: Any = multiprocessing.SimpleQueue()
    content = b"Subject: load\r\n\r\n" + (b"x" * 70 + b"\r\n") * max(1, octets // 72) + b".\r\n"
    clients = [
        multiprocessing.Process(target=_session, args=(port, way, each, content, begins, results), daemon=True)
        for _ in range(sessions)
    ]
    for client in clients:
        client.start()
    begins.wait(60)
    begin = time.monotonic()
    found = [results.get() for _ in clients]
    seconds = time.monotonic() - begin
    for client in clients:
        client.join(60)
    for one in found:
        if isinstance(one, str):
            raise RuntimeError(one)
    handshakes, resumed, processor = (sum(column) for column in zip(*found, strict=True))
    wanted = handshakes - sessions if way.resume else 0
    if resumed != wanted:
        raise RuntimeError(f"of {handshakes} handshakes {resumed} were resumed, not {wanted}")
    return Sent(each * sessions, seconds, handshakes, resumed, processor)


def _session(port: int, way: Way, messages: int, content: bytes, begins: Barrier, results: Any) -> None:
    """In its own process: puts (handshakes, of them resumed, processor seconds), or what went wrong."""
    client = _Client(port, way)
    try:
        if not way.reconnect:
            client.open()
        begins.wait(60)
        before = _processor_seconds()
        for _ in range(messages):
            if way.reconnect:
                client.open()
            client.message(content)
            if way.reconnect:
                client.close()
        results.put((client.handshakes, client.resumed, _processor_seconds() - before))
        if not way.reconnect:
            client.close()
    except (OSError, RuntimeError) as error:
        results.put(f"a client failed: {error}")


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


class _Client:
    """Says what it must, one command at a time, as smtp-source does."""

    def __init__(self, port: int, way: Way) -> None:
        self._port = port
        self._way = way
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE  # of the load only the server counts
        self._session: ssl.SSLSession | None = None
        self._socket: Any = None
        self.handshakes = 0
        self.resumed = 0

    def open(self) -> None:
        """Connect, and encrypt where it is wanted."""
        self._socket = socket.create_connection(("127.0.0.1", self._port), GIVE_UP_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect(b"2")
        self.command(b"EHLO load.bench.test\r\n")
        if self._way.encrypted:
            self.command(b"STARTTLS\r\n")
            self._socket = self._context.wrap_socket(self._socket, session=self._session)
            self.handshakes += 1
            self.resumed += self._socket.session_reused
            self.command(b"EHLO load.bench.test\r\n")
            if self._way.resume:
                self._session = self._socket.session  # with the tickets, which came before the reply

    def message(self, content: bytes) -> None:
        """One transaction; `content` has its final dot."""
        self.command(b"MAIL FROM:<%b>\r\n" % SENDER.encode())
        self.command(b"RCPT TO:<%b>\r\n" % ACCOUNT.encode())
        self.command(b"DATA\r\n", b"3")
        self.command(content)

    def close(self) -> None:
        self.command(b"QUIT\r\n")
        self._socket.close()

    def command(self, octets: bytes, expected: bytes = b"2") -> None:
        self._socket.sendall(octets)
        self._expect(expected)

    def _expect(self, first: bytes) -> None:
        reply = b""
        while not reply.endswith(b"\r\n") or reply[reply.rfind(b"\r\n", 0, -2) + 1 :].lstrip(b"\n")[3:4] != b" ":
            octets = self._socket.recv(4096)
            if not octets:
                raise RuntimeError(f"the server has closed the connection after {reply!r}")
            reply += octets
        if not reply.startswith(first):
            raise RuntimeError(f"the server said {reply!r}")
