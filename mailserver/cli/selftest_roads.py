"""The roads on which ``mailserver selftest`` sends its probes.

Each function sends one, and raises nothing that is the road's fault.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import secrets
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

from mailserver.cli.asking import ask_server
from mailserver.cli.output import EX_IOERR, Unable
from mailserver.config.endpoints import reached_at
from mailserver.control.client import CommandRefused
from mailserver.doctor.probe_mail import probe_id, probe_message

__all__ = ["Leg", "ProbedServer", "by_lmtp", "by_login", "by_pickup", "by_relay"]

BY = "mailserver selftest"
NOT_REACHED, NOT_ASCII = "it cannot be reached from here", "the account's address is not in ASCII"
OK, LOGGED_IN, GO_ON = 250, 235, 334
QUEUED = re.compile(r"queued as ([0-9A-Z]{16})")


@dataclass(slots=True)
class Leg:
    """One probe: its `road` ("pickup", "submission", "lmtp", "relay"), its `mark`, and what became of it.

    `place` is the endpoint of a listener.  `steps` are those of its road, `at` the time when it was handed over, in seconds since
    the epoch.  `fault`: why it has not arrived, "" where it has; `skipped`: why this road cannot be tried here.
    """

    road: str
    mark: str = field(default_factory=lambda: secrets.token_hex(16))
    at: float = field(default_factory=time.time)
    place: str = ""
    file: str = ""  # that was handed over
    path: str = ""  # where it has arrived
    id: str = ""
    fault: str = ""
    skipped: str = ""
    removed: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def has_arrived(self) -> bool:
        """It was tried, and is there."""
        return not self.fault and not self.skipped

    def as_json(self) -> dict[str, Any]:
        """For programs; `after_ms` of each step is counted from the handing over."""
        steps = [
            {"step": one["step"], "after_ms": round((one["time"] - self.at) * 1000, 1), **one["fields"]} for one in self.steps
        ]
        known = {"road": self.road, "place": self.place, "id": self.id, "arrived": self.has_arrived, "removed": self.removed}
        return known | {"fault": self.fault, "skipped": self.skipped, "steps": steps}


class ProbedServer:
    """The running server, which is asked up to a time; it has a few seconds more where it has to end what was begun."""

    def __init__(self, data: str, until: float) -> None:
        self.data = data
        self.until = until

    @property
    def seconds_left(self) -> float:
        """Until that time; a moment at least."""
        return max(0.1, self.until - time.monotonic())

    def ask(self, command: str, arguments: dict[str, Any], *, at_least: float = 1.0) -> dict[str, Any]:
        """Its answer.  Raises `CommandRefused` and `ControlError`."""
        return ask_server(self.data, command, arguments, timeout_seconds=max(at_least, self.seconds_left))


def by_pickup(configuration: Any, server: ProbedServer, address: str) -> Leg:
    """Hand one over as a program of this host does.  Raises `Unable`."""
    from mailserver.cli.sendmail import Unsent, Wishes, envelope_of, write_file
    from mailserver.cli.sendmail_message import TypedMessage, lines_of, qualified
    from mailserver.pickup.file_format import pickup_name

    leg = Leg("pickup")
    sender = qualified(address, "")
    typed = TypedMessage.read(lines_of(io.BytesIO(probe_message(leg.mark, address, BY)), dot_ends=False))
    name = pickup_name(int(leg.at * 1_000_000), secrets.token_bytes(16))
    fields = typed.completed(sender=sender, name="", message_id=probe_id(leg.mark, configuration.hostname), now=leg.at)
    envelope = envelope_of(Wishes(notify=frozenset({"NEVER"})), sender, [sender])
    leg.file = os.path.join(configuration.pickup_path, name)
    try:
        write_file(leg.file, envelope, fields, typed, configuration.limits.message_bytes)
    except Unsent as error:
        raise Unable(str(error), error.code) from error
    except OSError as error:
        raise Unable(f"{configuration.pickup_path}: {error.strerror or error}", EX_IOERR) from error
    with contextlib.suppress(CommandRefused):
        server.ask("pickup.look", {})
    return leg


def by_login(listen: Any, hostname: str, server: ProbedServer, address: str) -> Leg:
    """Log in with a secret that the server makes for this once, and submit one.  `listen` is the listener's table."""
    leg = Leg("submission", place=listen.endpoint)
    place = reached_at(listen.endpoint)
    if place is None or not place[1] or not address.isascii():
        leg.skipped = NOT_ASCII if not address.isascii() else NOT_REACHED
        return leg
    try:
        with _connected(place, hostname, server, listen.tls) as client:
            mechanism = _mechanism(client)
            if not mechanism:
                leg.skipped = "no mechanism is offered that takes a password as it is"
                return leg
            source = str(client.sock.getsockname()[0])  # type: ignore[union-attr]
            secret = server.ask("selftest.login", {"address": address, "peer": source})["secret"]
            code, words = _log_in(client, mechanism, address, secret)
            if code != LOGGED_IN:
                leg.fault = f"{mechanism}: {code} {words}"
                return leg
            _send(leg, client, _whole(leg.mark, hostname, address), address)
    except CommandRefused as error:
        leg.fault = str(error)
    except (OSError, smtplib.SMTPException) as error:
        leg.fault = f"{place[0]}:{place[1]}: {_words_of(error)}"
    return leg


