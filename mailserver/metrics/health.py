"""Whether the server lives, and whether it takes mail: facts to reasons, pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ServerFacts", "reasons_against"]

LAG_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of the server now.

    `is_writable`: the queue's store works.  `has_room`: the disk has room beside its reserve.  `silent` are the endpoints of the
    configuration on which nobody listens.  `lag_seconds` is how late the reactor's last call came.
    """

    has_started: bool = True
    stops: bool = False
    is_writable: bool = True
    damage: str = ""
    has_room: bool = True
    silent: Sequence[str] = ()
    lag_seconds: float = 0.0


def reasons_against(facts: ServerFacts) -> list[str]:
    """Why mail is not taken now, in sentences; none where it is."""
    reasons = []
    if facts.stops:
        reasons.append("the server stops")
    elif not facts.has_started:
        reasons.append("the server starts")
    if facts.damage:
        reasons.append(f"the queue is damaged: {facts.damage}")
    elif not facts.is_writable:
        reasons.append("the queue cannot be written")
    if not facts.has_room:
        reasons.append("the disk has no room beside its reserve (limits.minimum_free_bytes)")
    reasons += [f"nobody listens on {endpoint}" for endpoint in facts.silent]
    if facts.lag_seconds >= LAG_SECONDS:
        reasons.append(f"the server answers late: {facts.lag_seconds:.0f} seconds")
    return reasons
