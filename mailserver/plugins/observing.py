"""One observer, in a thread of its own.

An observer can neither decide nor delay: what it does not keep up with is lost to it alone, counted and told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.plugins.awaiting import Timers, within
from mailserver.plugins.failure_log import FailureLog, place_of
from mailserver.plugins.rarely import Rarely

__all__ = ["Observing", "Step"]

WAITING_MOST = 10_000

Step = Mapping[str, Any]


class Observing:
    """Hands steps to `observe`, one after the other.

    `take` and the thread share two counters, each written by one side only.  While `waiting_most` steps wait, further ones are
    lost.  `may_begin()` says whether a thread may be begun: one that hangs stays, and a reload must not add to them for ever.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        observe: Callable[[Step], Any],
        *,
        call_from_thread: Callable[..., Any],
        waiting_most: int = WAITING_MOST,
        may_begin: Callable[[], bool] = lambda: True,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.lost = 0
        """Steps that it was not told."""
        self.failures = 0
        """Steps at which it raised."""
        self._observe = observe
        self._call_from_thread = call_from_thread
        self._waiting_most = waiting_most
        self._may_begin = may_begin
        self._rarely = Rarely(seconds=seconds)
        self._failure_log = FailureLog(seconds)
        self._inbox: SimpleQueue[Sequence[Step] | None] = SimpleQueue()
        self._taken = self._seen = 0
        self._thread: threading.Thread | None = None
        self._ended: Deferred[None] = Deferred()
        self._is_closed = self._is_through = False

    @property
    def waiting(self) -> int:
        """Steps that were taken and not seen yet."""
        return self._taken - self._seen

    @property
    def hanging(self) -> int:
        """1 where it was to end and its thread is still in a call."""
        return int(self._is_closed and self._thread is not None and not self._is_through)

    def take(self, steps: Sequence[Step]) -> None:
        """Never blocks.  Only one thread at a time may call it."""
        if self._is_closed:
            return
        room = self._waiting_most - self.waiting
        if self._thread is None:
            room = room if self._begin() else 0
        if len(steps) > room:
            self.lost += len(steps) - max(0, room)
            if self._rarely.may("lost"):
                self.log.warn(
                    "the observer {name} does not keep up: {lost} steps were lost to it since the start",
                    name=self.name,
                    lost=self.lost,
                )
            steps = steps[: max(0, room)]
        self._taken += len(steps)
        self._inbox.put(steps)

    async def end(self, seconds: float, clock: Timers) -> bool:
        """Take nothing more, and wait so long for what was taken.  False: it is not through; its thread is left behind."""
        self._is_closed = True
        if self._thread is None:
            return True
        self._inbox.put(None)
        try:
            await within(seconds, self._ended, clock)
        except Late:
            self.log.error(
                "the observer {name} has not ended within {seconds:g} seconds: {waiting} steps are lost to it",
                name=self.name,
                seconds=seconds,
                waiting=self.waiting,
            )
            return False
        return True

    def _begin(self) -> bool:
        if not self._may_begin():
            return False
        thread = threading.Thread(target=self._run, name=f"observer {self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            return False
        self._thread = thread
        return True

    # --- the thread ---

    def _run(self) -> None:
        while (steps := self._inbox.get()) is not None:
            for step in steps:
                try:
                    answer = self._observe(step)
                    if answer is not None and hasattr(answer, "__await__"):
                        self._refuse(answer)
                except BaseException as error:  # noqa: BLE001  # sys.exit() in a plugin ends no thread of ours
                    self._failed(error)
                self._seen += 1
        self._call_from_thread(self._through)

    def _through(self) -> None:
        self._is_through = True
        self._ended.callback(None)  # which nobody hears where it was given up

    def _refuse(self, answer: Any) -> None:
        if hasattr(answer, "close"):  # a coroutine, which would complain that nobody has waited for it
            answer.close()
        raise TypeError(f"observe() has returned a {type(answer).__name__}: it is a plain function, for which nobody waits")

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        self._failure_log.tell(f"the observer {self.name}", error, place_of(error))
