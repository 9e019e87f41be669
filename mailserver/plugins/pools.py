"""The server's own threads: a small pool for each kind of waiting.

What hangs keeps its threads (`mailserver.plugins.threads`), and those of its own kind alone: a spool on a disk that hangs leaves
the command line its answers, and neither waits for a plugin.  Nothing of the server uses the reactor's own pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mailserver.interfaces import RunInThread
from mailserver.plugins.threads import ThreadCounts, Threads

__all__ = ["Pools"]

THREADS = 4
PATIENCE_SECONDS = 10.0  # a peer that has gone away in the middle of a write says nothing about the disk


class Pools:
    """Made as they are asked for; `call_from_thread` is the reactor's."""

    def __init__(self, call_from_thread: Callable[..., Any]) -> None:
        self._call_from_thread = call_from_thread
        self._pools: dict[str, Threads] = {}

    def of(self, kind: str, threads: int = THREADS) -> RunInThread:
        """What runs a function in a thread for this kind of waiting: ``run(function, *arguments)`` returns a Deferred."""
        return self.new(kind, threads).run

    def new(self, kind: str, threads: int) -> Threads:
        """The threads for this kind of waiting themselves, for a part that stops them by itself."""
        if kind not in self._pools:
            self._pools[kind] = Threads(
                kind, threads, call_from_thread=self._call_from_thread, patience_seconds=PATIENCE_SECONDS
            )
        return self._pools[kind]

    def counts(self) -> Mapping[str, ThreadCounts]:
        """What runs, waits and hangs, by kind."""
        return {kind: pool.counts for kind, pool in self._pools.items()}

    def stop(self) -> None:
        """At the server's end."""
        for pool in self._pools.values():
            pool.stop()
