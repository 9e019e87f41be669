"""Faults that a test orders from the sink: a refusal, a slow answer, a connection that drops."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Literal, get_args

from mailserver.mail.reply import Reply

__all__ = ["DELAY_SECONDS", "Delay", "Fault", "FaultBook", "HangUp", "RefuseFault", "Stage", "refusal"]

Stage = Literal["connect", "hello", "starttls", "auth", "mail", "rcpt", "data", "end"]
DELAY_SECONDS = 3600.0  # the longest pause
ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


@dataclass(frozen=True, slots=True)
class RefuseFault:
    """Answer with a reply of 4yz or 5yz."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection where the answer should be.  `keep`: at the end of data the message is kept all the same."""

    keep: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer late, after so many seconds."""

    seconds: float


Fault = RefuseFault | HangUp | Delay


def refusal(code: int, text: str) -> Reply:
    """A reply of 4yz or 5yz.  The text may begin with an enhanced code (RFC 3463); without one it is 4.0.0 or 5.0.0.

    Raises ValueError for any other code, for an enhanced code of another class, and for control characters in the text.
    """
    if not 400 <= code <= 599:
        raise ValueError(f"{code} is no refusal: 400 to 599")
    found = ENHANCED.match(text)
    enhanced = found[1] if found else f"{code // 100}.0.0"
    if enhanced[0] != str(code)[0]:
        raise ValueError(f"{enhanced} does not go with {code} (RFC 3463 section 2)")
    return Reply.of(code, enhanced, text[found.end() :] if found else text)


@dataclass(slots=True)
class _Order:
    stage: str
    fault: Fault
    address: str | None
    left: int | None  # None: always


class FaultBook:
    """The faults that are ordered.  Methods may be called in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[_Order] = []

    def order(self, stage: Stage, fault: Fault, *, times: int | None, address: str | None) -> None:
        """Let `fault` happen at `stage` the next `times` times, None for always; with an address, only for that one.

        Raises ValueError for a combination that is impossible.
        """
        if stage not in get_args(Stage):
            raise ValueError(f"no stage {stage!r}: {', '.join(get_args(Stage))}")
        if times is not None and times < 1:
            raise ValueError(f"times={times}: a number from 1, or None for always")
        if address is not None and stage not in ("mail", "rcpt"):
            raise ValueError(f"no address is known at {stage!r}: 'mail' and 'rcpt' have one")
        if isinstance(fault, HangUp) and fault.keep and stage != "end":
            raise ValueError(f"there is no message to keep at {stage!r}")
        if isinstance(fault, Delay) and not 0 <= fault.seconds <= DELAY_SECONDS:
            raise ValueError(f"a delay is 0 to {DELAY_SECONDS:.0f} seconds, not {fault.seconds}")
        with self._lock:
            self._orders.append(_Order(stage, fault, address and address.lower(), times))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._orders.clear()

    def take(self, stage: Stage, address: str = "") -> tuple[float, RefuseFault | HangUp | None]:
        """What happens now: a delay in seconds, and a refusal or hang-up.  The oldest order of either sort counts."""
        address = address.lower()
        with self._lock:
            due = [one for one in self._orders if one.stage == stage and one.address in (None, address)]
            delays = [one for one in due if isinstance(one.fault, Delay)][:1]
            ends = [one for one in due if not isinstance(one.fault, Delay)][:1]
            for one in delays + ends:
                if one.left is not None:
                    one.left -= 1
            self._orders = [one for one in self._orders if one.left != 0]
        seconds = sum(one.fault.seconds for one in delays if isinstance(one.fault, Delay))
        return seconds, next((one.fault for one in ends if not isinstance(one.fault, Delay)), None)
