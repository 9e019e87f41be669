"""The facts of one component, in memory first.

An answer from memory is there at once, and costs no turn of the reactor.  What is not in memory is read in a thread; whoever asks
for the same key meanwhile waits for the same read, and each goes on from what the one before has made of the fact.  Nothing is
waited for between a decision and its change: that makes the verbs atomic.

A space has its own memory and its own unwritten changes, each bounded.  So a component that floods loses facts of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailserver.interfaces import IStateStore
from mailserver.state_store.facts import AtomicVerbs, Decision, Fact, checked_key, checked_range, checked_value

__all__ = ["StateDisk", "Space", "Unknown"]

FACT_OCTETS = 200  # of a fact in memory, beside key and value
T = TypeVar("T")
Entry = tuple[str, bytes, float]


class Unknown:
    """Nobody can say without the file."""


UNKNOWN = Unknown()


class StateDisk(Protocol):
    """What a space needs of its store."""

    def seconds(self) -> float:
        """The own time."""

    def on_the_wall(self, moment: float) -> float:
        """A moment of the own time by the wall's."""

    def former(self, own: str) -> Any:
        """The store for a plugin of API 0.1 (`mailserver.state_store.former`)."""

    def changed(self, space: Space) -> None:
        """There is something to be written."""

    async def read(self, space: str, key: str) -> Fact | None:
        """The fact in the file.  Raises `StorageBroken`."""

    async def read_range(self, space: str, first: str, before: str | None, most: int) -> dict[str, Fact]:
        """Facts in the file, by key.  Raises `StorageBroken`."""


