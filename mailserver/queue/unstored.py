"""Messages that need no store: every destination's delivery keeps nothing (`IDelivery.stores` is False).

To write, sync and settle a message that is discarded would promise nothing that discarding it at once does not.  The 250 waits
for the deliveries instead; where one of them does not say "delivered", the message is not accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.awaiting import now_or_later
from mailserver.interfaces import Clock, IDelivery
from mailserver.mail.answers import Delivered
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.faults import StorageBroken
from mailserver.mail.outcomes import UnsoundOutcome, outcome_of
from mailserver.mail.parcel import Destination

__all__ = ["deliver_unstored"]


async def deliver_unstored(
    *,
    envelope: Envelope,
    content: Content,
    parts: Iterable[tuple[IDelivery, Sequence[Destination]]],
    clock: Clock,
    deadline_seconds: float,
    tell: Callable[[Destination, Delivered], None],
) -> None:
    """Return when all has been delivered.  Raises `StorageBroken` where it has not."""
    for delivery, destinations in parts:
        try:
            answer: Any = now_or_later(delivery.deliver(envelope, content, destinations))
            if isinstance(answer, Deferred):
                answer = await answer.addTimeout(deadline_seconds, clock)  # type: ignore[arg-type]
        except Exception as error:
            raise StorageBroken(f"a delivery that keeps nothing raised {type(error).__name__}: {error}") from error
        for destination in destinations:
            try:
                outcome = outcome_of(answer, destination.index)
            except UnsoundOutcome as error:
                raise StorageBroken(str(error)) from error
            if not isinstance(outcome, Delivered):
                raise StorageBroken(f"a delivery that keeps nothing did not deliver: {outcome}")
            tell(destination, outcome)
