"""Daemon mode: the process that was typed waits until the server has really started, and ends with its status.

twistd's own way says 0 before the queue is open, and waits for ever for a daemon that has ended with an exit status.  So we fork
before anything is opened, and twistd runs on as in the foreground.  Two forks, as daemon(7) asks: the daemon leads no session and
can never get a terminal.  Until it has started its words go to the command's own output, to who has typed it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

__all__ = ["Daemon", "detached"]


class Daemon:
    """This process, whose start is waited for at the other end of the pipe `waiting`.

    What it starts has no part in the streams of who has typed the command; only our own words go there.
    """

    def __init__(self, waiting: int) -> None:
        self._waiting = waiting
        self._streams = [os.dup(stream) for stream in (1, 2)]  # which nobody inherits
        _to_null(0, 1, 2)
        sys.stdout, sys.stderr = (open(stream, "w", errors="backslashreplace") for stream in self._streams)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]  # twistd makes the others the log

    def has_started(self) -> None:
        """Give the streams up, and let those who wait end with 0."""
        streams, self._streams = self._streams, []
        _to_null(*streams)
        waiting, self._waiting = self._waiting, -1
        if waiting >= 0:
            try:
                os.write(waiting, b"\0")
            except BrokenPipeError:
                pass  # nobody waits any more
            os.close(waiting)


def detached() -> Daemon:
    """Become a daemon, after `fill_streams`.

    Returns there only; the process that has called ends when the daemon has started or ended.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reading, writing = os.pipe()
    if first := os.fork():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.close(writing)
        _end_as(first)
    os.setsid()
    if second := os.fork():
        os.close(writing)
        if os.read(reading, 1):
            os._exit(0)
        _end_as(second)
    os.close(reading)
    return Daemon(writing)


def _end_as(child: int) -> NoReturn:
    """With the child's exit status; that of a signal as a shell writes it."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


def _to_null(*streams: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(null, stream, inheritable=stream <= 2)
    os.close(null)
