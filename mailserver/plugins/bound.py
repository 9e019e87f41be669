"""A component as a table of the configuration binds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.interfaces import CannotTell
from mailserver.plugins.asking import Asking
from mailserver.plugins.budget import Budget

__all__ = ["BoundComponent"]

T = TypeVar("T")
log = Logger()


@dataclass(frozen=True, slots=True)
class BoundComponent:
    """`asking` asks it, under its name.  What `on_error` means is for each kind of question to say.

    With `shadow` it is asked, and its answer is recorded and not obeyed.  While the circuit of `budget` is open it is not asked.
    """

    name: str
    component: Any
    asking: Asking
    on_error: Literal["defer", "skip", "refuse"] = "defer"
    deadline_seconds: float = 10.0
    shadow: bool = False
    budget: Budget | None = None

    async def ask(
        self,
        what: str,
        read: Callable[[Any], T],
        function: Callable[..., Awaitable[Any]],
        *arguments: Any,
        seconds: Callable[[], float],
    ) -> T:
        """What `read` makes of its answer.  Raises `CannotTell` for a failure, and where it is not asked."""
        budget = self.budget
        if budget is not None and not budget.is_closed and budget.is_open(seconds()):
            raise CannotTell(f"{self.name}: not asked, it fails too often")
        try:
            answer = self.asking.ask(what, self.deadline_seconds, read, function, *arguments)
            found = await answer if isinstance(answer, Deferred) else answer
        except CannotTell:
            if budget is not None and budget.failed(seconds()):
                log.warn("{name} ({what}) fails too often: it is left alone for a while", name=self.name, what=what)
            raise
        if budget is not None and not budget.is_closed and budget.succeeded(seconds()):
            log.info("{name} ({what}) works again", name=self.name, what=what)
        return found
