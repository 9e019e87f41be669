"""What follows a commit: each sender hears his answer first, then the runner gets the messages.

The order is the promise.  "250 means durable" holds in both directions: no 250 before the sync, and after the sync nothing that
goes wrong may turn it into an error, since the peer would send the message once more and it would be delivered twice.  So a batch
is gone through three times: every 250, then every refusal, and only then what may stumble.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.faults import StorageFault
from mailserver.mail.parcel import Destination
from mailserver.queue.commit import PendingCommit
from mailserver.queue.counts import QueueCounts
from mailserver.queue.entry import Attempt
from mailserver.queue.health import Health
from mailserver.queue.reports import Report
from mailserver.queue.runner import Runner

__all__ = ["Acceptance", "Waiter"]


class Waiter(NamedTuple):
    """Who waits for a commit (`PendingCommit.owner`), and what he has handed in."""

    done: Deferred[None]
    envelope: Envelope
    content: Content
    destinations: tuple[Destination, ...]


class Acceptance:
    """Answers those who wait for commits, and hands to the runner what is durable.

    `counts` are changed here; `health` is told faults of the store; `note(id, step, **fields)` is told of reports, `recorded` of
    what was committed with the messages.
    """

    log = Logger()

    def __init__(
        self,
        *,
        counts: QueueCounts,
        health: Health,
        runner: Runner,
        note: Callable[..., None],
        recorded: Callable[[list[Attempt]], None],
    ) -> None:
        self._counts = counts
        self._health = health
        self._runner = runner
        self._note = note
        self._recorded = recorded

    def committed(self, batch: Sequence[PendingCommit], faults: Sequence[StorageFault | None] | None) -> None:
        """`CommitWriter` has done with a batch."""
        counts = self._counts
        counts.batches += 1
        good, bad = batch, list[tuple[PendingCommit, StorageFault]]()
        if faults is not None:
            good = [pending for pending, fault in zip(batch, faults, strict=True) if fault is None]
            bad = [(pending, fault) for pending, fault in zip(batch, faults, strict=True) if fault is not None]
        counts.committed += len(good)
        counts.depth += len(good)
        for pending in good:  # all the 250s first: nothing that follows may change them
            self._answer(pending, pending.owner.done.callback, None)
        for pending, fault in bad:
            self._refuse(pending, fault)
        for pending in good:
            _, envelope, content, destinations = pending.owner
            self._take_over(pending.number, envelope, content, destinations, pending.attempts)
            if pending.attempts:
                self._recorded(list(pending.attempts))
        self._runner.pump()

    def reported(self, reports: Sequence[Report]) -> None:
        """Reports have been committed: they are messages of the queue now."""
        self._counts.committed += len(reports)
        self._counts.depth += len(reports)
        for report in reports:
            to = [str(recipient.address) for recipient in report.envelope.recipients]
            self._note(report.about, "reported", condition=report.condition, report=report.envelope.id, recipient=to[0])
            self._note(
                report.envelope.id, "accepted", sender="", recipients=to, size=report.content.size, about=report.about
            )
            self._take_over(report.number, report.envelope, report.content, report.destinations)
        if reports:
            self._runner.pump()

    def _answer(self, pending: PendingCommit, tell: Callable[[Any], None], answer: Any) -> None:
        """One who cannot be told keeps no other from being told."""
        try:
            tell(answer)
        except Exception:  # noqa: BLE001  whatever hangs on the answer is the caller's
            self.log.failure("the answer on {id} came to nobody", id=pending.owner.envelope.id)

    def _refuse(self, pending: PendingCommit, fault: StorageFault) -> None:
        self._counts.refused += 1
        failure = Failure(fault)
        try:
            self._health.failed(failure)
        except Exception:  # noqa: BLE001  the peer must have its answer
            self.log.failure("the queue stumbled over a fault of its store")
        self._answer(pending, pending.owner.done.errback, failure)

    def _take_over(
        self,
        number: int,
        envelope: Envelope,
        content: Content,
        destinations: tuple[Destination, ...],
        apart: tuple[Attempt, ...] = (),
    ) -> None:
        """It is durable: hand it to the runner.  One message's trouble is not that of the others in its batch.

        What the runner stumbles over is in the store all the same, so it comes back the other way: it is read again.
        """
        try:
            self._runner.committed(number, envelope, content, destinations, apart)
        except Exception:  # noqa: BLE001  as above
            self.log.failure("{id} is in the queue, but could not be handed on; it is read again", id=envelope.id)
            self._runner.read_again(number)
