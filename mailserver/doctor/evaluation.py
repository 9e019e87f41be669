"""Lets those ask who evaluate SPF and DMARC for mail: they see what we see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mailserver.doctor.seen import Seen, SeenState, followed
from mailserver.mail.dns_records import Answer, LookupFailed

__all__ = ["at_once", "query_of"]


def query_of(seen: Seen) -> Callable[[str, str], Awaitable[Answer]]:
    """As `IResolver.query`; it never waits."""

    async def query(name: str, type: str) -> Answer:
        found = followed(seen, name.lower().removesuffix("."), type)
        if found.state is SeenState.FAILED:
            raise LookupFailed(found.why)
        return Answer(found.records, name_exists=found.state is not SeenState.NO_NAME)

    return query


def at_once(awaitable: Awaitable[Any]) -> Any:
    """The result of what never waits."""
    try:
        next(awaitable.__await__())
    except StopIteration as end:
        return end.value
    raise RuntimeError("an evaluation that waits")
