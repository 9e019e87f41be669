"""What the sink says to one client, without I/O: an event of the SMTP core in, an action out."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mailserver.mail.address import Address
from mailserver.mail.envelope import RecipientParameters
from mailserver.mail.reply import Reply
from mailserver.sasl.exchange import Exchange
from mailserver.sasl.login import login
from mailserver.sasl.plain import plain
from mailserver.sasl.steps import Challenge, CheckPassword, Failed, Step, Succeeded, Trouble
from mailserver.sink.captured import CapturedMessage
from mailserver.sink.faults import FaultBook, HangUp, RefuseFault, Stage
from mailserver.smtp import events, replies
from mailserver.smtp.events import Event
from mailserver.smtp.server.extensions import Extensions

__all__ = ["RECIPIENTS_MAX", "SinkAction", "SinkAnswers", "Terms"]

RECIPIENTS_MAX = 1000
MECHANISMS = ("PLAIN", "LOGIN")
LOGIN_REQUIRED = Reply.of(530, "5.7.0", "Authentication required")
TOO_MANY_RECIPIENTS = Reply.of(452, "4.5.3", "Too many recipients")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the sink offers and requires.  `users` are passwords by name, for AUTH, which is not offered without users."""

    users: Mapping[str, str]
    offers_starttls: bool
    requires_tls: bool
    requires_login: bool
    message_octets: int

    def extensions(self, *, secured: bool) -> Extensions:
        """What EHLO announces."""
        offers_login = bool(self.users) and (secured or not self.requires_tls)
        return Extensions(
            size=self.message_octets,
            starttls=self.offers_starttls and not secured,
            auth=MECHANISMS if offers_login else (),
            auth_needs_tls=bool(self.users) and not offers_login,
            recipients_max=RECIPIENTS_MAX,
        )


@dataclass(frozen=True, slots=True)
class SinkAction:
    """What to do, in this order: keep the message, wait, then hang up or answer."""

    reply: Reply | None = None
    message: CapturedMessage | None = None
    delay_seconds: float = 0.0
    hang_up: bool = False
    keep: bool = False  # the message of this end of data


class SinkAnswers:
    """One client's session."""

    def __init__(self, terms: Terms, faults: FaultBook) -> None:
        self._terms = terms
        self._faults = faults
        self._exchange: Exchange | None = None
        self._sender: events.Mail | None = None
        self._recipients: list[tuple[Address, RecipientParameters]] = []
        self._content: list[bytes] = []
        self._hello = ""
        self._login = ""
        self.tls = ""  # the version, once the connection is encrypted

    def connected(self, greeting: Reply) -> SinkAction:
        """A client has connected.  Return the greeting."""
        return self._unless("connect", greeting)

    def secured(self, version: str) -> None:
        """The TLS handshake is done.  Forget all that the client said before (RFC 3207 section 4.2)."""
        self.tls = version
        self._hello = self._login = ""

    def act(self, event: Event) -> SinkAction:
        """The action for an event."""
        match event:
            case events.Hello(_, name):
                self._hello = name
                return self._unless("hello", replies.OK)
            case events.StartTLS():
                return self._unless("starttls", replies.TLS_READY)
            case events.Authenticate(mechanism, initial):
                return self._authenticate(mechanism, initial)
            case events.AuthResponse(data) if self._exchange is not None:
                return self._step(self._exchange, self._exchange.respond(data))
            case events.Mail() | events.Rcpt() | events.Data() | events.Chunk() | events.EndOfData() | events.Reset():
                return self._transact(event)
            case events.Verify():
                return SinkAction(replies.CANNOT_VERIFY)
            case events.Expand():
                return SinkAction(replies.NO_EXPANSION)
        return SinkAction()

    def _transact(self, event: Event) -> SinkAction:
        match event:
            case events.Mail(sender):
                self._forget()
                self._sender = event
                return self._unless("mail", self._may_send(), str(sender or ""))
            case events.Rcpt(address, parameters):
                return self._add(address, parameters)
            case events.Data():
                return self._unless("data", replies.START_CONTENT)
            case events.Chunk(data):
                self._content.append(data)
            case events.EndOfData(fault=fault):
                return self._finish(fault)
            case events.Reset():
                self._forget()
        return SinkAction()

    def _may_send(self) -> Reply:
        if self._terms.requires_tls and not self.tls:
            return replies.TLS_REQUIRED
        if self._terms.requires_login and not self._login:
            return LOGIN_REQUIRED
        return replies.SENDER_OK

    def _add(self, address: Address, parameters: RecipientParameters) -> SinkAction:
        is_full = len(self._recipients) >= RECIPIENTS_MAX
        action = self._unless("rcpt", TOO_MANY_RECIPIENTS if is_full else replies.RECIPIENT_OK, str(address))
        if action.reply is replies.RECIPIENT_OK:
            self._recipients.append((address, parameters))
        return action

    def _finish(self, fault: Reply | None) -> SinkAction:
        message = self._message()
        self._forget()
        if fault is not None or message is None:
            return SinkAction(fault or replies.LOCAL_ERROR)
        action = self._unless("end", replies.OK)
        return replace(action, message=message) if action.keep else action

    def _message(self) -> CapturedMessage | None:
        mail = self._sender
        if mail is None:
            return None
        return CapturedMessage(
            sender=str(mail.sender or ""),
            recipients=tuple(str(address) for address, _ in self._recipients),
            content=b"".join(self._content),
            hello=self._hello,
            tls=self.tls,
            login=self._login,
            parameters=mail.parameters,
            recipient_parameters=tuple(parameters for _, parameters in self._recipients),
        )

    def _forget(self) -> None:
        self._sender = None
        self._recipients.clear()
        self._content.clear()

    # --- AUTH ---

    def _authenticate(self, mechanism: str, initial: bytes | None) -> SinkAction:
        exchange = self._exchange = Exchange(plain() if mechanism == "PLAIN" else login())
        return self._step(exchange, exchange.respond(initial))

    def _step(self, exchange: Exchange, step: Step) -> SinkAction:
        while isinstance(step, CheckPassword):
            is_own = step.authorization in ("", step.username)  # nobody acts for another one
            is_right = self._terms.users.get(step.username) == step.password
            step = exchange.answer(step.username if is_right and is_own else None)
        match step:
            case Challenge(data):
                return SinkAction(Reply.of(334, "", base64.b64encode(data).decode("ascii")))
            case Succeeded(username):
                action = self._unless("auth", replies.AUTH_SUCCEEDED)
                if action.reply is replies.AUTH_SUCCEEDED:
                    self._login = username
                return action
            case Failed(Trouble.MALFORMED):
                return self._unless("auth", replies.AUTH_MALFORMED)
        return self._unless("auth", replies.AUTH_FAILED)

    # --- faults ---

    def _unless(self, stage: Stage, reply: Reply, address: str = "") -> SinkAction:
        """`reply`, unless a fault has been ordered."""
        seconds, fault = self._faults.take(stage, address)
        match fault:
            case RefuseFault(refused):
                return SinkAction(refused, delay_seconds=seconds)
            case HangUp(keep):
                return SinkAction(delay_seconds=seconds, hang_up=True, keep=keep)
        return SinkAction(reply, delay_seconds=seconds, keep=stage == "end")
