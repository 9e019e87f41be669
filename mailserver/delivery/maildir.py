"""Delivery into Maildirs: the component.

A batch crosses to the writer in one hand-over (`process` says why that is a process), `flush` syncs whole file systems.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import DeferredLock
from zope.interface import implementer

from mailserver.config import Count, FilePath, Options
from mailserver.delivery.durability import Disk, Touched, find_syncfs
from mailserver.delivery.homes import HomeDelivery
from mailserver.delivery.letters import Letter, Report, letter_of, outcomes_of, touched_of
from mailserver.delivery.maildirs import Maildirs
from mailserver.delivery.names import PathTemplate, host_part
from mailserver.delivery.process import WriterProcess
from mailserver.delivery.sweep import sweep_in_process
from mailserver.delivery.writer import MaildirWriter
from mailserver.interfaces import IBatchDelivery, IComponent, IComponentFactory, IPreparing, ISweeping, Services
from mailserver.mail.answers import Mailbox, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, Parcel
from mailserver.processes.small import keep_here

__all__ = ["MaildirDelivery", "MaildirFactory", "MaildirOptions", "Writer", "WriterThread"]

RunInThread = Callable[..., Awaitable[Any]]


class Writer(Protocol):
    """Writes letters.  Blocking; called in one thread at a time."""

    def write(self, letters: Sequence[Letter]) -> Report: ...

    def close(self) -> None: ...


class WriterThread:
    """The writer in the calling thread: for few messages, and where a second process is not wanted."""

    def __init__(self, *, path_of: Callable[[Any], str], open_at_most: int, syncs_files: bool) -> None:
        self._maildirs = Maildirs(path_of=path_of, open_at_most=open_at_most)
        self._writer = MaildirWriter(maildirs=self._maildirs, syncs_files=syncs_files)

    def write(self, letters: Sequence[Letter]) -> Report:
        """As `MaildirWriter.write`."""
        return self._writer.write(letters)

    def close(self) -> None:
        """Close the directories."""
        self._maildirs.close()


@implementer(IBatchDelivery, IComponent, IPreparing, ISweeping)
class MaildirDelivery:
    """Delivers batches through a `writer`; `disk` makes them durable.

    `letter_of(parcel, host)` gives a parcel the form that the writer takes.  `sweep` looks through the Maildirs that lie `depth`
    levels below `root`.  `path_of` gives the path of a mailbox, for `prepare`.
    """

    stores = True

    def __init__(
        self,
        *,
        writer: Writer,
        disk: Disk,
        run_in_thread: RunInThread,
        hostname: str,
        root: str,
        depth: int,
        path_of: Callable[[Mailbox], str] | None = None,
        letter_of: Callable[[Parcel, str], Letter] = letter_of,
    ) -> None:
        self._writer = writer
        self._disk = disk
        self._run_in_thread = run_in_thread
        self._host = host_part(hostname)
        self._sweep = functools.partial(sweep_in_process, root, depth)
        self._path_of = path_of
        self._letter_of = letter_of
        self._touched = Touched()
        self._writing = DeferredLock()
        self._flushing = DeferredLock()

    async def start(self) -> None:
        """Nothing yet: the first batch starts the writer, so that a server without mail has one process."""

    async def stop(self) -> None:
        """End the writer, after what it has in hand."""
        async with self._writing:
            await self._run_in_thread(self._writer.close)
        async with self._flushing:
            self._disk.close()

    async def deliver(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> Mapping[int, Outcome]:
        """One message; see `deliver_batch`."""
        return (await self.deliver_batch((Parcel(envelope, content, tuple(destinations)),)))[0]

    async def deliver_batch(self, parcels: Sequence[Parcel]) -> Sequence[Mapping[int, Outcome]]:
        """Write the messages.  Raises OSError where the writer itself has died, twice."""
        letters = [self._letter_of(parcel, self._host) for parcel in parcels]
        async with self._writing:
            report = await self._run_in_thread(self._writer.write, letters)
        self._touched.add(touched_of(report))
        return [outcomes_of(parcel, results) for parcel, results in zip(parcels, report[0], strict=True)]

    async def flush(self) -> None:
        """Make durable what was delivered.  Raises OSError: then a power failure may lose it, and it must be delivered again."""
        async with self._flushing:  # a second caller's messages may be in the flush that is under way
            touched, self._touched = self._touched, Touched()
            if not touched.devices:
                return
            try:
                await self._run_in_thread(self._disk.sync, touched)
            except BaseException:
                self._touched.add(touched)
                raise

    async def prepare(self, mailboxes: Sequence[Mailbox]) -> None:
        """Make the Maildirs that are not there."""
        if self._path_of is not None and mailboxes:
            self._touched.add(await self._run_in_thread(_prepare, self._path_of, tuple(mailboxes)))

    async def sweep(self) -> int:
        """Remove files older than 36 hours from every ``tmp/``; return how many.  Meant for once a day."""
        removed: int = await self._run_in_thread(self._sweep)
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
    """Directories that are kept open."""
    process: bool = True
    """Write in a process of its own; `false` writes in a thread, which is slower under load and takes 15 MB less."""
    uid_min: Count = 1000
    """With `{home}`: users below this number get no mail."""


@implementer(IComponentFactory)
class MaildirFactory:
    """Makes the delivery for ``[delivery] use = "maildir"``."""

    name = "maildir"
    summary = "Mail into Maildirs, for users of the mail server or, with {home}, of the host"
    provides = IBatchDelivery
    options = MaildirOptions

    def build(self, options: MaildirOptions, services: Services) -> MaildirDelivery | HomeDelivery:
        """Raises `TemplateError` for a path that cannot be used."""
        template = PathTemplate(options.path, data_directory=services.data_directory)
        if template.needs_home:
            return HomeDelivery(
                template=options.path,
                uid_min=options.uid_min,
                hostname=services.hostname,
                run_in_thread=services.run_in_thread,
                keep=services.keep_process or keep_here,
            )

        def path_of(box: Mailbox) -> str:
            return template.path(user=box.user, domain=box.domain)

        syncfs = find_syncfs()
        writer: Writer
        if options.process:
            writer = WriterProcess(
                template=options.path,
                data_directory=services.data_directory,
                open_at_most=options.open_maildirs,
                syncs_files=syncfs is None,
            )
        else:
            writer = WriterThread(
                path_of=path_of,
                open_at_most=options.open_maildirs,
                syncs_files=syncfs is None,
            )
        return MaildirDelivery(
            writer=writer,
            disk=Disk(syncfs=syncfs),
            run_in_thread=services.run_in_thread,
            hostname=services.hostname,
            root=template.root,
            depth=template.depth,
            path_of=path_of,
        )
