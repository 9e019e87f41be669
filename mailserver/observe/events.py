"""Other events in the same log: Twisted's own, warnings, failures with their tracebacks."""

from __future__ import annotations

from typing import Literal

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from mailserver.observe.steps import Steps

__all__ = ["LogObserver"]

LEVELS = {
    "debug": frozenset(LogLevel.iterconstants()),
    "info": frozenset({LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical}),
    "warn": frozenset({LogLevel.warn, LogLevel.error, LogLevel.critical}),
    "error": frozenset({LogLevel.error, LogLevel.critical}),
}


@implementer(ILogObserver)
class LogObserver:
    """Hands log events of at least `level` to `steps`, which writes them without blocking the reactor."""

    def __init__(self, steps: Steps, *, level: Literal["debug", "info", "warn", "error"] = "info") -> None:
        self._steps = steps
        self._levels = LEVELS[level]

    def __call__(self, event: LogEvent) -> None:
        """Called by Twisted, from any thread.  Never raises."""
        level = event.get("log_level", LogLevel.info)
        if level not in self._levels:
            return
        failure = event.get("log_failure")
        traceback = str(event.get("traceback") or "")  # of what is no fault of ours, and is told with fewer words
        if failure is not None:
            try:
                traceback = failure.getTraceback()
            except Exception as error:  # noqa: BLE001 the repr of anybody's object is in there
                traceback = f"(no traceback: {type(error).__name__})"
        text = formatEvent(dict(self._steps.redaction.event(event))) or (failure.getErrorMessage() if failure is not None else "")
        if text or traceback:
            self._steps.note_event(
                float(event.get("log_time", 0.0)), level.name, event.get("log_namespace", ""), text, traceback
            )
