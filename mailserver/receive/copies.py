"""The copies of an accepted message, from the routes of its recipients and their fates.  Pure.

Several routes may lead to one mailbox and folder: two recipients, an alias beside its member, a name in other letters.  It gets
one copy.  Each route stays a destination of its own, so that each recipient has an answer, a report, a line in the queue; the
delivery makes one copy for all destinations in one place.  The mildest fate among them holds for the copy: it is put aside, held
or returned only where it would be by every route.  The header lines of the copy are those of its first destination, so the
mildest routes come first, in the order of RCPT.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from mailserver.mail.answers import Finding, Local, Remote
from mailserver.mail.envelope import Recipient
from mailserver.mail.parcel import Destination, leaves_by_alias, place_of
from mailserver.mail.quick import quick
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Hold, HoldKind, Returned, SetApart
from mailserver.receive.fates import DELIVERED, CopyFate, Fate

__all__ = ["Copies", "RecipientRoute", "copies_for", "copies_of"]

NOTHING: Mapping[Any, Any] = MappingProxyType({})
HOLDS = {
    Fate.ASIDE: HoldKind.QUARANTINED,
    Fate.HELD: HoldKind.QUARANTINED,
    Fate.UNDECIDED: HoldKind.UNDECIDED,
    Fate.WITHHELD: HoldKind.REFUSED,
}


@quick
@dataclass(frozen=True, slots=True)
class RecipientRoute:
    """One route of a recipient and the fate of the copy that goes there.

    `reply` is the refusal of one that is RETURNED; `findings` are those of one that is kept (`mail.set_apart`).  `lines` are the
    tags of this recipient's copy (`mail.tags`).
    """

    recipient: Recipient
    route: Local | Remote
    fate: CopyFate = DELIVERED
    reply: Reply | None = None
    findings: tuple[Finding, ...] = ()
    lines: bytes = b""


@quick
@dataclass(frozen=True, slots=True)
class Copies:
    """What is committed.  `set_apart` has each destination (by its index) that is held or returned; `in_junk` for each reason the
    recipients whose copies go to Junk."""

    destinations: tuple[Destination, ...]
    set_apart: Mapping[int, SetApart]
    in_junk: Mapping[str, list[str]]


def _always() -> bool:
    return True


def copies_of(
    recipients: Sequence[Recipient], routes: Sequence[Sequence[Local | Remote]], *, is_proven: Callable[[], bool] = _always
) -> Copies:
    """The destinations of recipients all of whose copies are delivered, nearly always: each with its routes, in the order of
    RCPT.  Where `is_proven()` says no the sender hears nothing of what leaves by an alias; it is asked once something does."""
    destinations: list[Destination] = []
    for recipient, every in zip(recipients, routes, strict=True):
        for route in every:
            quiet = not isinstance(route, Local) and leaves_by_alias(recipient, route) and not is_proven()
            destinations.append(Destination(len(destinations), recipient, route, quiet=quiet))
    return Copies(tuple(destinations), NOTHING, NOTHING)


def copies_for(routes: Sequence[RecipientRoute], *, holds: bool = False, is_proven: Callable[[], bool] = _always) -> Copies:
    """The destinations for these routes, which stand in the order of RCPT.

    What is discarded or refused has none.  `is_proven` as above.  `holds`: what is put aside is held, and does not go to Junk.
    """
    mildest: dict[Hashable, Fate] = {}
    for one in routes:
        place = place_of(one.route)
        mildest[place] = min(one.fate.fate, mildest.get(place, Fate.REFUSED))
    set_apart: dict[int, SetApart] = {}
    in_junk: dict[str, list[str]] = {}
    ordered: list[Destination] = []
    for one in sorted(routes, key=lambda one: one.fate.fate):  # a stable sort
        fate, why = one.fate
        if fate >= Fate.DISCARDED:
            continue
        route, index = one.route, len(ordered)
        best = mildest[place_of(route)]
        if best is not Fate.DELIVERED and fate is not Fate.DELIVERED:
            if best is Fate.ASIDE and isinstance(route, Local) and not holds:
                route = Local(route.address, replace(route.mailbox, junk=True))
                in_junk.setdefault(why, []).append(str(one.recipient.address))
            elif best is Fate.RETURNED and one.reply is not None:
                set_apart[index] = Returned(one.reply, why)
            else:
                set_apart[index] = Hold(HOLDS.get(fate, HoldKind.REFUSED), why, one.findings)
        lines = one.lines if isinstance(route, Local) else b""
        quiet = not isinstance(route, Local) and leaves_by_alias(one.recipient, route) and not is_proven()
        ordered.append(Destination(index, one.recipient, route, lines=lines, quiet=quiet))
    return Copies(tuple(ordered), set_apart, in_junk)
