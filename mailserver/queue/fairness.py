"""Fairness between destinations: whose turn it is, and how much one of them may take.  Pure.

A slow destination with a long queue shall not stand in front of the others: `FairQueue` gives each destination one item
after the other, and a `Share` leaves some of what is scarce (calls under way, memory) for those that have not come yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

__all__ = ["GENEROSITY", "Share", "FairQueue"]

GENEROSITY = 3
"""One key alone may take three quarters of a share; `n` keys leave one part in `1 + 3 n` free."""

Item = TypeVar("Item")


class Taken(NamedTuple, Generic[Item]):
    """What a queue has given: the key whose turn it was, and its item."""

    key: str
    item: Item


class FairQueue(Generic[Item]):
    """Queues by key.  `take` goes round the keys; within a key the order is kept."""

    __slots__ = ("_length", "_queues")

    def __init__(self) -> None:
        self._queues: dict[str, deque[Item]] = {}  # in the order of their turns
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        for queue in self._queues.values():
            yield from queue

    def waiting(self, key: str) -> int:
        """How many items of this key wait."""
        queue = self._queues.get(key)
        return 0 if queue is None else len(queue)

    def add(self, key: str, item: Item) -> None:
        """Put an item behind the others of its key."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(item)
        self._length += 1

    def give_back(self, key: str, item: Item) -> None:
        """Put an item that was taken in front of the others of its key."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.appendleft(item)
        self._length += 1

    def take(self, may: Callable[[str], bool] | None = None) -> Taken[Item] | None:
        """The next item of the first key in turn that `may` have one; None where there is none."""
        key = next((key for key in self._queues if may is None or may(key)), None)
        if key is None:
            return None
        queue = self._queues[key]
        item = queue.popleft()
        self._length -= 1
        if len(self._queues) > 1 or not queue:
            del self._queues[key]
            if queue:
                self._queues[key] = queue
        return Taken(key, item)

    def peek(self) -> Item:
        """What `take` would give where every key may.  Raises IndexError where nothing waits."""
        for queue in self._queues.values():
            return queue[0]
        raise IndexError("nothing waits")

    def withdraw(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Remove the unwanted items and return them."""
        found: list[Item] = []
        for key in list(self._queues):
            left: deque[Item] = deque()
            for item in self._queues[key]:
                (found if unwanted(item) else left).append(item)
            if left:
                self._queues[key] = left
            else:
                del self._queues[key]
        self._length -= len(found)
        return found

    def clear(self) -> None:
        """Forget all."""
        self._queues.clear()
        self._length = 0


class Share:
    """So much of something, `most`, for all keys together; what a key may take shrinks as the rest does."""

    __slots__ = ("_by_key", "most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._by_key: dict[str, int] = {}

    def room(self, key: str) -> int:
        """How much this key may still take; not more than 0 where it has had its share."""
        return GENEROSITY * (self.most - self.taken) - self._by_key.get(key, 0)

    def taken_by(self, key: str) -> int:
        """How much this key has taken."""
        return self._by_key.get(key, 0)

    def allows(self, key: str) -> bool:
        """This key may take more."""
        return self._by_key.get(key, 0) < GENEROSITY * (self.most - self.taken)

    def take(self, key: str, amount: int) -> None:
        """Whether or not `allows` says so."""
        self.taken += amount
        self._by_key[key] = self._by_key.get(key, 0) + amount

    def give_back(self, key: str, amount: int) -> None:
        """What was taken."""
        self.taken -= amount
        left = self._by_key[key] - amount
        if left:
            self._by_key[key] = left
        else:
            del self._by_key[key]
