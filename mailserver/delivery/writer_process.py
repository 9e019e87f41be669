"""The writer in a process of its own.

A delivery makes some small system calls for each message.  In a thread beside a busy reactor every one of them waits for the
interpreter lock: measured, the thread then wrote 300 messages a second where it writes 20,000 alone, and slowed the reactor too.
Here a batch crosses a socket pair in a few pieces instead.  The process has the same identity as the server, ends when the
server's end of the socket closes, and is started again when it has died.

No thread of the server waits for it.  Where a disk hangs, the process is given up: its socket is closed, it is killed as soon
as the kernel lets go of it, and another one takes its place.

A frame is a `marshal` of messages or of a report.  Both ends are one program and trust each other; after an upgrade on the disk a
new process would not be that program, and answers with a sentence in place of a report.
"""

from __future__ import annotations

import contextlib
import marshal
import resource
import select
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from mailserver.delivery.batch_format import BatchMessage, BatchReport, messages_of, plain_messages
from mailserver.delivery.names import PathTemplate
from mailserver.delivery.open_maildirs import Maildirs
from mailserver.delivery.writer import MaildirWriter, NobodyWaits
from mailserver.processes import frames
from mailserver.processes.exchange import ProcessExchange
from mailserver.processes.spawning import outlive_signals, spawn
from mailserver.processes.version import version

__all__ = ["WriterProcess"]

OTHER_VERSION = "the program on the disk is of another version than this server: restart the server"
END_SECONDS = 10.0  # for a process that has nothing to do


class WriterProcess:
    """The server's end.  The first four arguments are `MaildirWriter`'s; `reactor` serves the socket.

    `run_in_thread` waits for processes that end.
    """

    log = Logger()
    hanging_most = 3

    def __init__(
        self,
        *,
        template: str,
        data_directory: str,
        open_at_most: int,
        syncs_files: bool,
        reactor: Any,
        run_in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        self._arguments = (template, data_directory, str(open_at_most), "files" if syncs_files else "")
        self._reactor = reactor
        self._run_in_thread = run_in_thread
        self._version = b""
        self._told = False
        self._exchange: ProcessExchange | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Two lists, since only the first is about the disk: a process that was given up in the middle of a call counts as
        # hanging until it has ended.  One that has died by itself, or was closed while it had nothing to do, is only waited for.
        self._given_up: list[subprocess.Popen[bytes]] = []
        self._dying: list[subprocess.Popen[bytes]] = []

    @property
    def hanging(self) -> int:
        """Processes that were given up and have not ended."""
        self._given_up = [process for process in self._given_up if process.poll() is None]
        return len(self._given_up)

    async def start(self) -> None:
        """Note what the program is now, while it is the one that runs.  No process is started yet."""
        self._version = await self._run_in_thread(version)

    async def write(self, messages: list[BatchMessage]) -> BatchReport:
        """As `MaildirWriter.write`; one call at a time.  A process that dies meanwhile is replaced once; then OSError.

        Cancelled, it gives the process up.
        """
        with contextlib.suppress(EOFError):
            return await self._ask(messages)
        # What it had written before it died is found again by its name.
        try:
            return await self._ask([message.once_more() for message in messages])
        except EOFError:
            raise OSError("the process that writes into Maildirs has died, twice") from None

    async def close(self) -> None:
        """Let the process end, and wait for it a moment."""
        process = self._process
        if process is not None:
            self._close(self._dying)
        await self._run_in_thread(_see_them_end, self._dying)

    async def _ask(self, messages: list[BatchMessage]) -> BatchReport:
        if self._exchange is None:
            self._process, end = spawn("mailserver.delivery.writer_process", (*self._arguments, self._version.decode("ascii")))
            self._exchange = ProcessExchange(self._reactor, end)
        try:
            answer = await self._exchange.ask(marshal.dumps(plain_messages(messages)))
        except CancelledError:
            self._close(self._given_up, kill=True)
            raise
        except EOFError:
            self._close(self._dying, kill=True)
            raise
        report: tuple[Any, ...] | str = marshal.loads(answer)  # noqa: S302  # our own process
        if isinstance(report, str):
            self._close(self._dying)
            if not self._told:
                self._told = True
                self.log.critical("no mail can be written into Maildirs: {why}", why=report)
            raise OSError(report)
        return BatchReport(*report)

    def _close(self, where: list[subprocess.Popen[bytes]], *, kill: bool = False) -> None:
        """Part from the process; it is kept in mind until it has ended."""
        self._dying[:] = [process for process in self._dying if process.poll() is None]
        exchange, self._exchange = self._exchange, None
        process, self._process = self._process, None
        if exchange is not None:
            exchange.close()
        if process is not None:
            if kill:
                process.kill()  # in a call that cannot be broken off it stays; it ends before it makes another one
            where.append(process)


def _see_them_end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def main(arguments: Sequence[str]) -> None:
    """Serve until the server closes its end."""
    template_text, data_directory, open_at_most, files, expected, number = arguments
    outlive_signals()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a Maildir takes three
    template = PathTemplate(template_text, data_directory=data_directory)
    maildirs = Maildirs(
        path_of=lambda box: template.path(user=box.user, domain=box.domain), open_at_most=int(open_at_most)
    )
    with socket.socket(fileno=int(number)) as server:
        if expected and version().decode("ascii") != expected:
            with contextlib.suppress(EOFError, ConnectionError):
                frames.receive(server, octets_most=frames.LONGEST_OCTETS)
                frames.send(server, marshal.dumps(OTHER_VERSION))
            return
        closes = select.poll()
        closes.register(server, 0)

        def go_on() -> None:
            if closes.poll(0):
                raise NobodyWaits("the server has closed its end")

        writer = MaildirWriter(maildirs=maildirs, syncs_files=bool(files), go_on=go_on)
        while True:
            try:
                octets, _ = frames.receive(server, octets_most=frames.LONGEST_OCTETS)
                report = writer.write(messages_of(marshal.loads(octets)))  # noqa: S302  # the server is our own program
                frames.send(server, marshal.dumps(tuple(report)), octets_most=frames.LONGEST_OCTETS)
            except (EOFError, ConnectionError, NobodyWaits):  # what was written, the server will have written again
                return


if __name__ == "__main__":
    main(sys.argv[1:])
