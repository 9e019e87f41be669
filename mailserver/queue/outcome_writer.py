"""Writes what becomes of entries into the store: settled ones are deleted, attempts are recorded.

What cannot be written now is kept in memory and tried again: a disk that is full for an hour costs no message its outcome.  While
that lasts no delivery begins, so that little is delivered whose delivery is not written down.  What the store refuses for
itself is written in ever smaller parts, and the one row that it will not take keeps no other from being written.

Three fields keep order between the reactor, where outcomes come, and the writer's thread, where they are written:

`settling`, the numbers of entries that are to be deleted.  The last destination of an entry has been delivered: the runner has
forgotten it, and the store still has it, without an attempt, as if it had never been tried.  A read in this moment would bring it
back, and all of it would be delivered a second time.  Whoever takes an entry from the store asks `settling` first.  A number
leaves when the store has deleted the entry, not when that is asked for: a full disk may lie between.  A read that began before
and ends after is the active queue's matter (`ActiveQueue.outrun`).

`_sending`: one hand-over at a time.  A message is delivered to the first of its destinations, and that attempt is with the
thread; then it is delivered to the last, which settles it.  With two hand-overs under way the first could fail and be tried again
after the deletion, and its attempt would be a row without an entry for ever.  What comes during a hand-over gathers and is the
next one, as in a group commit.

`_delayed`: the timer after a hand-over that failed.  What comes meanwhile joins what failed, behind it, and `add` does not send:
with a full disk each new outcome would otherwise try the store again at once.

Within one hand-over a deletion wins over attempts of the same entry: they are not written at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.interfaces import Clock
from mailserver.mail.faults import StorageFault
from mailserver.queue.entry import CLOSED, Attempt, EntryState, Settled
from mailserver.queue.spool import Spool
from mailserver.queue.store import MessageRefused, SqliteStore

__all__ = ["OutcomeWriter", "Settled", "WrittenOutcomes", "remove_files", "write_down"]

AGAIN_SECONDS = 5.0
UNWRITTEN_MOST = 1000  # outcomes; beyond them nothing new is begun while the store takes none
UNSOUND_AGAIN_SECONDS = 300.0
NOT_WRITTEN = "what became of the attempt could not be written down"


@dataclass(slots=True)
class WrittenOutcomes:
    """What the store took.

    `finished`: entries that waited for nothing else.  `attempts_written`: the attempts as they were written, which is not always
    as they were.  `refused` has what could not be written in any form: (number, why); `unsettled` those of them that could not be
    forgotten.  `fault` ended it early; `entries` and `attempts` are left then.
    """

    finished: list[Settled] = field(default_factory=list)
    attempts_written: list[Attempt] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    unsettled: set[int] = field(default_factory=set)
    entries: list[Settled] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    fault: StorageFault | None = None


class OutcomeWriter:
    """Gathers settlements and attempts and hands them to the writer thread, one hand-over at a time.

    `settled(entries)` is called when entries are gone, `recorded(attempts)` when attempts are in the store, `failed` with an
    error of the store.  `do(work)` runs in the store's thread.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        do: Callable[[Callable[[SqliteStore], WrittenOutcomes]], Deferred[WrittenOutcomes]],
        spool: Spool,
        settled: Callable[[list[Settled]], None],
        recorded: Callable[[list[Attempt]], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._clock = clock
        self._do = do
        self._spool = spool
        self._settled = settled
        self._recorded = recorded
        self._failed = failed
        self.settling: set[int] = set()
        self._entries: list[Settled] = []
        self._attempts: list[Attempt] = []
        self._sending = False
        self._delayed: Any = None

    @property
    def is_empty(self) -> bool:
        """Nothing is on its way."""
        return not (self._entries or self._attempts or self._sending)

    @property
    def is_behind(self) -> bool:
        """The store takes nothing, and much waits for it already."""
        return self._delayed is not None and len(self._entries) + len(self._attempts) >= UNWRITTEN_MOST

    def add(self, entries: list[Settled], attempts: list[Attempt]) -> None:
        """Take these along.  An entry that is settled needs no attempts."""
        self._entries += entries
        self._attempts += attempts
        self.settling.update([entry.number for entry in entries])
        if not self._sending and self._delayed is None:
            self._send()

    def stop(self) -> None:
        """Try nothing again."""
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _send(self) -> None:
        self._delayed = None
        entries, self._entries = self._entries, []
        attempts, self._attempts = self._attempts, []
        if not entries and not attempts:
            return
        gone = {entry.number for entry in entries}
        attempts = [attempt for attempt in attempts if attempt.number not in gone]
        self._sending = True
        spool, again = self._spool, self._clock.seconds() + UNSOUND_AGAIN_SECONDS

        def write(store: SqliteStore) -> WrittenOutcomes:
            written = write_down(store, entries, attempts, again)
            remove_files(spool, gone_of(entries, written))
            remove_files(spool, written.finished)
            return written

        self._do(write).addCallbacks(
            self._sent, self._not_sent, callbackArgs=(entries,), errbackArgs=(entries, attempts)
        ).addErrback(self._stumbled)

    def _sent(self, written: WrittenOutcomes, entries: list[Settled]) -> None:
        self._sending = False
        for number, why in written.refused:
            self.log.critical(
                "the store will not take what became of entry {number}, which is left out: {why}", number=number, why=why
            )
        gone = gone_of(entries, written)
        self.settling.difference_update([entry.number for entry in gone])
        if written.fault is not None:  # part of it is in the store: put back only what is not
            self._put_back(Failure(written.fault), written.entries, written.attempts)
        else:
            self._send()
        if written.attempts_written:
            self._recorded(written.attempts_written)
        self._settled(gone + written.finished)

    def _not_sent(self, failure: Failure, entries: list[Settled], attempts: list[Attempt]) -> None:
        self._sending = False
        self._put_back(failure, entries, attempts)

    def _put_back(self, failure: Failure, entries: list[Settled], attempts: list[Attempt]) -> None:
        self._entries = entries + self._entries
        self._attempts = attempts + self._attempts
        self._delayed = self._clock.callLater(AGAIN_SECONDS, self._send)
        self._failed(failure)

    def _stumbled(self, failure: Failure) -> None:
        self.log.failure("the queue stumbled over what became of its messages", failure)
        if not self._sending and self._delayed is None:
            self._send()


def write_down(store: SqliteStore, entries: list[Settled], attempts: list[Attempt], again: float) -> WrittenOutcomes:
    """Write all of it in one transaction; where the store refuses that for itself, in ever smaller ones.

    An attempt that the store does not take even alone is kept as a bare one, due at `again` (seconds since the epoch).  Raises
    `StorageFault` where nothing was written.  Blocks.
    """
    try:
        return WrittenOutcomes(_settle(store, entries, attempts), attempts)
    except MessageRefused:
        pass
    except StorageFault:
        raise
    except Exception:
        if not store.trusted:
            raise
    written = WrittenOutcomes()
    _in_parts(store, entries, [], written, again)
    _in_parts(store, [], attempts, written, again)
    return written


def gone_of(entries: list[Settled], written: WrittenOutcomes) -> list[Settled]:
    """Those of `entries` that the store has forgotten."""
    left = written.unsettled.union([entry.number for entry in written.entries])
    return [entry for entry in entries if entry.number not in left] if left else entries


def _settle(store: SqliteStore, entries: list[Settled], attempts: list[Attempt]) -> list[Settled]:
    recorded = [entry.number for entry in entries if entry.has_attempts]
    return store.settle([entry.number for entry in entries], recorded, attempts)


def _in_parts(
    store: SqliteStore, entries: list[Settled], attempts: list[Attempt], written: WrittenOutcomes, again: float
) -> None:
    """Either entries or attempts: the whole, or its halves."""
    size = len(entries) + len(attempts)
    if size == 0:
        return
    if written.fault is None:
        try:
            written.finished += _settle(store, entries, attempts)
        except MessageRefused as fault:
            why = str(fault)
        except StorageFault as fault:
            written.fault = fault
        except Exception as error:  # noqa: BLE001  a value that no column holds: whatever SQLite's wrapper makes of it
            why = f"{type(error).__name__}: {error}"
        else:
            written.attempts_written += attempts
            return
    if written.fault is not None:
        written.entries += entries
        written.attempts += attempts
    elif size > 1:
        for half in (slice(size // 2), slice(size // 2, None)):
            _in_parts(store, entries[half], attempts[half], written, again)
    elif attempts and not is_bare(attempts[0]):
        _in_parts(store, [], [bare(attempts[0], again)], written, again)
    else:
        written.refused.append((entries[0].number if entries else attempts[0].number, why))
        written.unsettled.update([entry.number for entry in entries])
        written.attempts_written += attempts  # nobody waits for it any more; the next start reads what the store knows


def bare(attempt: Attempt, again: float) -> Attempt:
    """What is left of an attempt when its note and its reply go: what was done stays so, all else is tried again."""
    if attempt.state in CLOSED:
        return replace(attempt, reply=None, note=NOT_WRITTEN, history=())
    state, remote = EntryState.DEFERRED, bool(attempt.remote)
    bare = Attempt(attempt.number, attempt.destination, remote, state, attempt.attempts, again, None, NOT_WRITTEN)
    return replace(bare, hold=attempt.hold)


def is_bare(attempt: Attempt) -> bool:
    """Made by `bare`."""
    return attempt.note is NOT_WRITTEN


def remove_files(spool: Spool, entries: list[Settled]) -> None:
    """Remove the files of entries that are gone from the store: a crash between leaves files that the start removes.

    So does one that cannot be removed, which is told: the entries are gone, whatever becomes of their files.
    """
    for entry in entries:
        if entry.spooled:
            try:
                spool.remove(entry.id)
            except OSError as error:
                OutcomeWriter.log.error(
                    "the spool file of {id}, which is done with, cannot be removed: {why}", id=entry.id, why=error
                )
