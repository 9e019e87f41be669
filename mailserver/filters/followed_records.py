"""Records and facts of users that follow when accounts are renamed or removed (`IAccountFollower`).

Each record is moved by itself, and stands under the new name before it leaves the old one: whatever cuts that off, nothing is
lost, and the same call goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from twisted.internet.defer import Deferred

from mailserver.api import Clock, IRecords, IStateStore, StorageBroken
from mailserver.filters.followed_names import FollowedNames
from mailserver.plugins.awaiting import all_of

__all__ = ["FollowedRecords", "FollowsAccounts", "KeyPart", "NamePlace", "Stage"]

GAP = "\t"
PAGE = 500
LIFETIME_MOST = 3650 * 86_400.0
ROUNDS = 5  # so often records may change while they are moved

T = TypeVar("T")
Stage = Literal["begin", "complete", "undo"]


class NamePlace(Protocol):
    """Where a record has its user's name."""

    def user(self, key: str, value: bytes) -> str:
        """The name, "" where it has none."""
        ...

    def moved(self, key: str, value: bytes, user: str) -> tuple[str, bytes]:
        """Key and value as they are with this name."""
        ...


class KeyPart:
    """The name is a part of the key, the first one has the number 0."""

    def __init__(self, part: int) -> None:
        self._part = part

    def user(self, key: str, value: bytes) -> str:
        """The name, "" where the key has no such part."""
        parts = key.split(GAP)
        return parts[self._part] if len(parts) > self._part else ""

    def moved(self, key: str, value: bytes, user: str) -> tuple[str, bytes]:
        """The key with another name."""
        parts = key.split(GAP)
        parts[self._part] = user
        return GAP.join(parts), value


@dataclass(frozen=True, slots=True)
class MovedRecord:
    """A record, where it stands with the new name, and when it ends (seconds since the epoch; 0: never)."""

    key: str
    value: bytes
    new_key: str
    new_value: bytes
    end: float


class FollowedRecords:
    """Of one component: its `records`, and its `state` where that has names, too.  Raises what these raise."""

    def __init__(
        self, records: IRecords, place: NamePlace, *, separator: str, state: IStateStore | None = None,
        in_state: NamePlace | None = None, clock: Clock,
    ) -> None:  # fmt: skip
        self._separator = separator
        self._kept: list[tuple[_Records | _Facts, NamePlace]] = [(_Records(records), place)]
        if state is not None and in_state is not None:
            self._kept.append((_Facts(state, clock), in_state))

    async def renamed(self, accounts: Mapping[str, str], stage: Stage) -> None:
        """As `IAccountFollower.accounts_renamed`."""
        names = FollowedNames(accounts, self._separator)
        for store, place in self._kept:
            if stage == "complete":
                await _complete(store, place, names)
                continue
            do = store.put if stage == "begin" else store.take_back
            async for some in _theirs(store, place, names):
                await _together([do(one) for one in some if one.new_key != one.key])  # in a value two names have no room

    async def removed(self, account: str) -> None:
        """As `IAccountFollower.account_removed`."""
        for store, place in self._kept:
            async for some in _theirs(store, place, FollowedNames({account: account}, self._separator)):
                await _together([store.drop(one) for one in some])

    async def count(self, account: str) -> int:
        """How many records are kept of it, without what is only remembered for a while."""
        store, place = self._kept[0]
        return sum([len(some) async for some in _theirs(store, place, FollowedNames({account: account}, self._separator))])


async def _complete(store: _Records | _Facts, place: NamePlace, names: FollowedNames) -> None:
    for _ in range(ROUNDS):
        is_done = True
        async for some in _theirs(store, place, names):
            is_done &= all(await _together([store.move(one) for one in some]))
        if is_done:
            return
    raise StorageBroken("the records of a renamed user change without end")


async def _together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """They share a sync."""
    return await all_of([Deferred.fromCoroutine(one) for one in calls])


async def _theirs(store: _Records | _Facts, place: NamePlace, names: FollowedNames) -> AsyncIterator[list[MovedRecord]]:
    """Page by page."""
    first = ""
    while page := await store.page(first):
        some = []
        for key, value, end in page:
            new = names.after(place.user(key, value))
            if new is not None:
                some.append(MovedRecord(key, value, *place.moved(key, value, new), end))
        if some:
            yield some
        first = page[-1][0] + "\0"


class _Records:
    def __init__(self, records: IRecords) -> None:
        self._records = records

    async def page(self, first: str) -> list[tuple[str, bytes, float]]:
        return [(key, value, 0.0) for key, value in await self._records.items(first, most=PAGE)]

    async def put(self, one: MovedRecord) -> None:
        await self._records.put(one.new_key, one.new_value)

    async def take_back(self, one: MovedRecord) -> None:
        await self._records.compare_and_put(one.new_key, one.new_value, None)

    async def move(self, one: MovedRecord) -> bool:
        """Whether it was as it had been read."""
        if one.new_key == one.key:
            return await self._records.compare_and_put(one.key, one.value, one.new_value)
        await self._records.put_if_absent(one.new_key, one.new_value)
        return await self._records.compare_and_put(one.key, one.value, None)

    async def drop(self, one: MovedRecord) -> None:
        await self._records.drop(one.key)


class _Facts:
    """The same of what ends: moved, it ends when it would have ended."""

    def __init__(self, state: IStateStore, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    async def page(self, first: str) -> list[tuple[str, bytes, float]]:
        return list(await self._state.items(first, most=PAGE))

    async def put(self, one: MovedRecord) -> None:
        await self._state.put(one.new_key, one.new_value, self._lifetime(one))

    async def take_back(self, one: MovedRecord) -> None:
        await self._state.compare_and_put(one.new_key, one.new_value, None, 1.0)

    async def move(self, one: MovedRecord) -> bool:
        """Whether it was as it had been read."""
        if one.new_key == one.key:
            return await self._state.compare_and_put(one.key, one.value, one.new_value, self._lifetime(one))
        await self._state.put_if_absent(one.new_key, one.new_value, self._lifetime(one))
        return await self._state.compare_and_put(one.key, one.value, None, 1.0)

    async def drop(self, one: MovedRecord) -> None:
        await self._state.drop(one.key)

    def _lifetime(self, one: MovedRecord) -> float:
        return min(max(one.end - self._clock.seconds(), 1.0), LIFETIME_MOST)


class FollowsAccounts:
    """`IAccountFollower` for a component whose records are `_followed`; `_read_anew` takes up what has changed."""

    _followed: FollowedRecords

    async def accounts_renamed(self, accounts: Mapping[str, str], stage: Stage) -> None:
        """What is kept of them follows."""
        try:
            await self._followed.renamed(accounts, stage)
        finally:
            await self._read_anew()

    async def account_removed(self, account: str) -> None:
        """What is kept of him is forgotten."""
        try:
            await self._followed.removed(account)
        finally:
            await self._read_anew()

    async def kept_of_account(self, account: str) -> int:
        """How many."""
        return await self._followed.count(account)

    async def _read_anew(self) -> None:
        """Nothing is remembered of them beside the records, unless a component says so."""
