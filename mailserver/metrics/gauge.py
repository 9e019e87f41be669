"""A figure that is read when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Gauge"]


@dataclass(frozen=True, slots=True)
class Gauge:
    """The value of a gauge, or of a counter that somebody else counts."""

    name: str
    value: float
    labels: tuple[str, ...] = ()
