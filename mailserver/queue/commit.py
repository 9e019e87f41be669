"""Group commit: one thread writes, and what arrives while it syncs is the next batch.

No timer makes a batch: a lone message waits for nothing but its own sync, and under load the sync of one batch is the time in
which the next one gathers.  The thread tells the reactor once for each batch.

One queue leads from the reactor to the thread, and its order is what callers rely on: a task that is put behind a commit finds it
written or refused, so `Queue.stop` waits for the commits under way with a task that does nothing.  Within one round the thread
writes the batch first and does the tasks after it, though some of them may have come before: a task never sees less than what had
been handed in before it.

What is decided for a batch that fails:

* The store is full, or refuses a value.  One message may be the reason, so each is tried alone, and those that fit are committed.
* An error of the disk.  What of the batch is on the disk nobody knows.  All of it is answered with an error, the store remembers
  the numbers (`SqliteStore.reopen` deletes them), and nothing is written before a small write has been proved durable: a commit
  that succeeded now could take rows into its sync that have been refused.
* Anything else that is raised counts as an error of the disk: the peers wait, and must have an answer.

`carried` is a message that was taken from the queue and found no room in its batch.  It is the first of the next batch, and is
not put back, since it would stand behind those that came after it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.mail.faults import StorageBroken, StorageFault, StorageFull
from mailserver.queue.entry import Attempt
from mailserver.queue.store import MessageRefused, SqliteStore

__all__ = ["PendingCommit", "CommitWriter"]

T = TypeVar("T")

BATCH_MESSAGES = 256
BATCH_OCTETS = 8 << 20
LOG_OCTETS = 32 << 20  # checkpoint when so much stands in the log: some 15 ms of one thread's time
IDLE_SECONDS = 2.0  # or when nothing has happened for so long


@dataclass(slots=True)
class PendingCommit:
    """A message that waits for its commit.  `owner` is the caller's own, handed back with the answer.

    `attempts` are written in the same transaction: what of the message is held from the beginning.
    """

    number: int
    packed: bytes
    owner: Any
    attempts: tuple[Attempt, ...] = ()


@dataclass(slots=True)
class Task:
    """Something else that the store's thread has to do."""

    work: Callable[[SqliteStore], Any]
    done: Deferred[Any]


