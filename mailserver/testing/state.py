"""An `IStateStore` in memory."""

from __future__ import annotations

from collections.abc import Iterable

from zope.interface import implementer

from mailserver.interfaces import Clock, IStateStore

__all__ = ["MemoryState"]


@implementer(IStateStore)
class MemoryState:
    """Small facts that expire by the given clock.  They are lost at the end of the test."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._facts: dict[tuple[str, str], tuple[bytes, float]] = {}

    def get(self, space: str, key: str) -> bytes | None:
        """The value; None where none is stored or it has expired."""
        value, expires = self._facts.get((space, key), (None, 0.0))
        return value if self._clock.seconds() < expires else None

    def put(self, space: str, key: str, value: bytes, lifetime_seconds: float) -> None:
        """Keep the value."""
        if not isinstance(value, bytes):
            raise TypeError(f"a state store keeps bytes, not {type(value).__name__}")
        self._facts[space, key] = value, self._clock.seconds() + lifetime_seconds

    def drop(self, space: str, key: str) -> None:
        """Forget it."""
        self._facts.pop((space, key), None)

    def items(self, space: str) -> Iterable[tuple[str, bytes, float]]:
        """The facts that have not expired, ordered by key: key, value and time of expiry."""
        now = self._clock.seconds()
        return [
            (key, value, expires)
            for (place, key), (value, expires) in sorted(self._facts.items())
            if place == space and now < expires
        ]
