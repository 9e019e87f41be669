"""The writer in a process of its own.

A delivery makes some small system calls for each message.  In a thread beside a busy reactor every one of them waits for the
interpreter lock: measured, the thread then wrote 300 messages a second where it writes 20,000 alone, and slowed the reactor too.
Here a batch crosses a socket pair in one piece instead.  The process has the same identity as the server, ends when the
server's end of the socket closes, and is started again when it has died.

A frame is four octets of length and a `marshal` of letters or of a report.  Both ends are one program and trust each other.
"""

from __future__ import annotations

import marshal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from mailserver.delivery.letters import Letter, Report
from mailserver.delivery.maildirs import Maildirs
from mailserver.delivery.names import PathTemplate
from mailserver.delivery.writer import MaildirWriter
from mailserver.processes.spawning import outlive_signals, spawn

__all__ = ["WriterProcess"]

LENGTH = struct.Struct("!I")
FRAME_OCTETS = 4 * 1024 * 1024  # letters of a batch above this go in several frames; one large letter may exceed it


class WriterProcess:
    """The server's end.  Blocking; one thread at a time.  The arguments are `MaildirWriter`'s."""

    def __init__(self, *, template: str, data_directory: str, open_at_most: int, syncs_files: bool) -> None:
        self._arguments = (template, data_directory, str(open_at_most), "files" if syncs_files else "")
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, letters: Sequence[Letter]) -> Report:
        """As `MaildirWriter.write`.  A process that dies meanwhile is replaced once; then OSError."""
        every, devices, files, made = [], {}, [], []
        with self._lock:
            for frame in _frames(letters):
                report = self._asked(frame)
                every += report[0]
                devices.update(report[1])
                files += report[2]
                made += report[3]
        return every, devices, files, made

    def close(self) -> None:
        """Let the process end, and wait for it."""
        with self._lock:
            self._end()

    def _asked(self, letters: list[Letter]) -> Report:
        try:
            return self._ask(letters)
        except (OSError, EOFError):
            self._end()
        # What it had written before it died is found again by its name.
        return self._ask([(True, *letter[1:]) for letter in letters])

    def _ask(self, letters: list[Letter]) -> Report:
        end = self._started()
        _send(end, letters)
        report: Report = _receive(end)
        return report

    def _started(self) -> socket.socket:
        if self._socket is None:
            self._process, self._socket = spawn("mailserver.delivery.process", self._arguments)
        return self._socket

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None


def _frames(letters: Sequence[Letter]) -> list[list[Letter]]:
    frames: list[list[Letter]] = []
    room = -1
    for letter in letters:
        room -= len(letter[2] or b"")
        if room < 0:
            frames.append([])
            room = FRAME_OCTETS - len(letter[2] or b"")
        frames[-1].append(letter)
    return frames


def _send(end: socket.socket, value: Any) -> None:
    octets = marshal.dumps(value)
    end.sendall(LENGTH.pack(len(octets)))
    end.sendall(octets)


def _receive(end: socket.socket) -> Any:
    length = LENGTH.unpack(_exactly(end, LENGTH.size))[0]
    return marshal.loads(_exactly(end, length))  # noqa: S302  # from our own process


def _exactly(end: socket.socket, octets: int) -> bytes:
    data = end.recv(octets, socket.MSG_WAITALL)
    while len(data) < octets:
        more = end.recv(octets - len(data), socket.MSG_WAITALL)
        if not more:
            raise EOFError("the other end has closed")
        data += more
    return data


def main(arguments: Sequence[str]) -> None:
    """Serve until the server closes its end."""
    template_text, data_directory, open_at_most, files, number = arguments
    outlive_signals()
    template = PathTemplate(template_text, data_directory=data_directory)
    maildirs = Maildirs(
        path_of=lambda box: template.path(user=box.user, domain=box.domain), open_at_most=int(open_at_most)
    )
    writer = MaildirWriter(maildirs=maildirs, syncs_files=bool(files))
    with socket.socket(fileno=int(number)) as server:
        while True:
            try:
                _send(server, writer.write(_receive(server)))
            except (EOFError, ConnectionError):  # the server has gone; what was written, it will write again
                return


if __name__ == "__main__":
    main(sys.argv[1:])
