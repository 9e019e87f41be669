"""The answers that parts give each other: a filter's verdict, a recipient's route, an attempt's outcome."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mailserver.former import former_names
from mailserver.mail.added_header import AddHeader
from mailserver.mail.address import Address
from mailserver.mail.quick import quick
from mailserver.mail.reply import Reply

__all__ = [
    "NO_FACTS",
    "Accept",
    "Defer",
    "Delayed",
    "Delivered",
    "Discard",
    "Disconnect",
    "Failed",
    "Finding",
    "Local",
    "Mailbox",
    "NotMine",
    "Outcome",
    "Pass",
    "Quarantine",
    "Refuse",
    "Refused",
    "Remote",
    "Route",
    "Signal",
    "Verdict",
]


JUNK = ("Junk",)
ENHANCED_TRANSIENT = re.compile(r"4\.[0-9]{1,3}\.[0-9]{1,3}")  # RFC 3463 section 2
ENHANCED_PERMANENT = re.compile(r"5\.[0-9]{1,3}\.[0-9]{1,3}")
REPLY_LINES_MOST = 32
REPLY_LINE_OCTETS_MOST = 480  # RFC 5321 section 4.5.3.1.5: 512 with code, enhanced code and line end
CLOSING = 421  # closes the connection: that is `Disconnect`


# --- Finding: what a filter has seen. ---


class _NoFacts(Mapping[str, Any]):
    """A mapping without a key, which may be a default."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"


NO_FACTS: Mapping[str, Any] = _NoFacts()


@quick
@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a filter has seen, for those who are asked after it (`Envelope.findings`) and for `explain`.

    `name` says what it is ("spf"), `score` how much it speaks against the message (below 0: for it).  `evidence` is for
    people, at most 1,000 characters; `properties` are for programs: at most 50 texts, numbers, booleans or None by name.
    `source` is the filter's name, which the core sets.  `tags` are header fields for the copies of those whom it concerns: a
    recipient's alone where his copy was judged, else everybody's.  They are written at local delivery, at most 4 KiB for a copy.
    """

    name: str
    score: float = 0.0
    evidence: str = ""
    properties: Mapping[str, str | int | float | bool | None] = field(default=NO_FACTS, hash=False)
    source: str = ""
    tags: tuple[AddHeader, ...] = ()


# --- Verdict: a filter's answer.  The worst wins, but for what an explicit Accept takes away. ---
#
# Each may carry `findings`, and `notes` for whoever is asked later on the same connection: `peer.notes[filter's name][key]`.


@quick
@dataclass(frozen=True, slots=True)
class Pass:
    """Nothing against it."""

    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)


@quick
@dataclass(frozen=True, slots=True)
class Signal:
    """Something was seen: a `Pass` with one finding more, whose evidence is `why`."""

    name: str
    score: float
    why: str
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)


@quick
@dataclass(frozen=True, slots=True)
class Quarantine:
    """Put it aside: a copy for a mailbox goes to its Junk folder, a copy for another host waits, held, for the postmaster.

    A verdict on a peer holds for every message of the connection, one on a sender or a content for the message, one on a
    recipient for that recipient alone.  `why` stands in the log, in `explain` and with what is held.  With `hold` a copy
    for a mailbox waits, too, whatever `policy.quarantine` says: somebody is to decide about it (`Services.quarantine`).
    """

    why: str
    hold: bool = field(default=False, kw_only=True)
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)


@quick
@dataclass(frozen=True, slots=True)
class Defer:
    """Try later: a 4yz reply.  `why` goes to the log and to `explain`, never to the peer.

    `enhanced` is the enhanced status code of the reply where a registered one says it better than 4.7.1 (RFC 5248).  `reply` is
    what the peer hears in place of the server's own words: 4yz, but for 421, with at most 32 lines of 480 octets.
    """

    why: str
    enhanced: str = "4.7.1"
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)
    reply: Reply | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if ENHANCED_TRANSIENT.fullmatch(self.enhanced) is None:
            raise ValueError(f"not the enhanced code of a deferral: {self.enhanced!r}")
        if self.reply is not None:
            _check_reply(self.reply, 400)


@quick
@dataclass(frozen=True, slots=True)
class Refuse:
    """No: a 5yz reply.  `why` goes to the log and to `explain`, never to the peer.

    `enhanced` is the enhanced status code of the reply where a registered one says it better than 5.7.1 (RFC 5248).  `reply` is
    what the peer hears in place of the server's own words: 5yz, with at most 32 lines of 480 octets.
    """

    why: str
    enhanced: str = "5.7.1"
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)
    reply: Reply | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if ENHANCED_PERMANENT.fullmatch(self.enhanced) is None:
            raise ValueError(f"not the enhanced code of a refusal: {self.enhanced!r}")
        if self.reply is not None:
            _check_reply(self.reply, 500)


@quick
@dataclass(frozen=True, slots=True)
class Accept:
    """An explicit yes from a list: it takes away suspicion, not what a filter marked `hard` has said."""

    why: str
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)


@quick
@dataclass(frozen=True, slots=True)
class Discard:
    """Say 250 and throw it away: the one exception to "nothing is lost", recorded as `discarded`.

    From MAIL on.  At MAIL and for a content it holds for the whole message, at a recipient's stages for his copy alone.
    """

    why: str
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)


@quick
@dataclass(frozen=True, slots=True)
class Disconnect:
    """Say 421 and close the connection.  At connect, after EHLO, HELO or LHLO, and at MAIL."""

    why: str
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, object] = field(default=NO_FACTS, kw_only=True, hash=False)


def _check_reply(reply: Any, first: int) -> None:  # a plugin's: of any type
    """Raises ValueError for what is no reply with one of the hundred codes from `first` on."""
    if type(reply) is not Reply:
        raise ValueError(f"the reply of a verdict is a Reply, not {type(reply).__name__}")
    if type(reply.code) is not int or not first <= reply.code < first + 100 or reply.code == CLOSING:
        raise ValueError(f"not the code of such a verdict: {reply.code!r}")
    pattern = ENHANCED_TRANSIENT if first == 400 else ENHANCED_PERMANENT
    if reply.enhanced and pattern.fullmatch(reply.enhanced) is None:
        raise ValueError(f"not the enhanced code of such a verdict: {reply.enhanced!r}")
    if len(reply.lines) > REPLY_LINES_MOST or any(len(line.encode()) > REPLY_LINE_OCTETS_MOST for line in reply.lines):
        raise ValueError(f"more than {REPLY_LINES_MOST} lines, or one of more than {REPLY_LINE_OCTETS_MOST} octets")


Verdict = Pass | Signal | Quarantine | Defer | Refuse | Accept | Discard | Disconnect


# --- Route: where a recipient goes. ---


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A local user's mailbox.  Each part comes from a directory, never from the wire.

    `folder` is the path below the inbox (``("lists", "python")``), () for the inbox itself.  `system` says that
    the user is one of the operating system's, whose mail is written with that user's identity.  `folder_must_exist`
    says that the folder's name came with the address (a subaddress): where the user has no such folder, the inbox gets it.
    `junk` says that the copy was put aside (`Quarantine`): it goes to Junk in place of `folder`, unless it would only be a
    second copy of what stands in `folder` already.  `reader`: it is nobody's mailbox; the component of this name reads the mail
    (`IMailReader`).
    """

    user: str
    domain: str
    folder: tuple[str, ...] = ()
    system: bool = False
    folder_must_exist: bool = False
    junk: bool = False
    reader: str = ""

    @property
    def place(self) -> tuple[str, ...]:
        """The folder that gets the copy: `folder`, or Junk."""
        return JUNK if self.junk else self.folder


