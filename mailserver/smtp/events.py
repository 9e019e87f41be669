"""What a peer did, as values.

`ServerSession.next_event` returns these one at a time.  An event marked *question* must be answered with
`ServerSession.reply` before the next one is given (RFC 5321 section 4.3.1: one reply for each command, in order); the
others need no answer, since the session has answered them itself or nothing has to be said.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mailserver.mail.address import Address
from mailserver.mail.envelope import MailParameters, RecipientParameters
from mailserver.mail.quick import quick
from mailserver.mail.reply import Reply

__all__ = [
    "AuthResponse",
    "Authenticate",
    "Chunk",
    "Closed",
    "Data",
    "EndOfData",
    "Event",
    "Expand",
    "Extended",
    "Hello",
    "Help",
    "Mail",
    "Noop",
    "Quit",
    "Rcpt",
    "Rejected",
    "Reset",
    "StartTLS",
    "Verify",
    "Wait",
]


class Wait(enum.Enum):
    """Why there is no event now."""

    NEED_DATA = "need data"  # feed more octets
    PAUSED = "paused"  # a question is open: answer it first
    CLOSED = "closed"  # the session is over: send what is left and close


@dataclass(frozen=True, slots=True)
class Hello:
    """*Question.* EHLO, HELO or LHLO.  A positive reply is written by the session itself (with the extensions)."""

    verb: str
    name: str


@quick
@dataclass(frozen=True, slots=True)
class Mail:
    """*Question.* MAIL FROM; `sender` None is the null reverse-path."""

    sender: Address | None
    parameters: MailParameters


@quick
@dataclass(frozen=True, slots=True)
class Rcpt:
    """*Question.* RCPT TO.  `<postmaster>` without a domain has the domain ""."""

    address: Address
    parameters: RecipientParameters


@dataclass(frozen=True, slots=True)
class Data:
    """*Question.* DATA, or the first BDAT of a message (`chunking`).

    A positive reply lets the content in (354 is written for DATA, nothing for BDAT); a refusal of BDAT is written
    after the chunk has been read and thrown away.  A refusal ends the transaction.
    """

    chunking: bool


@quick
@dataclass(frozen=True, slots=True)
class Chunk:
    """Octets of the content, dots undone.  No answer."""

    data: bytes


@quick
@dataclass(frozen=True, slots=True)
class EndOfData:
    """*Question.* The content is complete, `size` octets long.

    `fault` is not None where the message must not be accepted (too large; a stray CR or LF where those are refused): the reply to
    give.  From the fault on no more chunks came, so what there is of the content is to be thrown away.  With BDAT it may come
    before LAST.  `stray_in_header`: in the header section stood a CR or LF outside CRLF, which has been mended.
    For LMTP the answer is one reply for each accepted recipient (RFC 2033 section 4.2): `ServerSession.reply_each`, or
    `ServerSession.reply` where it is the same for all.  Whatever the answer, the transaction is over.
    """

    size: int
    fault: Reply | None
    stray_in_header: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """RSET, or EHLO during a transaction (its `Hello` follows): the transaction is over.  Answered by the session."""

    verb: str = "RSET"


@dataclass(frozen=True, slots=True)
class Noop:
    """NOOP.  Answered by the session."""


@dataclass(frozen=True, slots=True)
class Verify:
    """*Question.* VRFY.  `smtputf8`: the reply may hold UTF-8 (RFC 6531 section 3.7.4.2)."""

    text: str
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Expand:
    """*Question.* EXPN.  `smtputf8` as in `Verify`."""

    text: str
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Extended:
    """*Question.* A command of an extension beside the server's own (`Extensions.added`), and what follows its verb."""

    verb: str
    argument: str


@dataclass(frozen=True, slots=True)
class Help:
    """HELP.  Answered by the session."""

    topic: str


@dataclass(frozen=True, slots=True)
class StartTLS:
    """*Question.* STARTTLS.  After a 220 reply the caller shakes hands and calls `ServerSession.tls_established`."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """*Question.* AUTH.  `initial` is the decoded initial response, None where there was none.

    Answer with a 334 reply (text: the base64 challenge), which leads to an `AuthResponse`, or with a final reply.
    """

    mechanism: str
    initial: bytes | None


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """*Question.* The decoded answer to a 334 challenge.  A cancelled exchange (``*``) is answered by the session."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT.  Answered by the session, which is CLOSED then."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The session has refused a command by itself; `command` is its verb or "" where it was not known.

    With "AUTH" it also ends the exchange that was going on (cancelled, or not base64).
    """

    command: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Closed:
    """The session has said 421 or 5yz and ends, for the reason given."""

    reply: Reply


Event = (
    Hello
    | Mail
    | Rcpt
    | Data
    | Chunk
    | EndOfData
    | Reset
    | Noop
    | Verify
    | Expand
    | Extended
    | Help
    | StartTLS
    | Authenticate
    | AuthResponse
    | Quit
    | Rejected
    | Closed
)
