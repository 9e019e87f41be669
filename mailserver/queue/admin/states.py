"""The names of states that can be asked for."""

from __future__ import annotations

__all__ = ["STATES"]

STATES = ("queued", "deferred", "failed", "held", "undecided", "damaged")
