"""How mail goes to each destination, for people: the pool's records and paces as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailserver.interfaces import AddressState, DestinationState
from mailserver.relay.pace import DestinationPace
from mailserver.relay.pool import Pool
from mailserver.relay.pool_records import DestinationQueue

__all__ = ["destination_states"]

WORDS_MOST = 500


def destination_states(pool: Pool[Any], now: float, most: int) -> Sequence[DestinationState]:
    """So many at most: those for which most waits first, then those that are slow or out of reach, then the others by name."""
    paces = [(pace, _waiting(pace)) for pace in pool.paces if pace.queues]
    paces.sort(key=lambda one: (-one[1] - one[0].put_off_now(now), not _is_slow(one[0]), one[0].name))
    return [_state(pace, waiting, now) for pace, waiting in paces[:most]]


def _waiting(pace: DestinationPace) -> int:
    return sum([len(one.waiting) for one in pace.queues.values()])


def _is_slow(pace: DestinationPace) -> bool:
    return pace.is_lowered or any(one.failures for one in pace.queues.values())


def _state(pace: DestinationPace, waiting: int, now: float) -> DestinationState:
    return DestinationState(
        name=pace.name,
        waiting=waiting,
        put_off=pace.put_off_now(now),
        sent=pace.begun_in_last_minute(now),
        connections=pace.connections,
        connections_most=pace.connections_most,
        connections_limit=pace.limit.connections,
        per_minute=None if pace.per_minute is None else round(pace.per_minute, 2),
        per_minute_limit=pace.limit.per_minute or None,
        paused_seconds=round(max(0.0, pace.paused_until - now), 1),
        last_reply=pace.last_reply,
        last_reply_seconds=None if pace.last_at is None else round(now - pace.last_at, 1),
        why=pace.why,
        addresses=tuple([_address(one, now) for one in pace.queues.values()]),
    )


def _address(queue: DestinationQueue[Any], now: float) -> AddressState:
    return AddressState(
        address=str(queue.key),
        host=queue.host,
        route=queue.route,
        waiting=len(queue.waiting),
        connections=queue.connections,
        out_of_reach_seconds=round(max(0.0, queue.probe_at - now), 1) if queue.failures else None,
        why="" if queue.why is None else str(queue.why)[:WORDS_MOST],
    )
