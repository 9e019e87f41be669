"""What of an accepted message is not simply delivered: copies that are held, and refusals of which the sender is told.

They are handed to the queue with the message and become durable with it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from mailserver.mail.answers import Finding
from mailserver.mail.reply import Reply

__all__ = ["Hold", "HoldKind", "Returned", "SetApart", "put_aside", "why_put_aside"]

OURS = "mailserver"
PUT_ASIDE = "put_aside"


class HoldKind(enum.StrEnum):
    """What holds a copy.  QUARANTINED: a verdict put it aside.  REFUSED: a verdict refused it, when its sender had a yes for
    another copy.  UNDECIDED: no verdict could be had; it is judged again."""

    QUARANTINED = "quarantined"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Hold:
    """A copy that the queue holds.  It ends discarded and recorded, never with a report.  `why` is for the administrator;
    `findings` are for those who judge it again."""

    kind: HoldKind
    why: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """A copy that is refused after a yes for another, and whose sender is known: he gets a report with `reply`."""

    reply: Reply
    why: str


SetApart = Hold | Returned


def put_aside(why: str) -> Finding:
    """What is written down of an undecided copy that an earlier verdict has put aside: it stays so, whoever judges it later."""
    return Finding(PUT_ASIDE, 0.0, why, source=OURS)


def why_put_aside(findings: Iterable[Finding]) -> str:
    """The reason, "" where no earlier verdict has put the copy aside."""
    return next((one.evidence or PUT_ASIDE for one in findings if (one.source, one.name) == (OURS, PUT_ASIDE)), "")
