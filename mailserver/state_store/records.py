"""Durable facts of people: lists, contacts, keys' metadata, suppressions (`IRecords`), in `records.db`.

What a verb has said is done is synced.  All of it is read and written in one thread, which is nobody else's: so every verb is
atomic.  Those that wait together share one transaction and one sync; one of them that fails does not touch the others.

The file is made with the first record.  One that is damaged is told of once, and takes nothing any more.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import Clock, IRecords, NewThreads
from mailserver.mail.faults import StorageBroken, StorageDamaged, StorageFull
from mailserver.plugins.awaiting import within
from mailserver.plugins.threads import AllHang
from mailserver.state_store.facts import checked_key, checked_range, checked_value
from mailserver.state_store.records_file import fault_of, open_records, record_of, records_of, write_record

__all__ = ["RecordStore"]

ANSWER_SECONDS = 30.0
STOP_SECONDS = 20.0
WAITING_MOST = 5_000
BATCH_MOST = 500

T = TypeVar("T")
Work = Callable[[apsw.Connection], Any]


class Call:
    """What one verb does in the thread, and who waits for it."""

    __slots__ = ("answer", "is_given_up", "result", "work", "writes")

    def __init__(self, work: Work, *, writes: bool) -> None:
        self.work = work
        self.writes = writes
        self.is_given_up = False
        self.result: Any = None
        self.answer: Deferred[Any] = Deferred(self._give_up)

    def _give_up(self, _: Deferred[Any]) -> None:
        self.is_given_up = True

    def tell(self) -> None:
        """Whoever waits hears the result."""
        if not self.answer.called:
            self.answer.callback(self.result)


class RecordStore:
    """`space(name)` is an `IRecords` of its own.  `room_for(octets)` says whether the disk has room."""

    log = Logger()

    def __init__(
        self, *, path: str, clock: Clock, new_threads: NewThreads, room_for: Callable[[int], bool] = lambda octets: True
    ) -> None:
        self._path = path
        self._clock = clock
        self._new_threads = new_threads
        self._room_for = room_for
        self._waiting: deque[Call] = deque()
        self._is_at_work = False
        self._is_open = False
        self._connection: apsw.Connection | None = None  # the thread's
        self._identity: tuple[int, int] | None = None  # the thread's: of the file that is open
        self._damage = ""  # the thread's: why nothing is written any more
        self._told = False

    def space(self, name: str) -> RecordSpace:
        """The records under this name, an `IRecords`."""
        return RecordSpace(self, name)

    # --- life ---

    async def start(self) -> None:
        """Look at the file, if there is one.  One that cannot be used is told of; mail does not wait for it."""
        self._threads = self._new_threads("records", 1)
        self._is_open = True
        if os.path.exists(self._path):
            try:
                await self.call(lambda connection: None, writes=False)
            except StorageBroken as fault:
                self.log.error("records are neither read nor written: {fault}", fault=fault)

    async def stop(self) -> None:
        """Finish what was begun, and close."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            await within(STOP_SECONDS, self._threads.run(self._close), self._clock)
        except (Late, AllHang) as error:
            self.log.error("{path} could not be closed: {error}", path=self._path, error=error)
        finally:
            self._threads.stop()
            self._fail_waiting(StorageBroken(f"{self._path} is closed"))

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)

    # --- calls ---

    async def call(self, work: Work, *, writes: bool, octets: int = 0) -> Any:
        """What the work returns, in the thread, and after the sync where it writes.

        Raises `StorageBroken`, `StorageDamaged`, `StorageFull`.  After a time-out nobody knows whether it was written.
        """
        if not self._is_open:
            raise StorageBroken(f"{self._path} is closed")
        if len(self._waiting) >= WAITING_MOST:
            raise StorageBroken(f"{self._path}: {len(self._waiting)} calls wait already")
        if octets and not self._room_for(octets):
            raise StorageFull(f"{self._path}: the disk has no room")
        call = Call(work, writes=writes)
        self._waiting.append(call)
        self._go_on()
        try:
            return await within(ANSWER_SECONDS, call.answer, self._clock)
        except Late:
            raise StorageBroken(f"{self._path}: no answer within {ANSWER_SECONDS:g} seconds") from None

    def _go_on(self) -> None:
        while self._waiting and self._waiting[0].is_given_up:
            self._waiting.popleft()
        if self._is_at_work or not self._waiting or not self._is_open:
            return
        self._is_at_work = True
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MOST, len(self._waiting)))]
        self._threads.run(self._work_off, batch).addBoth(self._worked_off, batch)

    def _worked_off(self, result: Any, batch: list[Call]) -> None:
        self._is_at_work = False
        if self._damage and not self._told:
            self._told = True
            self.log.error("records are not written any more: {damage}", damage=self._damage)
        for call in batch:
            if isinstance(result, Failure):
                call.result = Failure(StorageBroken(f"{self._path}: {result.getErrorMessage()}"))
            call.tell()
        self._go_on()

    def _fail_waiting(self, fault: StorageBroken) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.result = Failure(fault)
            call.tell()

    # --- in the thread ---

    def _work_off(self, batch: list[Call]) -> None:
        calls = [call for call in batch if not call.is_given_up]
        try:
            connection = self._opened()
        except StorageBroken as fault:
            for call in calls:
                call.result = Failure(fault)
            return
        for call in calls:
            if not call.writes:
                self._do(call, connection)
        writing = [call for call in calls if call.writes]
        if not writing:
            return
        if self._damage:
            for call in writing:
                call.result = Failure(StorageDamaged(self._damage))
            return
        try:
            with connection:
                for call in writing:
                    with connection:  # a savepoint: who fails takes nothing of the others back
                        self._do(call, connection)
        except Exception as error:  # noqa: BLE001  # nothing of it was written
            failed = Failure(self._fault(error))
            for call in writing:
                call.result = failed

    def _do(self, call: Call, connection: apsw.Connection) -> None:
        try:
            call.result = call.work(connection)
        except apsw.Error as error:
            call.result = Failure(self._fault(error))
            if call.writes:
                raise  # what has become of the transaction is SQLite's to say: the others are not told that they are written
        except Exception:  # noqa: BLE001  # a decision's
            call.result = Failure()

    def _opened(self) -> apsw.Connection:
        if self._connection is None:
            try:
                self._connection = open_records(self._path)
            except StorageDamaged as fault:
                self._damage = str(fault)
                raise
            self._identity = identity_of(self._path)
        elif not self._damage and identity_of(self._path) != self._identity:
            self._damage = f"{self._path} was taken away, or replaced, while it was in use: restart the server"
        return self._connection

    def _fault(self, error: Exception) -> StorageBroken | StorageFull:
        if (full := _no_room_in(error)) is not None:
            return StorageFull(f"{self._path}: {full}")
        fault = fault_of(self._path, error)
        if isinstance(fault, StorageDamaged):
            self._damage = str(fault)
        return fault


