"""Messages that need no store: every destination's delivery keeps nothing (`IDelivery.stores` is False).

To write, sync and settle a message that is discarded would promise nothing that discarding it at once does not.  The 250 waits
for the deliveries instead; where one of them does not say "delivered", the message is not accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock, IDelivery
from mailserver.mail.answers import Delivered, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.faults import StorageBroken
from mailserver.mail.outcomes import UnsoundOutcome, outcome_of
from mailserver.mail.parcel import Destination
from mailserver.plugins.asking import words_of
from mailserver.plugins.awaiting import FAULTS, now_or_later, within
from mailserver.queue.entry import destination_name

__all__ = ["DirectDelivery"]


class DirectDelivery:
    """Delivers such messages.  `deliveries` are the local and the remote one; `note` and `count` are told what was delivered;
    `remove(id)` removes a spool file.
    """

    log = Logger()

    def __init__(
        self,
        *,
        deliveries: tuple[IDelivery, IDelivery],
        clock: Clock,
        deadline_seconds: float,
        note: Callable[..., None],
        count: Callable[[str, int], None],
        remove: Callable[[str], Deferred[None]],
    ) -> None:
        self._deliveries = deliveries
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._note = note
        self._count = count
        self._remove = remove

    def keeps(self, destinations: Sequence[Destination]) -> bool:
        """The delivery of one of them keeps its messages: then the store has to, too."""
        for destination in destinations:
            if self._deliveries[isinstance(destination.route, Remote)].stores:
                return True
        return False

    def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Deferred[None]:
        """Fires when all has been delivered.  Errbacks with `StorageBroken` where it has not."""
        parts: dict[IDelivery, list[Destination]] = {}
        for item in destinations:
            parts.setdefault(self._deliveries[isinstance(item.route, Remote)], []).append(item)
        try:
            answer = now_or_later(self._deliver(envelope, content, parts.items()))
        except StorageBroken:
            return fail(Failure())
        done = succeed(None) if answer is None else answer
        if content.path is not None:
            done.addCallback(lambda _: self._removed(envelope.id))
        return done

    async def _deliver(
        self, envelope: Envelope, content: Content, parts: Iterable[tuple[IDelivery, Sequence[Destination]]]
    ) -> None:
        """Return when all has been delivered.  Raises `StorageBroken` where it has not."""
        for delivery, destinations in parts:
            try:
                answer: Any = now_or_later(delivery.deliver(envelope, content, destinations))
                if answer.__class__ is not dict and isinstance(answer, Deferred):
                    seconds = getattr(delivery, "deadline_seconds", None) or self._deadline_seconds
                    answer = await within(seconds, answer, self._clock)
            except FAULTS as error:
                raise StorageBroken(f"a delivery that keeps nothing raised {words_of(error)}") from error
            for destination in destinations:
                try:
                    outcome = outcome_of(answer, destination.index)
                except UnsoundOutcome as error:
                    raise StorageBroken(str(error)) from error
                if not isinstance(outcome, Delivered):
                    raise StorageBroken(f"a delivery that keeps nothing did not deliver: {outcome}")
                self._tell(envelope, destination, outcome)

    def _tell(self, envelope: Envelope, destination: Destination, outcome: Delivered) -> None:
        self._count("delivered", 1)
        recipient, name = str(destination.recipient.address), destination_name(destination)
        ms = round((self._clock.seconds() - envelope.received_at) * 1000)
        self._note(envelope.id, "delivered", recipient=recipient, destination=name, attempt=1, ms=ms, note=outcome.note)

    def _removed(self, id: str) -> Deferred[None]:
        """The message is where it should be: a file that cannot be removed must not make it come again."""
        removed = maybeDeferred(self._remove, id)
        return removed.addErrback(lambda failure: self.log.failure("{id}: the file stays in the spool", failure, id=id))
