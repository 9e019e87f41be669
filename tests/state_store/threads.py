"""Real threads for a store under test."""

from __future__ import annotations

from mailserver.plugins.threads import Threads

__all__ = ["new_threads"]


def new_threads(name: str, most: int) -> Threads:
    """Threads whose answers come to the reactor of the tests."""
    from twisted.internet import reactor

    return Threads(name, most, call_from_thread=reactor.callFromThread)  # type: ignore[attr-defined]
