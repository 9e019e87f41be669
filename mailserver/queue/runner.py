"""After the commit: deliver, remember what could not be delivered, settle what could.

Each entry's destinations are split over two active queues, one for the local delivery and one for the remote one.  What has been
delivered and flushed is settled.  What was deferred gets a due time in the store and leaves memory.  What failed for good stays
in the store, visible, until its sender has been told.

An entry is in one of four places, and the runner is who moves it:

* in `live`, while any of its destinations is in memory or has an outcome that is not written (`active_message` has the masks);
* in `OutcomeWriter.settling`, from its last flush until the store has deleted it;
* in `_claimed`, while a person changes it;
* else in the store alone, where the backlog, the retry timer or the recovery finds it.

`_claimed`.  A person holds a message.  The claim takes it out of the active queues; then the change is decided and written, in
other threads.  In that time a read that was asked for before may bring the message: it has the state of before the change, and
must not begin a delivery.  It is thrown away, and `_claimed` notes for which active queue it came, so that `release` has it read
again.  A message that is under way, not flushed or not written cannot be claimed: what is decided now would be overtaken by an
outcome that nobody knows yet.

`_stopping`.  What is in memory is still delivered, flushed and written; nothing comes in any more.  An answer of a read that
comes now is dropped, as the store has it, and no pause begins.

`_idle`, who waits for the end of all that.  `changed` is called after every step that may have been the last one.

`_recovery`.  As long as there is one, no refill is asked for.  Both look through the same range of the store for entries without
attempts; side by side, each would find what the other has put into the backlog.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.mail.answers import Delayed, Delivered, Failed, Outcome, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.outcomes import UnsoundOutcome, clean_text, outcome_of
from mailserver.mail.parcel import Destination, Parcel
from mailserver.queue.active import ActiveQueue
from mailserver.queue.active_message import EVERY_DESTINATION, ActiveMessage, ActiveParcel, Unflushed, WaitingEntry
from mailserver.queue.entry import CLOSED, WHOLE_ENTRY, Attempt, EntryState, destination_name
from mailserver.queue.outcome_writer import OutcomeWriter, Settled
from mailserver.queue.reader import ReadMessage, SqliteReader, Unreadable
from mailserver.queue.reading_back import ReadingBack
from mailserver.queue.retry_timer import RetryTimer
from mailserver.queue.settlement import Settlement

__all__ = ["Runner"]

UNSOUND_SAID_SECONDS = 3600.0
UNSOUND_KINDS = 20


class Claimed(NamedTuple):
    """To which active queue an entry that a person has claimed is given back, and whether it comes again then."""

    remote: bool
    again: bool


class Runner:
    """Brings committed entries to their deliveries.

    `note(id, step, **fields)` is told each outcome; `count(name, n)` counts them.  `since()` says since when the clock has gone
    without being set.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        settlement: Settlement,
        reader: SqliteReader,
        run_in_thread: Callable[..., Any],
        note: Callable[..., None],
        count: Callable[[str, int], None],
        since: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.live: dict[int, ActiveMessage] = {}
        self.active_queues: tuple[ActiveQueue, ...] = ()
        self._clock = clock
        self._settlement = settlement
        self._reader = reader
        self._run_in_thread = run_in_thread
        self._reading = DeferredLock()
        self._note = note
        self._count = count
        self._since = since
        self._outcome_writer: OutcomeWriter | None = None
        self.due = RetryTimer(
            clock=clock,
            ask=lambda *question: self.read(reader.due_now, *question),
            found=self._found_due,
            has_room=lambda: all(active_queue.has_room_for_retries for active_queue in self.active_queues),
        )
        self._reading_back = ReadingBack(
            reader=reader,
            read=self.read,
            take_up=self._take_up,
            damaged=self.damaged,
            not_to_be_taken=self._not_to_be_taken,
            later=self._later,
            changed=self.changed,
        )
        self._recovery: Callable[[], None] | None = None
        self._recovery_outrun: Callable[[Sequence[int]], None] = lambda numbers: None
        self._postponed: set[Any] = set()
        self._claimed: dict[int, set[Claimed]] = {}
        self._stopping = False
        self._idle: list[Deferred[None]] = []
        self._unsound_said: dict[str, float] = {}  # when

    def begin(self, *, active_queues: tuple[ActiveQueue, ...], outcome_writer: OutcomeWriter) -> None:
        """Connect the parts that call back into this one."""
        self.active_queues = active_queues
        self._outcome_writer = outcome_writer

    @property
    def outcome_writer(self) -> OutcomeWriter:
        """Where outcomes go."""
        if self._outcome_writer is None:
            raise RuntimeError("the runner has not begun")
        return self._outcome_writer

    def read(self, question: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Ask the reader in a thread, one question after the other."""
        return self._reading.run(self._run_in_thread, question, *arguments)

    # --- in ---

    def committed(
        self,
        number: int,
        envelope: Envelope,
        content: Content,
        destinations: tuple[Destination, ...],
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        """A new entry; `attempts` say which destinations are set apart.  Call `pump` after the last one of a batch."""
        entry = self._new_entry(number, envelope, content, destinations, attempts)
        if attempts:
            destinations = self._without_set_apart(envelope, destinations, attempts)
        if len(destinations) == 1:
            self._active_queue_of(destinations[0]).place(entry, Parcel(envelope, content, destinations))
        else:
            for active_queue in self.active_queues:
                part = tuple([d for d in destinations if isinstance(d.route, Remote) is active_queue.remote])
                if part:
                    active_queue.place(entry, Parcel(envelope, content, part))
        if entry.active:
            self.live[number] = entry

    def _without_set_apart(
        self, envelope: Envelope, destinations: tuple[Destination, ...], attempts: tuple[Attempt, ...]
    ) -> tuple[Destination, ...]:
        kinds: dict[tuple[str, str, str], list[int]] = {}
        for attempt in attempts:
            step = str(attempt.state) if attempt.state in (EntryState.HELD, EntryState.UNDECIDED) else "failed"
            kinds.setdefault((step, str(attempt.hold or ""), attempt.note), []).append(attempt.destination)
        for (step, hold, why), indexes in kinds.items():
            recipients = [str(one.recipient.address) for one in destinations if one.index in indexes]
            self._note(envelope.id, step, by="a filter", recipients=recipients, why=why, hold=hold or None)
        apart = {attempt.destination for attempt in attempts}
        return tuple([one for one in destinations if one.index not in apart])

    def read_again(self, number: int) -> None:
        """What the store has of this entry is to be delivered, and nothing of it is in memory."""
        for active_queue in self.active_queues:
            active_queue.backlog.add("", WaitingEntry(number, True))

    def adopt(
        self, message: ReadMessage, active_queues: tuple[ActiveQueue, ...], again: bool, window_counts: bool = True
    ) -> None:
        """An entry read back: give `active_queues` those of its destinations that are theirs, due and not on their way."""
        number = message.number
        if number in self._claimed:  # what was read may have changed: read it again afterwards
            self._claimed[number].update([Claimed(active_queue.remote, again) for active_queue in active_queues])
            return
        if number in self.outcome_writer.settling:
            return  # all of it is delivered, and the store is about to forget it
        entry = self.live.get(number) or self._new_entry(
            number, message.envelope, message.content, message.destinations, message.attempts
        )
        waits = entry.not_to_be_taken
        now = self._clock.seconds()
        for attempt in message.attempts:
            if attempt.destination == WHOLE_ENTRY:
                return  # damaged
            if attempt.state is not EntryState.DEFERRED or (attempt.due or 0) > now:
                waits |= 1 << attempt.destination
                if attempt.due is not None:
                    self.due.expect(attempt.due)  # it was found before its time where the clock has gone back
        for active_queue in active_queues:
            if active_queue.is_outdated(number):
                active_queue.backlog.add("", WaitingEntry(number, again))
                continue
            part = tuple(
                [
                    d
                    for d in message.destinations
                    if isinstance(d.route, Remote) is active_queue.remote and not waits >> d.index & 1
                ]
            )
            if not part:
                continue
            parcel = Parcel(entry.envelope, message.content, part, again)
            if window_counts:
                active_queue.place(entry, parcel)
            else:
                active_queue.take_back(entry, parcel)
        if entry.active:
            self.live[number] = entry

    def resize_windows(self, octets: int) -> None:
        """So much may wait in the memory of each active queue."""
        for active_queue in self.active_queues:
            active_queue.resize_window(octets)

    def pump(self) -> None:
        """Let the active queues run, and read back what they have room for."""
        for active_queue in self.active_queues:
            active_queue.pump()
        self.changed()

    def changed(self) -> None:
        """An active queue has more room, or less to do."""
        for active_queue in self.active_queues:
            if not self._stopping:
                if active_queue.wants_numbers and self._recovery is None:
                    self._reading_back.refill(active_queue)
                self._reading_back.read_back(active_queue)
        self.due.resume()
        if (
            self._recovery is not None
            and not self._stopping
            and any(active_queue.wants_more for active_queue in self.active_queues)
        ):
            self._recovery()
        if self._idle and self.is_idle:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def recover_with(
        self, more: Callable[[], None] | None, outrun: Callable[[Sequence[int]], None] = lambda numbers: None
    ) -> None:
        """Call `more` whenever an active queue has room for entries of an earlier run; None when there are no more.

        `outrun` is told the numbers of entries of which the store knows more than a page that is under way may have seen.
        """
        self._recovery = more
        self._recovery_outrun = outrun

    def _new_entry(
        self,
        number: int,
        envelope: Envelope,
        content: Content,
        destinations: tuple[Destination, ...],
        attempts: tuple[Attempt, ...] = (),
    ) -> ActiveMessage:
        open = 0
        for destination in destinations:
            open |= 1 << destination.index
        entry = ActiveMessage(number=number, envelope=envelope, open=open, spooled=content.path is not None)
        if attempts:
            entry.recorded = True
            entry.attempts = {attempt.destination: attempt for attempt in attempts}
            for attempt in attempts:
                if attempt.state in CLOSED and attempt.report is None:
                    entry.open &= ~(1 << attempt.destination)
        return entry

    def _active_queue_of(self, destination: Destination) -> ActiveQueue:
        return self.active_queues[1] if isinstance(destination.route, Remote) else self.active_queues[0]

    # --- out ---

    def answered(self, active_queue: ActiveQueue, parcel: ActiveParcel, answer: object, why: str) -> None:
        """A delivery has answered for a parcel, or has not: `why` says so then.  The answer may be anything."""
        entry = parcel.entry
        attempts: list[Attempt] = []
        chance = random.random()  # one for all: what failed together is read back together
        for destination in parcel.parcel.destinations:
            outcome, reason = None, why
            if not why:
                try:
                    outcome = outcome_of(answer, destination.index)
                except UnsoundOutcome as unsound:
                    reason = str(unsound)
                    self._say_unsound(entry, reason)
            if isinstance(outcome, Delivered):
                active_queue.delivered.append(Unflushed(entry, destination))
                if outcome.notifies:
                    entry.passed_on |= 1 << destination.index
                self._tell(entry, destination, "delivered", note=outcome.note)
            else:
                attempts.append(self._not_delivered(active_queue, entry, destination, outcome, reason, chance))
        self._count("delivered", len(parcel.parcel.destinations) - len(attempts))
        if attempts:
            entry.recorded = True
            self.outcome_writer.add([], attempts)

    def _say_unsound(self, entry: ActiveMessage, why: str) -> None:
        """A delivery that is broken is so for each message: the log has it once in a while, each message's road every time."""
        now = self._clock.seconds()
        if not 0 <= now - self._unsound_said.get(why, -UNSOUND_SAID_SECONDS) < UNSOUND_SAID_SECONDS:
            if len(self._unsound_said) >= UNSOUND_KINDS:
                self._unsound_said.clear()
            self._unsound_said[why] = now
            self.log.error("{why}; {id} is deferred, as all of which this is true", why=why, id=entry.envelope.id)

    def flushed(self, deliveries: list[Unflushed]) -> None:
        """These are durable where they went: settle the entries of which nothing is left."""
        touched: dict[int, ActiveMessage] = {}
        tells_success = self._settlement.tells_success
        for entry, destination in deliveries:
            done = ~(1 << destination.index)
            if destination.recipient.parameters.notify is None or not tells_success(entry, destination):
                entry.open &= done
            entry.active &= done
            touched[entry.number] = entry
        settled: list[Settled] = []
        attempts: list[Attempt] = []
        live = self.live
        for number, entry in touched.items():
            if not entry.open:
                settled.append(Settled(number, entry.envelope.id, entry.recorded, entry.spooled))
                live.pop(number, None)
        if len(settled) < len(touched):
            for entry, destination in deliveries:
                if entry.open:
                    entry.recorded = True
                    entry.unwritten |= 1 << destination.index
                    attempts.append(self._settlement.delivered(entry, destination, now=self._clock.seconds()))
        self.outcome_writer.add(settled, attempts)

    def unflushed(
        self,
        active_queue: ActiveQueue,
        deliveries: list[Unflushed],
        why: str,
        pause_seconds: float,
    ) -> None:
        """None of these counts as delivered: after a pause they are delivered again.

        Whatever the delivery has of them may or may not be there, so they come again (`Parcel.again`).  During the pause they are
        in the store alone, and a person can claim them.
        """
        numbers: dict[int, None] = {}  # each once, in order
        for entry, destination in deliveries:
            entry.active &= ~(1 << destination.index)
            self._leave(entry)
            numbers[entry.number] = None
            self._tell(entry, destination, "deferred", note=f"not durable: {why}")
        self._count("deferred", len(deliveries))

        def again() -> None:
            for number in numbers:
                active_queue.backlog.add("", WaitingEntry(number, True))

        self._later(pause_seconds, again)

    def settled(self, entries: list[Settled]) -> None:
        """The store has forgotten them.  A read that began before may still bring them."""
        self._count("settled", len(entries))
        self._outrun([entry.number for entry in entries])
        note = self._note
        for entry in entries:
            note(entry.id, "settled")
        self.pump()

    def recorded(self, attempts: list[Attempt]) -> None:
        """The store has kept these: look again when the first is due."""
        for attempt in attempts:
            entry = self.live.get(attempt.number)
            if entry is not None and attempt.destination >= 0:
                # This bit alone, and a read that has not seen the attempt is made again: see `active_message`.
                entry.unwritten &= ~(1 << attempt.destination)
                self._outrun([attempt.number])
                self._leave(entry)
        due = min((attempt.due for attempt in attempts if attempt.due is not None), default=None)
        if due is not None:
            self.due.expect(due)
        self.changed()

    def damaged(self, entry: Unreadable) -> None:
        """An entry cannot be delivered as it is: keep it, and say so loudly."""
        self.log.error("queue entry {id} is damaged and kept: {why}", id=entry.id or str(entry.number), why=entry.why)
        self._note(entry.id, "damaged", note=entry.why)
        why = clean_text(entry.why)
        self.outcome_writer.add([], [Attempt(entry.number, WHOLE_ENTRY, False, EntryState.DAMAGED, 0, None, None, why)])

    def _not_delivered(
        self,
        active_queue: ActiveQueue,
        entry: ActiveMessage,
        destination: Destination,
        outcome: Outcome | None,
        why: str,
        chance: float,
    ) -> Attempt:
        """Keep in mind what becomes of a destination that was not reached."""
        bit = 1 << destination.index
        entry.active &= ~bit
        entry.unwritten |= bit
        attempt = self._settlement.not_delivered(
            entry, destination, outcome, why, now=self._clock.seconds(), chance=chance, since=self._since()
        )
        step = "deferred" if attempt.state is EntryState.DEFERRED else "failed"
        said: dict[str, str] = {}
        if isinstance(outcome, Delayed | Failed) and outcome.peer:  # its own word, and to what
            said = {"peer": outcome.peer, "phase": outcome.phase}
        self._tell(entry, destination, step, note=attempt.note, reply=str(attempt.reply), **said)
        self._count(step, 1)
        if entry.attempts is None:
            entry.attempts = {}
        entry.attempts[destination.index] = attempt
        return attempt

    def _leave(self, entry: ActiveMessage) -> None:
        """It leaves memory where the store knows all of it."""
        if entry.is_over:
            self.live.pop(entry.number, None)
            self._outrun([entry.number])

    def _outrun(self, numbers: Sequence[int]) -> None:
        """Whatever is being read of these entries may be older than what the store has now."""
        for active_queue in self.active_queues:
            active_queue.outrun(numbers)
        if self._recovery is not None:
            self._recovery_outrun(numbers)

    def _tell(self, entry: ActiveMessage, destination: Destination, step: str, **fields: str) -> None:
        before = None if entry.attempts is None else entry.attempts.get(destination.index)
        made = 1 if before is None else before.attempts + 1
        envelope = entry.envelope
        self._note(
            envelope.id,
            step,
            recipient=str(destination.recipient.address),
            destination=destination_name(destination),
            attempt=made,
            ms=round((self._clock.seconds() - envelope.received_at) * 1000),
            **fields,
        )

    # --- for a person's hand ---

    def claim(self, numbers: set[int]) -> set[int]:
        """Take entries out of the active queues, so that a person may change them; those that could be had.

        Not to be had is what is being delivered, not yet flushed, not yet written down, or settled already.
        """
        claimed = {number: set[Claimed]() for number in numbers if number not in self._claimed}
        # First what only waits is taken back; what is still live then is under way.  All of it happens in one turn of the
        # reactor: nothing can begin between the look and the claim.
        live = {number for number in claimed if number in self.live}
        for active_queue in self.active_queues if live else ():
            for number, again in active_queue.withdraw(live):
                claimed[number].add(Claimed(active_queue.remote, again))
        for number in live:
            self._leave(self.live[number])
        busy = {number for number in claimed if number in self.live or number in self.outcome_writer.settling}
        self._claimed.update(claimed)
        self.release(busy)
        return set(claimed) - busy

    def release(self, numbers: set[int]) -> None:
        """Give claimed entries back: what is to be done with them is read from the store."""
        for number in numbers:
            for remote, again in self._claimed.pop(number, ()):
                self.active_queues[remote].backlog.add("", WaitingEntry(number, again))
        if not self._stopping:
            self.changed()

    # --- reading back ---

    def _take_up(self, message: ReadMessage, active_queue: ActiveQueue, again: bool) -> None:
        self.adopt(message, (active_queue,), again, window_counts=False)

    def _not_to_be_taken(self, number: int) -> int:
        if number in self.outcome_writer.settling:
            return EVERY_DESTINATION
        entry = self.live.get(number)
        return 0 if entry is None else entry.not_to_be_taken

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        """After a pause; never, where the queue stops before: what it would bring back is in the store."""
        if self._stopping:
            return

        def ring() -> None:
            self._postponed.discard(timer)
            work()
            self.changed()

        timer = self._clock.callLater(seconds, ring)
        self._postponed.add(timer)

    def _found_due(self, entries: list[tuple[int, bool]]) -> None:
        for number, remote in entries:
            self.active_queues[remote].retries.add("", WaitingEntry(number, True))
        self.changed()

    # --- the end ---

    @property
    def is_idle(self) -> bool:
        """Nothing in memory is left to deliver, to flush or to write down."""
        return all(active_queue.is_idle for active_queue in self.active_queues) and self.outcome_writer.is_empty

    def finish(self) -> Deferred[None]:
        """Take nothing more from the store, deliver what is in memory; fires when that has been settled."""
        self._stopping = True
        self._reading_back.stop()
        self._recovery = None
        self.due.stop()
        for timer in self._postponed:
            timer.cancel()
        self._postponed.clear()
        for active_queue in self.active_queues:
            active_queue.read_ended(())  # what a read still brings is not taken
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        for active_queue in self.active_queues:
            active_queue.hurry()
        self.changed()
        return done

    def stop(self) -> None:
        """Stop where things stand: the store has the rest."""
        self._stopping = True
        self._reading_back.stop()
        for active_queue in self.active_queues:
            active_queue.stop()
        self.outcome_writer.stop()
