"""The copies of an accepted message, from the routes of its recipients.  Pure.

Several routes may lead to one mailbox and folder: two recipients, an alias beside its member, a name in other letters.  It gets
one copy.  Each route stays a destination of its own, so that each recipient has an answer, a report, a line in the queue; the
delivery makes one copy for all destinations in one place.  The mildest verdict among them holds for the copy: it is put aside
only where it would be by every route.  The header lines of the copy are those of its first destination, so the mildest routes
come first, in the order of RCPT.
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
    """One route of a recipient.  `aside` says why the copy that goes there is put aside, "" where it is not."""

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


def copies_for(routes: Sequence[RecipientRoute]) -> Copies:
    """The destinations for these routes, which stand in the order of RCPT."""
    free = {place_of(one.route) for one in routes if not one.aside}
    mildest_first = [*[one for one in routes if not one.aside], *[one for one in routes if one.aside]]
    held: dict[int, str] = {}
    in_junk: dict[str, list[str]] = {}
    ordered: list[Destination] = []
    for index, one in enumerate(mildest_first):
        route = one.route
        if one.aside and place_of(route) not in free:
            if isinstance(route, Local):
                route = Local(route.address, replace(route.mailbox, junk=True))
                in_junk.setdefault(one.aside, []).append(str(one.recipient.address))
            else:
                held[index] = one.aside
        ordered.append(Destination(index, one.recipient, route))
    return Copies(tuple(ordered), held, in_junk)
