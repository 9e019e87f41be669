"""Runs a component's coroutine, without a reactor turn where it has nothing to wait for.

A component's method is an ``async def`` or returns a Deferred.  Most answer at once; `now_or_later` then hands back the plain
value, so that the caller pays for a Deferred only where there is something to wait for.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList, FirstError, succeed
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.plugins.asyncio_world import NO_LOOP, NoAsyncio, as_deferred, is_without_loop

__all__ = ["FAULTS", "PLAIN", "all_of", "in_time", "now_or_later", "side_by_side"]

# What a component's code may raise that is a failure of this component alone: one that calls sys.exit(), or was cancelled inside
# asyncio, has failed like any other.
FAULTS = (Exception, SystemExit, asyncio.CancelledError)

log = Logger()
T = TypeVar("T")
CoroutineType = types.CoroutineType


# Classes of answers that are no Deferreds: to ask that of an object takes ten times as long as to look up its class.
PLAIN: set[type] = set()
PLAIN_MOST = 1000


class Timers(Protocol):
    """The part of a clock that is needed."""

    def callLater(self, seconds: float, function: Any, /, *arguments: Any, **named: Any) -> Any: ...


def now_or_later(awaitable: Awaitable[T]) -> T | Deferred[T]:
    """Return the result if it is there already, else a Deferred of it.  An error that is there already is raised.

    Cancelling the Deferred cancels what is waited for.
    """
    if awaitable.__class__ is CoroutineType:
        coroutine: Any = awaitable
        try:
            waits_for = coroutine.send(None)
        except StopIteration as finished:
            value = finished.value
            if type(value) not in PLAIN:
                _look_at(value)
            return value  # type: ignore[no-any-return]
        except RuntimeError as error:
            if is_without_loop(error):
                raise NoAsyncio(NO_LOOP) from error
            raise
        return Rest(coroutine, waits_for)
    if isinstance(awaitable, Deferred):
        return awaitable
    return now_or_later(_wait_for(awaitable))


def _look_at(value: Any) -> None:
    """An answer of a class that is not known to be plain."""
    if value.__class__ is CoroutineType or isinstance(value, Deferred):
        _raise_for_unawaited(value)
    if len(PLAIN) < PLAIN_MOST:
        PLAIN.add(type(value))


def later(awaitable: Awaitable[T]) -> Deferred[T]:
    """A Deferred of the result.  An error that is there already is raised."""
    answer = now_or_later(awaitable)
    return answer if isinstance(answer, Deferred) else succeed(answer)


async def _wait_for(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _raise_for_unawaited(value: Any) -> None:
    """Raises TypeError for a Deferred or a coroutine that a coroutine has returned: it has forgotten to await it."""
    if value.__class__ is CoroutineType:
        value.close()
    elif isinstance(value, Deferred):
        value.addErrback(lambda _: None)  # nobody will look at it
    else:
        return
    raise TypeError(f"the coroutine returned a {type(value).__name__}, which it does not await")


class Rest(Deferred[Any]):
    """A coroutine that waits, taken to its end: `Deferred.fromCoroutine`, begun in the middle.

    Once it is cancelled, it has had its result; `coroutine` may run on all the same.
    """

    def __init__(self, coroutine: Any, waits_for: Any) -> None:
        super().__init__(lambda _: self._cancel_it())
        self.coroutine = coroutine
        self._waits_for: Deferred[Any] | None = None
        self._wait(waits_for)

    def _wait(self, waits_for: Any) -> None:
        if isinstance(waits_for, Deferred):
            self._waits_for = waits_for
            waits_for.addBoth(self._go_on)
        elif asyncio.isfuture(waits_for):
            waits_for._asyncio_future_blocking = False  # as a task does: it is waited for
            self._wait(as_deferred(waits_for))
        else:  # none of the two worlds: it gets back what it yields, as from `Deferred.fromCoroutine`
            self._step(self.coroutine.send, waits_for)

    def _go_on(self, result: object) -> None:
        if isinstance(result, Failure):
            self._step(result.throwExceptionIntoGenerator, self.coroutine)
        else:
            self._step(self.coroutine.send, result)

    def _step(self, resume: Callable[[Any], Any], argument: object) -> None:
        try:
            waits_for = resume(argument)
        except StopIteration as finished:
            self._end(finished.value)
        except BaseException as error:  # noqa: BLE001  # whoever waits for the result is told
            if not self.called:
                self.errback(Failure(NoAsyncio(NO_LOOP)) if is_without_loop(error) else Failure())
        else:
            self._wait(waits_for)

    def _end(self, value: Any) -> None:
        if self.called:  # a cancelled one has had its answer, whatever the coroutine makes of that
            return
        try:
            _raise_for_unawaited(value)
        except TypeError:
            self.errback(Failure())
        else:
            self.callback(value)

    def _cancel_it(self) -> None:
        if self._waits_for is not None:
            self._waits_for.cancel()


def within(
    seconds: float, answer: Deferred[T], clock: Timers, given_up: Callable[[Deferred[T]], object] | None = None
) -> Deferred[T]:
    """The answer, or Twisted's `TimeoutError` after so many seconds: it is cancelled then, and `given_up` is told.

    `Deferred.addTimeout` waits on for what does not let itself be cancelled (a coroutine that catches every exception); this does
    not: what such a thing still says is not heard.  Cancelling the Deferred cancels what is waited for.
    """
    is_over = False

    def give_up(_: object = None) -> None:
        nonlocal is_over
        is_over = True
        if timer.active():
            timer.cancel()
        try:
            answer.cancel()
        except Exception:  # noqa: BLE001  a plugin's canceller
            log.failure("what was given up could not be cancelled")

    def late() -> None:
        give_up()
        if given_up is not None:
            given_up(answer)
        done.errback(Late(seconds, "Deferred"))

    def heard(result: Any) -> None:
        nonlocal is_over
        if is_over:
            return
        is_over = True
        timer.cancel()
        done.callback(result)

    done: Deferred[T] = Deferred(give_up)
    timer: Any = clock.callLater(seconds, late)
    answer.addBoth(heard)
    return done


async def in_time(seconds: float, awaitable: Awaitable[T], clock: Timers) -> T:
    """The result; no timer is set where it is there already.  Raises Twisted's `TimeoutError` after so many seconds."""
    answer = now_or_later(awaitable)
    if type(answer) in PLAIN or not isinstance(answer, Deferred):
        return answer  # type: ignore[return-value]
    return await within(seconds, answer, clock)


