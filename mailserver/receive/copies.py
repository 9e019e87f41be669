"""The copies of an accepted message: what its recipients' ways come to.  Pure.

Several ways may lead to one mailbox and folder: two recipients, an alias beside its member, a name in other letters.  It gets
one copy.  Each way stays a destination of its own, so that each recipient has an answer, a report, a line in the queue; the
delivery makes one copy for all that lead to one place.  The mildest verdict among the ways holds for the copy: what one
recipient's way would put aside and another's would not is not put aside.  The header lines of the copy are those of its first
destination, so the mildest ways come first, in the order of RCPT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from mailserver.mail.answers import Local, Remote
from mailserver.mail.envelope import Recipient
from mailserver.mail.parcel import Destination, place_of
from mailserver.mail.quick import quick

__all__ = ["Copies", "RecipientRoute", "copies_for", "copies_of"]

NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RecipientRoute:
    """From a recipient to a place.  `aside` says why what goes this way is put aside, "" where it is not."""

    recipient: Recipient
    route: Local | Remote
    aside: str = ""


@quick
@dataclass(frozen=True, slots=True)
class Copies:
    """What is committed.  `held` has for each destination (by its index) that the queue holds the reason; `in_junk` for each
    reason the recipients whose copies go to Junk."""

    destinations: tuple[Destination, ...]
    held: Mapping[int, str]
    in_junk: Mapping[str, list[str]]


def copies_of(recipients: Sequence[Recipient], routes: Sequence[Sequence[Local | Remote]]) -> Copies:
    """The destinations of recipients of whom nothing is put aside, nearly always: each with its routes, in the order of RCPT."""
    destinations: list[Destination] = []
    for recipient, every in zip(recipients, routes, strict=True):
        for route in every:
            destinations.append(Destination(len(destinations), recipient, route))
    return Copies(tuple(destinations), NOTHING, NOTHING)


def copies_for(ways: Sequence[RecipientRoute]) -> Copies:
    """The destinations for these ways, which stand in the order of RCPT."""
    free = {place_of(way.route) for way in ways if not way.aside}
    mildest_first = [*[way for way in ways if not way.aside], *[way for way in ways if way.aside]]
    held: dict[int, str] = {}
    in_junk: dict[str, list[str]] = {}
    ordered: list[Destination] = []
    for index, way in enumerate(mildest_first):
        route = way.route
        if way.aside and place_of(route) not in free:
            if isinstance(route, Local):
                route = Local(route.address, replace(route.mailbox, junk=True))
                in_junk.setdefault(way.aside, []).append(str(way.recipient.address))
            else:
                held[index] = way.aside
        ordered.append(Destination(index, way.recipient, route))
    return Copies(tuple(ordered), held, in_junk)
