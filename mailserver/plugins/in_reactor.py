"""The way from a component's thread into the reactor's: `Services.in_reactor`."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred
from twisted.python import threadable
from twisted.python.failure import Failure

from mailserver.plugins.awaiting import FAULTS, now_or_later

__all__ = ["ReactorCalls", "ReactorGone"]


Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class ReactorGone(RuntimeError):
    """The server stops: nothing is called in the reactor's thread any more."""


class ReactorCalls:
    """Calls functions in the reactor's thread; `call_from_thread` is the reactor's.

    The answer is a `concurrent.futures.Future` of what the function returns, or of what its Deferred or coroutine comes to:
    ``future.result(timeout=5)`` waits for it in the thread.  In the reactor's thread the function is called at once; there only
    ``add_done_callback`` makes sense.  After the stop, and for what was not answered before, the Future fails with `ReactorGone`.
    """

    def __init__(self, call_from_thread: Callable[..., Any]) -> None:
        self._call_from_thread = call_from_thread
        self._open: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __call__(self, function: Callable[[*Arguments], Awaitable[T] | T], /, *arguments: *Arguments) -> Future[T]:
        """From any thread."""
        future: Future[T] = Future()
        with self._lock:
            is_too_late = self._stopped
            if not is_too_late:
                self._open.add(future)
        if is_too_late:
            future.set_exception(ReactorGone("the server stops"))
        elif threadable.isInIOThread():
            self._call(future, function, arguments)
        else:
            self._call_from_thread(self._call, future, function, arguments)
        return future

    def stop(self) -> None:
        """Let nobody wait any more."""
        with self._lock:
            self._stopped = True
        for future in list(self._open):
            self._settle(ReactorGone("the server stops"), future)

    def _call(self, future: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if future not in self._open or future.cancelled():  # stopped or given up before its turn
            self._open.discard(future)
            return
        try:
            answer = function(*arguments)
            if hasattr(answer, "__await__"):
                answer = now_or_later(answer)
        except FAULTS as error:
            self._settle(error, future)
            return
        if isinstance(answer, Deferred):
            answer.addBoth(self._settle, future)
        else:
            self._settle(answer, future, is_answer=True)

    def _settle(self, answer: Any, future: Future[Any], *, is_answer: bool = False) -> None:
        if future not in self._open:
            return
        self._open.discard(future)
        if not future.set_running_or_notify_cancel():
            return
        if isinstance(answer, Failure):
            future.set_exception(answer.value)
        elif isinstance(answer, BaseException) and not is_answer:
            future.set_exception(answer)
        else:
            future.set_result(answer)
