"""Takes messages and has them delivered, on the test's clock."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailserver.interfaces import IBatchDelivery, ReportDraft
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.headers import Headers
from mailserver.mail.held_copy import shown_field
from mailserver.mail.outbound_answers import ReportVerdict
from mailserver.mail.outcomes import outcome_of
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.mail.report import RecipientReport, wants
from mailserver.mail.set_apart import Hold, HoldKind, Returned, found_by_filters, holders_of
from mailserver.relay.attempts import Attempts
from mailserver.testing.quarantine import MemoryQuarantine

__all__ = ["DeliveryAttempt", "MemoryQueue", "OwedReport", "TakenMail"]

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


@dataclass(frozen=True, slots=True)
class OwedReport:
    """A report that the message's sender is owed: what it says, and what those who have a say (`IReportPolicy`) make of it.

    `verdict` is None where they cannot say now.
    """

    when: float
    draft: ReportDraft
    verdict: ReportVerdict | None


@dataclass(slots=True)
class TakenMail:
    """A message that the sender has heard 250 for.

    `octets` are as they were committed: trace fields, edits and all.  `set_apart` says by index what is not simply delivered:
    held copies, with the reason.  `outcomes` has the last outcome of each destination that is settled,
    `delays` the last reply to what was delayed.
    """

    envelope: Envelope
    octets: bytes
    destinations: tuple[Destination, ...]
    set_apart: Mapping[int, Any]
    binary: bool = False
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    tries: int = 0
    delays: dict[int, Reply] = field(default_factory=dict)

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
        warn_seconds: float,
        judge_report: Callable[[ReportDraft], Awaitable[ReportVerdict | None]],
    ) -> None:
        self._warn_seconds, self._judge_report = warn_seconds, judge_report
        self.reports: list[OwedReport] = []
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
        self._owe(taken, "failure", [(one, apart.reply) for one, apart in self._apart(taken, Returned)])
        if envelope.peer.login:
            held = [one for one, apart in self._apart(taken, Hold) if apart.kind is not HoldKind.UNDECIDED]
            self._owe(taken, "hold", [(one, None) for one in held])
        self._clock.callLater(0, self._begin, taken)
        return succeed(None)

    def _apart(self, taken: TakenMail, kind: type) -> list[tuple[Destination, Any]]:
        found = [(one, taken.set_apart.get(one.index)) for one in taken.destinations]
        return [(one, apart) for one, apart in found if isinstance(apart, kind)]

    # --- reports ---

    def _owe(self, taken: TakenMail, condition: str, told: Sequence[tuple[Destination, Reply | None]]) -> None:
        """A report on these, those of them that want it (RFC 3461 section 4.1)."""
        notify = {"failure": "FAILURE", "success": "SUCCESS"}.get(condition, "DELAY")
        wanted = {one.recipient: reply for one, reply in told if wants(one.recipient, notify) and not one.quiet}
        if not wanted or taken.envelope.sender is None:
            return
        recipients = tuple([RecipientReport(one, reply, tried_at=self._clock.seconds()) for one, reply in wanted.items()])
        draft = ReportDraft(condition, taken.envelope, recipients)
        writing = Deferred.fromCoroutine(self._write(draft))
        self._under_way.add(writing)
        writing.addBoth(lambda _: self._under_way.discard(writing))

    async def _write(self, draft: ReportDraft) -> None:
        when = self._clock.seconds()
        self.reports.append(OwedReport(when, draft, await self._judge_report(draft)))

    def _warn(self, taken: TakenMail) -> None:
        """It has waited so long that its sender is told."""
        late = [one for one in taken.destinations if one.index not in taken.outcomes and one.index not in taken.set_apart]
        self._owe(taken, "delay", [(one, taken.delays.get(one.index)) for one in late])

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
            settled = [(one, self._settle(taken, one, outcomes[one.index])) for one in mine]
            failed = [(one, outcome.reply) for one, outcome in settled if isinstance(outcome, Failed) and outcome.reports]
            self._owe(taken, "failure", failed)
            there = [one for one, outcome in settled if isinstance(outcome, Delivered) and not outcome.notifies]
            self._owe(taken, "success", [(one, None) for one in there])
        left = [one for one in waiting if one.index not in taken.outcomes]
        if left:
            if taken.tries == 1:
                age = self._clock.seconds() - taken.envelope.received_at
                self._clock.callLater(max(0.0, self._warn_seconds - age), self._warn, taken)
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

    def _settle(self, taken: TakenMail, destination: Destination, outcome: Outcome) -> Outcome:
        now = self._clock.seconds()
        self.attempts.append(DeliveryAttempt(now, taken.id, destination, outcome))
        if isinstance(outcome, Delayed):
            taken.delays[destination.index] = outcome.reply
            if now - taken.envelope.received_at < self._expire:
                return outcome
            outcome = Failed(EXPIRED, outcome.note)
        taken.outcomes[destination.index] = outcome
        self._note(
            taken.id,
            "failed" if isinstance(outcome, Failed) else "delivered",
            recipient=str(destination.recipient.address),
        )
        return outcome
