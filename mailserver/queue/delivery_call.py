"""A delivery's answer that is waited for, but not for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.plugins.left_behind import LeftBehind

__all__ = ["DeadlinePassed", "DeliveryCall"]


class DeadlinePassed(Exception):
    """A delivery has not answered in time."""


class DeliveryCall:
    """Ends once: with the answer, with an error, at the deadline, or because it is given up.  `left` counts what runs on then.

    It is open while it is in `calls`, and whoever takes it out has ended it.  Three things race for that.  An answer that comes
    after the deadline finds it closed and is dropped: the messages have been deferred, and may be under way a second time.  A
    deadline that comes after the answer finds no timer.  And `abandon` cancels the answer, whose canceller may answer at once,
    in the middle of it: by then the call is closed, so that the answer is not taken for one.
    """

    __slots__ = ("_answer", "_calls", "_done", "_failed", "_left", "_timer")

    log = Logger()

    def __init__(
        self,
        answer: Deferred[Any],
        calls: set[DeliveryCall],
        done: Callable[[Any], None],
        failed: Callable[[Failure], None],
        left: LeftBehind,
    ) -> None:
        self._answer = answer
        self._calls = calls
        self._done = done
        self._failed = failed
        self._left = left
        self._timer: Any = None

    def begin(self, clock: Clock, seconds: float) -> None:
        """Wait so long."""
        self._calls.add(self)
        self._timer = clock.callLater(seconds, self._late, seconds)
        self._answer.addCallbacks(self._answered, self._raised)
        self._answer.addErrback(lambda failure: self.log.failure("the queue stumbled over an answer", failure))

    def abandon(self) -> bool:
        """Wait no longer.  False where the answer was there already."""
        if self not in self._calls:
            return False
        self._calls.discard(self)
        if self._timer.active():
            self._timer.cancel()
        try:
            self._answer.cancel()
        except Exception:  # noqa: BLE001  a plugin's canceller: what it was to give up counts as given up
            self.log.failure("a delivery that was given up raised an error")
        self._left.add(self._answer)
        return True

    def _late(self, seconds: float) -> None:
        if self.abandon():
            self._failed(Failure(DeadlinePassed(f"no answer within {seconds:g} seconds")))

    def _answered(self, result: Any) -> None:
        if self._closes():
            self._done(result)

    def _raised(self, failure: Failure) -> None:
        if self._closes():
            self._failed(failure)

    def _closes(self) -> bool:
        if self not in self._calls:
            return False
        self._calls.discard(self)
        self._timer.cancel()
        return True
