"""Brings one file of the pickup folder into the queue, through as many transactions as its recipients need.

A refusal of one recipient (5yz) ends in a report to the sender, since nobody waits for a reply.  A 4yz holds back this
recipient alone: it is tried again until `expire_seconds` have passed since the file was taken, then the sender gets a report.
As in the queue, that takes a try before, by this server and since the clock was set: either the server or the clock may have
been away for the file's whole age.

A crash between the commit and the removal leaves a file whose name is the id of a message that the queue has: it is removed.
Twice comes only what was committed and had left the queue again when the crash came.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.mail.envelope import Recipient
from mailserver.mail.faults import StorageFault
from mailserver.mail.ids import time_of
from mailserver.mail.report import RecipientReport, wants
from mailserver.pickup.file_format import PickupFault
from mailserver.pickup.file_transaction import FileTransaction, PickupDeferred, RecipientAnswers
from mailserver.pickup.folder import OpenedFile, PickupFolder
from mailserver.pickup.progress import PickupProgress, PickupStep
from mailserver.receive.profile import Profile

__all__ = ["FileHandover", "PickupParts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PickupParts:
    """What the watch of the folder and the hand-over of each file work with.

    `run_in_thread(function, *arguments)` fires with the result: the folder's functions block.  `profile()` is the present
    profile of `submission`.  `next_id()` gives message ids; it is called in the reactor's thread alone.  `is_stored(id)` fires
    with whether the queue has a message, `user_of(uid)` with a user's name.  A recipient who cannot be served is given up
    `expire_seconds` after the file was taken, with a report to the sender.  `clock_set_at()` is since when the clock has gone
    without being set.
    """

    folder: PickupFolder
    clock: Clock
    run_in_thread: Callable[..., Deferred[Any]]
    profile: Callable[[], Profile]
    next_id: Callable[[], str]
    is_stored: Callable[[str], Deferred[bool]]
    user_of: Callable[[int], Deferred[str]]
    expire_seconds: float
    clock_set_at: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _File:
    """A taken file in hand.  `delivery_id` and `report_id` are the two ids of its name.

    `is_stored` and `is_told`: a crash came before the removal, nothing was written down, and the queue has the message (the
    report).  So all had it who were not refused, since else there would be a progress.
    """

    name: str
    opened: OpenedFile
    profile: Profile  # the same for all its transactions, over a reload, too
    user: str
    progress: PickupProgress
    delivery_id: str
    report_id: str
    taken_at: float
    is_stored: bool
    is_told: bool


class FileHandover:
    """Hands files over to the queue.  `stops()`: the server is about to end, and a long file waits for its next start."""

    log = Logger()

    def __init__(self, parts: PickupParts, *, stops: Callable[[], bool]) -> None:
        self._folder = parts.folder
        self._clock = parts.clock
        self._run_in_thread = parts.run_in_thread
        self._profile = parts.profile
        self._next_id = parts.next_id
        self._is_stored = parts.is_stored
        self._user_of = parts.user_of
        self._expire_seconds = parts.expire_seconds
        self._clock_set_at = parts.clock_set_at
        self._stops = stops
        self._tried_at: dict[str, float] = {}  # files of which some recipients wait
        self._progress: dict[str, PickupProgress] = {}  # of files that wait, where it does not stand on the disk

    async def bring(self, name: str, *, again: bool) -> None:
        """Bring a taken file into the queue; when this returns nothing of it is left to do, and it is gone from the folder.

        `again` says that it was tried before, perhaps in an earlier run.  Raises `PickupDeferred` or OSError where it
        has to wait, and `PickupFault` where it is to be kept for the administrator.
        """
        delivery_id, _, report_id = name.partition(".")
        try:
            taken_at = time_of(delivery_id)
            time_of(report_id)
        except ValueError:
            raise PickupFault("its name is not that of a taken file") from None
        opened: OpenedFile = await self._run_in_thread(self._folder.open, name)
        try:
            progress = await self._so_far(name, again, delivery_id, report_id)
            asks = again and not progress.is_kept and name not in self._progress
            is_stored, is_told = [asks and await self._is_stored(id) for id in (delivery_id, report_id)]
            user = await self._user_of(opened.uid)
            profile = self._profile()
            file = _File(name, opened, profile, user, progress, delivery_id, report_id, taken_at, is_stored, is_told)
            try:
                with profile.generation:
                    await self._go_on(file)
            except Exception:
                await self._keep(name, progress)
                raise
        finally:
            if not opened.is_whole:
                os.close(opened.descriptor)
        self._progress[name] = progress  # should what follows fail, nothing is sent twice
        if progress.untold:
            raise PickupFault("it was refused, and its sender cannot be told")
        await self._run_in_thread(self._folder.remove, name)
        self.forget(name)

    def forget(self, name: str) -> None:
        """The file has gone."""
        self._progress.pop(name, None)
        self._tried_at.pop(name, None)

    def _is_given_up(self, file: _File) -> bool:
        """Who cannot be served now never will be."""
        now = self._clock.seconds()
        before, self._tried_at[file.name] = self._tried_at.get(file.name), now
        return now >= file.taken_at + self._expire_seconds and before is not None and self._clock_set_at() <= before <= now

    async def _keep(self, name: str, progress: PickupProgress) -> None:
        """It has to wait: remember who has it, on the disk where anybody has."""
        self._progress[name] = progress
        if progress.done or progress.told:
            await self._run_in_thread(self._folder.keep, name, progress)
            self._progress.pop(name, None)

    async def _so_far(self, name: str, again: bool, delivery_id: str, report_id: str) -> PickupProgress:
        """How far it has come.  What was about to be committed is looked for in the queue."""
        known = self._progress.get(name)
        if known is not None or not again:
            return known or PickupProgress()
        try:
            progress: PickupProgress = await self._run_in_thread(self._folder.progress, name)
        except ValueError as error:
            self.log.error("{name}: the record of who has it is damaged, so all get it: {why}", name=name, why=str(error))
            return PickupProgress(used={delivery_id, report_id}, is_kept=True)
        if progress.delivery is not None and await self._is_stored(progress.delivery.id):
            progress.done.update(progress.delivery.addresses)
        if progress.report is not None and await self._is_stored(progress.report.id):
            progress.told.update(progress.report.addresses)
        return progress

    async def _go_on(self, file: _File) -> None:
        """Ask for all who do not have it yet.  Raises `PickupDeferred` where some have to wait."""
        progress = file.progress
        waiting = [
            one
            for one in file.opened.envelope.recipients
            if str(one.address) not in progress.done and str(one.address) not in progress.told
        ]
        deferred: list[RecipientReport] = []
        refused: list[RecipientReport] = []
        transaction = None
        while waiting:
            transaction, answers = await self._ask(file, waiting)
            now = self._clock.seconds()
            deferred += [RecipientReport(one, reply, tried_at=now) for one, reply in answers.deferred]
            refused += [RecipientReport(one, reply, tried_at=now) for one, reply in answers.refused]
            waiting = answers.others
        if deferred and self._is_given_up(file):
            refused += [replace(one, expired=True) for one in deferred]
            deferred = []
        if refused and transaction is not None:
            await self._tell(file, transaction, refused, some_wait=bool(deferred))
        if deferred:
            count = len(file.opened.envelope.recipients)
            raise PickupDeferred(f"{len(deferred)} of {count} recipients cannot be served now: {deferred[0].reply}")

    async def _ask(self, file: _File, recipients: list[Recipient]) -> tuple[FileTransaction, RecipientAnswers]:
        """One transaction for those who go together; who has it then is in the file's progress."""
        progress = file.progress
        id = self._next_id() if file.delivery_id in progress.used else file.delivery_id
        transaction = FileTransaction(
            file.profile,
            file.opened,
            id=id,
            user=file.user,
            run_in_thread=self._run_in_thread,
            stops=self._stops,
        )
        answers = await transaction.ask(recipients)
        if file.is_stored:
            served = [*answers.accepted, *answers.others, *[one for one, _ in answers.deferred]]
            progress.done.update([str(one.address) for one in served])
            return transaction, RecipientAnswers(refused=answers.refused)
        if not answers.accepted:
            return transaction, answers
        if answers.deferred or answers.others or progress.is_kept:
            progress.delivery = PickupStep(id, tuple([str(one.address) for one in answers.accepted]))
            progress.used.add(id)
            await self._run_in_thread(self._folder.keep, file.name, progress)
        reply = await transaction.content()
        if reply.is_positive:
            progress.done.update([str(one.address) for one in answers.accepted])
            progress.used.add(id)
        else:
            answers.add(answers.accepted, reply)
        return transaction, answers

    async def _tell(
        self, file: _File, transaction: FileTransaction, refused: list[RecipientReport], *, some_wait: bool
    ) -> None:
        """Tell the sender, once, of those who will never get it."""
        progress = file.progress
        addresses = tuple([str(one.recipient.address) for one in refused])
        wanted = [one for one in refused if wants(one.recipient, "FAILURE")]
        if file.opened.envelope.sender is not None and wanted and not file.is_told:
            id = self._next_id() if file.report_id in progress.used else file.report_id
            if some_wait or progress.is_kept:
                progress.report = PickupStep(id, addresses)
                progress.used.add(id)
                await self._run_in_thread(self._folder.keep, file.name, progress)
            try:
                await transaction.report(wanted, id=id, now=self._clock.seconds())
            except PickupFault as error:
                self.log.error("{name} in the pickup folder: {why}", name=file.name, why=str(error))
                progress.untold = True
            except StorageFault as error:
                raise PickupDeferred(f"its sender cannot be told now: {error}") from error
        progress.told.update(addresses)
