"""A few threads for one kind of call that may block.

A deadline gives up the waiting, not the thread: a call to a disk that hangs keeps its thread for as long as the kernel keeps the
call.  So whatever may hang has threads of its own, and nobody else waits for one of those.  They are daemons: a call that hangs
does not hinder the server's end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["AllHang", "QueueFull", "ThreadCounts", "Threads"]


Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class AllHang(OSError):
    """Each thread is in a call that nobody waits for any more and that has not ended."""


class QueueFull(OSError):
    """As many calls wait for a thread as may wait."""


@dataclass(frozen=True, slots=True)
class ThreadCounts:
    """Calls that run, that wait for a thread, and that were given up and have not ended."""

    running: int
    waiting: int
    hanging: int


class ThreadCall:
    """One function that a thread calls."""

    __slots__ = ("arguments", "done", "function", "given_up_at")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], given_up: Callable[[ThreadCall], None]
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.given_up_at: float | None = None

        def give_up(_: Deferred[Any]) -> None:
            self.given_up_at = time.monotonic()
            given_up(self)

        self.done: Deferred[Any] = Deferred(give_up)


class Threads:
    """At most `most` threads, begun when they are needed; what is one too many waits for its turn.

    `waiting_most` calls may wait, None: any number.  `left_behind()` says how many threads of the same use hang elsewhere, which
    this one has fewer.  A call that was given up counts as hanging `patience_seconds` later.  `call_from_thread(function, *args)`
    calls it in the reactor's thread, where everything here but the functions runs.
    """

    def __init__(
        self,
        name: str,
        most: int,
        *,
        call_from_thread: Callable[..., Any],
        waiting_most: int | None = None,
        left_behind: Callable[[], int] = lambda: 0,
        patience_seconds: float = 0.0,
    ) -> None:
        self._name = name
        self._most = most
        self._waiting_most = waiting_most
        self._left_behind = left_behind
        self._patience_seconds = patience_seconds
        self._call_from_thread = call_from_thread
        self._idle: list[SimpleQueue[ThreadCall | None]] = []
        self._waiting: dict[ThreadCall, None] = {}  # the first that came stands first
        self._under_way: set[ThreadCall] = set()
        self._stopped = False

    @property
    def hanging(self) -> int:
        """Calls that were given up and have not ended; after `stop` all that have not ended."""
        if self._stopped:
            return len(self._under_way)
        since = time.monotonic() - self._patience_seconds
        return sum([call.given_up_at is not None and call.given_up_at <= since for call in self._under_way])

    @property
    def counts(self) -> ThreadCounts:
        """How many calls there are."""
        hanging = self.hanging
        return ThreadCounts(len(self._under_way) - hanging, len(self._waiting), hanging)

    def run(self, function: Callable[[*Arguments], T], /, *arguments: *Arguments) -> Deferred[T]:
        """What the function returns.  Cancelled, it is not begun any more or, if it runs, counts as hanging until it ends.

        Fails at once: with `AllHang` where no thread is left, with `QueueFull` where too many calls wait.
        """
        call = ThreadCall(function, arguments, self._given_up)
        most = self._most - self._left_behind()
        if self._stopped:
            call.done.errback(AllHang(f"{self._name}: the server stops"))
        elif self.hanging >= most:
            call.done.errback(self._all_hang())
        elif self._idle:
            self._begin(call, self._idle.pop())
        elif len(self._under_way) < most:
            inbox: SimpleQueue[ThreadCall | None] = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name=self._name, daemon=True).start()
            self._begin(call, inbox)
        elif self._waiting_most is not None and len(self._waiting) >= self._waiting_most:
            call.done.errback(QueueFull(f"{self._name}: {len(self._waiting)} calls wait for a thread already"))
        else:
            self._waiting[call] = None
        return call.done

    def stop(self) -> None:
        """Begin nothing any more, and end the threads: those in a call when it has ended."""
        self._stopped = True
        for inbox in self._idle:
            inbox.put(None)
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.done.cancel()

    def _all_hang(self) -> AllHang:
        return AllHang(f"{self._name}: {self.hanging + self._left_behind()} earlier calls have not ended")

    def _given_up(self, call: ThreadCall) -> None:
        """A call that waits leaves the queue.  If it had the last thread, nobody can tell when those who wait have their turn."""
        self._waiting.pop(call, None)
        if self.hanging >= self._most - self._left_behind():
            waiting, self._waiting = self._waiting, {}
            for one in waiting:
                one.done.errback(self._all_hang())

    def _begin(self, call: ThreadCall, inbox: SimpleQueue[ThreadCall | None]) -> None:
        self._under_way.add(call)
        inbox.put(call)

    def _serve(self, inbox: SimpleQueue[ThreadCall | None]) -> None:
        while (call := inbox.get()) is not None:
            result: Any = None
            try:
                if call.given_up_at is None:
                    result = call.function(*call.arguments)
            except BaseException:  # noqa: BLE001  # whoever waits for the result is told
                result = Failure()
            self._call_from_thread(self._ended, call, inbox, result)
            del call, result

    def _ended(self, call: ThreadCall, inbox: SimpleQueue[ThreadCall | None], result: Any) -> None:
        self._under_way.discard(call)
        if self._stopped:
            inbox.put(None)
        elif self._waiting:
            following = next(iter(self._waiting))
            del self._waiting[following]
            self._begin(following, inbox)
        else:
            self._idle.append(inbox)
        if call.given_up_at is None:
            call.done.callback(result)
