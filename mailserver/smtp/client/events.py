"""What a client session tells its caller, as values.

Whatever ends a transaction, `Done` comes first and has an outcome for each recipient; what became of the connection follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.mail.answers import Outcome
from mailserver.mail.reply import Reply
from mailserver.smtp.client.limits import Phase
from mailserver.smtp.client.offer import Offer

__all__ = [
    "AuthRefused",
    "Authenticated",
    "Broken",
    "ClientEvent",
    "Closing",
    "Done",
    "Greeted",
    "Lost",
    "Ready",
    "ReadyForTLS",
    "Refused",
    "SendContent",
    "TLSRefused",
]


@dataclass(frozen=True, slots=True)
class Greeted:
    """The peer has said 220; EHLO (LHLO) goes out with the next `data_to_send`."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Ready:
    """The peer has answered EHLO, LHLO, HELO or RSET: a transaction may begin."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class ReadyForTLS:
    """The peer has said 220 to STARTTLS: shake hands, then `ClientSession.tls_established`."""


@dataclass(frozen=True, slots=True)
class TLSRefused:
    """The peer does not want TLS now; the session is where it was before STARTTLS."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The peer has let us in: a transaction may begin."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class AuthRefused:
    """The peer does not let us in; the session is where it was before AUTH.

    `doubt` is why we have broken the login off ourselves, "" where the peer has refused it.
    """

    reply: Reply
    doubt: str


@dataclass(frozen=True, slots=True)
class SendContent:
    """At least one recipient was accepted: stream the content, from its beginning.

    It comes more than once in a transaction where the peer takes fewer recipients at a time than there are.
    """


@dataclass(frozen=True, slots=True)
class Done:
    """The transaction is over.

    `outcomes` has one for each recipient of the request, in their order.  `sender_reply` is the answer to MAIL, None where
    it was not said or not answered; `content_reply` the last answer to content (or to DATA, where that was refused).
    """

    outcomes: tuple[Outcome, ...]
    sender_reply: Reply | None
    content_reply: Reply | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer wants nothing of us (4yz or 5yz to the greeting or to EHLO).  All that is left is `ClientSession.quit`."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Closing:
    """The peer has said 421 and closes the connection (RFC 5321 section 3.8)."""

    reply: Reply
    phase: Phase


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection has gone, or the caller has given it up, in `phase`."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Broken:
    """What the peer said in `phase` is no SMTP, or was not asked for.  Nothing that follows it could be trusted."""

    phase: Phase
    why: str


ClientEvent = (
    Greeted
    | Ready
    | ReadyForTLS
    | TLSRefused
    | Authenticated
    | AuthRefused
    | SendContent
    | Done
    | Refused
    | Closing
    | Lost
    | Broken
)
