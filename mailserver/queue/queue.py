"""The durable queue as the rest of the server sees it: commit, list, show, start and stop.

A message is committed when its row, and the file of a large one, are on the disk; only then may its 250 leave.  After a failed
sync a message counts as not accepted; its row is deleted before the store is used again, or closed.  Only a crash between the
two, or a disk that fails until the end, can bring it back, as a second copy of what the peer then sends once more.  Its file
stays for as long: it is removed when the row is gone for good, or, after a stop, by the next start.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock, IConcurrentDelivery, IDelivery, ReportDraft
from mailserver.mail.address import Address
from mailserver.mail.answers import Route
from mailserver.mail.content import Content
from mailserver.mail.durable import make_directory
from mailserver.mail.envelope import Envelope
from mailserver.mail.faults import StorageBroken, StorageDamaged, StorageFault
from mailserver.mail.ids import IdSource
from mailserver.mail.outbound_answers import ReportVerdict
from mailserver.mail.parcel import Destination
from mailserver.mail.set_apart import SetApart
from mailserver.queue.acceptance import Acceptance, Waiter
from mailserver.queue.active import ActiveQueue, ActiveQueueLimits, CallsDelivery
from mailserver.queue.admin.orders import Orders
from mailserver.queue.clock_changes import ClockChanges
from mailserver.queue.commit import CommitWriter, PendingCommit
from mailserver.queue.counts import QueueCounts
from mailserver.queue.direct import DirectDelivery
from mailserver.queue.entry import Attempt, EntrySummary, Settled, number_of, pack
from mailserver.queue.figures import QueueFigures
from mailserver.queue.health import Health
from mailserver.queue.held_copies import HeldCopies, Judge
from mailserver.queue.holding import Holding, HoldingPolicy
from mailserver.queue.limits import QueueLimits, schedule_of
from mailserver.queue.lock import QueueInUse, take_directory
from mailserver.queue.no_relay import NoRelay
from mailserver.queue.opening import Opening
from mailserver.queue.outcome_writer import OutcomeWriter, remove_files
from mailserver.queue.reader import ReadMessage, SqliteReader, list_entries, show_entry
from mailserver.queue.recovery import Leftovers, Recovery, find_leftovers, tidy_spool
from mailserver.queue.reports import Reporter
from mailserver.queue.runner import Runner
from mailserver.queue.schedule import Schedules
from mailserver.queue.settlement import Settlement
from mailserver.queue.spool import Room, Spool
from mailserver.queue.store import SqliteStore
from mailserver.queue.undeliverable import Undeliverable

__all__ = ["QueueCounts", "Queue", "QueueInUse"]

CLOSE_SECONDS = 10.0
DATABASE = "queue.db"
NOTHING_APART: Mapping[int, SetApart] = MappingProxyType({})

Attempts = list[Attempt]
Gone = list[Settled]


class Queue:
    """Keeps each message from its commit until each of its destinations has been reached.

    `local` serves the destinations with a `Local` route, `remote` those with a `Remote` one; None is no relay.  `limits` has the
    bounds and times.  `note(id, step, **fields)` is told `delivered`, `deferred`, `failed` (recipient, destination, attempt, ms
    since the acceptance, note, reply), `settled` and `damaged`.

    `run_in_thread(function, *args)` returns a Deferred.  `call_from_thread(function, *args)` calls it in the reactor's thread.
    Everything else is called in the reactor's thread.

    `judge(envelope, content, recipient)` gives a verdict on a copy that is still undecided (`HeldCopies`), `holding` says what
    becomes of what verdicts hold.

    `route(address)` says where a report to a sender goes; without it no reports are made.  Reports are messages of `hostname`,
    with ids of `next_id`; `judge_report` is asked before each, `sign_report` signs it (`Reporter`).  `boot_seconds()` is a clock
    that nobody sets (`Clocks`).  `calls_delivery` calls the remote delivery where others have a say before (`ActiveQueue`).
    """

    log = Logger()
    _recovery: Recovery | None = None
    _lock: int | None = None
    _left_in_spool: Sequence[str] = ()  # by earlier runs
    _accepting = False
    _stopping = False

    def __init__(
        self,
        *,
        data_directory: str,
        clock: Clock,
        local: IDelivery,
        remote: IDelivery | None,
        note: Callable[..., None],
        run_in_thread: Callable[..., Any],
        call_from_thread: Callable[..., Any],
        limits: QueueLimits,
        hostname: str = "localhost",
        route: Callable[[Address], Awaitable[Sequence[Route]]] | None = None,
        next_id: Callable[[], str] | None = None,
        boot_seconds: Callable[[], float] | None = None,
        judge: Judge | None = None,
        holding: HoldingPolicy | None = None,
        calls_delivery: CallsDelivery | None = None,
        judge_report: Callable[[ReportDraft], Awaitable[ReportVerdict | None]] | None = None,
        sign_report: Callable[[Envelope, Content], Awaitable[Content | None]] | None = None,
    ) -> None:
        self._calls_delivery, self._judge_report, self._sign_report = calls_delivery, judge_report, sign_report
        self.data_directory = os.path.abspath(data_directory)
        self.counts = QueueCounts()
        self.store_path = os.path.join(self.data_directory, DATABASE)
        self._clock, self._note = clock, note
        self._run_in_thread, self._call_from_thread = run_in_thread, call_from_thread
        self._spool = Spool(os.path.join(self.data_directory, "spool"))
        self.room = Room(
            directory=self.data_directory, seconds=clock.seconds, minimum_free_bytes=limits.minimum_free_bytes
        )
        self._reader = SqliteReader(path=self.store_path, spool=self._spool, damaged=self._say_damaged)
        self._writer = CommitWriter(
            store=SqliteStore(self.store_path),
            call_from_thread=call_from_thread,
            committed=self._committed,
            batch_messages=limits.batch_messages,
            batch_octets=limits.batch_octets,
        )
        self._health = self._make_health()
        schedule = schedule_of(limits)
        schedules = Schedules(schedule, remote)
        self.holding = Holding(schedule, holding or HoldingPolicy())
        self._clock_changes = ClockChanges(
            clock=clock,
            boot_seconds=boot_seconds,
            schedules=schedules,
            do=self._writer.do,
            mended=self._times_mended,
            failed=self._health.failed,
            held_seconds=lambda: self.holding.policy.seconds,
        )
        self._runner = runner = Runner(
            clock=clock,
            settlement=Settlement(schedules=schedules, reports=route is not None),
            reader=self._reader,
            run_in_thread=run_in_thread,
            note=note,
            count=self._count,
            since=self._clock_changes.since,
        )
        self.undeliverable = Undeliverable(
            clock=clock,
            do=self._forgetting,
            dropped=runner.settled,
            most=limits.undeliverable_messages,
            seconds=limits.undeliverable_seconds,
            is_steady=lambda: self._clock_changes.is_steady,
        )
        self._held_copies = self._make_held_copies(judge)
        self._acceptance = Acceptance(counts=self.counts, health=self._health, runner=runner, note=note, recorded=self._owed)
        self._reporter = None if route is None else self._make_reporter(schedules, hostname, route, next_id)
        self._deliveries = (local, remote or NoRelay())
        self._direct = self._make_direct(limits.local_deadline_seconds)
        self._outcome_writer = self._make_outcome_writer()
        queues = (self._make_active_queue(False, limits), self._make_active_queue(True, limits))
        runner.begin(active_queues=queues, outcome_writer=self._outcome_writer)
        self._some_unstored = not all(item.stores for item in self._deliveries)
        self.verbs = self._make_orders()
        self.figures = QueueFigures(runner, self._reader, self._writer, self._health)
        self._opening = self._make_opening()

    def _make_opening(self) -> Opening:
        return Opening(
            directory=self.data_directory,
            path=self.store_path,
            writer=self._writer,
            health=self._health,
            read=self._runner.read,
            call_from_thread=self._call_from_thread,
            sound=self._found_sound,
        )

    def _make_health(self) -> Health:
        return Health(
            clock=self._clock,
            do=self._writer.do,
            reopen=lambda: self._forgetting(SqliteStore.reopen),
            is_trusted=lambda: self._writer.is_trusted,
            room=self.room,
            works_again=lambda: self._clock_changes.works_again(),
        )

    def _make_held_copies(self, judge: Judge | None) -> HeldCopies:
        return HeldCopies(
            clock=self._clock,
            holding=self.holding,
            judge=judge,
            reader=self._reader,
            read=self._runner.read,
            do=self._resolving,
            recorded=self._recorded,
            finished=self._runner.settled,
            note=self._note,
            count=self._count,
            is_steady=lambda: self._clock_changes.is_steady,
        )

    def _make_direct(self, deadline_seconds: float) -> DirectDelivery:
        return DirectDelivery(
            deliveries=self._deliveries,
            clock=self._clock,
            deadline_seconds=deadline_seconds,
            note=self._note,
            count=self._count,
            remove=lambda id: self._run_in_thread(self._spool.remove, id),
        )

    def _make_orders(self) -> Orders:
        return Orders(
            runner=self._runner,
            reader=self._reader,
            do=self._writer.do,
            spool=self._spool,
            clock=self._clock,
            note=self._note,
            count=self._count,
            recovery=lambda: self._recovery,
            owed=self._owed,
        )

    def _make_outcome_writer(self) -> OutcomeWriter:
        return OutcomeWriter(
            clock=self._clock,
            do=self._writer.do,
            spool=self._spool,
            settled=self._runner.settled,
            recorded=self._recorded,
            failed=self._health.failed,
        )

    def _make_active_queue(self, remote: bool, queue_limits: QueueLimits) -> ActiveQueue:
        delivery: Any = self._deliveries[remote]
        limits = active_queue_limits(queue_limits, remote)
        if IConcurrentDelivery.providedBy(delivery):
            limits = replace(limits, calls=delivery.calls_at_once)
        deadline = getattr(delivery, "deadline_seconds", None)
        if deadline is not None:
            limits = replace(limits, deadline_seconds=deadline)
        runner = self._runner
        return ActiveQueue(
            remote=remote,
            delivery=delivery,
            clock=self._clock,
            limits=limits,
            answered=runner.answered,
            flushed=runner.flushed,
            unflushed=runner.unflushed,
            changed=runner.changed,
            may_begin=lambda: not (self._outcome_writer.is_behind or self._health.damage),
            calls_delivery=self._calls_delivery if remote else None,
        )

    def _make_reporter(
        self,
        schedules: Schedules,
        hostname: str,
        route: Callable[[Address], Awaitable[Sequence[Route]]],
        next_id: Callable[[], str] | None,
    ) -> Reporter:
        return Reporter(
            clock=self._clock,
            hostname=hostname,
            schedules=schedules,
            route=route,
            next_id=next_id or IdSource(self._clock.seconds).next,
            reader=self._reader,
            read=self._runner.read,
            do=self._forgetting,
            entering=self._entering,
            entered=self._acceptance.reported,
            finished=self._runner.settled,
            cannot_be_told=self.undeliverable.cannot_be_told,
            damaged=self._runner.damaged,
            since=self._clock_changes.since,
            judge_report=self._judge_report, sign=self._sign_report,
            note=self._note,
        )  # fmt: skip

    def clock_set_at(self) -> float:
        """Since when the clock has gone without being set (seconds since the epoch): what was tried before tells no age."""
        return self._clock_changes.since()

    # --- life ---

    def start(self) -> Deferred[None]:
        """Take the data directory, open the store and begin to deliver what an earlier run left.

        Errbacks with `QueueInUse` where another process keeps it for half a minute, `StorageBroken`, `StorageFull` or OSError.
        """
        return Deferred.fromCoroutine(self._start())

    def stop(self, within_seconds: float) -> Deferred[None]:
        """Finish the commits, deliver what is in memory within the time, flush, settle, close.  The rest stays in the store."""
        return Deferred.fromCoroutine(self._stop(within_seconds))

    async def _start(self) -> None:
        make_directory(self.data_directory)
        self._lock = await take_directory(self.data_directory, self._clock, lambda: self._stopping)
        try:
            self._spool.create()
            await self._opening.open()
            if self._opening.is_new and (place := await self._runner.read(self._spool.put_aside, self._clock.seconds())):
                self.log.warn("the queue is new; the files of an earlier one were moved to {place}", place=place)
            self._health.begin()
            await self._look_at_store()
        except BaseException:
            self._health.end()
            await self._runner.read(self._reader.close)
            if self._writer.is_running:
                await self._opening.closing()
                await self._writer.stop()
                await self._opening.closed()
            self._unlock()
            raise
        self._accepting = True

    async def _look_at_store(self) -> None:
        """What an earlier run left is taken up.  Of a damaged store nothing is: it has to be mended first."""
        try:
            if self._health.damage:
                return
            self._left_in_spool = await self._runner.read(self._spool.names)  # nothing of this run is there yet
            await self._writer.do(lambda store: store.forget_damage())
            await self._clock_changes.start()
            if self._opening.is_sound:
                await self._tidy_spool()
            left = await self._runner.read(find_leftovers, self._reader)
        except StorageDamaged as fault:
            self._health.found_damage(str(fault))
            return
        self._take_up(left)
        await self.undeliverable.tidy()

    async def _tidy_spool(self) -> None:
        """Remove what belongs to no message: where it is sure what does."""
        names, self._left_in_spool = self._left_in_spool, ()
        count = await self._runner.read(tidy_spool, self._reader, self._spool, names)
        if count:
            self.log.info("removed {count} spool files that belonged to no message", count=count)

    def _found_sound(self) -> None:
        tidied = Deferred.fromCoroutine(self._tidy_spool())
        tidied.addErrback(lambda failure: self.log.failure("the spool could not be tidied", failure))

    def _take_up(self, left: Leftovers) -> None:
        self.counts.depth += left.attempted
        for entry in left.damaged:
            self._runner.damaged(entry)
        if left.newest:
            self._recovery = Recovery(
                reader=self._reader,
                runner=self._runner,
                up_to=left.newest,
                call_later=self._clock.callLater,
                found=self._recovered,
            )
            self._runner.recover_with(self._recovery.more, self._recovery.outrun)
        self._runner.due.look()
        self._runner.changed()
        if self._reporter is not None:
            self._reporter.look()
        self._held_copies.look()

    async def _stop(self, within_seconds: float) -> None:
        self._accepting = False
        self._stopping = True
        if self._lock is None:
            return
        end: Deferred[None] = Deferred()
        timer = self._clock.callLater(within_seconds, end.callback, None)
        await first_of(self._finish(), end)
        if timer.active():
            timer.cancel()
        self._runner.stop()
        if self._reporter is not None:
            self._reporter.finish()
        self._held_copies.finish()
        self._clock_changes.stop()
        self._health.end()
        self._opening.stop()
        if left := await self._close():
            await self._opening.closed(*left)
        self._unlock()

    def _finish(self) -> Deferred[None]:
        """The commits under way are answered, then what is in memory is delivered."""
        reporter = self._reporter
        done = self._writer.do(lambda store: None)
        done.addCallback(lambda _: self._held_copies.finish())
        if reporter is not None:
            done.addCallback(lambda _: reporter.finish())
        # Of a damaged store nothing more is delivered, and nothing is worth waiting for.
        return done.addCallback(lambda _: None if self._health.damage else self._runner.finish())

    async def _close(self) -> list[int]:
        """A disk that hangs must not keep the server from ending: its thread does not hold the process.  One result, or none."""
        ended: list[int] = []
        given_up: Deferred[None] = Deferred()
        timer = self._clock.callLater(CLOSE_SECONDS, given_up.callback, None)
        closed = self._runner.read(self._reader.close).addBoth(lambda _: Deferred.fromCoroutine(self._opening.closing()))
        closed.addBoth(lambda _: self._writer.stop())
        closed.addCallback(ended.append)
        closed.addErrback(lambda failure: self.log.failure("the store of the queue did not close well", failure))
        await first_of(closed, given_up)
        if timer.active():
            timer.cancel()
        else:
            self.log.error("the store of the queue did not close in time; nothing is lost")
        return ended

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def change_limits(self, *, minimum_free_bytes: int, memory_window_octets: int) -> None:
        """Other bounds, for what comes from now on."""
        self.room.minimum_free_bytes = minimum_free_bytes
        self._runner.resize_windows(memory_window_octets)

    def look_at_clocks(self) -> None:
        """The clock of the machine may have been set."""
        self._clock_changes.look()

    def _times_mended(self) -> None:
        if self._accepting:
            self._runner.due.look_from_the_start(0.0)
            if self._reporter is not None:
                self._reporter.look_again()
            self._held_copies.look_again()

    # --- whether it takes messages ---

    @property
    def writable(self) -> bool:
        """The store works.  False: 451 4.3.0 before the data; the queue finds out by itself when it works again."""
        return self._health.works

    def room_for(self, octets: int) -> bool:
        """The disk has room for so much.  False: 452 4.3.1 before the data."""
        return self.room.holds(octets)

    def spool_path(self, id: str) -> str:
        """Where a large content is to be written and synced, with its directory, before the commit."""
        return self._spool.path(id)

    def commit(
        self,
        envelope: Envelope,
        content: Content,
        destinations: tuple[Destination, ...],
        set_apart: Mapping[int, SetApart] = NOTHING_APART,
    ) -> Deferred[None]:
        """Make a message durable.  Errbacks with `StorageFull`, `StorageBroken`, or ValueError for what is no message.

        `set_apart` names destinations (by their indexes) that verdicts hold, or whose sender is told of a refusal.  After an
        errback the file of a large content is the caller's to remove, unless the fault `may_come_back`.
        """
        if not self._accepting or not self._health.works:
            return fail(StorageBroken("the queue takes no messages now"))
        stored = set_apart or not self._some_unstored
        if not stored and not self._direct.keeps(destinations):
            return self._direct.deliver(envelope, content, destinations)
        try:
            number = number_of(envelope.id)
            if not destinations:
                raise ValueError("a message needs a destination")
            if content.path is not None and not self._spool.holds(content, envelope.id):
                raise ValueError(f"{content.path} is not the message's place in the spool")
            packed = pack(number, envelope, content, destinations)
            attempts: tuple[Attempt, ...] = ()
            if set_apart:
                times = {"now": self._clock.seconds(), "chance": random.random()}
                attempts = self.holding.first_attempts(number, envelope, destinations, set_apart, **times)
        except ValueError:
            return fail(Failure())
        if self._recovery is not None:
            self._recovery.commits(number)
        done: Deferred[None] = Deferred()
        self._writer.commit(PendingCommit(number, packed, Waiter(done, envelope, content, destinations), attempts))
        return done

    def tidy(self) -> None:
        """Once a day: forget failures that nobody can be told of and that are too old."""
        if self._health.works:
            self.undeliverable.tidy()

    # --- for people ---

    @property
    def depth(self) -> int:
        """Entries in the store."""
        return self.counts.depth

    def list(self, after: str = "", limit: int = 1000) -> Deferred[list[EntrySummary]]:
        """The entries in the order of their ids, from the one after `after`."""
        found: Deferred[list[EntrySummary]] = self._run_in_thread(
            list_entries, self.data_directory, after, limit, self._say_damaged
        )
        return found

    def show(self, id: str) -> Deferred[EntrySummary | None]:
        """One entry, None where the queue has it not (any more)."""
        found: Deferred[EntrySummary | None] = self._run_in_thread(
            show_entry, self.data_directory, id, self._say_damaged
        )
        return found

    def summaries(self, numbers: Sequence[int]) -> Deferred[Sequence[EntrySummary]]:
        """Those of these entries that are still there."""
        return self._runner.read(self._reader.summaries, numbers)

    def _say_damaged(self, why: str) -> None:
        """From any thread."""
        self._call_from_thread(self._health.found_damage, why)

    # --- what the parts tell each other ---

    def _committed(self, batch: Sequence[PendingCommit], faults: Sequence[StorageFault | None] | None) -> None:
        self._acceptance.committed(batch, faults)

    def _entering(self, number: int) -> None:
        """A report is about to be committed."""
        if self._recovery is not None:
            self._recovery.commits(number)

    def _resolving(self, work: Callable[[SqliteStore], tuple[Attempts, Gone]]) -> Deferred[tuple[Attempts, Gone]]:
        """As `_forgetting`."""

        def do(store: SqliteStore) -> tuple[Attempts, Gone]:
            written, gone = work(store)
            remove_files(self._spool, gone)
            return written, gone

        return self._writer.do(do)

    def _owed(self, attempts: Attempts) -> None:
        self._held_copies.recorded(attempts)
        if self._reporter is not None:
            self._reporter.recorded(attempts)

    def _recorded(self, attempts: Attempts) -> None:
        self._runner.recorded(attempts)
        self._owed(attempts)
        self.undeliverable.recorded(attempts)

    def _forgetting(self, work: Callable[[SqliteStore], Gone]) -> Deferred[Gone]:
        """Do in the store's thread what ends entries, and remove their files."""

        def do(store: SqliteStore) -> Gone:
            gone = work(store)
            remove_files(self._spool, gone)
            return gone

        return self._writer.do(do)

    def _recovered(self, message: ReadMessage) -> None:
        if not message.attempts:
            self.counts.depth += 1

    def _count(self, name: str, number: int) -> None:
        counts = self.counts
        if name == "settled":
            counts.settled += number
            counts.depth -= number
        else:
            setattr(counts, name, getattr(counts, name) + number)


def active_queue_limits(limits: QueueLimits, remote: bool) -> ActiveQueueLimits:
    """Those of the local active queue, or of the remote one."""
    return ActiveQueueLimits(
        calls=limits.remote_deliveries if remote else limits.local_batches,
        batch_messages=limits.batch_messages,
        batch_octets=limits.batch_octets,
        window_octets=limits.memory_window_octets,
        deadline_seconds=limits.remote_deadline_seconds if remote else limits.local_deadline_seconds,
        flush_seconds=limits.remote_flush_seconds if remote else limits.flush_seconds,
        flush_messages=limits.flush_messages,
    )


def first_of(*waited: Deferred[Any]) -> Deferred[Any]:
    """Fires with the first that fires; the others' results are dropped."""
    return DeferredList(waited, fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True)