def by_lmtp(endpoint: str, hostname: str, server: ProbedServer, address: str) -> Leg:
    """Send one by LMTP, as a mail system beside this one does."""
    leg = Leg("lmtp", place=endpoint)
    place = reached_at(endpoint)
    if place is None or not address.isascii():
        leg.skipped = NOT_ASCII if not address.isascii() else NOT_REACHED
        return leg
    host, port = place
    try:
        with _LMTP(host, port, hostname, server) as client:
            client.ehlo()
            _send(leg, client, _whole(leg.mark, hostname, address), address)
    except (OSError, smtplib.SMTPException) as error:
        leg.fault = f"{host or 'lmtp'}{f':{port}' if port else ''}: {_words_of(error)}"
    return leg


def by_relay(endpoint: str, hostname: str, server: ProbedServer, address: str) -> Leg:
    """Have the relay bring one to the server's own mx listener, over the pool through which all mail leaves."""
    leg = Leg("relay", place=endpoint)
    place = reached_at(endpoint)
    if place is None or not place[1] or not address.isascii():
        leg.skipped = NOT_ASCII if not address.isascii() else NOT_REACHED
        return leg
    message = _whole(leg.mark, hostname, address).decode("ascii")
    question = {"address": address, "message": message, "endpoint": endpoint, "seconds": server.seconds_left}
    try:
        answer = server.ask("selftest.relay", question, at_least=server.seconds_left + 5)
    except CommandRefused as error:
        leg.fault = str(error)
        return leg
    leg.skipped = str(answer.get("skipped", ""))
    if not leg.skipped and answer["outcome"] != "delivered":
        leg.fault = str(answer["note"])
    return leg


# --- SMTP ---


def _send(leg: Leg, client: smtplib.SMTP, message: bytes, address: str) -> None:
    """A transaction; what it meets with is the leg's fault."""
    steps: tuple[tuple[Any, str | bytes], ...] = ((client.mail, address), (client.rcpt, address), (client.data, message))
    for step, argument in steps:
        code, words = step(argument)
        said = f"{code} {words.decode('utf-8', 'replace')}"
        if code != OK:
            leg.fault = said
            return
    leg.id = found[1] if (found := QUEUED.search(said)) else ""


def _connected(place: tuple[str, int], hostname: str, server: ProbedServer, tls: str) -> smtplib.SMTP:
    """Encrypted where the listener can; whose certificate it is, `mailserver dns` looks at.  Raises OSError, SMTPException."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client: smtplib.SMTP
    if tls == "implicit":
        client = _ImplicitSMTP(*place, hostname, server, context)
    else:
        client = _PlainSMTP(*place, hostname, server)
    try:
        client.ehlo()
        if tls == "starttls":
            client.starttls(context=context)
            client.ehlo()
    except BaseException:
        client.close()
        raise
    return client


def _mechanism(client: smtplib.SMTP) -> str:
    offered = client.esmtp_features.get("auth", "").upper().split()
    return next((one for one in ("PLAIN", "LOGIN") if one in offered), "")


def _log_in(client: smtplib.SMTP, mechanism: str, address: str, secret: str) -> tuple[int, str]:
    if mechanism == "PLAIN":
        code, words = client.docmd("AUTH", f"PLAIN {_encoded(f'{chr(0)}{address}{chr(0)}{secret}')}")
    else:
        code, words = client.docmd("AUTH", "LOGIN")
        for text in (address, secret):
            if code == GO_ON:
                code, words = client.docmd(_encoded(text))
    return code, words.decode("utf-8", "replace")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


class _Timed(smtplib.SMTP):
    """A client that is over at a time, however slowly the other side speaks."""

    _server: ProbedServer

    def getreply(self) -> tuple[int, bytes]:
        """A reply; each wait is for what is left of the time."""
        if isinstance(self.sock, socket.socket):
            self.sock.settimeout(self._server.seconds_left)
        return super().getreply()


class _PlainSMTP(_Timed):
    def __init__(self, host: str, port: int, hostname: str, server: ProbedServer) -> None:
        self._server = server
        super().__init__(host, port, hostname, timeout=server.seconds_left)


class _ImplicitSMTP(_Timed, smtplib.SMTP_SSL):
    def __init__(self, host: str, port: int, hostname: str, server: ProbedServer, context: ssl.SSLContext) -> None:
        self._server = server
        smtplib.SMTP_SSL.__init__(self, host, port, hostname, timeout=server.seconds_left, context=context)


class _LMTP(_Timed, smtplib.LMTP):
    def __init__(self, host: str, port: int, hostname: str, server: ProbedServer) -> None:
        self._server = server
        smtplib.LMTP.__init__(self, host, port, hostname, timeout=server.seconds_left)


def _whole(mark: str, hostname: str, address: str) -> bytes:
    """With CRLF, as it goes over the wire."""
    message = b"Message-ID: %s\n%s" % (probe_id(mark, hostname).encode(), probe_message(mark, address, BY))
    return message.replace(b"\n", b"\r\n")


def _words_of(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join([f"{code} {words.decode('utf-8', 'replace')}" for code, words in error.recipients.values()])
    if isinstance(error, smtplib.SMTPResponseException):
        words = error.smtp_error
        return f"{error.smtp_code} {words.decode('utf-8', 'replace') if isinstance(words, bytes) else words}"
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
