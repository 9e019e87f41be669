"""What stands in for the relay where none is configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import implementer

from mailserver.interfaces import IDelivery
from mailserver.mail import answers
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply

__all__ = ["NoRelay"]

NO_RELAY = Reply.of(451, "4.3.5", "No relay is configured")


@implementer(IDelivery)
class NoRelay:
    """Takes the place of a relay where there is none: what an earlier configuration accepted waits."""

    stores = True

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, answers.Outcome]:
        """Defer everything."""
        return {destination.index: answers.Delayed(NO_RELAY) for destination in destinations}

    async def flush(self) -> None:
        """Nothing to do."""
