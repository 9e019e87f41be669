"""Delivery into Maildirs: the component.

A batch crosses to the writer in a few pieces (`writer_process` says why that is a process), `flush` syncs whole file systems.
The disk may hang: whatever waits for it has a thread or a process of its own, and the rest of the server goes on.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.config import Count, FilePath, Options
from mailserver.delivery import errno_outcomes
from mailserver.delivery.batch_format import BatchMessage, BatchReport, message_of, outcomes_of
from mailserver.delivery.courier_client import HomeDelivery
from mailserver.delivery.durability import Disk, Touched, find_syncfs
from mailserver.delivery.names import PathTemplate, host_part
from mailserver.delivery.open_maildirs import Maildirs
from mailserver.delivery.sweep import SweepProcess
from mailserver.delivery.watched_writer import BatchWriter, WatchedWriter
from mailserver.delivery.writer import MaildirWriter, NobodyWaits
from mailserver.delivery.writer_process import WriterProcess
from mailserver.interfaces import (
    Clock,
    IBatchDelivery,
    IComponent,
    IComponentFactory,
    IPreparing,
    ISweeping,
    Services,
)
from mailserver.mail.answers import Mailbox, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, Parcel
from mailserver.plugins.threads import AllHang, Threads
from mailserver.processes.small import keep_here

__all__ = ["MaildirDelivery", "MaildirFactory", "MaildirOptions", "WriterThread"]

PREPARE_SECONDS = 30.0
END_SECONDS = 15.0


class OwnThreads(Protocol):
    """As `Threads`."""

    @property
    def hanging(self) -> int: ...

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]: ...

    def stop(self) -> None: ...


class WriterThread:
    """The writer in a thread of `thread`, which has one: for few messages, and where a second process is not wanted.

    Two threads never write at once: a descriptor that one of them closes may be another Maildir's a moment later.  So after a
    deadline nothing is written until the thread that hangs has ended.
    """

    hanging_most = 1

    def __init__(
        self, *, path_of: Callable[[Any], str], open_at_most: int, syncs_files: bool, thread: OwnThreads
    ) -> None:
        self._maildirs = Maildirs(path_of=path_of, open_at_most=open_at_most)
        self._writer = MaildirWriter(maildirs=self._maildirs, syncs_files=syncs_files, go_on=self._go_on)
        self._thread = thread
        self._given_up = False

    @property
    def hanging(self) -> int:
        """Whether a call that was given up has not ended."""
        return self._thread.hanging

    async def write(self, messages: list[BatchMessage]) -> BatchReport:
        """As `MaildirWriter.write`."""
        self._given_up = False
        try:
            report: BatchReport = await self._thread.run(self._writer.write, messages)
        except CancelledError:
            self._given_up = True
            raise
        return report

    async def close(self) -> None:
        """Close the directories, where nothing hangs."""
        with contextlib.suppress(AllHang):
            await self._thread.run(self._maildirs.close)
        self._thread.stop()

    def _go_on(self) -> None:
        if self._given_up:
            raise NobodyWaits("the server has given the batch up")


@implementer(IBatchDelivery, IComponent, IPreparing, ISweeping)
class MaildirDelivery:
    """Delivers batches through a `writer`; `disk` makes them durable.

    `message_of(parcel, host)` gives a parcel the form that the writer takes.  `sweep` looks through the Maildirs that lie `depth`
    levels below `root`.  `path_of` gives the path of a mailbox, for `prepare`.  `threads(name)` makes a thread for one kind of
    waiting.
    """

    stores = True
    log = Logger()

    def __init__(
        self,
        *,
        writer: BatchWriter,
        disk: Disk,
        clock: Clock,
        threads: Callable[[str], OwnThreads],
        hostname: str,
        root: str,
        depth: int,
        path_of: Callable[[Mailbox], str] | None = None,
        message_of: Callable[[Parcel, str], BatchMessage] = message_of,
    ) -> None:
        self._writer = WatchedWriter(writer=writer, clock=clock)
        self._begin = writer.start if isinstance(writer, WriterProcess) else None
        self._disk = disk
        self._clock = clock
        self._syncing = threads("Maildir sync")
        self._preparing = threads("Maildir preparation")
        self._sweeping = threads("Maildir sweep")
        self._host = host_part(hostname)
        self._sweep = SweepProcess(root, depth)
        self._path_of = path_of
        self._message_of = message_of
        self._touched = Touched()
        self._writing = DeferredLock()
        self._flushing = DeferredLock()

    async def start(self) -> None:
        """No process yet: the first batch starts the writer, so that a server without mail has one process."""
        if self._begin is not None:
            await self._begin()

    async def stop(self) -> None:
        """End the writer, after what it has in hand; but wait for no disk that hangs."""
        self._sweep.end()
        try:
            await Deferred.fromCoroutine(self._stop()).addTimeout(END_SECONDS, self._clock)  # type: ignore[arg-type]
        except Late:
            self.log.warn("the mailbox disk hangs: the end does not wait for it")
        for threads in (self._syncing, self._preparing, self._sweeping):
            threads.stop()

    async def _stop(self) -> None:
        async with self._writing:
            await self._writer.close()
        async with self._flushing:
            with contextlib.suppress(AllHang):
                await self._syncing.run(self._disk.close)

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """One message; see `deliver_batch`."""
        return (await self.deliver_batch((Parcel(envelope, content, tuple(destinations)),)))[0]

    async def deliver_batch(self, parcels: Sequence[Parcel]) -> Sequence[Mapping[int, Outcome]]:
        """Write the messages."""
        if self._syncing.hanging:
            why = "the mailbox disk does not answer: an earlier sync has not ended"
            return [{each.index: errno_outcomes.deferred(why) for each in parcel.destinations} for parcel in parcels]
        messages = [self._message_of(parcel, self._host) for parcel in parcels]
        async with self._writing:
            results, touched = await self._writer.write(messages)
        self._touched.add(touched)
        return [outcomes_of(parcel, found) for parcel, found in zip(parcels, results, strict=True)]

    async def flush(self) -> None:
        """Make durable what was delivered.  Raises OSError: then a power failure may lose it, and it must be delivered again."""
        async with self._flushing:  # a second caller's messages may be in the flush that is under way
            touched, self._touched = self._touched, Touched()
            if not touched.devices:
                return
            try:
                await self._syncing.run(self._disk.sync, touched)
            except BaseException as error:
                self._touched.add(touched)
                if isinstance(error, CancelledError):
                    self.log.critical("the sync of the mailbox disk takes too long: mail for it is deferred until it has ended")
                raise

    async def prepare(self, mailboxes: Sequence[Mailbox]) -> None:
        """Make the Maildirs that are not there."""
        if self._path_of is None or not mailboxes:
            return
        made = self._preparing.run(_prepare, self._path_of, tuple(mailboxes))
        try:
            self._touched.add(await made.addTimeout(PREPARE_SECONDS, self._clock))  # type: ignore[arg-type]
        except (Late, AllHang) as error:
            self.log.error("mailboxes could not be made, the disk does not answer: {error}", error=error)

    async def sweep(self) -> int:
        """Remove files older than 36 hours from every ``tmp/``; return how many.  Meant for once a day.  Raises OSError."""
        removed: int = await self._sweeping.run(self._sweep.run)
        return removed


def _prepare(path_of: Callable[[Mailbox], str], mailboxes: Sequence[Mailbox]) -> Touched:
    maildirs = Maildirs(path_of=path_of, open_at_most=1)
    devices = {}
    for mailbox in mailboxes:
        with contextlib.suppress(OSError):  # its first message meets the same fault, and its sender hears of it
            maildir = maildirs.find(mailbox)
            devices[maildir.device] = maildir.path
    made = set(maildirs.take_made())
    maildirs.close()
    return Touched(devices if made else {}, [], made)


class MaildirOptions(Options):
    """Mail into Maildirs."""

    path: FilePath = "{data}/mail/{domain}/{user}"
    """The Maildir of a user; `{data}`, `{domain}`, `{user}`, and `{home}` for the host's own users: `{home}/Maildir`."""
    open_maildirs: int = 256
    """Maildirs that are kept open; each takes three descriptors."""
    process: bool = True
    """Write in a process of its own; `false` writes in a thread, which is slower under load and takes 15 MB less."""
    uid_min: Count = 1000
    """With `{home}`: users below this number get no mail."""


