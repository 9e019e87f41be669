"""What follows when an account is stopped or let go: its mail in the queue is held or released, people are told.

Each is owed until it is done, over restarts, too.  One account's trouble keeps no other waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.api import Address, AddressError, CannotTell, IWaitingMail, StorageFault
from mailserver.filters.account_book import AccountBook
from mailserver.filters.account_notes import note_to_postmaster, note_to_user
from mailserver.filters.account_records import ReleasedAccount, StoppedAccount

__all__ = ["POSTMASTER", "AccountRounds"]

POSTMASTER = Address("postmaster", "")


class AccountRounds:
    """`send` is `Services.send`; `postmaster` is who is told; `begin_anew(account)` forgets what was counted."""

    log = Logger()

    def __init__(
        self,
        book: AccountBook,
        waiting_mail: IWaitingMail,
        send: Any,
        *,
        begin_anew: Callable[[str], Coroutine[Any, Any, None]],
        hostname: str,
        postmaster: Address | None,
    ) -> None:
        self._book = book
        self._waiting_mail = waiting_mail
        self._send = send
        self._begin_anew = begin_anew
        self._hostname = hostname
        self._postmaster = postmaster or POSTMASTER
        self._lock = DeferredLock()  # a hold and a release of one account, side by side, could leave anything
        self._again: set[str] = set()  # something of theirs has come up that was not held

    def look_again(self, account: str) -> None:
        """Something of a stopped account was about to leave."""
        self._again.add(account)

    async def go(self, only: str = "") -> None:
        """All that is owed, or what is owed about one account."""
        await self._lock.acquire()
        try:
            for released in list(self._book.released.values()):
                if only in ("", released.account):
                    await self._guarded(released.account, self._release(released))
            for account in list(self._book.stopped):
                if only in ("", account):
                    await self._guarded(account, self._stop(account))
        finally:
            self._lock.release()

    async def between(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this while no round goes on."""
        await self._lock.run(Deferred.fromCoroutine, work)

    async def _guarded(self, account: str, work: Coroutine[Any, Any, None]) -> None:
        await Deferred.fromCoroutine(work).addErrback(self._tell_fault, account)

    def _tell_fault(self, failure: Failure, account: str) -> None:
        if failure.check(CancelledError):
            failure.raiseException()
        if failure.check(StorageFault, CannotTell, OSError):
            fault = failure.getErrorMessage()
            self.log.error("the account {account}: what is owed to it waits: {fault}", account=account, fault=fault)
        else:
            self.log.failure("the account {account}: what is owed to it waits", failure, account=account)

    async def _release(self, released: ReleasedAccount) -> None:
        if released.account not in self._book.stopped:  # else it was stopped again: what is held stays so
            count, left = 0, 0
            for one in self._book.names.logins_of(released.account):
                more, busy = await self._waiting_mail.release(one.login, released.by, **one.bounds)
                count, left = count + more, left + busy
            if count:
                words = "the account {account}: {count} messages are released"
                self.log.info(words, account=released.account, count=count)
            if left:
                return
        await self._book.done(released)

    async def begin_anew(self) -> None:
        """At the start: who was let go while no server ran is not weighed with what had stopped him."""
        for account in list(self._book.released):
            await self._guarded(account, self._begin_anew(account))

    async def _stop(self, account: str) -> None:
        stopped = self._book.stopped[account]
        again = account in self._again
        self._again.discard(account)
        if not stopped.is_told:  # first: people are told whatever the queue does
            await self._tell(stopped)
            await self._change(stopped, replace(stopped, is_told=True))
            stopped = self._book.stopped.get(account, stopped)
        if account in self._book.stopped and (again or not stopped.is_held):
            count, left = 0, 0
            for one in self._book.names.logins_of(account):
                more, busy = await self._waiting_mail.hold(one.login, "the account is stopped", **one.bounds)
                count, left = count + more, left + busy
            if count:
                self.log.info("the account {account}: {count} messages are held", account=account, count=count)
            if not left:
                await self._change(stopped, replace(stopped, is_held=True))

    async def _change(self, stopped: StoppedAccount, after: StoppedAccount) -> None:
        """What was done, unless it was let go, or stopped anew, meanwhile."""
        if self._book.stopped.get(stopped.account) == stopped:
            await self._book.keep(after)

    async def _tell(self, stopped: StoppedAccount) -> None:
        """A note each: one that leads nowhere is left out."""
        notes = [(self._postmaster, note_to_postmaster(stopped, hostname=self._hostname))]
        try:
            user = Address.parse(stopped.account, utf8=True)
        except AddressError:
            user = Address("", "")
        if user.domain:
            notes.append((user, note_to_user(stopped, hostname=self._hostname)))
        for to, note in notes:
            try:
                await self._send(note, sender=None, recipients=[to])
            except ValueError as error:
                words = "the account {account} is stopped, and {to} cannot be told: {error}"
                self.log.warn(words, account=stopped.account, to=str(to), error=str(error))
