"""A host that takes all mail, after STARTTLS or in the clear, and counts: quicker than the servers that send to it.

Postfix's smtp-sink knows no TLS.  Each process waits for all of its connections at once and answers whatever has come; all of
them give and take the same session tickets.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import ssl
import time
from ctypes import Array, c_double, c_long
from pathlib import Path
from typing import Any

__all__ = ["TLSHost"]

CONNECTIONS, HANDSHAKES, RESUMED, MESSAGES, COUNTERS = 0, 1, 2, 3, 4
HELLO = b"250-sink.bench.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 209715200\r\n"
END = b"\r\n.\r\n"
READ_OCTETS = 1 << 16
GIVE_UP_SECONDS = 300


class TLSHost:
    """Listens on a free port of 127.0.0.1, in `processes` of its own.  With a `context` it offers STARTTLS."""

    def __init__(self, context: ssl.SSLContext | None, processes: int = 2) -> None:
        forking = multiprocessing.get_context("fork")  # the keys of the tickets are the context's
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = listening.getsockname()[1]
        self._counts = [forking.RawArray(c_long, COUNTERS) for _ in range(processes)]
        self._seconds = [forking.RawArray(c_double, 1) for _ in range(processes)]
        self._processes = [
            forking.Process(target=_serve, args=(listening, context, counts, seconds), daemon=True)
            for counts, seconds in zip(self._counts, self._seconds, strict=True)
        ]
        for process in self._processes:
            process.start()
        listening.close()

    def count(self, which: int) -> int:
        """One of CONNECTIONS, HANDSHAKES, RESUMED and MESSAGES."""
        return int(sum(counts[which] for counts in self._counts))

    def processor_seconds(self) -> float:
        """Of all its processes, as of the last moment that they had nothing to do."""
        return float(sum(seconds[0] for seconds in self._seconds))

    def wait(self, messages: int) -> None:
        """Return when it has so many.  Raises RuntimeError where they do not come."""
        end = time.monotonic() + GIVE_UP_SECONDS
        while self.count(MESSAGES) < messages:
            if time.monotonic() > end:
                raise RuntimeError(f"{self.count(MESSAGES)} of {messages} messages have come")
            time.sleep(0.01)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join(30)


def host_context(folder: Path) -> ssl.SSLContext:
    """TLS as ordinary hosts have it, with an ECDSA and an RSA certificate: the client has its choice."""
    from mailserver.tls import self_signed_pair

    pair = self_signed_pair(str(folder / "ecdsa"), "sink.bench.test", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_cert_chain(_rsa(folder))
    return context


def _rsa(folder: Path) -> Path:
    """A file with a key and its certificate."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink.bench.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    path = folder / "rsa.pem"
    octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    path.write_bytes(octets)
    return path


class _Connection:
    """One client: reads what has come, and answers."""

    def __init__(self, sock: Any, context: ssl.SSLContext | None, counts: Array[c_long]) -> None:
        self.socket = sock
        self._context = context
        self._counts = counts
        self._pending = b""
        self._in_content = False
        self._is_shaking = False
        self.events = select.EPOLLIN

    def ready(self) -> bool:
        """Return whether the connection goes on."""
        try:
            if self._is_shaking:
                self._shake()
            while not self._is_shaking:
                octets = self.socket.recv(READ_OCTETS)
                if not octets or not self._heard(octets):
                    return False
                if len(octets) < READ_OCTETS and not isinstance(self.socket, ssl.SSLSocket):
                    break
        except (ssl.SSLWantReadError, BlockingIOError):
            self.events = select.EPOLLIN
        except ssl.SSLWantWriteError:
            self.events = select.EPOLLOUT
        except OSError:
            return False
        return True

    def _shake(self) -> None:
        self.socket.do_handshake()
        self._is_shaking = False
        self._counts[HANDSHAKES] += 1
        self._counts[RESUMED] += self.socket.session_reused

    def _heard(self, octets: bytes) -> bool:
        replies: list[bytes] = []
        pending = self._pending + octets if self._pending else octets
        goes_on = True
        while goes_on and pending:
            if self._in_content:
                end = pending.find(END)
                if end < 0:
                    break
                pending, self._in_content = pending[end + len(END) :], False
                self._counts[MESSAGES] += 1
                replies.append(b"250 2.0.0 taken\r\n")
                continue
            line, found, rest = pending.partition(b"\r\n")
            if not found:
                break
            pending = rest
            verb = line[:4].upper()
            if verb in (b"MAIL", b"RCPT", b"RSET", b"NOOP", b"HELO"):
                replies.append(b"250 2.0.0 yes\r\n")
            elif verb == b"DATA":
                replies.append(b"354 go on\r\n")
                self._in_content = True
            elif verb == b"EHLO":
                offers = self._context is not None and not isinstance(self.socket, ssl.SSLSocket)
                replies.append(HELLO + (b"250-STARTTLS\r\n" if offers else b"") + b"250 ENHANCEDSTATUSCODES\r\n")
            elif verb == b"STAR" and self._context is not None:
                self.socket.send(b"220 2.0.0 go on\r\n")
                pending = b""
                self.socket = self._context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
                self._is_shaking = True
                break
            else:
                replies.append(b"221 2.0.0 bye\r\n" if verb == b"QUIT" else b"502 5.5.1 what\r\n")
                goes_on = verb != b"QUIT"
        self._pending = pending
        if replies:
            self.socket.send(b"".join(replies))  # small: the client waits for it
        return goes_on


def _serve(listening: socket.socket, context: ssl.SSLContext | None, counts: Array[c_long], seconds: Array[c_double]) -> None:
    """In its own process, until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listening.setblocking(False)
    poll = select.epoll()
    poll.register(listening.fileno(), select.EPOLLIN)
    connections: dict[int, _Connection] = {}
    while True:
        for number, _ in poll.poll():
            if number == listening.fileno():
                try:
                    sock, _ = listening.accept()
                except OSError:  # another process had it
                    continue
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                counts[CONNECTIONS] += 1
                connections[sock.fileno()] = _Connection(sock, context, counts)
                poll.register(sock.fileno(), select.EPOLLIN)
                sock.send(b"220 sink.bench.test ESMTP\r\n")
                continue
            connection = connections[number]
            before = connection.events
            if not connection.ready():
                poll.unregister(number)
                del connections[number]
                connection.socket.close()
            elif connection.events != before:
                poll.modify(number, connection.events)
        times = os.times()
        seconds[0] = times.user + times.system
