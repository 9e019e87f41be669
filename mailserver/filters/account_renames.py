"""What is kept of accounts whose sending is guarded follows when they are renamed, and goes when they are removed.

A stop follows, lest a new name set its account free, and nobody who gets the old name has it.  Since when a name is another's is
kept, too: mail in the queue keeps the login by which it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mailserver.api import Clock, IRecords, IStateStore, StorageBroken
from mailserver.filters.account_book import AccountBook
from mailserver.filters.account_records import MovedAccount, StoppedAccount, account_of
from mailserver.filters.account_rounds import AccountRounds
from mailserver.filters.followed_names import FollowedNames
from mailserver.filters.followed_records import FollowedRecords, KeyPart, Stage

__all__ = ["AccountRenames", "Stage"]

TRIES = 5  # so often an account may be stopped while its records are moved
SENT = "sent\t"


class AccountRenames:
    """In the records, in what was counted, and in memory.  Raises `StorageFault`."""

    def __init__(
        self, book: AccountBook, rounds: AccountRounds, records: IRecords, state: IStateStore, clock: Clock
    ) -> None:
        self._book = book
        self._rounds = rounds
        self._clock = clock
        # Nobody logs in by a subaddress: alice+shop is another account.
        self._followed = FollowedRecords(
            records, _AccountPlace(1), separator="", state=state, in_state=_FactPlace(1), clock=clock
        )

    async def renamed(self, accounts: Mapping[str, str], stage: Stage) -> None:
        """As `IAccountFollower.accounts_renamed`."""
        await self._rounds.between(self._renamed(accounts, stage))

    async def removed(self, account: str) -> None:
        """As `IAccountFollower.account_removed`."""
        await self._rounds.between(self._removed(account))

    async def count(self, account: str) -> int:
        """As `IAccountFollower.kept_of_account`: without the renames, which are no new user's."""
        return await self._followed.count(account)

    async def _renamed(self, accounts: Mapping[str, str], stage: Stage) -> None:
        await self._book.read()  # what could not be written is written, or nobody is renamed
        try:
            if stage == "complete":
                await self._complete(accounts)
            else:
                await self._followed.renamed(accounts, stage)
                if stage == "undo":
                    await self._drop_copies(FollowedNames(accounts, ""))
        finally:
            await self._book.read_anew()

    async def _complete(self, accounts: Mapping[str, str]) -> None:
        """The rename is written before the stop leaves the old name: killed between the two, both are stopped."""
        names, now = FollowedNames(accounts, ""), self._clock.seconds()
        for old, new in accounts.items():
            await self._book.move(MovedAccount(now, old, new))
        for _ in range(TRIES):
            theirs = [new for new in map(names.after, self._book.stopped) if new is not None]
            await self._followed.renamed(accounts, "complete")
            await self._book.read_anew()
            for new in theirs:
                self._rounds.look_again(new)
            if not any(names.has(one) for one in (*self._book.stopped, *self._book.released)):
                return
        raise StorageBroken("a renamed account is stopped again and again under its old name")

    async def _drop_copies(self, names: FollowedNames) -> None:
        """Also one of which something was done meanwhile."""
        await self._book.read_anew()
        for account, stopped in self._book.stopped.items():
            new = names.after(account)
            copy = None if new is None else self._book.stopped.get(new)
            if copy is not None and _is_copy(copy, stopped):
                await self._book.drop_stopped(copy.account)

    async def _removed(self, account: str) -> None:
        await self._book.read()
        try:
            await self._followed.removed(account)
            await self._book.forget_moves(FollowedNames({account: account}, "").has)
        finally:
            await self._book.read_anew()


def _is_copy(copy: StoppedAccount, stopped: StoppedAccount) -> bool:
    return replace(copy, account=stopped.account, is_held=stopped.is_held, is_told=stopped.is_told) == stopped


class _AccountPlace(KeyPart):
    """Of the records: renames stay as they are."""

    def user(self, key: str, value: bytes) -> str:
        """The name, "" for a record of another kind."""
        return account_of(key)


class _FactPlace(KeyPart):
    """Of what was counted: which account has sent a message stands in the value."""

    def user(self, key: str, value: bytes) -> str:
        """The name, "" where it has none."""
        return value.decode("utf-8", "replace") if key.startswith(SENT) else super().user(key, value)

    def moved(self, key: str, value: bytes, user: str) -> tuple[str, bytes]:
        """Key and value as they are with this name."""
        return (key, user.encode()) if key.startswith(SENT) else super().moved(key, value, user)
