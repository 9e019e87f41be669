"""Asks what is awaitable where the answer is there already: all of it is in memory."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.plugins.awaiting import now_or_later

__all__ = ["AtOnce", "at_once"]


def at_once(awaitable: Any) -> Any:
    """The answer.  Raises AssertionError where somebody would have to wait for it."""
    answer = now_or_later(awaitable)
    assert not isinstance(answer, Deferred), "it waits for something"
    return answer


class AtOnce:
    """Another object whose methods need no `await`."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not inspect.ismethod(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            answer = found(*arguments, **named)
            if inspect.isawaitable(answer):
                return at_once(answer)
            return AtOnce(answer) if type(answer).__module__.startswith("mailserver.") else answer

        return call
