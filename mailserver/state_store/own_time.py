"""A clock that nobody sets, over restarts: what the lifetimes of small facts go by.

The clock on the wall may jump a year ahead and back again.  By it, every lockout would be forgotten, or kept for a year.  So
the store has a time of its own.  It begins with the wall's, and then goes with the machine's steady clock.  What it was is kept
in the file with every write; the next start goes on from there: by the steady clock where the machine was not started again
meanwhile, else by the wall, but never backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["OwnTime", "Reading", "boot_id"]


class Reading(NamedTuple):
    """The own time, the wall's and the steady clock's at one moment, in seconds; `boot` says which start the last belongs to."""

    own: float
    wall: float
    steady: float
    boot: str


def boot_id() -> str:
    """The name of this start of the machine, "" where it has none (Linux: random(4))."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


class OwnTime:
    """`wall()` tells seconds since the epoch, `steady()` seconds of a clock that nobody sets and that goes while the machine
    sleeps (CLOCK_BOOTTIME); without it the wall's word is taken, except that time never goes back.
    """

    def __init__(self, *, wall: Callable[[], float], steady: Callable[[], float] | None = None, boot: str = "") -> None:
        self._wall = wall
        self._steady = steady or wall
        self._boot = boot
        self._last = 0.0
        self.go_on_from(None)

    def go_on_from(self, kept: Reading | None) -> None:
        """Begin where an earlier one has ended; None: with the wall's time."""
        wall, steady = self._wall(), self._steady()
        if kept is None:
            self._begun_at = wall
        elif self._boot and kept.boot == self._boot:
            self._begun_at = kept.own + max(steady - kept.steady, 0.0)
        else:
            self._begun_at = kept.own + max(wall - kept.wall, 0.0)
        self._begun_steady = steady
        self._last = self._begun_at

    def seconds(self) -> float:
        """The own time: seconds since the epoch, as if no clock had been set since the first start."""
        now = self._begun_at + self._steady() - self._begun_steady
        self._last = max(self._last, now)
        return self._last

    def reading(self) -> Reading:
        """What is to be kept."""
        return Reading(self.seconds(), self._wall(), self._steady(), self._boot)

    def on_the_wall(self, moment: float) -> float:
        """What the wall shows when it is this moment by the own time: for people."""
        return moment if moment == float("inf") else moment + self._wall() - self.seconds()
