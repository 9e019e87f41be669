"""Where log lines go: a file, or standard output.

A log that cannot be written never stops mail.  Lost lines are counted, and reported once when writing works again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from mailserver.processes.identity import acting_as

__all__ = ["LogFile", "Output"]

STANDARD_OUTPUT = 1


class LogFile:
    """The log file `path`, which is appended to; standard output where `path` is None.

    Raises OSError where it cannot be opened at first.  `owner` is the user and group as whom root opens it: those that the
    server will have.  With root's own rights a link could lead to any file of the host, and the server could not open the next
    file after a rotation.
    """

    def __init__(self, path: str | None, mode: int = 0o640, owner: tuple[int, int] = (-1, -1)) -> None:
        self._path = path
        self._mode = mode
        self._owner = owner
        self._lock = threading.Lock()
        self._descriptor = STANDARD_OUTPUT if path is None else self._opened(path)

    def write(self, octets: bytes) -> None:
        """Write all octets.  Raises OSError."""
        with self._lock:
            if self._descriptor < 0 and self._path is not None:  # Twisted still logs after everything is closed
                self._descriptor = self._opened(self._path)
            rest = memoryview(octets)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def reopen(self) -> None:
        """Go on in a new file of the same name, after the old one was renamed (logrotate).

        Raises OSError where the new file cannot be opened; the old one then stays in use.
        """
        if self._path is None:
            return
        new = self._opened(self._path)
        with self._lock:
            old, self._descriptor = self._descriptor, new
        if old >= 0:
            os.close(old)

    def close(self) -> None:
        """Close the file; a later write opens it again.  Standard output stays open."""
        with self._lock:
            if self._path is not None and self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _opened(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with acting_as(*self._owner):
            try:
                return os.open(path, flags, self._mode)
            except PermissionError:
                try:
                    os.rename(path, f"{path}.{int(time.time())}")  # root's file from an earlier start, in the server's folder
                    return os.open(path, flags, self._mode)
                except OSError:
                    pass
                raise


class Output:
    """Writes lines with `write` and survives its failures.  `complaint` makes the line about lost lines."""

    def __init__(self, write: Callable[[bytes], None], complaint: Callable[[str], str]) -> None:
        self._write = write
        self._complaint = complaint
        self._trouble = ""
        self.lines_lost = 0
        """Since the last complaint."""

    def lines(self, lines: list[str]) -> None:
        """Write lines, each with its line end.  Never raises."""
        if not lines:
            return
        front = ""
        if self.lines_lost:
            # The failed write may have left half a line, which an empty line ends.
            front = "\n" + self._complaint(f"{self.lines_lost} log lines were lost: {self._trouble}")
        try:
            self._write((front + "".join(lines)).encode("utf-8", "backslashreplace"))
        except (OSError, ValueError) as error:
            if not self.lines_lost and sys.stderr is not None:
                self._say_once(error)
            self.lines_lost += len(lines)
            self._trouble = str(error)
        else:
            self.lines_lost = 0

    def _say_once(self, error: Exception) -> None:
        """Report the failure once on the other output, for systemd's journal or a terminal."""
        try:
            os.write(2, f"mailserver: the log cannot be written: {error}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # that output fails, too
