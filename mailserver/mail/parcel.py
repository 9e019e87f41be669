"""What a delivery is given: one message and the destinations that it serves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from mailserver.mail.answers import Local, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient
from mailserver.mail.quick import quick

__all__ = ["Destination", "Parcel", "one_for_each", "leaves_by_alias", "place_of"]


@quick
@dataclass(frozen=True, slots=True)
class Destination:
    """One recipient of a message and one route that it has.

    `index` counts the destinations of a message from 0 and never changes.  `recipient` is the accepted forward-path that led
    here (several destinations may share one, through an alias).  Several destinations may end at one place: it gets one copy,
    that of the first of them (`one_for_each`), and all have its outcome.

    `lines` are header fields of this copy alone, each with its CRLF: whoever delivers into a mailbox puts them above the
    message; they go to no other host.

    `quiet`: the message's sender is not told what becomes of it.  It leaves by an alias, and nobody has shown that the sender is
    who has sent it (`mail.known_sender.is_proven`): a refusal of the next host would be told to whoever was named.

    The message id and the mailbox name the file in a Maildir; where `named_by_index`, the message id and the index do: a release
    before this rule took the message, and may have written the file already.
    """

    index: int
    recipient: Recipient
    route: Local | Remote
    named_by_index: bool = False
    lines: bytes = b""
    quiet: bool = False

    @property
    def place(self) -> Hashable:
        """What destinations have in common that lead to one mailbox and folder, or to one address of another host."""
        return place_of(self.route)


@quick
@dataclass(frozen=True, slots=True)
class Parcel:
    """A message and those of its destinations that one delivery serves.

    `again` says that an earlier attempt may have delivered it, without its outcome having been kept (a crash).
    """

    envelope: Envelope
    content: Content
    destinations: tuple[Destination, ...]
    again: bool = False


def one_for_each(
    destinations: Sequence[Destination], place: Callable[[Destination], Hashable] = attrgetter("place")
) -> list[tuple[Destination, ...]]:
    """The destinations of one parcel by the place where they end, in the order of the first of each."""
    if len(destinations) == 1:
        return [tuple(destinations)]
    groups: dict[Hashable, list[Destination]] = {}
    for destination in destinations:
        groups.setdefault(place(destination), []).append(destination)
    return [tuple(group) for group in groups.values()]


def leaves_by_alias(recipient: Recipient, route: Local | Remote) -> bool:
    """Another host gets it, at another address than the one that was accepted."""
    return isinstance(route, Remote) and route.address is not recipient.address and route.address != recipient.address


def place_of(route: Local | Remote) -> Hashable:
    """See `Destination.place`."""
    if isinstance(route, Local):
        box = route.mailbox
        if box.reader:
            return box.reader, route.address.local, route.address.domain.lower()
        return box.user, box.domain, box.place, box.folder_must_exist and not box.junk
    return route.address.local, route.address.domain.lower()
