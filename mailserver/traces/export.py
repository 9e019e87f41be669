"""Batch after batch to a collector; the same batch again where it is away.

What a collector has not taken stays in the roads, for as long as they are kept (`log.retention_days`).  A batch that it refuses
is told in halves, down to one row, so that one span it does not like costs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailserver.traces.ledger import Ledger
from mailserver.traces.reading import ROWS, Batch, read_batch
from mailserver.traces.spans import Detail, TraceSpan

__all__ = ["Answer", "Away", "Export", "Refused", "SpansTaken"]

SPANS_MOST = 2_000  # in one request


@dataclass(frozen=True, slots=True)
class SpansTaken:
    """The collector has them; but for `rejected` spans, because of `why`."""

    rejected: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """It does not want these, and would not want them again."""

    why: str


@dataclass(frozen=True, slots=True)
class Away:
    """It did not answer, or wants them later."""

    why: str


Answer = SpansTaken | Refused | Away


class Export:
    """From the roads at `path`.  `say` hears what has been left out, in a sentence."""

    def __init__(
        self,
        *,
        path: str,
        ledger: Ledger,
        detail: Detail,
        send: Callable[[Sequence[TraceSpan]], Answer],
        say: Callable[[str], None],
    ) -> None:
        self._path = path
        self._ledger = ledger
        self._detail: Detail = detail
        self._send = send
        self._say = say
        self._rows_most = ROWS

    def step(self) -> Away | Batch | None:
        """One batch.  None where there is nothing new; `Away` where it has to be tried again later.  Raises `RoadsUnreadable`."""
        batch = read_batch(self._path, self._ledger, detail=self._detail, rows_most=self._rows_most)
        if not batch.rows:
            return None
        for begin in range(0, len(batch.spans), SPANS_MOST):
            answer = self._send(batch.spans[begin : begin + SPANS_MOST])
            match answer:
                case Away():
                    return answer
                case Refused() if batch.rows > 1:
                    self._rows_most = max(1, batch.rows // 2)
                    return self.step()
                case Refused():
                    self._say(f"the collector refuses the spans of {batch.place.id}, which are left out: {answer.why}")
                    break
                case SpansTaken(rejected=0):
                    pass
                case SpansTaken():
                    self._say(f"the collector has rejected {answer.rejected} spans up to {batch.place.id}: {answer.why}")
        for id in batch.unreadable:
            self._say(f"a row of {id} cannot be read, and is left out")
        self._ledger.take(batch.place, batch.begun.items(), batch.ended)
        self._rows_most = min(ROWS, self._rows_most * 2)
        return batch