@implementer(IComponentFactory)
class MaildirFactory:
    """Makes the delivery for ``[delivery] use = "maildir"``."""

    name = "maildir"
    summary = "Mail into Maildirs, for users of the mail server or, with {home}, of the host"
    api_version = "1.0"
    provides = IBatchDelivery
    options = MaildirOptions

    def build(self, options: MaildirOptions, services: Services) -> MaildirDelivery | HomeDelivery:
        """Raises `TemplateError` for a path that cannot be used."""
        from twisted.internet import reactor

        template = PathTemplate(options.path, data_directory=services.data_directory)
        threads = functools.partial(Threads, call_from_thread=reactor.callFromThread)  # type: ignore[attr-defined]
        if template.needs_home:
            return HomeDelivery(
                template=options.path,
                uid_min=options.uid_min,
                hostname=services.hostname,
                clock=services.clock,
                run_in_thread=threads("courier", 4).run,
                reactor=reactor,
                keep=services.keep_process or keep_here,
            )

        def path_of(box: Mailbox) -> str:
            return template.path(user=box.user, domain=box.domain)

        syncfs = find_syncfs()
        writer: BatchWriter
        if options.process:
            writer = WriterProcess(
                template=options.path,
                data_directory=services.data_directory,
                open_at_most=options.open_maildirs,
                syncs_files=syncfs is None,
                reactor=reactor,
                run_in_thread=threads("Maildir writer", 1).run,
            )
        else:
            writer = WriterThread(
                path_of=path_of,
                open_at_most=options.open_maildirs,
                syncs_files=syncfs is None,
                thread=threads("Maildir writer", 1),
            )
        return MaildirDelivery(
            writer=writer,
            disk=Disk(syncfs=syncfs),
            clock=services.clock,
            threads=lambda name: threads(name, 1),
            hostname=services.hostname,
            root=template.root,
            depth=template.depth,
            path_of=path_of,
        )
