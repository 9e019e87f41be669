"""What monitoring wants to know of a queue, beside its counts."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from mailserver.mail.ids import time_of
from mailserver.queue.commit import CommitWriter
from mailserver.queue.entry import shown_id
from mailserver.queue.health import Health
from mailserver.queue.reader import SqliteReader
from mailserver.queue.runner import Runner

__all__ = ["QueueFigures"]

class QueueFigures:
    """Of one queue."""

    def __init__(self, runner: Runner, reader: SqliteReader, writer: CommitWriter, health: Health) -> None:
        self._runner = runner
        self._reader = reader
        self._writer = writer
        self._health = health

    @property
    def active(self) -> int:
        """How many messages are in memory, to be delivered now."""
        return len(self._runner.live)

    @property
    def damage(self) -> str:
        """What is damaged of the store, "" where nothing is known to be."""
        return self._health.damage

    def watch_commits(self, watch: Callable[[int, float], None]) -> None:
        """Tell, in the store's thread, how many messages each commit has and how many seconds it took."""
        self._writer.watch = watch

    def states(self) -> Deferred[dict[str, tuple[int, float]]]:
        """Of recipients with a record: how many there are in each state, and when the oldest came (Unix time).

        "any" has the oldest message of the queue.  Fails with `StorageBroken`.
        """
        return self._runner.read(lambda: _dated(self._reader.states()))


def _dated(states: dict[str, tuple[int, int]]) -> dict[str, tuple[int, float]]:
    return {state: (count, time_of(shown_id(number, ""))) for state, (count, number) in states.items()}