class CommitWriter:
    """The thread that owns the store.

    `committed(batch, faults)` is called in the reactor's thread after each batch: `faults` is None where all of it is durable,
    else it has for each message None or the `StorageFault`.
    """

    def __init__(
        self,
        *,
        store: SqliteStore,
        call_from_thread: Callable[..., Any],
        committed: Callable[[Sequence[PendingCommit], Sequence[StorageFault | None] | None], None],
        batch_messages: int = BATCH_MESSAGES,
        batch_octets: int = BATCH_OCTETS,
        log_octets: int = LOG_OCTETS,
    ) -> None:
        self._store = store
        self._call_from_thread = call_from_thread
        self._committed = committed
        self._batch_messages = batch_messages
        self._batch_octets = batch_octets
        self._log_octets = log_octets
        self._jobs: queue.SimpleQueue[PendingCommit | Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped: Deferred[int] = Deferred()
        self.watch: Callable[[int, float], None] | None = None
        """Is told, in the thread, how many messages were in a commit and how many seconds it took.  Raises nothing."""

    # --- the reactor's side ---

    def start(self, *, must_exist: bool = False, in_order: bool = True) -> Deferred[None]:
        """Start the thread and open the store in it (`SqliteStore.open`)."""
        self._thread = threading.Thread(target=self._run, name="queue writer", daemon=True)
        self._thread.start()
        return self.do(lambda store: store.open(must_exist=must_exist, in_order=in_order))

    @property
    def is_running(self) -> bool:
        """The thread lives."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_trusted(self) -> bool:
        """No error of the disk has come since the store was opened."""
        return self._store.trusted

    @property
    def has_made_store(self) -> bool:
        """There was no queue in the file when it was opened."""
        return self._store.is_new

    def stop(self) -> Deferred[int]:
        """Finish what was asked, close the store and end the thread.  Fires with the result of `SqliteStore.end`."""
        self._jobs.put(None)
        return self._stopped

    def commit(self, waiting: PendingCommit) -> None:
        """Make a message durable; `committed` tells."""
        self._jobs.put(waiting)

    def do(self, work: Callable[[SqliteStore], T]) -> Deferred[T]:
        """Run something with the store in its thread, after the commits that wait already."""
        done: Deferred[T] = Deferred()
        self._jobs.put(Task(work, done))
        return done

    # --- the thread's side ---

    def _run(self) -> None:
        running = True
        carried: PendingCommit | None = None
        while running:
            batch, tasks, running, carried = self._gather(carried)
            if batch:
                self._commit_batch(batch)
            for task in tasks:
                self._perform(task)
            if batch or tasks:
                self._checkpoint_if(self._log_octets)
        self._finish()

    def _gather(self, carried: PendingCommit | None) -> tuple[list[PendingCommit], list[Task], bool, PendingCommit | None]:
        """All that waits, up to the ceiling; block while nothing does.  A message too many is carried to the next round."""
        batch: list[PendingCommit] = []
        tasks: list[Task] = []
        octets = 0
        jobs = self._jobs
        job: PendingCommit | Task | None = self._next_job() if carried is None else carried
        while job is not None:
            if isinstance(job, Task):
                tasks.append(job)
            elif batch and (len(batch) >= self._batch_messages or octets + len(job.packed) > self._batch_octets):
                return batch, tasks, True, job
            else:
                batch.append(job)
                octets += len(job.packed)
            if jobs.empty():
                return batch, tasks, True, None
            job = jobs.get()
        return batch, tasks, False, None

    def _next_job(self) -> PendingCommit | Task | None:
        if self._has_log():
            try:
                return self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._checkpoint_if(1)
        return self._jobs.get()

    def _has_log(self) -> bool:
        try:
            return self._store.trusted and self._store.log_octets > 0
        except Exception:  # noqa: BLE001  as in `_checkpoint_if`
            return False

    def _commit_batch(self, batch: list[PendingCommit]) -> None:
        faults: list[StorageFault | None] | None = None
        began = time.perf_counter()
        try:
            self._add(batch)
        except (StorageFull, MessageRefused) as fault:
            # One message may be the reason: too large for the room that is left, or one that the store will not take.
            alone = len(batch) > 1 and self._store.trusted
            faults = [self._alone(waiting) for waiting in batch] if alone else [fault] * len(batch)
        except StorageFault as fault:
            faults = [fault] * len(batch)
        self._call_from_thread(self._committed, batch, faults)
        if self.watch is not None:
            self.watch(len(batch), time.perf_counter() - began)

    def _add(self, batch: Sequence[PendingCommit]) -> None:
        """Write a batch.  Whatever goes wrong is a StorageFault: the peer must have its answer."""
        if not self._store.trusted:
            raise StorageBroken("the store has failed and has not yet been proved to work again")
        try:
            attempts = [attempt for waiting in batch if waiting.attempts for attempt in waiting.attempts]
            self._store.add([waiting.number for waiting in batch], [waiting.packed for waiting in batch], attempts)
        except StorageFault:
            raise
        except Exception as error:
            self._store.trusted = False
            raise StorageBroken(f"{type(error).__name__}: {error}") from error

    def _alone(self, waiting: PendingCommit) -> StorageFault | None:
        try:
            self._add([waiting])
        except StorageFault as fault:
            return fault
        return None

    def _perform(self, task: Task) -> None:
        try:
            result = task.work(self._store)
        except Exception:  # noqa: BLE001  whatever it is, the one who asked is told
            self._call_from_thread(task.done.errback, Failure())
        else:
            self._call_from_thread(task.done.callback, result)

    def _checkpoint_if(self, octets: int) -> None:
        """A checkpoint that fails leaves everything in the log; if the disk is broken, the next commit will say so.

        Whatever else it raises must not end the thread either: nothing would be committed or settled any more.
        """
        try:
            if self._store.trusted and self._store.log_octets >= octets:
                self._store.checkpoint()
        except StorageFault:
            pass
        except Exception:  # noqa: BLE001
            self._store.trusted = False

    def _finish(self) -> None:
        try:
            left = self._store.end()
        except Exception:  # noqa: BLE001  whoever stops the thread is told
            self._call_from_thread(self._stopped.errback, Failure())
        else:
            self._call_from_thread(self._stopped.callback, left)
