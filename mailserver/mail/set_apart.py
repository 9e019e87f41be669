"""What of an accepted message is not simply delivered: copies that are held, and refusals of which the sender is told.

They are handed to the queue with the message and become durable with it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from mailserver.mail.answers import Finding
from mailserver.mail.quick import quick
from mailserver.mail.reply import Reply

__all__ = [
    "Hold",
    "HoldKind",
    "Holder",
    "Returned",
    "SetApart",
    "for_judges",
    "found_before",
    "found_by_filters",
    "held_by",
    "holders_of",
    "kept_findings",
    "let_through",
    "put_aside",
    "released_of",
    "with_holders",
    "without_holders",
    "why_put_aside",
]

OURS = "mailserver"
PUT_ASIDE = "put_aside"
HELD_BY = "held_by"
RELEASED = "released"
JUDGED = Finding("judged", source=OURS)
MARKS = (PUT_ASIDE, HELD_BY, RELEASED, JUDGED.name)
ASKED_AGAIN = ("content_for", "score")


class HoldKind(enum.StrEnum):
    """What holds a copy.  QUARANTINED: a verdict put it aside.  REFUSED: a verdict refused it, when its sender had a yes for
    another copy.  UNDECIDED: no verdict could be had; it is judged again."""

    QUARANTINED = "quarantined"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Hold:
    """A copy that the queue holds.  It ends discarded and recorded, never with a report.  `why` is for the administrator;
    `findings` say who holds it and what was found (`kept_findings`)."""

    kind: HoldKind
    why: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """A copy that is refused after a yes for another, and whose sender is known: he gets a report with `reply`."""

    reply: Reply
    why: str


SetApart = Hold | Returned


@quick
@dataclass(frozen=True, slots=True)
class Holder:
    """Who stands in the way of a copy: the filter, the stage at which it was asked, why; `hold` as in `Quarantine`."""

    filter: str
    stage: str
    why: str
    hold: bool = False

    @property
    def is_asked_again(self) -> bool:
        """It judges a recipient's copy, which may be had again; what was asked before that was asked once for all."""
        return self.stage in ASKED_AGAIN


def with_holders(before: tuple[Holder, ...], now: tuple[Holder, ...]) -> tuple[Holder, ...]:
    """Both, who is there twice once."""
    if not before:
        return now
    known = {one.filter for one in before}
    return before + tuple([one for one in now if one.filter not in known])


# --- What the store keeps with a copy: findings, those of the core among them. ---
#
# Who holds it, whether an earlier stage has put it aside, what was found before the copy was judged; and behind `judged`, for
# people, what those have found who are asked again.


def kept_findings(holders: Iterable[Holder], before: tuple[Finding, ...], found: tuple[Finding, ...] = ()) -> tuple[Finding, ...]:
    """What is kept of a copy: `before` was known when it was judged, `found` came of that."""
    holders = tuple(holders)
    early = next((one for one in holders if not one.is_asked_again), None)
    aside = (put_aside(early.why),) if early is not None else ()
    return (*map(held_by, holders), *aside, *before, *((JUDGED, *found) if found else ()))


def held_by(holder: Holder) -> Finding:
    """What is written down of a holder."""
    return Finding(HELD_BY, 0.0, holder.why, {"filter": holder.filter, "stage": holder.stage, "hold": holder.hold}, OURS)


def without_holders(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings of a verdict that was given again, without who holds the copy."""
    return tuple([one for one in findings if (one.source, one.name) != (OURS, HELD_BY)])


def holders_of(findings: Iterable[Finding]) -> tuple[Holder, ...]:
    """Who holds the copy; () where that was not written down."""
    return tuple(
        [
            Holder(str(one.properties.get("filter", "")), str(one.properties.get("stage", "")), one.evidence,
                   one.properties.get("hold") is True)
            for one in findings
            if (one.source, one.name) == (OURS, HELD_BY)
        ]
    )  # fmt: skip


def for_judges(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """For those who judge the copy again: what was known of it before, whether it was put aside, and who has let it go."""
    found: list[Finding] = []
    for one in findings:
        if one is JUDGED or (one.source, one.name) == (OURS, JUDGED.name):
            break
        if (one.source, one.name) != (OURS, HELD_BY):
            found.append(one)
    return tuple(found)


def found_before(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What was known of a copy before it was judged, and who has let it go."""
    return tuple([one for one in for_judges(findings) if (one.source, one.name) != (OURS, PUT_ASIDE)])


def found_by_filters(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """For people: all that filters have found."""
    return tuple([one for one in findings if one.source != OURS or one.name not in MARKS])


def let_through(findings: tuple[Finding, ...], by: str, filters: frozenset[str] = frozenset()) -> tuple[Finding, ...] | None:
    """What is kept of a copy that is to be judged by the others, when these filters (none: all who hold it) have let it go.

    None where none of them holds it.
    """
    holders = holders_of(findings)
    gone = dict.fromkeys([one.filter for one in holders if not filters or one.filter in filters])
    if not gone:
        return None
    early = [one for one in holders if not one.is_asked_again and one.filter not in gone]
    before = found_before(findings)
    known = released_of(before)
    marks = tuple([Finding(RELEASED, 0.0, by, {"filter": name}, OURS) for name in gone if name not in known])
    return kept_findings(early, (*marks, *before))


def released_of(findings: Iterable[Finding]) -> frozenset[str]:
    """The filters that have let the copy go, or that somebody has overruled: they are not asked about it again."""
    return frozenset([str(one.properties.get("filter", "")) for one in findings if (one.source, one.name) == (OURS, RELEASED)])


def put_aside(why: str) -> Finding:
    """What is written down of an undecided copy that an earlier verdict has put aside: it stays so, whoever judges it later."""
    return Finding(PUT_ASIDE, 0.0, why, source=OURS)


def why_put_aside(findings: Iterable[Finding]) -> str:
    """The reason, "" where no earlier verdict has put the copy aside."""
    return next((one.evidence or PUT_ASIDE for one in findings if (one.source, one.name) == (OURS, PUT_ASIDE)), "")
