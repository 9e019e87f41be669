"""Starts and stops a component, each within its time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.config.fault import ConfigurationError
from mailserver.interfaces import IComponent
from mailserver.plugins.asking import Asking, ComponentFailed, anything
from mailserver.plugins.awaiting import FAULTS

__all__ = ["REASONS", "StartError", "start_component", "stop_component"]

log = Logger()


class StartError(Exception):
    """The server cannot run with this configuration; the words say why."""


REASONS = (OSError, StartError, ConfigurationError)


async def start_component(
    component: Any, asking: Asking, seconds: float, reasons: tuple[type[Exception], ...] = REASONS
) -> None:
    """Start what has a life.

    Errors among the `reasons` say why it cannot run and are raised as they come.  `ComponentFailed` is everything else: it is
    late, it raises another error, it answers with no Awaitable.
    """
    if IComponent.providedBy(component):
        answer = asking.ask("start", seconds, anything, component.start, passes=reasons)
        if isinstance(answer, Deferred):
            await answer


async def stop_component(component: Any, asking: Asking, seconds: float) -> None:
    """Stop what has a life; its errors go to the log.  After so many seconds nobody waits for it any more."""
    if IComponent.providedBy(component):
        try:
            answer = asking.ask("stop", seconds, anything, component.stop, is_bounded=False)
            if isinstance(answer, Deferred):
                await answer
        except ComponentFailed as error:
            log.error("{error}; nobody waits for it", error=error)
        except FAULTS:
            log.failure("{name} did not stop well", name=asking.name)
