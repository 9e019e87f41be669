"""Talks to a mail server as a stranger would: one connection, blocking, that is over at a time.

smtplib speaks; what is seen of the certificate is noted.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from mailserver.doctor.certificate_seen import (
    CertificateSeen,
    certificate_of,
    clean_words,
    fault_of_verification,
    tls_words,
    unverifying_context,
)
from mailserver.doctor.policy_fetching import over_at

__all__ = ["FAULTS", "ServerPlace", "SeenTLS", "Talk", "said_by", "start_tls", "talk_with", "words_of"]

FAULTS = (OSError, smtplib.SMTPException, ValueError)
REPLY_OCTETS = 1 << 16
NO_END = "it has not come to an end in time"


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a mail server listens.  `speaks_tls`: from the first octet on."""

    host: str
    port: int
    speaks_tls: bool = False

    def __str__(self) -> str:
        shown = f"[{self.host}]"
        return shown if self.port == smtplib.SMTP_PORT else f"{shown}:{self.port}"


class ReplyLines:
    """The lines that a server says; those of one reply are not more than `REPLY_OCTETS`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left = REPLY_OCTETS

    def readline(self, octets: int) -> bytes:
        """A line.  Raises OSError."""
        line = self._file.readline(min(octets, self.left + 1))
        self.left -= len(line)
        if self.left < 0:
            raise OSError("a reply without end")
        return line

    def close(self) -> None:
        """Let go of the connection."""
        self._file.close()


class Talk(smtplib.SMTP):
    """A dialogue; each wait is for what is left of the time, and whatever is said, it is over then."""

    def __init__(self, own_name: str, until: float) -> None:
        self._until = until
        self._over = contextlib.ExitStack()
        super().__init__(local_hostname=own_name, timeout=_left(until))

    def getreply(self) -> tuple[int, bytes]:
        """A reply."""
        if isinstance(self.sock, socket.socket):
            self.sock.settimeout(_left(self._until))
            if self.file is None:
                self.file = ReplyLines(self.sock.makefile("rb"))
        if isinstance(self.file, ReplyLines):
            self.file.left = REPLY_OCTETS
        reply = super().getreply()
        if time.monotonic() >= self._until:  # then it may be half of one
            raise TimeoutError(NO_END)
        return reply

    def secure(self) -> None:
        """EHLO, and STARTTLS where it is offered, without a look at the certificate: as most senders do."""
        self.ehlo_or_helo_if_needed()
        if self.has_extn("starttls"):
            self.starttls(context=unverifying_context())
            self.ehlo_or_helo_if_needed()

    def begin(self, place: ServerPlace) -> tuple[int, bytes]:
        """Connect; the greeting."""
        self._place = place
        self._host = place.host  # smtplib names it in SNI
        return self.connect(place.host, place.port)

    def end(self) -> None:
        """The time need not be looked at any more."""
        self._over.close()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = socket.create_connection((host, port), timeout)
        self._over.enter_context(over_at(made, self._until))
        return unverifying_context().wrap_socket(made) if self._place.speaks_tls else made


@contextlib.contextmanager
def talk_with(place: ServerPlace, own_name: str, until: float) -> Iterator[tuple[Talk, int, str]]:
    """A dialogue up to the greeting: with its code and words.  Raises `FAULTS`.  Ends with QUIT, or without."""
    talk = Talk(own_name, until)
    try:
        code, words = talk.begin(place)
        yield talk, code, _text(words)
    except FAULTS as error:
        if time.monotonic() < until:
            raise
        raise TimeoutError(NO_END) from error  # it was we who ended it
    finally:
        with contextlib.suppress(*FAULTS):
            talk.quit()
        talk.close()
        talk.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTLS:
    """What comes of STARTTLS with one server: `is_offered`, why there is no TLS (`fault`), and the certificate with its chain."""

    is_offered: bool = False
    fault: str = ""
    certificate: CertificateSeen | None = None
    chain: tuple[bytes, ...] = ()


def start_tls(place: ServerPlace, name: str, own_name: str, until: float, *, ca_file: str | None = None) -> SeenTLS:
    """The certificate as a sender sees it who verifies it for this name.  Raises `FAULTS` where nobody answers."""
    context = ssl.create_default_context(cafile=ca_file)
    try:
        return _secured(place, name, own_name, until, context)
    except ssl.SSLCertVerificationError as error:
        fault, why = fault_of_verification(error)
    except ssl.SSLError as error:
        return SeenTLS(is_offered=True, fault=words_of(error))
    try:
        found = _secured(place, name, own_name, until, unverifying_context())
    except ssl.SSLError as error:
        return SeenTLS(is_offered=True, fault=words_of(error))
    seen = found.certificate or CertificateSeen((), 0.0, 0.0)
    return SeenTLS(is_offered=True, certificate=replace(seen, fault=fault, why=why), chain=found.chain)


def _secured(place: ServerPlace, name: str, own_name: str, until: float, context: ssl.SSLContext) -> SeenTLS:
    with talk_with(place, own_name, until) as (talk, code, words):
        _insist(code, 220, words)
        talk.ehlo()
        if not talk.has_extn("starttls"):
            return SeenTLS()
        code, answer = talk.docmd("STARTTLS")
        if code != 220:
            return SeenTLS(is_offered=True, fault=f"{code} {_text(answer)}")
        plain = talk.sock
        if plain is None:  # it ends right after its answer
            raise ConnectionResetError("the connection has ended")
        plain.settimeout(_left(until))
        talk.sock = secured = context.wrap_socket(plain, server_hostname=name)
        talk.file = None
        return SeenTLS(is_offered=True, certificate=certificate_of(secured), chain=_chain_of(secured))


def _chain_of(secured: ssl.SSLSocket) -> tuple[bytes, ...]:
    """All certificates that the other side has shown (DER), its own first; from Python 3.13 on that has a name of its own."""
    public = getattr(secured, "get_unverified_chain", None)
    if public is not None:
        return tuple(public())
    inner = getattr(secured, "_sslobj", None)
    if inner is not None and hasattr(inner, "get_unverified_chain"):
        return tuple([ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in inner.get_unverified_chain() or ()])
    return tuple([one for one in [secured.getpeercert(binary_form=True)] if one])


def said_by(code: int, words: bytes) -> str:
    """A reply, for people."""
    return f"{code} {_text(words)}"


def words_of(error: Exception) -> str:
    """What was wrong."""
    if isinstance(error, smtplib.SMTPResponseException):
        return said_by(error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode())
    return tls_words(error)


def _insist(code: int, wanted: int, words: str) -> None:
    if code != wanted:
        raise smtplib.SMTPConnectError(code, words.encode())


def _left(until: float) -> float:
    return max(0.1, until - time.monotonic())


def _text(words: bytes) -> str:
    return clean_words(words.decode("utf-8", "replace").replace("\n", " "))
