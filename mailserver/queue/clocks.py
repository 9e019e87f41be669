"""The clock on the wall, which people and time servers set, beside one that nobody sets.

A clock that is a year ahead for a minute must not send mail back as undeliverable, nor let it wait for a year.  So what is
decided by age asks whether anything has been tried since the start, or since the two clocks parted.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Clocks"]

PARTED_SECONDS = 60.0  # less is a time server's ordinary work


class Clocks:
    """`wall` tells seconds since the epoch; `boot` seconds since any moment, never set, also running while the machine sleeps
    (CLOCK_BOOTTIME).  Without `boot` the wall's word is taken.
    """

    def __init__(self, *, wall: Callable[[], float], boot: Callable[[], float] | None) -> None:
        self._wall = wall
        self._boot = boot
        self.begin()

    def begin(self) -> None:
        """The start."""
        self.since = self._wall()
        """When, by the present reading of the wall, the two began to go together."""
        self._steady_from = self._steady()
        self._apart = self.since - self._steady_from

    def parted(self) -> float:
        """By how many seconds the wall's clock has been set since this was asked last; 0.0 where it was a minute or less."""
        now = self._wall()
        by = now - self._steady() - self._apart
        if abs(by) <= PARTED_SECONDS:
            return 0.0
        self.begin()
        return by

    @property
    def together_seconds(self) -> float:
        """For so long the wall's clock has not been set."""
        return self._steady() - self._steady_from

    def _steady(self) -> float:
        return self._wall() if self._boot is None else self._boot()