@quick
@dataclass(frozen=True, slots=True)
class Local:
    """Deliver here.  `address` is the final address after aliases, for Delivered-To."""

    address: Address
    mailbox: Mailbox


@quick
@dataclass(frozen=True, slots=True)
class Remote:
    """Send on to another host."""

    address: Address


@dataclass(frozen=True, slots=True)
class Refused:
    """Nowhere to go: `reply` is what RCPT answers, `why` what `explain` says."""

    reply: Reply
    why: str


@dataclass(frozen=True, slots=True)
class NotMine:
    """What a plugin's router answers in place of routes: it does not know the address, and the `[domain]` tables decide."""


Route = Local | Remote | Refused


# --- Outcome: what one attempt did to one recipient. ---
#
# `peer` is the host that was asked ("" where it was none but ourselves), `phase` how far the dialogue had come ("RCPT"),
# `dialogue` what was said to and fro, without content and secrets.  To make one outcome from another, use `dataclasses.replace`,
# so that these go along.


@dataclass(frozen=True, slots=True)
class Delivered:
    """It is there (durably so only after the delivery's `flush`).

    `notifies` says that the next host takes delivery reports upon itself (it offers DSN, RFC 3461 section 5.2.1).
    """

    note: str = ""
    peer: str = ""
    notifies: bool = False


@dataclass(frozen=True, slots=True)
class Delayed:
    """Not now.  `reply` is the peer's or our own 4yz.

    `put_off_seconds` says that nobody was asked: that counts as no attempt, and it is to come again in so many seconds.
    """

    reply: Reply
    note: str = ""
    peer: str = ""
    phase: str = ""
    dialogue: tuple[str, ...] = field(default=(), repr=False)
    put_off_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Never.  `reply` is the peer's or our own 5yz.  With `reports` False its sender is not told of it."""

    reply: Reply
    note: str = ""
    peer: str = ""
    phase: str = ""
    dialogue: tuple[str, ...] = field(default=(), repr=False)
    reports: bool = True


Outcome = Delivered | Delayed | Failed

__getattr__ = former_names(__name__)
