"""What a fact may be, and what each atomic verb makes of it: decisions, no I/O.

A verb is told the fact that is there (None where there is none, or it has expired) and says what stands there afterwards, and
what whoever called it hears.  A store carries that out for one key at a time; so all stores have the same verbs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

__all__ = [
    "ITEMS_MOST",
    "KEY_OCTETS_MOST",
    "LIFETIME_MOST_SECONDS",
    "VALUE_OCTETS_MOST",
    "AtomicVerbs",
    "Fact",
    "checked_key",
    "checked_lifetime",
    "checked_range",
    "checked_value",
]

KEY_OCTETS_MOST = 2048
VALUE_OCTETS_MOST = 65_536
LIFETIME_MOST_SECONDS = 3650 * 86_400.0
ITEMS_MOST = 10_000  # in one answer
NUMBER_MOST = 2**63 - 1
KEEPS_FOR_EVER = float("inf")

T = TypeVar("T")


class Fact(NamedTuple):
    """A value, and when it expires by the store's own time (infinity: never)."""

    value: bytes
    expires: float = KEEPS_FOR_EVER


Decision = Callable[[Fact | None], tuple[Fact | None, T]]  # of the fact that is there: what is there then, and the answer


def checked_key(key: str) -> str:
    """The key.  Raises TypeError, and ValueError for what no row can hold, or should."""
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    if len(key.encode()) > KEY_OCTETS_MOST:  # ValueError for a lone surrogate
        raise ValueError(f"a key has at most {KEY_OCTETS_MOST} octets")
    return key


def checked_value(value: bytes) -> bytes:
    """The value.  Raises TypeError, ValueError."""
    if not isinstance(value, bytes):
        raise TypeError(f"a fact is bytes, not {type(value).__name__}")
    if len(value) > VALUE_OCTETS_MOST:
        raise ValueError(f"a fact has at most {VALUE_OCTETS_MOST} octets, this one has {len(value)}")
    return value


def checked_lifetime(seconds: float) -> float:
    """The lifetime, ten years at most.  Raises TypeError, and ValueError for NaN."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a lifetime is a number of seconds, not {type(seconds).__name__}")
    if seconds != seconds:  # NaN
        raise ValueError("a lifetime is a number of seconds")
    return float(max(0, min(seconds, LIFETIME_MOST_SECONDS)))


def checked_range(first: str, before: str | None, most: int) -> tuple[str, str | None, int]:
    """The range from `first` on, up to but without `before`; never more than `ITEMS_MOST`.  Raises TypeError, ValueError."""
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"how many at most is an int, not {type(most).__name__}")
    return checked_key(first), None if before is None else checked_key(before), max(0, min(most, ITEMS_MOST))


class AtomicVerbs:
    """The verbs over one way to carry out a decision.

    `_decide(key, decision)` carries it out with no other change of that key between what it was told and what it says; `_until`
    says when a fact expires that begins now.
    """

    __slots__ = ()

    def _decide(self, key: str, decision: Decision[T]) -> Awaitable[T]:
        raise NotImplementedError

    def _until(self, lifetime: float) -> float:
        raise NotImplementedError

    async def get(self, key: str) -> bytes | None:
        """The value; None where there is none, or it has expired."""
        return await self._decide(checked_key(key), lambda fact: (fact, None if fact is None else fact.value))

    async def put(self, key: str, value: bytes, lifetime: float) -> None:
        """Keep the value for so many seconds; none or fewer is a `drop`."""
        new = self._fact(checked_value(value), lifetime)
        return await self._decide(checked_key(key), lambda fact: (new, None))

    async def drop(self, key: str) -> None:
        """Forget it."""
        return await self._decide(checked_key(key), lambda fact: (None, None))

    async def take(self, key: str) -> bytes | None:
        """The value, which is forgotten by that: of several who ask, one hears it."""
        return await self._decide(checked_key(key), lambda fact: (None, None if fact is None else fact.value))

    async def put_if_absent(self, key: str, value: bytes, lifetime: float) -> bool:
        """Keep the value where there is none, and say whether that was so."""
        new = self._fact(checked_value(value), lifetime)
        return await self._decide(checked_key(key), lambda fact: (new, True) if fact is None else (fact, False))

    async def compare_and_put(self, key: str, old: bytes | None, new: bytes | None, lifetime: float) -> bool:
        """Put `new` in the place of `old`, None being "no value", and say whether `old` was there."""
        after = None if new is None else self._fact(checked_value(new), lifetime)

        def decision(fact: Fact | None) -> tuple[Fact | None, bool]:
            found = None if fact is None else fact.value
            return (after, True) if found == old else (fact, False)

        return await self._decide(checked_key(key), decision)

    async def add(self, key: str, n: int, lifetime: float) -> int:
        """Add to a counter and return its sum.  One that begins now ends after `lifetime`; what is added later prolongs nothing.

        Raises ValueError where the value is no number, or the sum does not fit 64 bits.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"what is added is an int, not {type(n).__name__}")
        until = self._until(checked_lifetime(lifetime))

        def decision(fact: Fact | None) -> tuple[Fact | None, int]:
            total = n + (0 if fact is None else number_in(fact.value))
            if abs(total) > NUMBER_MOST:
                raise ValueError("the sum does not fit into 64 bits")
            return Fact(b"%d" % total, until if fact is None else fact.expires), total

        return await self._decide(checked_key(key), decision)

    def _fact(self, value: bytes, lifetime: float) -> Fact | None:
        seconds = checked_lifetime(lifetime)
        return Fact(value, self._until(seconds)) if seconds > 0 else None


def number_in(value: bytes) -> int:
    """The number that a counter's value stands for.  Raises ValueError."""
    if len(value) > 20:
        raise ValueError("the value is no counter")
    return int(value)
