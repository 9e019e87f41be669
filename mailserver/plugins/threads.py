"""A few threads for one kind of call that may block.

A deadline gives up the waiting, not the thread: a call to a disk that hangs keeps its thread for as long as the kernel keeps the
call.  So whatever may hang has threads of its own, and nobody else waits for one of those.  They are daemons: a call that hangs
does not hinder the server's end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["AllHang", "Threads"]


class AllHang(OSError):
    """Each thread is in a call that nobody waits for any more and that has not ended."""


class ThreadCall:
    """One function that a thread calls."""

    __slots__ = ("arguments", "done", "function", "given_up")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], given_up: Callable[[], None]) -> None:
        self.function = function
        self.arguments = arguments
        self.given_up = False

        def give_up(_: Deferred[Any]) -> None:
            self.given_up = True
            given_up()

        self.done: Deferred[Any] = Deferred(give_up)


class Threads:
    """At most `most` threads, begun when they are needed; what is one too many waits for its turn.

    `call_from_thread(function, *args)` calls it in the reactor's thread, where everything here but the functions runs.
    """

    def __init__(self, name: str, most: int, *, call_from_thread: Callable[..., Any]) -> None:
        self._name = name
        self._most = most
        self._call_from_thread = call_from_thread
        self._idle: list[SimpleQueue[ThreadCall | None]] = []
        self._waiting: deque[ThreadCall] = deque()
        self._under_way: set[ThreadCall] = set()
        self._stopped = False

    @property
    def hanging(self) -> int:
        """Calls that were given up and have not ended."""
        return sum([call.given_up for call in self._under_way])

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What the function returns.  Cancelled, it is not begun any more or, if it runs, counts as hanging until it ends.

        Fails with `AllHang` at once where no thread is left.
        """
        call = ThreadCall(function, arguments, self._give_up_waiting)
        if self._stopped:
            call.done.errback(AllHang(f"{self._name}: the server stops"))
        elif self.hanging >= self._most:
            call.done.errback(self._all_hang())
        elif self._idle:
            self._begin(call, self._idle.pop())
        elif len(self._under_way) < self._most:
            inbox: SimpleQueue[ThreadCall | None] = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name=self._name, daemon=True).start()
            self._begin(call, inbox)
        else:
            self._waiting.append(call)
        return call.done

    def stop(self) -> None:
        """Begin nothing any more, and end the threads: those in a call when it has ended."""
        self._stopped = True
        for inbox in self._idle:
            inbox.put(None)
        self._idle.clear()
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.done.cancel()

    def _all_hang(self) -> AllHang:
        return AllHang(f"{self._name}: {self.hanging} earlier calls have not ended")

    def _give_up_waiting(self) -> None:
        """A call was given up: if that was the last thread, nobody can tell when those who wait have their turn."""
        if self.hanging >= self._most:
            waiting, self._waiting = self._waiting, deque()
            for call in waiting:
                if not call.given_up:
                    call.done.errback(self._all_hang())

    def _begin(self, call: ThreadCall, inbox: SimpleQueue[ThreadCall | None]) -> None:
        self._under_way.add(call)
        inbox.put(call)

    def _serve(self, inbox: SimpleQueue[ThreadCall | None]) -> None:
        while (call := inbox.get()) is not None:
            try:
                result = call.function(*call.arguments)
            except BaseException:  # noqa: BLE001  # whoever waits for the result is told
                result = Failure()
            self._call_from_thread(self._ended, call, inbox, result)
            del call, result

    def _ended(self, call: ThreadCall, inbox: SimpleQueue[ThreadCall | None], result: Any) -> None:
        self._under_way.discard(call)
        while self._waiting and self._waiting[0].given_up:
            self._waiting.popleft()
        if self._stopped:
            inbox.put(None)
        elif self._waiting:
            self._begin(self._waiting.popleft(), inbox)
        else:
            self._idle.append(inbox)
        if not call.given_up:
            call.done.callback(result)
