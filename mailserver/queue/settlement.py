"""What an attempt changes for a destination: pure, without a clock.

An outcome and what was known before go in, what the store is to keep comes out: the state, when the next attempt is due, whether
and when a report is owed to the sender.
"""

from __future__ import annotations

from mailserver.mail.answers import Delayed, Failed, Outcome, Remote
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.report import wants
from mailserver.queue.active_message import ActiveMessage
from mailserver.queue.entry import Attempt, EntryState, Trial
from mailserver.queue.schedule import Schedule, Schedules

__all__ = ["Settlement"]

NO_ANSWER = Reply.of(451, "4.3.0", "The delivery did not answer")
NOT_TOLD = "its sender is not told: neither SPF nor DMARC has shown that he has sent it"
GIVEN_UP = "given up, its time is over"


class Settlement:
    """Decides by each destination's schedule.  Without `reports` nothing is ever owed to a sender."""

    def __init__(self, *, schedules: Schedules, reports: bool) -> None:
        self._schedules = schedules
        self._reports = reports

    def not_delivered(
        self,
        entry: ActiveMessage,
        destination: Destination,
        outcome: Outcome | None,
        why: str,
        *,
        now: float,
        chance: float,
        since: float = 0.0,
    ) -> Attempt:
        """What becomes of a destination that was not reached.  `outcome` None is a delivery without an answer: `why`.

        Where no attempt before this one has been made since `since`, it is not given up: the clock, the network or this server
        may have been away for as long as the message is old.  What is put off all the time is given up when it was for that long.
        """
        before = (entry.attempts or {}).get(destination.index)
        made = before.attempts + 1 if before is not None else 1
        put_off = outcome.put_off_seconds if isinstance(outcome, Delayed) else None
        if put_off is not None:
            made -= 1
        reply, note, state, due = NO_ANSWER, why or "the delivery gave no outcome", EntryState.FAILED, None
        schedule = self._schedules.of(entry.envelope.sender, destination)
        peer = phase = ""
        dialogue: tuple[str, ...] = ()
        if isinstance(outcome, Delayed | Failed):
            reply, note, peer, phase, dialogue = outcome.reply, outcome.note, outcome.peer, outcome.phase, outcome.dialogue
        trial = Trial(now, peer, phase, str(reply), note, dialogue)
        if not isinstance(outcome, Failed):
            received_at = entry.envelope.received_at
            if put_off is not None:
                due = schedule.put_off(put_off, received_at=received_at, now=now)
            else:
                due = schedule.next_due(attempts=made, received_at=received_at, now=now, chance=chance)
            was_tried = before is not None and before.was_made(since, now)
            # A pace that never has room for it: nobody else would ever end this.
            had_all_its_time = put_off is not None and schedule.has_passed(since, now)
            if due is None and not (was_tried or had_all_its_time):
                due = now + put_off if put_off else schedule.after_pause(attempts=made, now=now, chance=chance)
            if due is None:
                note = f"{note}; {GIVEN_UP}" if note else GIVEN_UP
            else:
                state = EntryState.DEFERRED
        if destination.quiet and state is EntryState.FAILED:
            note = f"{note}; {NOT_TOLD}" if note else NOT_TOLD
        if isinstance(outcome, Failed) and not outcome.reports:
            state, report = EntryState.RETURNED, None  # as with NOTIFY=NEVER
        else:
            state, report = self._told(entry, destination, state, now, schedule)
        remote = isinstance(destination.route, Remote)
        history = before.tried(trial) if before is not None else (trial,)
        if put_off is not None:
            history = before.history if before is not None else ()
        hold, findings = (None, ()) if before is None else (before.hold, before.findings)
        kept = entry.number, destination.index, remote, state, made, due, reply, note, report, history
        return Attempt(*kept, until=None, hold=hold, findings=findings)

    def delivered(self, entry: ActiveMessage, destination: Destination, *, now: float) -> Attempt:
        """What is kept of a destination that was reached, while others of its message are not, or its sender is to be told."""
        before = (entry.attempts or {}).get(destination.index)
        made, history = (before.attempts + 1, before.history) if before is not None else (1, ())
        report = now if self.tells_success(entry, destination) else None
        remote = isinstance(destination.route, Remote)
        return Attempt(entry.number, destination.index, remote, EntryState.DELIVERED, made, None, None, "", report, history)

    def tells_success(self, entry: ActiveMessage, destination: Destination) -> bool:
        """RFC 3461 section 5.2: the sender asked for it, and no next host does it."""
        return (
            self._reports
            and entry.envelope.sender is not None
            and not destination.quiet
            and not entry.passed_on >> destination.index & 1
            and wants(destination.recipient, "SUCCESS")
        )

    def _told(
        self, entry: ActiveMessage, destination: Destination, state: EntryState, now: float, schedule: Schedule
    ) -> tuple[EntryState, float | None]:
        """The state with which it is kept, and when a report is owed."""
        if not self._reports or entry.envelope.sender is None or destination.quiet:
            return state, None
        if state is EntryState.DEFERRED:
            told = wants(destination.recipient, "DELAY")
            return state, schedule.warning(entry.envelope.received_at) if told else None
        return (EntryState.FAILED, now) if wants(destination.recipient, "FAILURE") else (EntryState.RETURNED, None)
