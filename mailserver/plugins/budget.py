"""An error budget: what fails too often is left alone for a while.

So many failures within a window open the circuit: for the length of a pause nobody asks.  Then one call is a trial.  Where it
succeeds, the circuit is closed; where it fails, or is never heard of again, the next trial comes a pause later.

No clock and no timer: whoever asks says what time it is (`steady_seconds` of the services).  A clock that is set costs one pause
or one trial at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Budget", "BudgetState", "Budgets"]


@dataclass(frozen=True, slots=True)
class BudgetState:
    """For people.  `seconds_left`: until the next trial; `failures` and `opened`: since the start."""

    circuit: Literal["closed", "open", "trial"]
    seconds_left: float
    failures: int
    opened: int

    def __str__(self) -> str:
        """In words: ``closed``, ``open for another 12 s``, ``on trial``."""
        match self.circuit:
            case "open":
                return f"open for another {self.seconds_left:.0f} s"
            case "trial":
                return "on trial"
            case _:
                return "closed"


class Budget:
    """`failures` within `window_seconds` open the circuit for `pause_seconds`.  Times are seconds of any steady clock.

    Ask `is_open` before each call, and tell `failed` or `succeeded` after it.  A call that began before the circuit opened may
    end after that: what it says while the circuit is open is only counted.
    """

    __slots__ = (
        "_failures", "_on_trial", "_opened_at", "_pause_seconds", "_times", "_times_opened", "_window_seconds", "is_closed",
    )  # fmt: skip

    def __init__(self, *, failures: int, window_seconds: float, pause_seconds: float) -> None:
        if failures < 1 or window_seconds <= 0 or pause_seconds <= 0:
            raise ValueError("a budget needs at least one failure, a window and a pause")
        self._window_seconds = window_seconds
        self._pause_seconds = pause_seconds
        self._times: deque[float] = deque(maxlen=failures)  # of the last failures: more are never looked at
        self._opened_at: float | None = None  # or when the last trial began; None: closed
        self._on_trial = False
        self._failures = self._times_opened = 0
        self.is_closed = True
        """Nearly always: then nobody need ask `is_open` nor tell `succeeded`."""

    def is_open(self, now: float) -> bool:
        """Whether nobody may be asked now.  After each pause the answer is False once: that caller is the trial."""
        if self._opened_at is None:
            return False
        if self._seconds_left(now) > 0:
            return True
        self._opened_at = now  # a trial that never ends makes room for another one after the next pause
        self._on_trial = True
        return False

    def failed(self, now: float) -> bool:
        """A call has failed.  True where that has opened the circuit, which was closed."""
        self._failures += 1
        if self._opened_at is not None:
            if self._on_trial:
                self._on_trial, self._opened_at = False, now
            return False
        times = self._times
        if times and times[-1] > now:  # the clock was set back; how long ago those failures are nobody knows: they count
            self._times = times = deque([min(moment, now) for moment in times], times.maxlen)
        times.append(now)
        if len(times) < (times.maxlen or 0) or now - times[0] >= self._window_seconds:
            return False
        self._opened_at, self._times_opened = now, self._times_opened + 1
        self.is_closed = False
        return True

    def succeeded(self, now: float) -> bool:
        """A call has succeeded.  True where that was the trial and has closed the circuit."""
        if not self._on_trial:
            return False
        self._on_trial, self._opened_at = False, None
        self.is_closed = True
        self._times.clear()
        return True

    def state(self, now: float) -> BudgetState:
        """How it stands, for people."""
        left = self._seconds_left(now)
        circuit: Literal["closed", "open", "trial"] = (
            "closed" if self._opened_at is None else "trial" if self._on_trial else "open"
        )
        return BudgetState(circuit, left, self._failures, self._times_opened)

    def _seconds_left(self, now: float) -> float:
        """Until the next trial.  Never longer than a pause, whatever becomes of the clock."""
        if self._opened_at is None:
            return 0.0
        if now < self._opened_at:  # set back: the pause begins anew
            self._opened_at = now
        return max(0.0, self._opened_at + self._pause_seconds - now)


class Budgets:
    """A component's, one for each stage or call (`by_stage`), made when it is first asked for with `new`.

    What fails at one stage works at another: the answers of the other would close its circuit, and its own open theirs.
    """

    __slots__ = ("_new", "by_stage")

    def __init__(self, new: Callable[[], Budget]) -> None:
        self._new = new
        self.by_stage: dict[str, Budget] = {}

    def of(self, stage: str) -> Budget:
        """The same one each time."""
        found = self.by_stage.get(stage)
        if found is None:
            found = self.by_stage[stage] = self._new()
        return found
