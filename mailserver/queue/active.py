"""The active queue of one delivery: what waits for it, what is under way, what it has yet to flush.

A parcel goes through `ready` (waits in memory), a call (`running`), `delivered` (the delivery has said so) and a flush.  Only
then may the store forget it.  All of this happens in the reactor's thread, but every step may call back into this class before
it returns: a delivery may answer at once.  Each flag below says which step is going on, and what comes in the midst of it waits.

`_pumping`.  A delivery answers at once: `pump` has called it, its answer ends the call, and the end of a call pumps.  With a
thousand messages waiting that would be a stack a thousand calls deep.  The inner `pump` returns, and the loop of the outer one
finds the place that has become free.

`_flushing`.  A flush is under way when a second message is delivered.  Whether that flush covers it nobody knows: it may have
passed the place where the message now is.  So `delivered` is emptied when a flush begins, what comes during it waits for the
next one, and there is one flush at a time.

`reading`, with `_being_read` and `_outrun`.  A thread reads messages that wait in the store, and three things may happen before
its answer comes.  A new message of the same domain is committed: it would be handed over before the older ones that are being
read, so their keys are in `_being_read` and it queues behind them in the store.  The store learns of an attempt: what was read is
older than that, so its number is in `_outrun` and it is read again.  There is room for more: nothing is asked while an answer is
on its way, since the answer may fill the room.

`_retried_last`.  Due retries and new mail take turns in reading back.  It also says to which of the two unread entries are given
back, since only one read is under way.

`_again_ready` counts the parcels in `ready` that come again.  With no bound, all the mail for a host that is down would stand in
`ready` in front of mail that comes now.  Each way out of `ready` counts down: taken for a call, withdrawn for a person, cleared
at the stop.

`_memory` and `_places` count what each key has taken.  What `_add` takes of the memory is given back by whoever ends the parcel:
`withdraw` before its call, `_finish` after it.  A place is taken when a call begins and given back in `_finish`, which runs once
for each call, however it ends (`DeliveryCall`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock, IBatchDelivery, IConcurrentDelivery, IDelivery
from mailserver.mail.answers import Local, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.outcomes import clean_text
from mailserver.mail.parcel import Destination, Parcel
from mailserver.plugins.asking import LEFT_MOST
from mailserver.plugins.awaiting import FAULTS, now_or_later
from mailserver.plugins.left_behind import LeftBehind
from mailserver.queue.active_message import ActiveMessage, ActiveParcel, Backlogged, Unflushed, WaitingEntry
from mailserver.queue.delivery_call import DeadlinePassed, DeliveryCall
from mailserver.queue.fairness import GENEROSITY, FairQueue, Share
from mailserver.queue.store_window import StoreWindow

__all__ = ["ActiveQueue", "ActiveQueueLimits", "CallsDelivery"]

ENTRY_OCTETS = 2048  # what an entry weighs in memory beside its data
FREE_FOR_READING = 16  # no more is read back where less than one part in so many of the window is free
RETRIES_IN_FRONT = 50  # deferred mail is read back while fewer such parcels wait in memory
BACKLOG_MOST = 50_000  # numbers in memory of what waits in the store
RETRIES_MOST = 200_000  # of what was deferred, those that wait by domain among them
UNFLUSHED_FLUSHES = 10  # deliver no more while so many flushes' worth waits for a slow disk
FLUSH_AGAIN_SECONDS = 10.0
FLUSH_AGAIN_SECONDS_MOST = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveQueueLimits:
    """`calls` deliveries at once; a batch has at most so many messages and octets; `window_octets` wait in memory.

    A call that has not answered after `deadline_seconds` counts as deferred.  Flushed is `flush_seconds` after the first
    delivery, or at `flush_messages`; that may take `flush_deadline_seconds`.
    """

    calls: int
    batch_messages: int
    batch_octets: int
    window_octets: int
    deadline_seconds: float
    flush_seconds: float
    flush_messages: int
    flush_deadline_seconds: float = 300.0


class CallsDelivery(Protocol):
    """Calls a delivery, after others have had their say (`mailserver.relay.attempts`)."""

    def deliver(
        self,
        delivery: IDelivery,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
        told: Callable[[Mapping[int, Outcome]], None] | None = None,
    ) -> Awaitable[Any]: ...

    def deliver_batch(self, delivery: Any, parcels: Sequence[Parcel]) -> Awaitable[Any]: ...


class ActiveQueue:
    """Hands parcels to a delivery, within the limits.

    Parcels that are handed over one by one have their turns by domain where they go to other hosts, by user where the delivery
    makes several calls at once here; and no domain and no user takes all calls or all of the window: a slow one holds up nobody
    else.  All others keep their order.

    `answered(active_queue, parcel, answer, why)` is told each answer as it came, or with `why` that there was none;
    `flushed(deliveries)` what has become durable, `unflushed(active_queue, deliveries, why, pause_seconds)` what has not.
    `changed()` ends each of these rounds.  While `may_begin()` says no, no call begins; `pump` looks again.
    `calls_delivery`, where it is given, calls the delivery in place of this class.  It is told what has become of some of a
    message's destinations while the others are under way, where the delivery says so (`tells_early`): a host that takes an hour
    to answer would else let those wait who were refused, and a crash meanwhile would have the others served again.
    """

    log = Logger()

    def __init__(
        self,
        *,
        remote: bool,
        delivery: IDelivery,
        clock: Clock,
        limits: ActiveQueueLimits,
        answered: Callable[[ActiveQueue, ActiveParcel, object, str], None],
        flushed: Callable[[list[Unflushed]], None],
        unflushed: Callable[[ActiveQueue, list[Unflushed], str, float], None],
        changed: Callable[[], None],
        may_begin: Callable[[], bool] = lambda: True,
        calls_delivery: CallsDelivery | None = None,
    ) -> None:
        self.remote = remote
        self.ready: FairQueue[ActiveParcel] = FairQueue()
        self.backlog: FairQueue[WaitingEntry] = FairQueue()  # what waits in the store alone
        self.retries: FairQueue[WaitingEntry] = FairQueue()  # the same, of what was deferred and is due
        self.store_window = StoreWindow()  # what waits in the store, where the backlog has no place for its number
        self.delivered: list[Unflushed] = []
        self.reading = False  # see above, as all flags here
        self.running = 0  # calls
        self.limits = limits
        self._delivery = delivery
        self._calls_delivery = calls_delivery
        self._in_batches = IBatchDelivery.providedBy(delivery)
        self._tells_early: bool = getattr(delivery, "tells_early", False)
        self._by_key = not self._in_batches and (remote or IConcurrentDelivery.providedBy(delivery))
        self._memory = Share(limits.window_octets)
        self._places = Share(limits.calls)
        self._being_read: frozenset[str] = frozenset()  # keys of the backlog
        self._outrun: set[int] = set()  # of these the store has learnt since the read under way was asked for
        self._clock = clock
        self._answered = answered
        self._flushed = flushed
        self._unflushed = unflushed
        self._changed = changed
        self._may_begin = may_begin
        self._retried_last = False
        self._again_ready = 0  # of `ready`, those that come again
        self._pumping = False
        self._flushing = False
        self._flush_timer: Any = None
        self._flush_failures = 0
        self._hurry = False
        self._stopped = False
        self._calls: set[DeliveryCall] = set()
        left: LeftBehind | None = getattr(delivery, "left", None)
        self.left = LeftBehind() if left is None else left  # calls that were given up and run on
        self._name: str = getattr(delivery, "name", "")

    # --- what waits ---

    @property
    def stores(self) -> bool:
        """Whether the delivery keeps anything (`IDelivery.stores`)."""
        return bool(self._delivery.stores)

    @property
    def is_idle(self) -> bool:
        """Nothing waits in memory, nothing is under way, nothing is left to flush."""
        return not (self.ready or self.running or self.delivered or self._flushing or self.reading)

    @property
    def held_octets(self) -> int:
        """What waits here or is under way weighs so much in memory."""
        return self._memory.taken

    @property
    def wants_more(self) -> bool:
        """Half of the window is free."""
        return self.held_octets * 2 <= self.limits.window_octets

    @property
    def wants_numbers(self) -> bool:
        """Half of the backlog is free, and there is more in the store than it knows of."""
        return self.store_window.waits and self.wants_more and len(self.backlog) * 2 <= BACKLOG_MOST

    @property
    def has_room_for_retries(self) -> bool:
        """More deferred mail that is due may come into memory, as numbers."""
        return self.retries.waiting("") < BACKLOG_MOST and len(self.retries) < RETRIES_MOST

    def resize_window(self, octets: int) -> None:
        """Let so many octets wait in memory from now on; what is there already stays."""
        self.limits = replace(self.limits, window_octets=octets)
        self._memory.most = octets

    @property
    def free_octets(self) -> int:
        """How much may be read back at once: what is free of the window is not filled by one read."""
        return (self.limits.window_octets - self.held_octets) // 2

    def next_to_read(self, page: int, retries_page: int) -> list[Backlogged]:
        """What is to be read back now: at most so many.  `read_ended` is told how that went.

        New mail first: a destination that is down may have any number of messages due at once.  A few at a time are tried in
        between, and only a few of them stand in front of mail that comes now.
        """
        if self.reading or self.free_octets * 2 * FREE_FOR_READING < self.limits.window_octets:
            return []
        if self.retries and self._again_ready < RETRIES_IN_FRONT and not (self._retried_last and self.backlog):
            self._retried_last = True
            found = self._take(self.retries, retries_page)
        else:
            found = []
        if not found:
            self._retried_last = False
            found = self._take(self.backlog, page)
            self._being_read = frozenset([one.key for one in found])
        self.reading = bool(found)
        self._outrun.clear()
        return found

    def outrun(self, numbers: Sequence[int]) -> None:
        """The store has learnt of these entries what a read that is under way may not have seen."""
        if self.reading:
            self._outrun.update(numbers)

    def is_outdated(self, number: int) -> bool:
        """What was just read of this entry may be older than what the store knows."""
        return number in self._outrun

    def _take(self, waiting: FairQueue[WaitingEntry], page: int) -> list[Backlogged]:
        """In turns; of each domain no more than it may soon call, and none that fills the window with what is here already."""
        found: list[Backlogged] = []
        taken: dict[str, int] = {}

        def may(key: str) -> bool:
            if self._memory.taken_by(key) > self.limits.window_octets - self.held_octets:
                return False
            return not key or self._places.room(key) > self.ready.waiting(key) + taken.get(key, 0)

        while len(found) < page and (next := waiting.take(may)) is not None:
            found.append(Backlogged(*next))
            taken[next.key] = taken.get(next.key, 0) + 1
        return found

    def read_ended(self, unread: Sequence[Backlogged]) -> None:
        """Those that were not read after all wait again where they had waited."""
        self.reading = False
        self._being_read = frozenset()
        place = self.retries if self._retried_last else self.backlog
        for one in reversed(unread):
            place.give_back(one.key, one.entry)

    def key_of(self, destinations: Sequence[Destination]) -> str:
        """Who shares their turns: messages for the same domains, or here for the same users."""
        if not self._by_key:
            return ""
        if len(destinations) == 1:
            return turn_of(destinations[0])
        return " ".join(sorted({turn_of(destination) for destination in destinations}))

    def place(self, entry: ActiveMessage, parcel: Parcel) -> None:
        """A parcel for which there may be room in memory; else it waits in the store, where it is already."""
        key = self.key_of(parcel.destinations)
        octets = len(parcel.content.data or b"") + ENTRY_OCTETS
        if self._has_room(key, octets):
            self._add(entry, parcel, key, octets)
        else:
            self.wait(key, entry.number, parcel.again)

    def wait(self, key: str, number: int, again: bool, older: bool = False) -> None:
        """An entry waits in the store: keep its number, as long as there is a place for it.

        As of everything, no key has all places.  An active queue without keys keeps its order: what comes behind an overflow
        joins it, but for what was itself in one (`older`).
        """
        free = BACKLOG_MOST - len(self.backlog)
        has_place = self.backlog.waiting(key) < GENEROSITY * free if self._by_key else older or self.store_window.is_empty
        if free > 0 and has_place:
            self.backlog.add(key, WaitingEntry(number, again))
        else:
            self.store_window.add_range(number, number)

    def take_back(self, entry: ActiveMessage, parcel: Parcel) -> None:
        """A parcel that was read back for this active queue.

        What comes again, and whose domain has all the calls that it may have, waits on.
        """
        key = self.key_of(parcel.destinations)
        if parcel.again and key and self._places.room(key) <= self.ready.waiting(key):
            self.retries.add(key, WaitingEntry(entry.number, True))
        else:
            self._add(entry, parcel, key, len(parcel.content.data or b"") + ENTRY_OCTETS)

    def _has_room(self, key: str, octets: int) -> bool:
        """A new message may wait in memory: the window has room, and nothing older of its key waits in the store.

        Without keys "nothing older" means that the store window is empty, too: what is in it has no key to be told by.  A message
        that is larger than the window has room when nothing else is there, else it would never have any.
        """
        if self.backlog.waiting(key) or key in self._being_read or not (self._by_key or self.store_window.is_empty):
            return False
        if self.held_octets == 0:
            return True
        return self.held_octets + octets <= self.limits.window_octets and (not self._by_key or self._memory.allows(key))

    def _add(self, entry: ActiveMessage, parcel: Parcel, key: str, octets: int) -> None:
        """Into memory.  From here on each destination is `active` until it has its outcome."""
        for destination in parcel.destinations:
            entry.active |= 1 << destination.index
        self._memory.take(key, octets)
        self._again_ready += parcel.again
        self.ready.add(key, ActiveParcel(entry, parcel, octets, key))

    def withdraw(self, numbers: set[int]) -> list[WaitingEntry]:
        """Take back what waits here of these entries."""
        found = self.ready.withdraw(lambda one: one.entry.number in numbers)
        for one in found:
            for destination in one.parcel.destinations:
                one.entry.active &= ~(1 << destination.index)
            self._memory.give_back(one.key, one.octets)
            self._again_ready -= one.parcel.again
        return [WaitingEntry(one.entry.number, one.parcel.again) for one in found]

    # --- delivering ---

    def pump(self) -> None:
        """Begin as many calls as are allowed."""
        if self._pumping or self._stopped or not self._may_begin():
            return
        self._pumping = True
        try:
            most = self.limits.flush_messages * UNFLUSHED_FLUSHES
            while self.ready and self.running < self.limits.calls and len(self.delivered) < most:
                parcels = self._next_parcels()
                if not parcels:
                    break
                self._call(parcels)
        finally:
            self._pumping = False

    def _next_parcels(self) -> list[ActiveParcel]:
        ready, limits = self.ready, self.limits
        next = ready.take(self._places.allows if self._by_key else None)
        if next is None:
            return []
        parcels = [next.item]
        if self._in_batches:
            octets = parcels[0].octets
            while ready and len(parcels) < limits.batch_messages and octets + ready.peek().octets <= limits.batch_octets:
                one = ready.take().item  # type: ignore[union-attr]  # there is one
                octets += one.octets
                parcels.append(one)
        if self._again_ready:
            self._again_ready -= sum([one.parcel.again for one in parcels])
        return parcels

    def _call(self, parcels: list[ActiveParcel]) -> None:
        self.running += 1
        if self._by_key:
            self._places.take(parcels[0].key, 1)
        try:
            if len(self.left) >= LEFT_MOST:
                raise DeadlinePassed(f"{len(self.left)} earlier calls have not ended")
            answer: Any = now_or_later(self._delivery_of(parcels))
        except FAULTS:  # a delivery that raises defers (IDelivery)
            self._failed(parcels, Failure())
            return
        if not isinstance(answer, Deferred):
            self._done(parcels, answer)
            return
        self._await(
            answer,
            self.limits.deadline_seconds,
            lambda result: self._done(parcels, result),
            lambda failure: self._failed(parcels, failure),
        )

    def _delivery_of(self, called: list[ActiveParcel]) -> Awaitable[Any]:
        delivery: Any = self._delivery
        calls, parcel = self._calls_delivery, called[0].parcel
        answer: Awaitable[Any]
        if self._in_batches:
            parcels = [one.parcel for one in called]
            answer = delivery.deliver_batch(parcels) if calls is None else calls.deliver_batch(delivery, parcels)
        elif calls is not None and self._tells_early and len(parcel.destinations) > 1:
            told = partial(self._told, called[0])
            answer = calls.deliver(delivery, parcel.envelope, parcel.content, parcel.destinations, told)
        elif calls is None:
            answer = delivery.deliver(parcel.envelope, parcel.content, parcel.destinations)
        else:
            answer = calls.deliver(delivery, parcel.envelope, parcel.content, parcel.destinations)
        return answer

    def _await(
        self, answer: Deferred[Any], seconds: float, done: Callable[[Any], None], failed: Callable[[Failure], None]
    ) -> None:
        call = DeliveryCall(answer, self._calls, done, failed, self.left)
        call.begin(self._clock, seconds)

    def _told(self, one: ActiveParcel, outcomes: Mapping[int, Outcome]) -> None:
        """Some of its destinations have their outcomes while its call goes on, which is about the others alone from now on."""
        said = tuple([destination for destination in one.parcel.destinations if destination.index in outcomes])
        left = tuple([destination for destination in one.parcel.destinations if destination.index not in outcomes])
        if not said or not left or self._stopped:  # after the end of the call there is nobody left
            return
        early = replace(one, parcel=replace(one.parcel, destinations=said))
        one.parcel = replace(one.parcel, destinations=left)
        try:
            self._answered(self, early, outcomes, "")
        except Exception:  # noqa: BLE001  the delivery goes on
            self.log.failure("the queue stumbled over an early answer for {id}", id=one.entry.envelope.id)
        self._flush_when_due()
        self._changed()

    def _done(self, parcels: list[ActiveParcel], answer: Any) -> None:
        try:  # what a plugin calls a sequence may be one in name only
            answers = list(answer) if self._in_batches and isinstance(answer, Sequence) else [answer]
        except Exception:  # noqa: BLE001
            answers = []
        if len(answers) != len(parcels) or (self._in_batches and not isinstance(answer, Sequence)):
            self._finish(parcels, [None] * len(parcels), "the delivery did not answer for every message")
        else:
            self._finish(parcels, answers, "")

    def _failed(self, parcels: list[ActiveParcel], failure: Failure) -> None:
        why = self._named(failure.getErrorMessage() or "the delivery raised an error")
        if failure.check(DeadlinePassed) is None:
            self.log.failure("{name}: a delivery raised an error; its messages are deferred", failure, name=self._name)
        else:
            self.log.error("{why}; its messages are deferred", why=why)
        self._finish(parcels, [None] * len(parcels), why)

    def _named(self, words: str) -> str:
        return clean_text(f"{self._name}: {words}" if self._name else words)

    def _finish(self, parcels: list[ActiveParcel], answers: Sequence[Any], why: str) -> None:
        # Everything is given back before anybody is told: whoever is told may pump, and shall find the place free.
        self.running -= 1
        if self._by_key:
            self._places.give_back(parcels[0].key, 1)
        for one, outcomes in zip(parcels, answers, strict=True):
            self._memory.give_back(one.key, one.octets)
            try:
                self._answered(self, one, outcomes, why)
            except Exception:  # noqa: BLE001  one message's trouble is not the others'
                self.log.failure("the queue stumbled over the answer for {id}", id=one.entry.envelope.id)
            one.parcel = replace(one.parcel, destinations=())
        if self.delivered:
            self._flush_when_due()
        self.pump()
        self._changed()

    # --- the checkpoint ---

    def hurry(self) -> None:
        """The server stops: flush as soon as nothing is under way, without waiting for the timer or for more."""
        self._hurry = True
        self._flush_when_due()

    def stop(self) -> None:
        """Begin nothing any more and give up what is under way."""
        self._stopped = True
        self.ready.clear()
        self._again_ready = 0
        self._cancel_timer()
        for call in tuple(self._calls):
            call.abandon()

    def _cancel_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def _flush_when_due(self) -> None:
        if self._flushing or self._stopped or not self.delivered:
            return
        if len(self.delivered) >= self.limits.flush_messages or (self._hurry and not self.running):
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = self._clock.callLater(self.limits.flush_seconds, self._flush_timed)

    def _flush_timed(self) -> None:
        self._flush_timer = None
        if not self._flushing and self.delivered:
            self._flush()

    def _flush(self) -> None:
        self._cancel_timer()
        self._flushing = True
        deliveries, self.delivered = self.delivered, []
        try:
            answer = now_or_later(self._delivery.flush())
        except FAULTS:  # nothing of it counts as delivered (IDelivery.flush)
            self._flush_failed(deliveries, Failure())
            return
        if not isinstance(answer, Deferred):
            self._flush_done(deliveries)
            return
        self._await(
            answer,
            self.limits.flush_deadline_seconds,
            lambda _: self._flush_done(deliveries),
            lambda failure: self._flush_failed(deliveries, failure),
        )

    def _flush_done(self, deliveries: list[Unflushed]) -> None:
        self._flushing = False
        self._flush_failures = 0
        try:
            self._flushed(deliveries)
        except Exception:  # noqa: BLE001  the active queue goes on
            self.log.failure("the queue stumbled over what is durable now")
        self._flush_when_due()
        self.pump()
        self._changed()

    def _flush_failed(self, deliveries: list[Unflushed], failure: Failure) -> None:
        self._flushing = False
        pause = min(FLUSH_AGAIN_SECONDS * 2**self._flush_failures, FLUSH_AGAIN_SECONDS_MOST)
        self._flush_failures = min(self._flush_failures + 1, 10)
        self.log.failure(
            "{name}: a delivery could not make its messages durable; they are delivered again", failure, name=self._name
        )
        self._unflushed(self, deliveries, self._named(failure.getErrorMessage()), pause)
        self._flush_when_due()
        self.pump()
        self._changed()


def turn_of(destination: Destination) -> str:
    """The domain of the next host, or the user, with whom the turns go."""
    route = destination.route
    return f"{route.mailbox.user}@{route.mailbox.domain}" if isinstance(route, Local) else route.address.domain_key
