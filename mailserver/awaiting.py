"""Run what a component returns, without a reactor turn where nothing has to be waited for.

A component's method is an ``async def`` or returns a Deferred.  Most answer at once; `now_or_later` then hands back the plain
value, so that the caller pays for a Deferred only where there is something to wait for.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["now_or_later"]

T = TypeVar("T")


def now_or_later(awaitable: Awaitable[T]) -> T | Deferred[T]:
    """Return the result if it is there already, else a Deferred of it.  An error that is there already is raised."""
    if isinstance(awaitable, types.CoroutineType):
        try:
            waits_for = awaitable.send(None)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]
        return Deferred.fromCoroutine(_resume(awaitable, waits_for))
    if isinstance(awaitable, Deferred):
        return awaitable
    return Deferred.fromCoroutine(_wait_for(awaitable))


async def _wait_for(awaitable: Awaitable[T]) -> T:
    return await awaitable


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that has been started and waits for `waits_for`."""
    while True:
        try:
            value = yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001  (it is thrown into the coroutine)
            resume: Any = coroutine.throw
            argument: Any = error
        else:
            resume = coroutine.send
            argument = value
        try:
            waits_for = resume(argument)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]
