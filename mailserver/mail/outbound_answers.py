"""The answers of those who are asked before an attempt to send a message on, and before a report is made."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailserver.mail.edits import AddHeader, ReplaceRecipient

__all__ = [
    "AttemptVerdict",
    "GiveUp",
    "Postpone",
    "Proceed",
    "ReportVerdict",
    "SendReport",
    "SuppressReport",
]

ENHANCED_PERMANENT = re.compile(r"5\.[0-9]{1,3}\.[0-9]{1,3}")  # RFC 3463 section 2


# --- Before an attempt. ---


@dataclass(frozen=True, slots=True)
class Proceed:
    """Try it.

    `edits` are for this destination alone: header lines that are put above the message, and at most one `ReplaceRecipient`
    that names the destination's address and exactly one other.
    """

    edits: tuple[AddHeader | ReplaceRecipient, ...] = ()


@dataclass(frozen=True, slots=True)
class Postpone:
    """Not now: it counts as an attempt that was deferred, and the queue's schedule says when the next one is."""

    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Never.  Its sender has a report only where he is known by his login: others may have forged the address.

    `enhanced` is the enhanced status code in the report (RFC 3463).  Raises ValueError.
    """

    why: str
    enhanced: str = "5.7.1"

    def __post_init__(self) -> None:
        if ENHANCED_PERMANENT.fullmatch(self.enhanced) is None:
            raise ValueError(f"not the enhanced code of a failure: {self.enhanced!r}")


AttemptVerdict = Proceed | Postpone | GiveUp


# --- Before a report. ---


@dataclass(frozen=True, slots=True)
class SendReport:
    """Make it.  `explanation` is put before our own words, `header` above our own fields; "" and () for a report as it is."""

    explanation: str = ""
    header: tuple[AddHeader, ...] = ()


@dataclass(frozen=True, slots=True)
class SuppressReport:
    """Make none: the sender is never told of this.  It stands on the message's road."""

    why: str


ReportVerdict = SendReport | SuppressReport
