"""What is tried after a handshake that failed: a smaller hello, then mail in the clear where that is allowed."""

from __future__ import annotations

import enum
from collections.abc import Callable

from mailserver.relay.pool import Key

__all__ = ["Fallbacks", "TLSStep"]

STEP_SECONDS = 3600.0
STEPS_KEPT = 10_000


class TLSStep(enum.Enum):
    """How a connection begins its TLS."""

    FULL = "all that OpenSSL offers"  # some 1,700 octets, because of the keys for post-quantum groups
    SMALL = "TLS 1.2"  # fits one packet: for hosts, and for what stands before them, that lose larger ones
    CLEAR = "no TLS"


class Fallbacks:
    """Remembers for an hour what places with a failed handshake are tried with.

    Only where nothing better has worked: the next step is taken after a failure of the one before.  `seconds` is a monotonic
    clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._steps: dict[Key, tuple[TLSStep, float]] = {}

    def step(self, key: Key) -> TLSStep:
        """How the next connection to this place begins."""
        if not self._steps:
            return TLSStep.FULL
        step, until = self._steps.get(key, (TLSStep.FULL, 0.0))
        if self._seconds() < until:
            return step
        self._steps.pop(key, None)
        return TLSStep.FULL

    def failed(self, key: Key, step: TLSStep, *, allows_clear: bool, said_hello: bool = True) -> TLSStep | None:
        """The handshake of a connection that began with `step` has failed.  Return how to try again at once; None for not at all.

        Where another connection has found out more meanwhile, that counts.  Without `said_hello` it has ended before our first
        word of TLS, so that a smaller one is of no use.
        """
        now = self.step(key)
        if now is step:
            if step is TLSStep.FULL and said_hello:
                now = TLSStep.SMALL
            elif step is not TLSStep.CLEAR and allows_clear:
                now = TLSStep.CLEAR
            else:
                self._steps.pop(key, None)  # the next attempt begins anew
                return None
            self._keep(key, now)
        elif now is TLSStep.FULL:  # forgotten in the meantime: both have failed
            return None
        return now

    def _keep(self, key: Key, step: TLSStep) -> None:
        if len(self._steps) >= STEPS_KEPT:
            self._steps = dict(list(self._steps.items())[STEPS_KEPT // 2 :])
        self._steps[key] = (step, self._seconds() + STEP_SECONDS)
