"""What is recorded of copies that verdicts keep from being delivered, and what becomes of them.  Pure.

    refused, or put aside and held   ──▶  held ────── its time is over ──────▶ dropped: discarded, recorded, never reported
                                           │            (somebody was to decide about it: deferred, due now, for Junk)
                                           │  a person releases it ──────────▶ deferred, due now
    no verdict yet   ──▶  undecided ──┬─ yes ────────────────────────────────▶ deferred, due now
                             ▲        ├─ thrown away ────────────────────────▶ dropped: discarded, recorded
                             │        ├─ aside ──────────────────────────────▶ deferred, due now, for Junk; or held
                             │        ├─ no ─────────────────────────────────▶ held; or failed, its sender is told
                             │        ├─ not yet, its time is over ──────────▶ as aside
                             └────────┴─ not yet: later, on the queue's schedule

What an earlier verdict had put aside before the one that could not be had is aside at best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mailserver.mail.answers import Defer, Discard, Local, Quarantine, Refuse, Remote, Verdict
from mailserver.mail.envelope import Envelope
from mailserver.mail.known_sender import ToldSenders, is_told
from mailserver.mail.outcomes import clean_text
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.report import wants
from mailserver.mail.set_apart import (
    HoldKind,
    Returned,
    SetApart,
    found_before,
    holders_of,
    kept_findings,
    put_aside,
    released_of,
    why_put_aside,
    without_holders,
)
from mailserver.queue.entry import Attempt, EntryState, Trial
from mailserver.queue.schedule import Schedule

__all__ = ["Holding", "HoldingPolicy"]

RELEASED_TRIES = 5  # of a verdict on what was released when its time in the queue was over
NOT_DECIDED = "no verdict could be had in time"
NOBODY_DECIDED = "nobody has decided in time"


@dataclass(frozen=True, slots=True)
class HoldingPolicy:
    """What is held is discarded after `seconds`.  `holds_quarantine`: what is put aside is held, also a copy for a mailbox, which
    else goes to Junk.  `told`: who hears of what is refused."""

    seconds: float = 30 * 86_400.0
    holds_quarantine: bool = False
    told: ToldSenders = ToldSenders.USERS


class Holding:
    """Decides by the schedule and the policy, which may be replaced at any time."""

    def __init__(self, schedule: Schedule, policy: HoldingPolicy) -> None:
        self.policy = policy
        self._schedule = schedule

    def first_attempts(
        self,
        number: int,
        envelope: Envelope,
        destinations: Sequence[Destination],
        set_apart: Mapping[int, SetApart],
        *,
        now: float,
        chance: float,
    ) -> tuple[Attempt, ...]:
        """What is committed with the message."""
        found: list[Attempt] = []
        for one in destinations:
            apart = set_apart.get(one.index)
            if apart is None:
                continue
            remote, note = isinstance(one.route, Remote), clean_text(apart.why)
            first = Attempt(number, one.index, remote, EntryState.HELD, 0, None, None, note)
            if isinstance(apart, Returned):
                found.append(self._returned(first, envelope, one, apart.reply, now))
            elif apart.kind is HoldKind.UNDECIDED:
                findings = apart.findings
                undecided = replace(first, attempts=1, state=EntryState.UNDECIDED, hold=apart.kind, findings=findings)
                found.append(replace(undecided, until=self._next(undecided, envelope, now, chance)))
            else:
                found.append(self._held(replace(first, findings=apart.findings), envelope, one, apart.kind, now))
        return tuple(found)

    def expired(self, attempt: Attempt, destination: Destination, now: float) -> Attempt:
        """The time is over of one that is held.

        About which somebody was to decide goes to Junk, as it would have gone if nobody had been to be asked.
        """
        is_asked_about = attempt.hold is HoldKind.QUARANTINED and any(one.hold for one in holders_of(attempt.findings))
        if not is_asked_about or self.policy.holds_quarantine or not isinstance(destination.route, Local):
            return self._discarded(attempt)
        note = clean_text(f"{NOBODY_DECIDED}: {attempt.note}")
        return replace(attempt, state=EntryState.DEFERRED, due=now, attempts=0, until=None, report=None, note=note)

    def _discarded(self, attempt: Attempt) -> Attempt:
        return replace(attempt, state=EntryState.DROPPED, until=None, due=None, report=None)

    def judged(
        self, attempt: Attempt, envelope: Envelope, destination: Destination, verdict: Verdict, *, now: float, chance: float
    ) -> Attempt:
        """What a verdict makes of an undecided one."""
        aside = why_put_aside(attempt.findings)
        early = tuple([one for one in holders_of(attempt.findings) if not one.is_asked_again])
        if aside and not isinstance(verdict, Discard | Refuse | Defer | Quarantine):
            verdict = Quarantine(aside, hold=any(one.hold for one in early), findings=verdict.findings)
        why = clean_text(getattr(verdict, "why", ""))
        judged = replace(attempt, attempts=attempt.attempts + 1, note=why, until=None, hold=None)
        found, before = without_holders(verdict.findings), found_before(attempt.findings)
        kept = kept_findings((*early, *holders_of(verdict.findings)), before, () if isinstance(verdict, Defer) else found)
        if aside and not early:
            kept = (put_aside(aside), *kept)
        if isinstance(verdict, Discard):
            return self._discarded(replace(judged, findings=found))
        if isinstance(verdict, Refuse):
            judged = replace(judged, findings=kept)
            known = (*before, *found)
            if is_told(self.policy.told, sender=envelope.sender, login=envelope.peer.login, findings=known):
                reply = verdict.reply or Reply.of(550, verdict.enhanced, "Refused by policy")
                return self._returned(judged, envelope, destination, reply, now)
            return self._held(judged, envelope, destination, HoldKind.REFUSED, now)
        if isinstance(verdict, Defer):
            judged = replace(judged, hold=HoldKind.UNDECIDED, findings=kept, history=attempt.tried(Trial(now, "", "", "", why)))
            until = self._next(judged, envelope, now, chance)
            if until is not None:
                return replace(judged, until=until)
            hold = any(one.hold for one in early)
            verdict = Quarantine(f"{NOT_DECIDED}: {why}" if why else NOT_DECIDED, hold=hold)
            judged = replace(judged, note=clean_text(verdict.why), hold=None)
        if isinstance(verdict, Quarantine):
            if self.policy.holds_quarantine or verdict.hold or not isinstance(destination.route, Local):
                return self._held(replace(judged, findings=kept), envelope, destination, HoldKind.QUARANTINED, now)
            judged = replace(judged, hold=HoldKind.QUARANTINED)
        return replace(judged, state=EntryState.DEFERRED, due=now, attempts=0, findings=found)

    def _held(self, attempt: Attempt, envelope: Envelope, destination: Destination, kind: HoldKind, now: float) -> Attempt:
        """A user whose own mail is held is told at once; nobody else ever."""
        user = bool(envelope.peer.login) and envelope.sender is not None and wants(destination.recipient, "DELAY")
        until = now + self.policy.seconds
        return replace(attempt, state=EntryState.HELD, hold=kind, until=until, due=None, report=now if user else None)

    def _returned(self, attempt: Attempt, envelope: Envelope, destination: Destination, reply: Reply, now: float) -> Attempt:
        told = envelope.sender is not None and wants(destination.recipient, "FAILURE")
        state, report = (EntryState.FAILED, now) if told else (EntryState.RETURNED, None)
        history = attempt.tried(Trial(now, "", "", str(reply), attempt.note))
        return replace(attempt, state=state, reply=reply, report=report, history=history, hold=None, until=None, due=None)

    def _next(self, attempt: Attempt, envelope: Envelope, now: float, chance: float) -> float | None:
        due = self._schedule.next_due(attempts=attempt.attempts, received_at=envelope.received_at, now=now, chance=chance)
        tries = RELEASED_TRIES if released_of(attempt.findings) else 1  # it was committed, or released, a moment ago
        if due is None and attempt.attempts <= tries:
            return self._schedule.after_pause(attempts=attempt.attempts, now=now, chance=chance)
        return due
