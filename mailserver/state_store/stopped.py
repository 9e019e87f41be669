"""The file of the small facts while no server runs: for the command line.  Each change is written at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw
from zope.interface import implementer

from mailserver.interfaces import IStateStore
from mailserver.mail.faults import StorageBroken
from mailserver.state_store.facts import AtomicVerbs, Decision, checked_range
from mailserver.state_store.own_time import OwnTime, Reading, boot_id
from mailserver.state_store.state_file import close_all, contents_of, fact_of, facts_of, open_writing, write

__all__ = ["StoppedState"]

T = TypeVar("T")


class StoppedState:
    """`opened` returns None where there is no file yet; all methods of the spaces answer at once, and raise `StorageBroken`."""

    def __init__(self, path: str, connection: apsw.Connection, time: OwnTime) -> None:
        self.path = path
        self.connection = connection
        self.time = time

    @classmethod
    @contextmanager
    def opened(
        cls, path: str, seconds: Callable[[], float] = time.time, steady: Callable[[], float] | None = None
    ) -> Iterator[StoppedState | None]:
        """The file, closed at the end.  `steady` is `OwnTime`'s."""
        if not os.path.exists(path):
            yield None
            return
        connection = open_writing(path)
        try:
            own = OwnTime(wall=seconds, steady=steady, boot=boot_id() if steady is not None else "")
            try:
                own.go_on_from(contents_of(connection, ()).kept)
            except apsw.Error as error:
                raise StorageBroken(f"{path}: {error}") from error
            yield cls(path, connection, own)
        finally:
            close_all(connection)

    def space(self, name: str) -> StoppedSpace:
        """The facts under this name, an `IStateStore`."""
        return StoppedSpace(self, name)

    def seconds(self) -> float:
        """The store's own time."""
        return self.time.seconds()


@implementer(IStateStore)
class StoppedSpace(AtomicVerbs):
    """One space of the file."""

    __slots__ = ("_name", "_of")

    def __init__(self, of: StoppedState, name: str) -> None:
        self._of = of
        self._name = name

    async def items(self, first: str = "", before: str | None = None, most: int = 1000) -> list[tuple[str, bytes, float]]:
        """What has not expired from `first` on, up to but without `before`, by key."""
        time = self._of.time
        found = self._do(facts_of, self._name, time.seconds(), *checked_range(first, before, most))
        return [(key, fact.value, time.on_the_wall(fact.expires)) for key, fact in found.items()]

    async def _decide(self, key: str, decision: Decision[T]) -> T:
        fact = self._do(fact_of, self._name, key)
        alive = None if fact is None or fact.expires <= self._of.seconds() else fact
        after, answer = decision(alive)
        if after is not alive:
            self._do(write, {self._name: {key: after}}, self._reading())
        return answer

    def _reading(self) -> Reading:
        return self._of.time.reading()

    def _until(self, lifetime: float) -> float:
        return self._of.seconds() + lifetime

    def _do(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return work(self._of.connection, *arguments)
        except apsw.Error as error:
            raise StorageBroken(f"{self._of.path}: {error}") from error
