"""What a SASL exchange wants next, as values (RFC 4422).

An exchange (`mailserver.sasl.exchanges`) is fed the client's responses and returns one of these.  A *question* is for the caller,
who knows the accounts: its answer goes back with `Exchange.answer`, which returns the next step.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = [
    "Challenge",
    "ChannelBindings",
    "CheckCertificate",
    "CheckPassword",
    "Failed",
    "FindScramKeys",
    "FindSecret",
    "Question",
    "ScramKeys",
    "Step",
    "Succeeded",
    "Trouble",
]


@dataclass(frozen=True, slots=True)
class ChannelBindings:
    """What both ends of one TLS connection know, by type: ``tls-exporter`` (RFC 9266), ``tls-server-end-point`` (RFC 5929).

    Empty in the clear.
    """

    data: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps for SCRAM-SHA-256 in place of the password (RFC 5803).

    With `is_false` keys, those of nobody, no exchange succeeds.
    """

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    is_false: bool = False


# --- Steps ---


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send these octets (base64 in SMTP's 334) and feed the client's response.

    `is_prompt` says that they hold nothing which an initial response would need to know, `is_proof` that they tell the client
    that its password was right.
    """

    data: bytes
    is_prompt: bool = False
    is_proof: bool = False


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """*Question.* Is this the account's password?  Answer the account's name, or None.

    `authorization` is "" or whom the client wants to be.
    """

    username: str
    password: str = field(repr=False)
    authorization: str = ""


@dataclass(frozen=True, slots=True)
class FindScramKeys:
    """*Question.* The account's keys.  Answer `ScramKeys`: stable false ones for an account that is not there or has none."""

    username: str


@dataclass(frozen=True, slots=True)
class FindSecret:
    """*Question.* The account's password itself, for CRAM-MD5.  Answer its octets, or None."""

    username: str


@dataclass(frozen=True, slots=True)
class CheckCertificate:
    """*Question.* EXTERNAL: which account does the TLS client certificate stand for?  Answer its name, or None.

    `authorization` is "" or whom the client wants to be.
    """

    authorization: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The client is who it says, `username`.  `authorization` is "" or another name that it wants to act for."""

    username: str
    authorization: str = ""


class Trouble(enum.Enum):
    """Why an exchange failed."""

    MALFORMED = "the response does not have the form of the mechanism"
    CREDENTIALS = "the credentials are wrong"
    CHANNEL_BINDING = "the channel binding does not match: somebody stands in between, or a client's fault"


@dataclass(frozen=True, slots=True)
class Failed:
    """It ends here.  `username` is "" where none was given; `evidence` are octets that tell one wrong password from another, b""
    where the mechanism shows none.
    """

    trouble: Trouble
    username: str = ""
    evidence: bytes = field(default=b"", repr=False)


Question = CheckPassword | FindScramKeys | FindSecret | CheckCertificate
Step = Challenge | Question | Succeeded | Failed
