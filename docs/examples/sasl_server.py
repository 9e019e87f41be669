"""Logins around mailserver's SASL exchanges and its SMTP core.

Nothing here has I/O.  `Accounts` answers the questions of an exchange from memory; a real one would ask a database or a thread
that hashes, and answer later.  `Conversation` is a connection whose TLS handshake is over, as on port 465: octets in, octets out.
"""

import base64
import hmac
import secrets

from mailserver.mail.reply import Reply
from mailserver.sasl.exchange import Exchange
from mailserver.sasl.exchanges import Need, Start, begin, offered
from mailserver.sasl.scram_keys import derive_scram_keys, false_scram_keys
from mailserver.sasl.steps import (
    Challenge,
    ChannelBindings,
    CheckPassword,
    Failed,
    FindScramKeys,
    Question,
    ScramKeys,
    Step,
    Succeeded,
    Trouble,
)
from mailserver.smtp import events, replies
from mailserver.smtp.events import Event, Wait
from mailserver.smtp.server import Extensions, ServerSession, SessionLimits

HOSTNAME = "mail.example.org"
GREETING = Reply.of(220, "", f"{HOSTNAME} ESMTP")
OK = Reply.of(250, "2.0.0", "OK")
LOGIN_FIRST = Reply.of(530, "5.7.0", "Authentication required")
NO_MAIL_HERE = Reply.of(451, "4.3.0", "This example takes no mail")


class Accounts:
    """Names, and keys in place of passwords: they serve SCRAM, PLAIN and LOGIN alike."""

    needs_met = (Need.PASSWORD, Need.SCRAM_KEYS)

    def __init__(self) -> None:
        self.keys: dict[str, ScramKeys] = {}
        self.secret = secrets.token_bytes(32)  # a real server keeps it, so that false keys outlive a restart

    def add(self, name: str, password: str) -> None:
        """Raises ValueError for a password that SASLprep forbids."""
        self.keys[name] = derive_scram_keys(password, salt=secrets.token_bytes(16))

    def answer(self, question: Question) -> str | ScramKeys | None:
        """The answer; None, "no such account", to a question that never comes here."""
        match question:
            case CheckPassword(username, password, authorization):
                is_right = authorization in ("", username) and self.is_right(username, password)
                return username if is_right else None
            case FindScramKeys(username):
                return self.keys_of(username)
            case _:
                return None  # FindSecret, CheckCertificate: their needs are not among ours

    def keys_of(self, username: str) -> ScramKeys:
        """Of an account that is not there: false ones, so that nobody learns who has one."""
        return self.keys.get(username) or false_scram_keys(username, self.secret)

    def is_right(self, username: str, password: str) -> bool:
        """As much work for an account that is not there."""
        kept = self.keys_of(username)
        try:
            given = derive_scram_keys(password, salt=kept.salt, iterations=kept.iterations)
        except ValueError:
            return False
        return hmac.compare_digest(given.stored_key, kept.stored_key) and not kept.is_false


class Conversation:
    """One connection.  `username` says who has logged in, "" for nobody yet."""

    def __init__(self, accounts: Accounts, bindings: ChannelBindings) -> None:
        mechanisms = offered(accounts.needs_met, is_encrypted=bool(bindings.data), has_certificate=False)
        self.start_of_exchange = Start(bindings, offers_plus="SCRAM-SHA-256-PLUS" in mechanisms, hostname=HOSTNAME)
        self.session = ServerSession(hostname=HOSTNAME, extensions=Extensions(auth=mechanisms), limits=SessionLimits())
        self.accounts = accounts
        self.exchange: Exchange | None = None
        self.username = ""

    def start(self) -> bytes:
        """The peer has connected: return what to write."""
        self.session.greet(GREETING)
        return self.session.data_to_send()

    def receive(self, octets: bytes) -> bytes:
        """The peer has sent `octets`: return what to write."""
        self.session.receive_data(octets)
        while not isinstance(event := self.session.next_event(), Wait):
            answer = self.answer(event)
            if answer is not None:
                self.session.reply(answer)
        return self.session.data_to_send()

    def answer(self, event: Event) -> Reply | None:
        """The reply to a question, None for any other event."""
        match event:
            case events.Hello():
                return OK
            case events.Authenticate(mechanism, initial):
                # The session lets only those mechanisms pass that it offers.
                self.exchange = begin(mechanism, self.start_of_exchange)
                return self.proceed(self.exchange, initial)
            case events.AuthResponse(data) if self.exchange is not None:
                return self.proceed(self.exchange, data)
            case events.Mail():
                return NO_MAIL_HERE if self.username else LOGIN_FIRST
            case events.Verify() | events.Expand():
                return LOGIN_FIRST
        return None

    def proceed(self, exchange: Exchange, response: bytes | None) -> Reply:
        """Feed a response, answer what the exchange asks, and say where that leads."""
        step: Step = exchange.respond(response)
        while True:
            match step:
                case Challenge(data):
                    return Reply.of(334, "", base64.b64encode(data).decode("ascii"))
                case Succeeded(username, authorization):
                    if authorization not in ("", username):
                        return replies.AUTH_FAILED  # nobody acts for another here
                    self.username = username
                    return replies.AUTH_SUCCEEDED
                case Failed(Trouble.MALFORMED):
                    return replies.AUTH_MALFORMED
                case Failed():
                    return replies.AUTH_FAILED  # a real server counts these, by name, by network, by evidence
                case question:
                    step = exchange.answer(self.accounts.answer(question))
