"""Mail to be judged: messages that differ in words and signature, and sessions that send them from addresses of the Internet.

smtp-source sends one message again and again, from the loopback, about which neither DNS lists nor a greylist are asked.
"""

from __future__ import annotations

import selectors
import socket
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from random import Random

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.servers import ACCOUNT
from tests.filters.mail_corpus import Corpus

__all__ = ["DOMAIN", "PEERS", "PEERS_DOMAIN", "SENDER", "SOURCES", "Session", "send", "signed_messages"]

DOMAIN = "load.mailbench.net"  # of the senders; nobody asks a name server about .test
SENDER = f"load@{DOMAIN}"
SOURCES = "45.33.32"  # a network of the Internet; here it is on the loopback of a network namespace of its own
PEERS = 20
PEERS_DOMAIN = "peers.mailbench.net"
NEW_WORDS = 10  # of each message: names and numbers that no other message has
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT_OCTETS = 65_536  # a longer message says the same again
SECONDS = 60.0


def signed_messages(count: int, octets: int) -> tuple[list[bytes], str]:
    """So many different messages of about this size, signed (rsa-2048, relaxed/relaxed), and the record of the key.

    Nearly all of their words are those of the corpus that is taught, by the frequencies of a language.
    """
    import dkim  # type: ignore[import-untyped]

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    corpus, random, messages = Corpus(1), Random(2), list[bytes]()
    for number in range(count):
        new = ["".join(random.choices(LETTERS, k=9)) for _ in range(NEW_WORDS)]
        body = b""
        while len(body) < min(octets, TEXT_OCTETS):
            body += corpus.message("ham", more=new if not body else (), words=300).partition(b"\r\n\r\n")[2]
        body *= -(-octets // len(body))
        body = body[: body.rfind(b"\r\n", 0, octets) + 2]
        subject = " ".join([word.decode() for word in body.split()[:5]])
        header = (
            f"From: Bench <{SENDER}>\r\nTo: <{ACCOUNT}>\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\n"
            f"Message-ID: <{number}@{DOMAIN}>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n\r\n"
        ).encode()
        plain = header + body
        messages.append(dkim.sign(plain, b"s", DOMAIN.encode(), pem, canonicalize=(b"relaxed", b"relaxed")) + plain)
    return messages, f"v=DKIM1; k=rsa; p={b64encode(public).decode()}"


class Session:
    """One connection from an address of its own: what it sends next, each time a reply has come.

    A message that is deferred (4yz) is counted in `deferred`; a refusal raises RuntimeError.
    """

    def __init__(self, port: int, number: int, messages: Iterator[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS, (f"{SOURCES}.{number}", 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.deferred = 0
        self._begin = b""
        self._steps = self._dialogue(number, messages)
        self._wanted = next(self._steps)

    def _dialogue(self, number: int, messages: Iterator[bytes]) -> Iterator[bytes]:
        """Sends; yields the first octet of the reply that is expected."""
        send = self.socket.sendall
        yield b"2"
        send(f"EHLO peer{number}.{PEERS_DOMAIN}\r\n".encode())
        yield b"2"
        for message in messages:
            send(f"MAIL FROM:<{SENDER}>\r\n".encode())
            yield b"2"
            send(f"RCPT TO:<{ACCOUNT}>\r\n".encode())
            yield b"24"
            if self._begin.startswith(b"4"):
                self.deferred += 1
                send(b"RSET\r\n")
                yield b"2"
                continue
            send(b"DATA\r\n")
            yield b"3"
            send(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            yield b"2"
        send(b"QUIT\r\n")
        yield b"2"

    def heard(self) -> bool:
        """Octets have come.  False when it is over."""
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError("the server has closed the connection")
        self._begin += data
        last = self._begin.rfind(b"\n", 0, len(self._begin) - 1) + 1
        if not self._begin.endswith(b"\n") or self._begin[last + 3 : last + 4] == b"-":
            return True
        if self._begin[:1] not in (self._wanted[:1], self._wanted[-1:]):
            raise RuntimeError(f"the server said {self._begin!r}")
        following = next(self._steps, None)
        self._begin = b""
        if following is None:
            self.socket.close()
            return False
        self._wanted = following
        return True


def send(port: int, messages: Sequence[bytes], *, sessions: int = PEERS) -> tuple[float, int]:
    """Send each message once, over so many connections at once.  Seconds until the last 250, and how many were deferred."""
    begin, rest = time.monotonic(), iter(messages)
    selector = selectors.DefaultSelector()
    every = [Session(port, 1 + n, rest) for n in range(sessions)]
    for one in every:
        selector.register(one.socket, selectors.EVENT_READ, one)
    left = len(every)
    while left:
        ready = selector.select(SECONDS)
        if not ready:
            raise RuntimeError(f"nothing came for {SECONDS:g} s")
        for key, _ in ready:
            session: Session = key.data
            if not session.heard():
                left -= 1
                selector.unregister(key.fileobj)
    selector.close()
    return time.monotonic() - begin, sum([one.deferred for one in every])
