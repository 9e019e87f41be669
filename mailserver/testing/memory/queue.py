"""Takes messages and has them delivered, on the test's clock."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailserver.interfaces import IBatchDelivery
from mailserver.mail.answers import Delayed, Failed, Local, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.headers import Headers
from mailserver.mail.held_copy import shown_field
from mailserver.mail.outcomes import outcome_of
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Hold, HoldKind, found_by_filters, holders_of
from mailserver.relay.attempts import Attempts
from mailserver.testing.quarantine import MemoryQuarantine

__all__ = ["DeliveryAttempt", "MemoryQueue", "TakenMail"]

ERROR = Reply.of(451, "4.3.0", "The mail system has a fault")
EXPIRED = Reply.of(554, "5.4.7", "It could not be delivered in time")
NOTHING: Mapping[int, Any] = {}


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One destination, tried once: `when` in seconds of the test's clock."""

    when: float
    id: str
    destination: Destination
    outcome: Outcome


@dataclass(slots=True)
class TakenMail:
    """A message that the sender has heard 250 for.

    `octets` are as they were committed: trace fields, edits and all.  `set_apart` says by index what is not simply delivered:
    held copies, with the reason.  `outcomes` has the last outcome of each destination that is settled.
    """

    envelope: Envelope
    octets: bytes
    destinations: tuple[Destination, ...]
    set_apart: Mapping[int, Any]
    binary: bool = False
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    tries: int = 0

    @property
    def id(self) -> str:
        """The message's id."""
        return self.envelope.id


class MemoryQueue:
    """As much of a queue as a listener needs, and a delivery after each commit; what is delayed is tried again on schedule.

    `local` and `remote` are deliveries.  `room` is how many octets the disk has, `error` what the next commits fail with.
    """

    writable = True
    room = 2**40

    def __init__(
        self,
        *,
        clock: Clock,
        attempts: Attempts,
        folder: str,
        local: Any,
        remote: Any,
        retry_seconds: Sequence[float],
        expire_seconds: float,
        note: Callable[..., None],
        quarantine: MemoryQuarantine,
    ) -> None:
        self._clock, self._folder, self._local, self._remote = clock, folder, local, remote
        self._attempts = attempts
        self._retry, self._expire, self._note = tuple(retry_seconds), expire_seconds, note
        self.error: Exception | None = None
        self.taken: list[TakenMail] = []
        self.attempts: list[DeliveryAttempt] = []
        self._quarantine = quarantine
        self._under_way: set[Deferred[None]] = set()

    # --- what a listener asks ---

    def room_for(self, octets: int) -> bool:
        """Whether the disk has room."""
        return octets < self.room

    def spool_path(self, id: str) -> str:
        """Where a large message lies while it comes in."""
        return os.path.join(self._folder, id)

    def commit(
        self,
        envelope: Envelope,
        content: Content,
        destinations: tuple[Destination, ...],
        set_apart: Mapping[int, Any] = NOTHING,
    ) -> Deferred[None]:
        """Take it, and try to deliver it in the next turn."""
        if self.error is not None:
            return fail(self.error)
        taken = TakenMail(envelope, b"".join(content.chunks()), tuple(destinations), dict(set_apart), content.binary)
        if content.path is not None and os.path.exists(content.path):
            os.unlink(content.path)
        self.taken.append(taken)
        for one in taken.destinations:
            apart = taken.set_apart.get(one.index)
            if isinstance(apart, Hold) and apart.kind is not HoldKind.UNDECIDED:
                self._hold(taken, content, one, apart)
        self._clock.callLater(0, self._begin, taken)
        return succeed(None)

    def _hold(self, taken: TakenMail, content: Content, one: Destination, apart: Hold) -> None:
        """For the filter that holds it.  What it releases is delivered; nobody else judges it again."""
        envelope, headers = taken.envelope, Headers.parse(taken.octets)

        def decided(verb: str) -> None:
            if verb == "drop":
                return
            if verb == "to_junk" and isinstance(one.route, Local):
                junk = replace(one, route=Local(one.route.address, replace(one.route.mailbox, junk=True)))
                taken.destinations = tuple([junk if one is it else it for it in taken.destinations])
            taken.set_apart = {index: it for index, it in taken.set_apart.items() if index != one.index}
            self._clock.callLater(0, self._begin, taken)

        self._quarantine.hold(
            f"{taken.id}/{one.index}",
            recipient=str(one.recipient.address),
            sender=None if envelope.sender is None else str(envelope.sender),
            subject=shown_field(headers, "subject"),
            author=shown_field(headers, "from"),
            held_by=[holder.filter for holder in holders_of(apart.findings)],
            findings=found_by_filters(apart.findings),
            why=apart.why,
            decided=decided,
            is_remote=not isinstance(one.route, Local),
        )

    # --- delivery ---

    def _begin(self, taken: TakenMail) -> None:
        trying = Deferred.fromCoroutine(self._try(taken))
        self._under_way.add(trying)
        trying.addBoth(lambda _: self._under_way.discard(trying))

    async def _try(self, taken: TakenMail) -> None:
        waiting = [one for one in taken.destinations if one.index not in taken.outcomes and one.index not in taken.set_apart]
        taken.tries += 1
        for delivery, mine in (
            (self._local, [one for one in waiting if isinstance(one.route, Local)]),
            (self._remote, [one for one in waiting if not isinstance(one.route, Local)]),
        ):
            if not mine:
                continue
            outcomes = await self._outcomes(delivery, taken, tuple(mine))
            for one in mine:
                self._settle(taken, one, outcomes[one.index])
        left = [one for one in waiting if one.index not in taken.outcomes]
        if left:
            self._clock.callLater(self._retry[min(taken.tries, len(self._retry)) - 1], self._begin, taken)

    async def _outcomes(self, delivery: Any, taken: TakenMail, mine: tuple[Destination, ...]) -> dict[int, Outcome]:
        """As the server's queue understands them: an error, and a flush that fails, is Delayed for all."""
        content = Content.of(taken.octets, binary=taken.binary)
        try:
            if delivery is self._remote:
                answer = await self._attempts.deliver(delivery, taken.envelope, content, mine)
            elif IBatchDelivery.providedBy(delivery):
                (answer,) = await delivery.deliver_batch([Parcel(taken.envelope, content, mine, taken.tries > 1)])
            else:
                answer = await delivery.deliver(taken.envelope, content, mine)
            await delivery.flush()
            return {one.index: outcome_of(answer, one.index) for one in mine}
        except Exception:  # noqa: BLE001  # as the queue: a plugin's
            return {one.index: Delayed(ERROR, Failure().getErrorMessage()) for one in mine}

    def _settle(self, taken: TakenMail, destination: Destination, outcome: Outcome) -> None:
        now = self._clock.seconds()
        self.attempts.append(DeliveryAttempt(now, taken.id, destination, outcome))
        if isinstance(outcome, Delayed):
            if now - taken.envelope.received_at < self._expire:
                return
            outcome = Failed(EXPIRED, outcome.note)
        taken.outcomes[destination.index] = outcome
        self._note(
            taken.id,
            "failed" if isinstance(outcome, Failed) else "delivered",
            recipient=str(destination.recipient.address),
        )