def _no_room_in(error: BaseException | None) -> BaseException | None:
    """The error that says that there is no room, or what it was replaced by: SQLite has ended the transaction by itself then, and
    to take it back fails.
    """
    while error is not None and not isinstance(error, apsw.FullError):
        error = error.__context__
    return error


@implementer(IRecords)
class RecordSpace:
    """The records of one component."""

    __slots__ = ("_name", "_store")

    def __init__(self, store: RecordStore, name: str) -> None:
        self._store = store
        self._name = name

    async def get(self, key: str) -> bytes | None:
        """The value, None where there is none."""
        name, key = self._name, checked_key(key)
        found: bytes | None = await self._store.call(lambda connection: record_of(connection, name, key), writes=False)
        return found

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value; it is synced when this returns."""
        await self._write(checked_key(key), lambda found: True, checked_value(value))

    async def drop(self, key: str) -> None:
        """Take it away for good."""
        await self._write(checked_key(key), lambda found: True, None)

    async def put_if_absent(self, key: str, value: bytes) -> bool:
        """Keep the value where there is none.  Whether that was so."""
        return await self._write(checked_key(key), lambda found: found is None, checked_value(value))

    async def compare_and_put(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Put `new` in the place of `old`; None is "no value".  Whether `old` was there."""
        value = None if new is None else checked_value(new)
        return await self._write(checked_key(key), lambda found: found == old, value)

    async def items(self, first: str = "", before: str | None = None, most: int = 1000) -> list[tuple[str, bytes]]:
        """Key and value by key, from `first` on, up to but without `before`."""
        name, wanted = self._name, checked_range(first, before, most)
        found: list[tuple[str, bytes]] = await self._store.call(
            lambda connection: records_of(connection, name, *wanted), writes=False
        )
        return found

    async def _write(self, key: str, is_right: Callable[[bytes | None], bool], value: bytes | None) -> bool:
        name = self._name

        def work(connection: apsw.Connection) -> bool:
            if not is_right(record_of(connection, name, key)):
                return False
            write_record(connection, name, key, value)
            return True

        done: bool = await self._store.call(work, writes=True, octets=0 if value is None else len(key) + len(value))
        return done


def identity_of(path: str) -> tuple[int, int] | None:
    """Which file stands at the path, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
