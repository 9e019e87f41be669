"""What a person's verb changes about one message.  Pure: what is in the store goes in, what shall be written comes out."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mailserver.mail.answers import Local, Remote
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.mail.report import wants
from mailserver.mail.set_apart import HoldKind, holders_of, let_through
from mailserver.queue.entry import CLOSED, KEY_OCTETS, REPORT_HELD, Attempt, EntryState, Trial, pack
from mailserver.queue.reader import ReadMessage

__all__ = ["STEPS", "Change", "Verb", "change_states", "is_open_to", "redirect"]

BOUNCED = Reply.of(554, "5.0.0", "Returned by the postmaster of this host")
QUEUED = "queued"  # a destination of which nothing is recorded


class Verb(enum.StrEnum):
    """What can be done to waiting mail.

    The last two are for what verdicts hold: LET_THROUGH takes a hold away, and whoever has not held the copy judges it again;
    JUNK delivers it into the Junk folder.
    """

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    BOUNCE = "bounce"
    DROP = "drop"
    REDIRECT = "redirect"
    LET_THROUGH = "let through"
    JUNK = "junk"


STEPS = {
    Verb.RETRY: "retried",
    Verb.HOLD: "held",
    Verb.RELEASE: "released",
    Verb.BOUNCE: "bounced",
    Verb.DROP: "dropped",
    Verb.REDIRECT: "redirected",
    Verb.LET_THROUGH: "released",
    Verb.JUNK: "junk",
}
"""The step on the message's road."""

