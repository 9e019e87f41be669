"""Throw mail away, to measure the rest of the server or to try out its filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IBatchDelivery, IComponentFactory, Services
from mailserver.mail.answers import Delivered, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, Parcel

__all__ = ["DiscardDelivery", "DiscardFactory", "DiscardOptions"]

DISCARDED = Delivered("discarded")


@implementer(IBatchDelivery)
class DiscardDelivery:
    """Every message is delivered to nowhere."""

    stores = False

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """Keep nothing."""
        return {destination.index: DISCARDED for destination in destinations}

    async def deliver_batch(self, parcels: Sequence[Parcel]) -> Sequence[Mapping[int, Outcome]]:
        """Keep nothing of any."""
        return [{destination.index: DISCARDED for destination in parcel.destinations} for parcel in parcels]

    async def flush(self) -> None:
        """There is nothing to make durable."""


class DiscardOptions(Options):
    """No options."""


@implementer(IComponentFactory)
class DiscardFactory:
    """Makes the delivery for ``[delivery] use = "discard"``."""

    name = "discard"
    summary = "Throws every message away"
    api_version = "1.0"
    provides = IBatchDelivery
    options = DiscardOptions

    def build(self, options: DiscardOptions, services: Services) -> DiscardDelivery:
        """No errors."""
        return DiscardDelivery()