class Read:
    """A key that is being read, and who waits for it."""

    __slots__ = ("_waiting", "is_overtaken")

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []
        self.is_overtaken = False  # the fact was changed meanwhile: what the file says is old

    def ended(self) -> Deferred[None]:
        """Fires at the end, with its error where there was one."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def end(self, error: Exception | None) -> None:
        """It has ended.  Those who wait go on in the order in which they came."""
        for waiting in self._waiting:
            if waiting.called:  # given up
                continue
            if error is None:
                waiting.callback(None)
            else:
                waiting.errback(error)


@implementer(IStateStore)
class Space(AtomicVerbs):
    """`remembered` facts and `octets_most` octets are kept in memory, the least recently used leave.  `unwritten_most` changes
    wait for the disk, beyond that the oldest are given up.
    """

    def __init__(
        self, name: str, disk: StateDisk, *, facts_most: int, remembered: int, octets_most: int, unwritten_most: int
    ) -> None:
        self.name = name
        self.facts_most = facts_most
        self.lost = 0  # changes that were given up
        self._disk = disk
        self._remembered = remembered
        self._octets_most = octets_most
        self._unwritten_most = unwritten_most
        self._memory: OrderedDict[str, Fact | None] = OrderedDict()  # None: known to be absent
        self._octets = 0
        self.is_whole = True  # what is not in memory, nor waits for the disk, is not there
        self._unwritten: dict[str, Fact | None] = {}
        self._unwritten_octets = 0
        self._in_flight: dict[str, Fact | None] = {}
        self._reads: dict[str, Read] = {}

    # --- IStateStore, beside the verbs that are decisions ---

    async def put(self, key: str, value: bytes, lifetime: float) -> None:
        """Keep the value for so many seconds; it reaches the disk within seconds."""
        self.change(checked_key(key), self._fact(checked_value(value), lifetime))

    async def drop(self, key: str) -> None:
        """Forget it."""
        self.change(checked_key(key), None)

    async def items(self, first: str = "", before: str | None = None, most: int = 1000) -> list[Entry]:
        """What has not expired from `first` on, up to but without `before`, by key."""
        first, before, most = checked_range(first, before, most)
        found: dict[str, Fact] = {}
        after = first
        while len(found) < most:
            pending = self._pending(after, before)
            page: dict[str, Fact] = {}
            if self.is_whole:
                pending |= {key: fact for key, fact in self._memory.items() if is_within(key, after, before)}
            else:
                page = await self._disk.read_range(self.name, after, before, most)
            pending |= self._pending(after, before)  # what has changed while it was read
            is_cut = bool(page) and len(page) >= most
            last = max(page) if is_cut else None
            merged = page | {key: fact for key, fact in pending.items() if last is None or key <= last}
            now = self._disk.seconds()
            found |= {key: fact for key, fact in sorted(merged.items()) if fact is not None and fact.expires > now}
            if last is None:
                break
            after = last + "\0"  # the next key in order
        return [(key, fact.value, self._disk.on_the_wall(fact.expires)) for key, fact in list(found.items())[:most]]

    def former(self) -> Any:
        """What a plugin of API 0.1 is lent in its place."""
        return self._disk.former(self.name)

    # --- the verbs ---

    async def _decide(self, key: str, decision: Decision[T]) -> T:
        fact = self.at_hand(key)
        while isinstance(fact, Unknown):
            await self._read(key)
            fact = self.at_hand(key)
        alive = None if fact is None or fact.expires <= self._disk.seconds() else fact
        after, answer = decision(alive)
        if after is not alive:
            self.change(key, after)
        return answer

    def _until(self, lifetime: float) -> float:
        return self._disk.seconds() + lifetime

    # --- memory ---

    def load(self, facts: dict[str, Fact] | None) -> None:
        """All that the file has of the space; None where that is too much to be kept in memory."""
        if facts is None:
            self.is_whole = False
        else:
            for key, fact in facts.items():
                if key not in self._memory:
                    self._remember(key, fact)

    def at_hand(self, key: str) -> Fact | Unknown | None:
        """The fact, expired or not, as far as it is known without the file."""
        memory = self._memory
        if key in memory:
            memory.move_to_end(key)
            return memory[key]
        for pending in (self._unwritten, self._in_flight):
            if key in pending:
                return pending[key]
        return None if self.is_whole else UNKNOWN

    def at_hand_all(self) -> dict[str, Fact | None]:
        """All that is known without the file: in memory, or on its way to the disk."""
        return {**self._in_flight, **self._unwritten, **self._memory}

    def learn(self, key: str, fact: Fact | None) -> None:
        """The file was asked and has said this; the fact was not changed meanwhile."""
        self._remember(key, fact)

    def change(self, key: str, fact: Fact | None) -> None:
        """The fact is another from now on."""
        if (read := self._reads.get(key)) is not None:
            read.is_overtaken = True
        self._remember(key, fact)
        if key in self._unwritten:
            self._unwritten_octets -= octets_of(key, self._unwritten.pop(key))
        self._unwritten[key] = fact
        self._unwritten_octets += octets_of(key, fact)
        self._bound_unwritten()
        self._disk.changed(self)

    def _remember(self, key: str, fact: Fact | None) -> None:
        memory = self._memory
        if key in memory:
            self._octets -= octets_of(key, memory[key])
        memory[key] = fact
        memory.move_to_end(key)
        self._octets += octets_of(key, fact)
        while len(memory) > self._remembered or (self._octets > self._octets_most and len(memory) > 1):
            gone, forgotten = memory.popitem(last=False)
            self._octets -= octets_of(gone, forgotten)
            self.is_whole = self.is_whole and forgotten is None

    def _read(self, key: str) -> Deferred[None]:
        """Have the key read, or wait for the read that is under way.  Fails with `StorageBroken`.

        Whoever gives up waiting ends nothing: the others still want the answer.
        """
        read = self._reads.get(key)
        if read is not None:
            return read.ended()
        read = self._reads[key] = Read()
        ended = read.ended()
        Deferred.fromCoroutine(self._take_up(key, read))
        return ended

    async def _take_up(self, key: str, read: Read) -> None:
        error: Exception | None = None
        try:
            found = await self._disk.read(self.name, key)
        except Exception as fault:  # noqa: BLE001  # those who wait are told
            error = fault
        del self._reads[key]
        if error is None and not read.is_overtaken:
            self.learn(key, found)
        read.end(error)

    # --- what waits for the disk ---

    @property
    def unwritten(self) -> int:
        """How many changes nobody writes yet."""
        return len(self._unwritten)

    @property
    def unwritten_octets(self) -> int:
        """How much memory they take."""
        return self._unwritten_octets

    def begin_write(self) -> dict[str, Fact | None]:
        """What is to be written now."""
        self._in_flight, self._unwritten, self._unwritten_octets = self._unwritten, {}, 0
        return self._in_flight

    def written(self) -> None:
        """It is in the file."""
        self._in_flight = {}

    def not_written(self) -> None:
        """It is not: it is kept for the next time, as far as it is not newer already."""
        self._unwritten = {**self._in_flight, **self._unwritten}
        self._in_flight = {}
        self._unwritten_octets = sum([octets_of(key, fact) for key, fact in self._unwritten.items()])
        self._bound_unwritten()

    def _bound_unwritten(self) -> None:
        while len(self._unwritten) > self._unwritten_most or (
            self._unwritten_octets > self._octets_most and len(self._unwritten) > 1
        ):
            oldest = next(iter(self._unwritten))
            self._unwritten_octets -= octets_of(oldest, self._unwritten.pop(oldest))
            self.lost += 1

    def _pending(self, first: str, before: str | None) -> dict[str, Fact | None]:
        both = {**self._in_flight, **self._unwritten}
        return {key: fact for key, fact in both.items() if is_within(key, first, before)}


def is_within(key: str, first: str, before: str | None) -> bool:
    """Whether the key is in the range.  Keys have the order of their octets in UTF-8, which is that of their code points."""
    return first <= key and (before is None or key < before)


def octets_of(key: str, fact: Fact | None) -> int:
    """About how much memory a fact takes."""
    return FACT_OCTETS + len(key) + (0 if fact is None else len(fact.value))
