"""The local delivery, and beside it those who read the mail of an address themselves (`IMailReader`).

A `Local` route whose mailbox names a reader ends there; everything else goes to the delivery as it came.

One call of a batch delivery has the mail of all users, and there is one call at a time.  So nobody waits for a reader longer
than a moment: then its message is deferred, the reading goes on, and when it has ended the message is tried again and has its
outcome.  Where many are being read further ones are deferred at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from mailserver.interfaces import CannotTell, Clock, IMailReader
from mailserver.mail.address import Address, normal_name
from mailserver.mail.answers import Delayed, Local, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.outcomes import sound_outcome
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.plugins.asking import Asking
from mailserver.plugins.awaiting import all_of, now_or_later
from mailserver.plugins.catalogue import PluginError
from mailserver.plugins.generation import Generation

__all__ = ["Reader", "WithReaders", "readers_by_address"]

Key = tuple[str, str, str]  # reader, message, address

READ_SECONDS = 60.0
MOMENT_SECONDS = 1.0
AGAIN_SECONDS = 1.0  # after its end: by then the store knows that the message was deferred
READING_MOST = 20
KNOWN_MOST = 1_000  # outcomes that nobody has asked for yet
LATER = Reply.of(451, "4.3.0", "Local error, please try again later")


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
    """Delivers as `delivery` does; `use` says who reads.  `again(id)` tries a deferred message now."""

    log = Logger()

    def __init__(self, delivery: Any, *, clock: Clock, again: Callable[[str], Coroutine[Any, Any, object]]) -> None:
        self._delivery = delivery
        self._clock = clock
        self._again = again
        self._reading: set[Key] = set()
        self._known: OrderedDict[Key, Outcome] = OrderedDict()
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
        except Exception:
            self._keep(envelope, destinations, await reading)
            raise
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
        except Exception:
            for parcel, its in zip(parcels, await all_of(reading), strict=True):
                self._keep(parcel.envelope, parcel.destinations, its)
            raise
        read = await all_of(reading)
        return [{**(next(answers) if one.destinations else {}), **its} for one, its in zip(others, read, strict=True)]

    def _keep(self, envelope: Envelope, destinations: Sequence[Destination], outcomes: Mapping[int, Outcome]) -> None:
        """The delivery has failed, and all is tried again: what was read is not read again for that."""
        for one in destinations:
            outcome = outcomes.get(one.index)
            if outcome is not None and not isinstance(outcome, Delayed):
                self._remember(_key(envelope, one), outcome)

    def _remember(self, key: Key, outcome: Outcome) -> None:
        self._known[key] = outcome
        while len(self._known) > KNOWN_MOST:
            self._known.popitem(last=False)

    async def _read(self, envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> dict[int, Outcome]:
        """No errors: what a reader raises is a delay of its own mail.

        All addresses are asked side by side, since all of them together may take a moment, and one in other letters is the same.
        """
        asked: dict[Key, list[Destination]] = {}
        for one in destinations:
            asked.setdefault(_key(envelope, one), []).append(one)
        read = [
            Deferred.fromCoroutine(self._read_by(key, his[0].route.address, envelope, content)) for key, his in asked.items()
        ]
        answers = zip(asked.values(), await all_of(read), strict=True)
        return {one.index: outcome for his, outcome in answers for one in his}

    async def _read_by(self, key: Key, address: Address, envelope: Envelope, content: Content) -> Outcome:
        name = key[0]
        if key in self._known:
            return self._known.pop(key)
        if key in self._reading:
            return Delayed(LATER, "it is being read")
        reader = self._readers.get(name)
        if reader is None:
            return Delayed(LATER, f"who reads it is not there: {name}")
        if len(self._reading) >= READING_MOST:
            return Delayed(LATER, f"{READING_MOST} others are being read")
        reading = now_or_later(self._asked(reader, envelope, content, address))
        if not isinstance(reading, Deferred):
            return reading
        return await self._for_a_moment(key, reading)

    async def _asked(self, reader: Reader, envelope: Envelope, content: Content, address: Address) -> Outcome:
        with self._generation:
            try:
                outcome: Outcome | Deferred[Outcome] = reader.asking.ask(
                    "read", READ_SECONDS, sound_outcome, reader.component.read, envelope, content, address
                )
                return await outcome if isinstance(outcome, Deferred) else outcome
            except CannotTell as error:
                return Delayed(LATER, str(error))

    def _for_a_moment(self, key: Key, reading: Deferred[Outcome]) -> Deferred[Outcome]:
        """The outcome, or that there is none yet.  Who does not wait for it any more takes nothing away from the reading."""
        self._reading.add(key)
        waiting: Deferred[Outcome] = Deferred(lambda _: timer.cancel() if timer.active() else None)
        timer = self._clock.callLater(MOMENT_SECONDS, lambda: waiting.callback(Delayed(LATER, "it is being read")))

        def ended(outcome: Outcome | Failure) -> None:
            self._reading.discard(key)
            if isinstance(outcome, Failure):  # a fault of ours
                outcome = Delayed(LATER, outcome.getErrorMessage())
            if timer.active():
                timer.cancel()
                waiting.callback(outcome)
                return
            self._remember(key, outcome)
            self._clock.callLater(AGAIN_SECONDS, self._try_again, key[1])

        reading.addBoth(ended)
        return waiting

    def _try_again(self, id: str) -> None:
        """Where that fails, the message comes again at its time."""

        def failed(failure: Failure) -> None:
            self.log.warn("{id} is not tried again now: {why}", id=id, why=failure.getErrorMessage())

        Deferred.fromCoroutine(self._again(id)).addErrback(failed)


def _key(envelope: Envelope, destination: Destination) -> Key:
    return _reader(destination), envelope.id, normal_name(destination.route.address)


def _reader(destination: Destination) -> str:
    route = destination.route
    return route.mailbox.reader if isinstance(route, Local) else ""
