"""What a reload has replaced is stopped when nothing that began with it is under way any more."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.plugins.generation import Generation

__all__ = ["Retirement"]


class Replaced(Protocol):
    """Something with parts that others use."""

    generation: Generation

    async def stop(self) -> None: ...


class Retirement:
    """Keeps the parts of former configurations alive for as long as they are needed."""

    log = Logger()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: set[Deferred[None]] = set()
        self._leaving: set[Deferred[None]] = set()

    def __len__(self) -> int:
        return len(self._leaving)

    def retire(self, parts: Replaced, within_seconds: float) -> None:
        """Stop them when nobody uses them, at the latest after this time.  Nothing new may begin with them any more."""
        leaving: Deferred[None] = Deferred.fromCoroutine(self._retire(parts, within_seconds))
        if not leaving.called:
            self._leaving.add(leaving)
            leaving.addBoth(lambda _: self._leaving.discard(leaving))

    async def finish(self) -> None:
        """Wait no longer: stop what is left, and return when it has stopped.

        What has left `_waiting` already is stopping; it is waited for like the others, as it stands in `_leaving` until its end.
        """
        leaving = list(self._leaving)
        for waiting in list(self._waiting):
            waiting.cancel()
        await DeferredList(leaving)

    async def _retire(self, parts: Replaced, within_seconds: float) -> None:
        # Three ways out of the wait.  Nothing uses the parts any more: they stop.  The time is over: they stop under those who
        # use them, who hear a temporary failure.  `finish` cancels the wait: the server stops.
        unused = parts.generation.unused()
        unused.addTimeout(within_seconds, self._clock, onTimeoutCancel=lambda *_: None)  # type: ignore[arg-type]
        unused.addErrback(lambda failure: failure.trap(CancelledError) and None)  # the server stops
        self._waiting.add(unused)
        await unused
        self._waiting.discard(unused)
        if parts.generation.uses:
            self.log.warn(
                "{uses} transactions or logins that began before a reload have not ended; their parts stop now",
                uses=parts.generation.uses,
            )
        try:
            await parts.stop()
        except Exception:  # noqa: BLE001  # nobody waits for this
            self.log.failure("what a reload has replaced did not stop well")
