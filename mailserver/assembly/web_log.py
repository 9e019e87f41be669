"""The log lines of a web process that the server, or its root process, has started: read from a pipe, written as our own.

Whoever has taken the process over writes what he likes into the pipe.  So a line has a place, a length and fields of its own.
None can look like a line of somebody else's, as of a login that has failed.  And in a second there are so many and no more.
"""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from mailserver.observe.lines import text_value

__all__ = ["WebLogReader", "web_line"]

LINES_PER_SECOND = 250  # the process itself writes 200
LINE_OCTETS = 4096
PIECE_OCTETS = 16384
STEPS = ("request", "refused", "rejected", "dropped")
FIELDS = ("peer", "method", "host", "path", "status", "why", "lines")
TEXT_CHARACTERS = 2000


def web_line(octets: bytes) -> tuple[LogLevel, str] | None:
    """Level and words of a line; None where it is none of ours."""
    try:
        said = json.loads(octets)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    text = said.get("text")
    if isinstance(text, str):  # a warning of the process's, or a failure with its traceback
        return LogLevel.warn, text_value(text[:TEXT_CHARACTERS])
    step = said.get("step")
    if step not in STEPS:
        return None
    fields = [(name, said[name]) for name in FIELDS if isinstance(said.get(name), str | int) and said[name] != ""]
    return LogLevel.info, " ".join([step, *[f"{name}={text_value(value)}" for name, value in fields]])


@implementer(IReadDescriptor)
class WebLogReader:
    """Reads `descriptor`, which becomes its own, until the process closes its end."""

    log = Logger()

    def __init__(self, reactor: Any, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._reactor = reactor
        self._descriptor = descriptor
        self._octets = b""
        self._left = LINES_PER_SECOND
        self._timer: Any = None
        reactor.addReader(self)

    def fileno(self) -> int:
        """As Twisted wants it."""
        return self._descriptor

    def logPrefix(self) -> str:
        """As Twisted wants it."""
        return "web log"

    def doRead(self) -> None:
        """Some lines."""
        try:
            octets = os.read(self._descriptor, PIECE_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self.connectionLost(None)
            return
        *lines, self._octets = (self._octets + octets).split(b"\n")
        if len(self._octets) > LINE_OCTETS:
            self._octets = b""
        for line in lines[: self._left]:
            found = web_line(line) if len(line) <= LINE_OCTETS else None
            if found is not None:
                self.log.emit(found[0], "{line}", line=found[1])
        self._left = max(0, self._left - len(lines))
        if self._timer is None:
            self._timer = self._reactor.callLater(1.0, self._next_second)
        if not self._left:
            self._reactor.removeReader(self)  # the pipe fills, and the process leaves lines out

    def connectionLost(self, reason: Any) -> None:
        """The process has ended."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            os.close(self._descriptor)
            self._descriptor = -1

    def _next_second(self) -> None:
        self._timer = None
        self._left = LINES_PER_SECOND
        self._reactor.addReader(self)
