"""What the queue has done, in figures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["QueueCounts"]


@dataclass(slots=True)
class QueueCounts:
    """What has happened since the start, and `depth`, the entries in the store now."""

    committed: int = 0
    batches: int = 0
    refused: int = 0
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    discarded: int = 0
    settled: int = 0
    depth: int = 0
