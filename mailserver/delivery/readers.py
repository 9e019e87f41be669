"""The local delivery, and beside it those who read the mail of an address themselves (`IMailReader`).

A `Local` route whose mailbox names a reader ends there; everything else goes to the delivery as it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import directlyProvides, providedBy

from mailserver.interfaces import CannotTell, IMailReader
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Local, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.outcomes import sound_outcome
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.plugins.asking import Asking
from mailserver.plugins.awaiting import all_of
from mailserver.plugins.catalogue import PluginError
from mailserver.plugins.generation import Generation

__all__ = ["Reader", "WithReaders", "readers_by_address"]

READ_SECONDS = 25.0  # mail of the same batch waits for it
NO_READER = Reply.of(451, "4.3.0", "Local error, please try again later")


@dataclass(frozen=True, slots=True)
class Reader:
    """A component that reads mail, and how it is asked."""

    component: Any
    asking: Asking


def readers_by_address(components: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Which of these, each with its name, reads which local part; the first that says so.

    Raises `PluginError` for what is no local part: lower-case text without an @.
    """
    found: dict[str, str] = {}
    for name, component in components:
        if IMailReader.providedBy(component):
            for local in component.reads:
                if not isinstance(local, str) or not local or "@" in local or local != local.lower():
                    raise PluginError(f"{name} reads {local!r}, which is no local part in lower case")
                found.setdefault(local, name)
    return found


class WithReaders:
    """Delivers as `delivery` does; `use` says who reads."""

    def __init__(self, delivery: Any) -> None:
        self._delivery = delivery
        self._readers: Mapping[str, Reader] = {}
        self._generation = Generation()
        directlyProvides(self, *providedBy(delivery))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)

    def use(self, readers: Mapping[str, Reader], generation: Generation) -> None:
        """A policy is in force: these are its readers, by name."""
        self._readers, self._generation = readers, generation

    def deliver(self, envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> Any:
        """As `IDelivery`."""
        if not any(_reader(one) for one in destinations):
            return self._delivery.deliver(envelope, content, destinations)
        return self._delivered(envelope, content, destinations)

    def deliver_batch(self, parcels: Sequence[Parcel]) -> Any:
        """As `IBatchDelivery`."""
        if not any(_reader(one) for parcel in parcels for one in parcel.destinations):
            return self._delivery.deliver_batch(parcels)
        return self._batch_delivered(parcels)

    async def _delivered(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> dict[int, Outcome]:
        reading = Deferred.fromCoroutine(self._read(envelope, content, [one for one in destinations if _reader(one)]))
        others = [one for one in destinations if not _reader(one)]
        outcomes: dict[int, Outcome] = {}
        try:
            if others:
                outcomes.update(await self._delivery.deliver(envelope, content, others))
        finally:
            outcomes.update(await reading)
        return outcomes

    async def _batch_delivered(self, parcels: Sequence[Parcel]) -> list[dict[int, Outcome]]:
        reading = [
            Deferred.fromCoroutine(self._read(one.envelope, one.content, [d for d in one.destinations if _reader(d)]))
            for one in parcels
        ]
        others = [replace(one, destinations=tuple([d for d in one.destinations if not _reader(d)])) for one in parcels]
        waiting = [one for one in others if one.destinations]
        try:
            answers = iter(await self._delivery.deliver_batch(waiting) if waiting else ())
        finally:
            read = await all_of(reading)
        return [{**(next(answers) if one.destinations else {}), **its} for one, its in zip(others, read, strict=True)]

    async def _read(self, envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> dict[int, Outcome]:
        """No errors: what a reader raises is a delay of its own mail."""
        outcomes: dict[int, Outcome] = {}
        read: dict[tuple[str, Address], Outcome] = {}
        for one in destinations:
            key = _reader(one), one.route.address
            if key not in read:
                read[key] = await self._read_by(*key, envelope, content)
            outcomes[one.index] = read[key]
        return outcomes

    async def _read_by(self, name: str, address: Address, envelope: Envelope, content: Content) -> Outcome:
        reader = self._readers.get(name)
        if reader is None:
            return Delayed(NO_READER, f"who reads it is not there: {name}")
        with self._generation:
            try:
                outcome: Outcome | Deferred[Outcome] = reader.asking.ask(
                    "read", READ_SECONDS, sound_outcome, reader.component.read, envelope, content, address
                )
                return await outcome if isinstance(outcome, Deferred) else outcome
            except CannotTell as error:
                return Delayed(NO_READER, str(error))


def _reader(destination: Destination) -> str:
    route = destination.route
    return route.mailbox.reader if isinstance(route, Local) else ""
