"""What the tests of this folder deliver, and how they run it: no reactor, a thread is a plain call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.parcel import Destination, Parcel

PEER = Peer("192.0.2.1", 25000, "mx")
ALICE = Mailbox("alice", "example.org")
BOB = Mailbox("bob", "example.org")
DATA = b"Subject: one\r\n\r\nhello\r\n"


def run_at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """`Services.run_in_thread`, without a thread."""
    return maybeDeferred(function, *arguments)


class AtOnce:
    """`Threads`, without a thread."""

    hanging = 0

    def __init__(self, name: str = "") -> None:
        self.stopped = False

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(function, *arguments)

    def stop(self) -> None:
        self.stopped = True


def parcel(
    *mailboxes: Mailbox,
    content: Content | bytes = DATA,
    id: str = "0123456789ABCDEF",
    sender: Address | None = Address("carol", "example.net"),
    again: bool = False,
) -> Parcel:
    """A message for these mailboxes, as its recipients named them."""
    recipients = [Recipient(Address(box.user, box.domain)) for box in mailboxes]
    envelope = Envelope(id, PEER, sender, tuple(recipients), 1700000000.25)
    destinations = [
        Destination(n, recipient, Local(recipient.address, box))
        for n, (recipient, box) in enumerate(zip(recipients, mailboxes, strict=True))
    ]
    return Parcel(envelope, content if isinstance(content, Content) else Content.of(content), tuple(destinations), again)


def remote_parcel(*addresses: Address, id: str = "0123456789ABCDEF") -> Parcel:
    """A message for other hosts."""
    recipients = [Recipient(address) for address in addresses]
    envelope = Envelope(id, PEER, None, tuple(recipients), 1700000000.25)
    destinations = [Destination(n, recipient, Remote(recipient.address)) for n, recipient in enumerate(recipients)]
    return Parcel(envelope, Content.of(DATA), tuple(destinations))


def files_below(root: str) -> list[str]:
    """Every file below a directory, with its path from there, sorted."""
    return sorted(
        os.path.relpath(os.path.join(directory, name), root) for directory, _, names in os.walk(root) for name in names
    )


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def only(found: Sequence[str]) -> str:
    """The one member."""
    [one] = found
    return one
