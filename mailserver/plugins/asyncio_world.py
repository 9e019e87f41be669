"""asyncio under Twisted's asyncio reactor (``twistd --reactor=asyncio``): its futures and coroutines as Deferreds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from twisted.internet.defer import Deferred

__all__ = ["NO_LOOP", "NoAsyncio", "as_deferred", "in_asyncio", "is_without_loop"]

NO_LOOP = "asyncio needs another reactor: start the server with `twistd --reactor=asyncio -n mailserver`"

T = TypeVar("T")


class NoAsyncio(RuntimeError):
    """Something of asyncio was used where the server runs another reactor."""


def in_asyncio(coroutine: Coroutine[object, None, T]) -> Deferred[T]:
    """Run a coroutine as a task of asyncio.  Cancelling the Deferred cancels the task.

    A component may await futures of asyncio as they are.  What asks for the present task (aiohttp, `asyncio.timeout`) has to be
    in one; in turn nothing of Twisted can be awaited there.  Raises `NoAsyncio` where another reactor runs.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        coroutine.close()
        raise NoAsyncio(NO_LOOP) from None
    return as_deferred(loop.create_task(coroutine))


def as_deferred(future: asyncio.Future[T]) -> Deferred[T]:
    """What the future comes to.  Cancelling the Deferred cancels the future."""

    def heard(ended: asyncio.Future[T]) -> None:
        if ended.cancelled():
            error: BaseException | None = asyncio.CancelledError()
        else:
            error = ended.exception()  # which also says that somebody has looked
        if done.called:
            return
        if error is None:
            done.callback(ended.result())
        else:
            done.errback(error)

    def cancel(_: Deferred[T]) -> None:
        future.cancel()

    done: Deferred[T] = Deferred(cancel)
    future.add_done_callback(heard)
    return done


def is_without_loop(error: BaseException) -> bool:
    """Whether asyncio says that no loop runs in this thread."""
    return type(error) is RuntimeError and error.args == ("no running event loop",)