WAITING = (QUEUED, EntryState.DEFERRED, EntryState.FAILED)
KEPT = (EntryState.HELD, EntryState.UNDECIDED)
OPEN_TO = {
    Verb.RETRY: (EntryState.DEFERRED, EntryState.FAILED, EntryState.UNDECIDED),
    Verb.HOLD: (*WAITING, EntryState.UNDECIDED),
    Verb.RELEASE: KEPT,
    Verb.BOUNCE: (*WAITING, EntryState.HELD),
    Verb.DROP: (*WAITING, *KEPT),
    Verb.REDIRECT: (*WAITING, *KEPT),
    Verb.LET_THROUGH: (EntryState.HELD,),
    Verb.JUNK: (EntryState.HELD,),
}
OF_HOLDS = (Verb.LET_THROUGH, Verb.JUNK)


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be written: the attempts, and for a message with new destinations its row (how many it has, the octets)."""

    number: int
    indexes: tuple[int, ...]
    attempts: tuple[Attempt, ...]
    row: tuple[int, bytes] | None = None


def is_open_to(verb: Verb, state: str, hold: str | None = "") -> bool:
    """The verb has something to do for a destination in this state.

    What a verdict holds is not returned: whose address stands there as the sender's has had a yes, and may be anybody.
    """
    if verb in OF_HOLDS and not hold:
        return False
    return state in OPEN_TO[verb] and not (verb is Verb.BOUNCE and hold and state == EntryState.HELD)


def change_states(
    verb: Verb,
    *,
    number: int,
    destinations: Sequence[Destination],
    attempts: Sequence[Attempt],
    indexes: Collection[int],
    now: float,
    note: str,
    by: str = "",
    holders: frozenset[str] = frozenset(),
) -> Change | None:
    """Retry, hold, release, bounce or drop those of `indexes` that are open to it; None where none is.

    What waits for a verdict is judged at once where it is tried again, and delivered without one where it is released.
    `now` (seconds since the epoch) becomes the due time of what is to be tried; `note` says who asked.  `by` stands with what
    is let through: only what these `holders` hold, where any are named, and only their hold is taken away.
    """
    known = {attempt.destination: attempt for attempt in attempts}
    changed: list[Attempt] = []
    for one in destinations:
        before = known.get(one.index)
        state = QUEUED if before is None else before.shown_state
        if one.index not in indexes or not is_open_to(verb, state, None if before is None else before.hold):
            continue
        if before is None:
            before = untried(number, one)
        if before.report == REPORT_HELD:
            if verb in (Verb.RELEASE, Verb.DROP):
                changed.append(replace(before, report=now if verb is Verb.RELEASE else None, note=""))
            continue
        if holders and holders.isdisjoint([holder.filter for holder in holders_of(before.findings)]):
            continue
        if verb is Verb.LET_THROUGH:
            changed.append(_let_through(before, now, note, by, holders))
        elif verb is Verb.JUNK:
            if isinstance(one.route, Local):
                aside = replace(before, state=EntryState.DEFERRED, due=now, report=None, until=None, note=note)
                changed.append(replace(aside, hold=HoldKind.QUARANTINED))
        elif verb is Verb.RETRY and before.state is EntryState.UNDECIDED:
            changed.append(replace(before, until=now))
        elif verb in (Verb.RETRY, Verb.RELEASE):
            hold = before.hold if verb is Verb.RETRY else None
            changed.append(replace(before, state=EntryState.DEFERRED, due=now, report=None, until=None, hold=hold))
        elif verb is Verb.BOUNCE:
            changed.append(_bounced(before, one, now, note))
        else:
            ends = EntryState.HELD if verb is Verb.HOLD else EntryState.DROPPED
            hold = before.hold if before.hold is HoldKind.QUARANTINED else None
            changed.append(replace(before, state=ends, due=None, report=None, note=note, until=None, hold=hold))
    return Change(number, tuple([one.destination for one in changed]), tuple(changed)) if changed else None


def redirect(
    message: ReadMessage, *, indexes: Collection[int], routes: Sequence[Local | Remote], now: float, note: str
) -> Change | None:
    """Send those of `indexes` that wait to `routes` instead; None where that changes nothing.

    The new destinations and the end of the old ones are one change.  Several old ones become one copy for each route, and where
    a copy goes already there goes no second.
    """
    known = {attempt.destination: attempt for attempt in message.attempts}
    chosen: list[Destination] = []
    taken: set[Local | Remote] = set()
    for one in message.destinations:
        before = known.get(one.index)
        is_open = is_open_to(Verb.REDIRECT, QUEUED if before is None else before.state)
        if one.index in indexes and is_open and one.route not in routes:
            chosen.append(one)
        elif before is None or before.state not in CLOSED:
            taken.add(one.route)
    if not chosen:
        return None
    held = all(one.index in known and known[one.index].state is EntryState.HELD for one in chosen)
    first = 1 + max(one.index for one in message.destinations)
    wanted = [route for route in dict.fromkeys(routes) if route not in taken]
    quiet = any(one.quiet for one in chosen)
    added = [Destination(first + n, chosen[0].recipient, route, quiet=quiet) for n, route in enumerate(wanted)]
    ended = [
        replace(
            known.get(one.index) or untried(message.number, one),
            state=EntryState.DROPPED,
            due=None,
            report=None,
            note=note,
            until=None,
        )
        for one in chosen
    ]
    state, due = (EntryState.HELD, None) if held else (EntryState.DEFERRED, now)
    begun = [replace(untried(message.number, one), state=state, due=due, note=note) for one in added]
    destinations = (*message.destinations, *added)
    packed = pack(message.number, message.envelope, message.content, destinations)
    row = (len(destinations), packed[KEY_OCTETS:]) if added else None
    return Change(message.number, tuple([one.index for one in chosen]), (*ended, *begun), row)


def _let_through(before: Attempt, now: float, note: str, by: str, holders: frozenset[str]) -> Attempt:
    """Judged at once by whoever has not held it; where nobody knows who has, it is delivered."""
    left = let_through(before.findings, by, holders)
    if left is None:
        return replace(before, state=EntryState.DEFERRED, due=now, report=None, until=None, hold=None, note=note)
    judged = replace(before, state=EntryState.UNDECIDED, hold=HoldKind.UNDECIDED, until=now, due=None, report=None)
    return replace(judged, findings=left, attempts=0, note=note)


def _bounced(before: Attempt, destination: Destination, now: float, note: str) -> Attempt:
    """Failed for good, as if a host had said so; the sender is owed a report, unless he wants none (RFC 3461 section 4.1)."""
    told = wants(destination.recipient, "FAILURE")
    state, report = (EntryState.FAILED, now) if told else (EntryState.RETURNED, None)
    history = before.tried(Trial(now, "", "", str(BOUNCED), note))
    return replace(before, state=state, due=None, reply=BOUNCED, note=note, report=report, history=history)


def untried(number: int, destination: Destination) -> Attempt:
    """What is recorded of a destination before anything has been tried."""
    return Attempt(
        number=number,
        destination=destination.index,
        remote=isinstance(destination.route, Remote),
        state=EntryState.DEFERRED,
        attempts=0,
        due=None,
        reply=None,
        note="",
    )
