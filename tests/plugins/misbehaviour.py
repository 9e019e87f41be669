"""What components do in place of an answer: each entry makes a method that does it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

__all__ = ["HANGS", "NONSENSE", "RAISES", "Unprintable", "UnprintableError", "stubborn"]

Method = Callable[..., Any]


class Unprintable:
    """Cannot be looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    __hash__ = object.__hash__


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def recurse(*_: Any) -> Any:
    return recurse()


def raising(error: BaseException) -> tuple[Method, Method, Method]:
    """At once, in a coroutine, and in one that has waited (what it waits for is its attribute `first`)."""

    def at_once(*_: Any) -> Any:
        raise error

    async def in_coroutine(*_: Any) -> Any:
        raise error

    def later(*_: Any) -> Any:
        return fail(error)  # type: ignore[arg-type]

    return at_once, in_coroutine, later


def returning(value: Callable[[], Any]) -> Method:
    async def method(*_: Any) -> Any:
        return value()

    return method


def generator() -> Any:
    yield 1


async def stubborn(*_: Any) -> Any:
    """Never answers, and catches whatever is thrown into it."""
    while True:
        with contextlib.suppress(Exception):
            await Deferred[None]()


async def leaked_after_waiting(*_: Any) -> Any:
    await succeed(None)
    return Deferred()


def refuses_to_be_cancelled(*_: Any) -> Any:
    def canceller(_: Any) -> None:
        raise RuntimeError("not I")

    return Deferred(canceller)


ERRORS: Mapping[str, BaseException] = {
    "ValueError": ValueError("broken"),
    "Twisted's CancelledError": CancelledError(),
    "asyncio's CancelledError": asyncio.CancelledError(),
    "SystemExit": SystemExit(3),
    "RecursionError": RecursionError("too deep"),
    "MemoryError": MemoryError(),
    "KeyError of an unprintable": KeyError(Unprintable()),
    "an unprintable error": UnprintableError(),
    "OSError": OSError(5, "gone"),
}
RAISES: Mapping[str, Method] = {
    f"raises {name} {how}": method
    for name, error in ERRORS.items()
    for how, method in zip(("at once", "in a coroutine", "by a Deferred"), raising(error), strict=True)
} | {"recurses": recurse}
# What is no Awaitable, or an Awaitable of what is no answer to any question.
NONSENSE: Mapping[str, Method] = {
    "is no coroutine and returns None": lambda *_: None,
    "is no coroutine and returns text": lambda *_: "text",
    "is no coroutine and returns a class": lambda *_: dict,
    "is a generator": lambda *_: generator(),
    "returns an unprintable object": lambda *_: Unprintable(),
    "answers with a class": returning(lambda: dict),
    "answers with a generator": returning(generator),
    "answers with an unprintable object": returning(Unprintable),
    "answers with True": returning(lambda: True),
    "answers with a number": returning(lambda: 2.5),
    "answers with a coroutine": returning(lambda: returning(lambda: None)()),
    "answers with a Deferred": returning(Deferred),
    "answers with a Deferred after waiting": leaked_after_waiting,
    "answers with NotImplemented": returning(lambda: NotImplemented),
}
HANGS: Mapping[str, Method] = {
    "hangs": lambda *_: Deferred(),
    "hangs in a coroutine": lambda *_: returning_after(Deferred()),
    "hangs and is not to be cancelled": stubborn,
    "hangs and its canceller raises": refuses_to_be_cancelled,
}


async def returning_after(waits_for: Deferred[Any]) -> Any:
    return await waits_for
