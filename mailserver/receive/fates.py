"""What becomes of each recipient's copy when all verdicts are known, and what the sender hears.  Pure.

A verdict is one recipient's; a reply is everybody's, except in LMTP (RFC 2033 section 4.2) and where the peer has asked for
replies of their own (PRDR).  So where one reply has to do:

* A yes for one is the answer.  What another refuses is held, or its sender gets a report; what another defers is held and judged
  again.  Neither holds up the copy that was accepted, and a *later* never becomes a *no*.
* Without a yes, one *later* is the answer for all: the sender comes again, and whoever refuses does so again.  Where it
  speaks for some who refuse, it is nobody's own (`Decision.is_for_all`).
* Where all refuse, the first refusal is the answer.  A copy that would be discarded does not turn that into a yes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mailserver.mail.answers import Defer, Discard, Quarantine, Refuse, Verdict
from mailserver.mail.quick import quick

__all__ = ["DELIVERED", "Answers", "CopyFate", "Decision", "Fate", "decide", "fate_of"]


class Fate(enum.IntEnum):
    """What becomes of a copy, the mildest first.

    ASIDE: into Junk, or held.  HELD: held until somebody decides.  UNDECIDED: held, and judged again.  WITHHELD: held for good,
    since it was refused.  RETURNED: not delivered, and its sender gets a report.  DISCARDED: not delivered, recorded.  REFUSED:
    not taken, as the sender hears.
    """

    DELIVERED = 0
    ASIDE = 1
    HELD = 2
    UNDECIDED = 3
    WITHHELD = 4
    RETURNED = 5
    DISCARDED = 6
    REFUSED = 7


class CopyFate(NamedTuple):
    """The fate of one recipient's copies, and why, "" where they are delivered."""

    fate: Fate
    why: str = ""


DELIVERED = CopyFate(Fate.DELIVERED)


class Answers(enum.Enum):
    """ONE reply for all recipients, ONE that is the same for all or EACH its own (`WHERE_NEEDED`), always EACH its own."""

    ONE = "one"
    WHERE_NEEDED = "where needed"
    EACH = "each"


@quick
@dataclass(frozen=True, slots=True)
class Decision:
    """`fates` are in the order of the recipients.  `refusal` is what the sender hears where nothing is committed, None where
    something is.  `each`: the recipients' own replies are given, each a refusal where its fate is REFUSED."""

    fates: tuple[CopyFate, ...]
    refusal: Refuse | Defer | None
    each: bool

    @property
    def is_for_all(self) -> bool:
        """The refusal is a *later* that speaks for some who refuse, too."""
        return isinstance(self.refusal, Defer) and any(one.fate is Fate.WITHHELD for one in self.fates)


def fate_of(verdict: Verdict, aside: str = "", discarded: str = "", holds: bool = False) -> CopyFate:
    """What one verdict makes of a copy.

    `aside` and `discarded` say why an earlier stage has put it aside, or thrown it away; `holds`: that one wants it held.
    """
    if discarded:
        return CopyFate(Fate.DISCARDED, discarded)
    if isinstance(verdict, Refuse):
        return CopyFate(Fate.WITHHELD, verdict.why)
    if isinstance(verdict, Defer):
        return CopyFate(Fate.UNDECIDED, verdict.why)
    if isinstance(verdict, Discard):
        return CopyFate(Fate.DISCARDED, verdict.why or "discarded")
    if isinstance(verdict, Quarantine):
        is_held = holds or verdict.hold
        return CopyFate(Fate.HELD if is_held else Fate.ASIDE, aside or verdict.why or "quarantine")
    return CopyFate(Fate.HELD if holds else Fate.ASIDE, aside) if aside else DELIVERED


def decide(
    verdicts: Sequence[Verdict],
    aside: Sequence[str],
    discarded: Sequence[str],
    *,
    answers: Answers,
    reports: bool,
    holds: Sequence[bool] = (),
) -> Decision:
    """The verdicts on each recipient's copy, at least one.  `reports`: a sender of a refused copy is told of it.

    `aside`, `discarded` and `holds` as in `fate_of`, for each recipient.
    """
    fates = list(map(fate_of, verdicts, aside, discarded, holds or (False,) * len(verdicts)))
    kinds = {one.fate for one in fates}
    taken = bool(kinds & {Fate.DELIVERED, Fate.ASIDE, Fate.HELD})
    mixed = bool(kinds & {Fate.WITHHELD, Fate.UNDECIDED}) and len(kinds) > 1
    if answers is Answers.EACH or (answers is Answers.WHERE_NEEDED and mixed):
        refused = [one if one.fate not in (Fate.WITHHELD, Fate.UNDECIDED) else CopyFate(Fate.REFUSED, one.why) for one in fates]
        return Decision(tuple(refused), None, True)
    if taken:
        if reports:
            fates = [CopyFate(Fate.RETURNED, one.why) if one.fate is Fate.WITHHELD else one for one in fates]
        return Decision(tuple(fates), None, False)
    for wanted, kind in ((Fate.UNDECIDED, Defer), (Fate.WITHHELD, Refuse)):
        for verdict, one in zip(verdicts, fates, strict=True):
            if one.fate is wanted and isinstance(verdict, kind):
                return Decision(tuple(fates), verdict, False)
    return Decision(tuple(fates), None, False)