async def side_by_side(awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all, in their order, when the last has come.  No Deferred is made where they are there already.

    The first failure is raised as soon as it is there.  Where nobody waits any more, or one has failed, the others are cancelled.
    """
    answers: list[Any] = []
    try:
        for one in awaitables:
            answers.append(now_or_later(one))
    except BaseException:
        for one in awaitables[len(answers) + 1 :]:
            if one.__class__ is CoroutineType:
                one.close()
        _cancel_all(answers)
        raise
    waiting = [one for one in answers if type(one) not in PLAIN and isinstance(one, Deferred)]
    if not waiting:
        return answers
    try:
        late = await DeferredList(waiting, fireOnOneErrback=True, consumeErrors=True)
    except FirstError as first:
        _cancel_all(answers)
        first.subFailure.raiseException()
    results = iter(late)
    return [next(results)[1] if isinstance(one, Deferred) else one for one in answers]


def _cancel_all(answers: Sequence[Any]) -> None:
    for one in answers:
        if isinstance(one, Deferred) and not one.called:
            one.addErrback(lambda _: None)
            one.cancel()


async def all_of(waiting: Sequence[Deferred[T]]) -> list[T]:
    """The answers of all, in their order, when the last has come; then the first failure is raised.

    Where nobody waits any more (CancelledError), each of them is cancelled.
    """
    if len(waiting) == 1:
        return [await waiting[0]]
    found: list[T] = []
    answers: Any = await DeferredList(waiting, consumeErrors=True) if waiting else ()
    for succeeded, answer in answers:
        if not succeeded:
            answer.raiseException()
        found.append(answer)
    return found
