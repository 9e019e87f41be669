"""What the stores in memory do with each call of a verb: one may be made to fail, and one that nobody awaits is told of."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from zope.interface.interface import InterfaceClass

from mailserver.mail.faults import StorageBroken

__all__ = ["Calls", "watched"]

KEPT = 100  # calls, before those that are under way or done are forgotten

C = TypeVar("C", bound=type)


class Calls:
    """The calls of a test."""

    def __init__(self) -> None:
        self._made: list[tuple[str, Coroutine[Any, Any, Any]]] = []

    def made(self, words: str, call: Coroutine[Any, Any, Any]) -> None:
        """One more."""
        if len(self._made) >= KEPT:
            self._made = [one for one in self._made if has_not_begun(one[1])]
        self._made.append((words, call))

    def never_awaited(self) -> list[str]:
        """The verb, the key and the line of each call that nobody has awaited.  They are forgotten."""
        made, self._made = self._made, []
        found = [(words, call) for words, call in made if has_not_begun(call)]
        for _, call in found:
            call.close()  # else Python warns as well
        return [words for words, _ in found]


def has_not_begun(call: Coroutine[Any, Any, Any]) -> bool:
    """Whether nobody awaits it."""
    return inspect.getcoroutinestate(call) == inspect.CORO_CREATED


def watched(interface: InterfaceClass) -> Callable[[C], C]:
    """Decorates a store: the verbs of the interface mind its `failing`, and its `calls` has each of them."""

    def decorate(store: C) -> C:
        for verb in interface.names():
            setattr(store, verb, watching(verb, getattr(store, verb)))
        return store

    return decorate


def watching(verb: str, method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The same verb, watched."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Coroutine[Any, Any, Any]:
        is_broken = not self.failing.isdisjoint((verb, "*"))
        begun = broken(verb) if is_broken else method(self, *arguments, **named)
        caller = sys._getframe(1)
        key = ", ".join(repr(one) for one in arguments[:1])
        self.calls.made(f"{self.what}.{verb}({key}) at {caller.f_code.co_filename}:{caller.f_lineno}", begun)
        return begun

    return call


async def broken(verb: str) -> None:
    """As where the file cannot be read or written."""
    raise StorageBroken(f"the test has {verb} fail")
