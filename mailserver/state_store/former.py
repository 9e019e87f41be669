"""The state store as plugins of API 0.1 know it: they name a space with each call, and do not wait for the answer.

The facts are the same, in the same file; what is not in memory is read while the reactor waits, as it was then.  The spaces are
those that the plugin names, but none that the server itself or a component of today has.
"""

from __future__ import annotations

import re
from typing import Protocol

from mailserver.state_store.facts import Fact, checked_key, checked_lifetime, checked_value
from mailserver.state_store.space import Space, Unknown

__all__ = ["FormerState"]

SPACES_MOST = 100  # of one plugin
ITEMS_MOST = 100_000
# What the server itself keeps, and what components of today have: "@filter/greylist".
TAKEN = re.compile(r"allowance(\..*)?|lockout\..*|notes|authentication|app-password|@.*", re.DOTALL)


class FormerFacts(Protocol):
    """What is needed of the store."""

    def space(self, name: str) -> Space: ...

    def seconds(self) -> float: ...

    def on_the_wall(self, moment: float) -> float: ...

    def read_now(self, space: str, key: str) -> Fact | None: ...

    def read_range_now(self, space: str, first: str, most: int) -> dict[str, Fact]: ...


class FormerState:
    """`get`, `put`, `drop` and `items`, each with a space.  `own` may be named as well: what the plugin has as one of today."""

    def __init__(self, store: FormerFacts, own: str = "") -> None:
        self._store = store
        self._own = own
        self._spaces: dict[str, Space] = {}

    def get(self, space: str, key: str) -> bytes | None:
        """The value, None where there is none or it has expired.  Raises `StorageBroken`."""
        facts = self._space(space)
        fact = facts.at_hand(checked_key(key))
        if isinstance(fact, Unknown):
            fact = self._store.read_now(space, key)
            facts.learn(key, fact)
        return None if fact is None or fact.expires <= self._store.seconds() else fact.value

    def put(self, space: str, key: str, value: bytes, lifetime_seconds: float) -> None:
        """Keep the value; it reaches the disk within seconds.  Raises TypeError or ValueError for what no row can hold."""
        seconds = checked_lifetime(lifetime_seconds)
        fact = Fact(checked_value(value), self._store.seconds() + seconds) if seconds > 0 else None
        self._space(space).change(checked_key(key), fact)

    def drop(self, space: str, key: str) -> None:
        """Forget it."""
        self._space(space).change(checked_key(key), None)

    def items(self, space: str) -> list[tuple[str, bytes, float]]:
        """Key, value and end of what has not expired, by key; at most 100,000 of them.  Raises `StorageBroken`."""
        facts = self._space(space)
        found: dict[str, Fact | None] = {}
        if not facts.is_whole:
            found |= self._store.read_range_now(space, "", ITEMS_MOST)
        found |= facts.at_hand_all()
        now, wall = self._store.seconds(), self._store.on_the_wall
        alive = [(key, fact.value, wall(fact.expires)) for key, fact in sorted(found.items()) if fact and fact.expires > now]
        return alive[:ITEMS_MOST]

    def _space(self, name: str) -> Space:
        space = self._spaces.get(name)
        if space is None:
            if TAKEN.fullmatch(checked_key(name)) and name != self._own:
                raise ValueError(f"the space {name!r} belongs to somebody else")
            if len(self._spaces) >= SPACES_MOST:
                raise ValueError(f"a plugin has at most {SPACES_MOST} spaces")
            space = self._spaces[name] = self._store.space(name)
        return space
