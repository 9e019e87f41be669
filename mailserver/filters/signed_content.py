"""What has to be known to verify signatures of a message, DKIM's and ARC's alike: the hashes of its body, and their keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from twisted.internet.defer import TimeoutError

from mailserver.api import Clock, Content, LookupFailed
from mailserver.plugins.awaiting import in_time, side_by_side
from mailserver.trust.canonical import body_chunks
from mailserver.trust.dkim import BodyForm, body_hashes

__all__ = ["AT_ONCE_OCTETS", "hash_body", "look_up_keys"]

AT_ONCE_OCTETS = 131_072  # a body up to this size is hashed at once, in less than a millisecond; a larger one in a thread

SECONDS = 20.0  # shorter than a filter's deadline: a domain's dead DNS is no failure of the filter


async def hash_body(
    content: Content, forms: Collection[BodyForm], run_in_thread: Any
) -> Mapping[BodyForm, tuple[bytes, int, int]]:
    """As `body_hashes`.  Raises OSError."""
    if not forms:
        return {}
    if content.path is None and content.size <= AT_ONCE_OCTETS:
        return body_hashes(body_chunks(content), forms)
    return await run_in_thread(_hashes, content, forms)  # type: ignore[no-any-return]


async def look_up_keys(resolver: Any, names: Sequence[str], clock: Clock) -> Mapping[str, Sequence[bytes] | None]:
    """The TXT records at each name, asked for side by side; None where the DNS could not tell within twenty seconds."""
    return dict(zip(names, await side_by_side([_key(resolver, name, clock) for name in names]), strict=True))


async def _key(resolver: Any, name: str, clock: Clock) -> Sequence[bytes] | None:
    if resolver is None:
        return None
    try:
        return await in_time(SECONDS, _texts(resolver, name), clock)
    except (LookupFailed, TimeoutError):
        return None


async def _texts(resolver: Any, name: str) -> Sequence[bytes]:
    return (await resolver.query(name, "TXT")).texts  # type: ignore[no-any-return]


def _hashes(content: Content, forms: Collection[BodyForm]) -> Mapping[BodyForm, tuple[bytes, int, int]]:
    return body_hashes(body_chunks(content), forms)
