"""The accounts whose sending is stopped, in memory and in the records; and what is still to be done about each.

What is stopped is so from the moment on in which it is in memory, also where the records cannot be written just now: it is
written later.  The records are read again from time to time, since a command may have changed them while no server ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mailserver.api import IRecords
from mailserver.filters.account_names import AccountNames
from mailserver.filters.account_records import (
    MOVED,
    RELEASED,
    STOPPED,
    MovedAccount,
    ReleasedAccount,
    StoppedAccount,
    account_of,
    key_of,
    read_moved,
    read_released,
    read_stopped,
)

__all__ = ["AccountBook"]

PAGE = 1000


class AccountBook:
    """`stopped` are those accounts, `released` those whose held mail is to leave, `names` whose mail is whose."""

    def __init__(self, records: IRecords) -> None:
        self._records = records
        self._unwritten: dict[str, StoppedAccount] = {}
        self._changes = 0
        self.stopped: Mapping[str, StoppedAccount] = {}
        self.released: Mapping[str, ReleasedAccount] = {}
        self.names = AccountNames()
        self.is_read = False

    async def read(self) -> None:
        """Take up what the records have, and write what could not be written.  Raises `StorageFault`."""
        for one in list(self._unwritten.values()):
            if self._unwritten.get(one.account) is one:  # else it was let go meanwhile
                await self._write(one)
        while True:
            changes = self._changes
            stopped = {account_of(key): read_stopped(key, value) for key, value in await self._all(STOPPED) if account_of(key)}
            released = {account_of(key): read_released(key, value) for key, value in await self._all(RELEASED) if account_of(key)}
            moved = [read_moved(key, value) for key, value in await self._all(MOVED)]
            if changes == self._changes:  # else somebody has changed something while it was read
                self.stopped, self.released = {**stopped, **self._unwritten}, released
                self.names = AccountNames([one for one in moved if one is not None])
                self.is_read = True
                return

    async def read_anew(self) -> None:
        """The same after others have written, also for whoever is reading just now.  Raises `StorageFault`."""
        self._changes += 1
        await self.read()

    async def move(self, moved: MovedAccount) -> None:
        """From now on it has its new name.  Raises `StorageFault`."""
        await self._records.put(moved.key, moved.octets())

    async def forget_moves(self, has_left: Callable[[str], bool]) -> None:
        """Whose names these are has left.  Raises `StorageFault`."""
        for key, value in await self._all(MOVED):
            moved = read_moved(key, value)
            if moved is not None and has_left(moved.new):
                await self._records.drop(key)

    async def drop_stopped(self, account: str) -> None:
        """Its record was a copy that nobody needs.  Raises `StorageFault`."""
        await self._records.drop(key_of(STOPPED, account))

    async def keep(self, stopped: StoppedAccount) -> None:
        """It is stopped.  Raises `StorageFault`: then it is so all the same, and is written later."""
        self._changes += 1
        self.stopped = {**self.stopped, stopped.account: stopped}
        self._unwritten[stopped.account] = stopped
        await self._write(stopped)

    async def let_go(self, released: ReleasedAccount) -> bool:
        """It is not stopped any more; whether it was.  Raises `StorageFault`.

        What is owed to it is written first: killed between the two, it is still stopped, and nothing is released.
        """
        account = released.account
        was = account in self.stopped or await self._records.get(key_of(STOPPED, account)) is not None
        if was:
            await self._records.put(key_of(RELEASED, account), released.octets())
            await self._records.drop(key_of(STOPPED, account))
            self._unwritten.pop(account, None)
            self._changes += 1
            self.stopped = {name: one for name, one in self.stopped.items() if name != account}
            self.released = {**self.released, account: released}
        return was

    async def done(self, released: ReleasedAccount) -> None:
        """Nothing of it is held any more.  Raises `StorageFault`."""
        key = key_of(RELEASED, released.account)
        value = await self._records.get(key)
        if value is not None and read_released(key, value) == released:  # else it was let go once more meanwhile
            await self._records.compare_and_put(key, value, None)
        self._changes += 1
        self.released = {name: one for name, one in self.released.items() if name != released.account}

    async def _write(self, stopped: StoppedAccount) -> None:
        await self._records.put(key_of(STOPPED, stopped.account), stopped.octets())
        self._changes += 1  # who has read before this was written must not take its absence for the truth
        if self._unwritten.get(stopped.account) is stopped:
            del self._unwritten[stopped.account]

    async def _all(self, kind: str) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        first, before = key_of(kind, ""), f"{kind}\n"
        while True:
            page = await self._records.items(first, before, PAGE)
            found += page
            if len(page) < PAGE:
                return found
            first = page[-1][0] + "\0"
