"""What a delivery is handed: one message and the destinations that it serves."""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.mail.answers import Local, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Recipient

__all__ = ["Destination", "Parcel"]


@dataclass(frozen=True, slots=True)
class Destination:
    """One place where a message goes.

    `index` counts the destinations of a message from 0 and never changes: with the message id it names the file in a
    Maildir.  `recipient` is the accepted forward-path that led here (several destinations may share one, through an alias).
    """

    index: int
    recipient: Recipient
    route: Local | Remote


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message and those of its destinations that one delivery serves.

    `again` says that an earlier attempt may have delivered it, without its outcome having been kept (a crash).
    """

    envelope: Envelope
    content: Content
    destinations: tuple[Destination, ...]
    again: bool = False
