"""The bounds and times of the queue, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.queue.schedule import Schedule

__all__ = ["MEBIBYTE", "QueueLimits", "schedule_of"]

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How long, how often, how much.  All times are seconds, all sizes octets.

    Retries (`Schedule`): `retry_seconds` are the pauses after the first, second, ... attempt, and the last one repeats.  A
    message is given up `expire_seconds` after its acceptance.  Its sender is told of the delay after `warn_seconds`, or never
    (None).

    Room: mail is refused while the disk has less than `minimum_free_bytes`.  Messages of `memory_window_octets` wait in the
    memory of each active queue; the others wait in the store.

    Group commit: one transaction has at most `batch_messages` and `batch_octets`.  So has one call of a batch delivery.

    Deliveries (`ActiveQueueLimits`): `local_batches` and `remote_deliveries` calls at once.  A call that has not answered after
    `local_deadline_seconds` or `remote_deadline_seconds` counts as deferred.  A delivery is flushed `flush_seconds` (or
    `remote_flush_seconds`) after the first message, or after `flush_messages`.  A delivery that names its own calls and deadline
    (`IConcurrentDelivery`) is asked instead.

    Failures of which nobody can be told (`Undeliverable`): at most `undeliverable_messages` stay, for `undeliverable_seconds`.
    """

    retry_seconds: Sequence[float]
    expire_seconds: float
    warn_seconds: float | None = None
    minimum_free_bytes: int = 64 * MEBIBYTE
    memory_window_octets: int = 64 * MEBIBYTE
    batch_messages: int = 256
    batch_octets: int = 8 * MEBIBYTE
    local_batches: int = 1
    remote_deliveries: int = 500
    local_deadline_seconds: float = 300.0
    remote_deadline_seconds: float = 3600.0
    flush_seconds: float = 1.0
    remote_flush_seconds: float = 0.05
    flush_messages: int = 1000
    undeliverable_messages: int = 1000
    undeliverable_seconds: float = 14 * 86_400.0


def schedule_of(limits: QueueLimits) -> Schedule:
    """When to try again, by these."""
    return Schedule(
        retry_seconds=limits.retry_seconds, expire_seconds=limits.expire_seconds, warn_seconds=limits.warn_seconds
    )
