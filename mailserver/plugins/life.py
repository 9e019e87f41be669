"""Starts and stops a component, each within its time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mailserver.interfaces import Clock, IComponent
from mailserver.plugins.awaiting import later, within

__all__ = ["START_SECONDS", "STOP_SECONDS", "StartError", "start_component", "stop_component"]

START_SECONDS = 120.0
STOP_SECONDS = 20.0


class StartError(Exception):
    """The server cannot run with this configuration; the words say why."""


async def start_component(component: Any, clock: Clock) -> None:
    """Start what has a life.  Raises `StartError` where that takes longer than `START_SECONDS`, or what it raises itself."""
    if IComponent.providedBy(component):
        try:
            await within(START_SECONDS, later(component.start()), clock)
        except Late:
            raise StartError(f"{_name(component)} has not started within {START_SECONDS:g} seconds") from None


async def stop_component(component: Any, clock: Clock) -> None:
    """Stop what has a life; its errors go to the log.  After `STOP_SECONDS` nobody waits for it any more."""
    if IComponent.providedBy(component):
        try:
            await within(STOP_SECONDS, later(component.stop()), clock)
        except Late:
            Logger().error(
                "{name} has not stopped within {seconds:g} seconds; nobody waits for it",
                name=_name(component),
                seconds=STOP_SECONDS,
            )
        except Exception:  # noqa: BLE001  # a plugin's
            Logger().failure("{name} did not stop well", name=_name(component))


def _name(component: Any) -> str:
    kind = type(component)
    return f"{kind.__module__}.{kind.__qualname__}"
