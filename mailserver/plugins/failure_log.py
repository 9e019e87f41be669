"""Failures of components in the log: with a traceback, once for each kind of failure and minute."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import TracebackType

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from mailserver.plugins.rarely import Rarely

__all__ = ["FailureLog", "place_of", "words_of"]

ERROR_CHARACTERS = 500
TRACEBACK_CHARACTERS = 20_000

Fault = BaseException | Failure | str
log = Logger()


def words_of(error: Fault) -> str:
    """The exception's class and its words, at most some hundred characters of them; a text as it is."""
    if isinstance(error, Failure):
        error = error.value or error.getErrorMessage()
    return error if isinstance(error, str) else f"{type(error).__name__}: {safe_str(error)[:ERROR_CHARACTERS]}"


def place_of(error: Fault, component: object = None) -> str:
    """File and line where it was raised, "" where nobody knows: the last place in the component's own module, if there is one."""
    own = getattr(sys.modules.get(type(component).__module__), "__file__", None)
    place = ""
    in_own = False
    step = _traceback_of(error)
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if file == own or not in_own:
            in_own = file == own
            place = f"{file}:{step.tb_lineno}"
        step = step.tb_next
    return place


def _traceback_of(error: Fault) -> TracebackType | None:
    if isinstance(error, Failure):
        return error.getTracebackObject()  # type: ignore[no-any-return]
    return error.__traceback__ if isinstance(error, BaseException) else None


class FailureLog:
    """`seconds` is a clock."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._rarely = Rarely(seconds=seconds)

    def tell(self, who: str, error: Fault, place: str = "") -> None:
        """Write it down, unless this has been written within the last minute.  Never raises."""
        times = self._rarely.held_back((who, words_of(error).partition(":")[0], place))
        if times is None:
            return
        again = f" ({times} times more since it was told last)" if times else ""
        log.warn(
            "{who} failed: {error}{again}", who=who, error=words_of(error), again=again, traceback=_traceback_text(error)
        )


def _traceback_text(error: Fault) -> str:
    """What Python would print, from its end back; "" where there is nothing."""
    try:
        if isinstance(error, Failure):
            text = error.getTraceback()
        elif isinstance(error, BaseException):
            text = "".join(traceback.format_exception(error))
        else:
            return ""
    except Exception as broken:  # noqa: BLE001  # the words of anybody's exception are in there
        return f"(no traceback: {type(broken).__name__})"
    return text[-TRACEBACK_CHARACTERS:]
