"""Octets received and not yet used, and the lines in them.

Only CRLF ends a line (RFC 5321 section 2.3.8).  What is kept is bounded by the longest line allowed, plus what arrived
while nobody asked: `octets` tells the caller when to stop reading.  A position moves through the octets; they are copied
only where a line straddles two arrivals, so ten thousand pipelined commands cost as much as ten thousand single ones.
"""

from __future__ import annotations

import enum
import re

__all__ = ["LineFault", "ReceiveBuffer"]

STRAY_LINE_END = re.compile(rb"\r[^\n]|(?<!\r)\n")
STRAY_CR = re.compile(rb"\r[^\n]")


class LineFault(enum.Enum):
    """Why a line is invalid.  All of it, up to its CRLF, is thrown away."""

    STRAY_LINE_END = "CR or LF inside the line"
    TOO_LONG = "the line is too long"


class ReceiveBuffer:
    """Octets waiting.  `data` from index `at` on is what stands next.

    `bare_lf_ends_lines` lets a line end with LF alone as well; `crlf_seen` says then that one did not.
    """

    __slots__ = ("_end", "_later", "_later_octets", "_skipping", "_stray", "at", "crlf_seen", "data")

    def __init__(self, *, bare_lf_ends_lines: bool) -> None:
        self.data = b""
        self.at = 0
        self.crlf_seen = False
        self._later: list[bytes] = []
        self._later_octets = 0
        self._skipping = False
        self._end = b"\n" if bare_lf_ends_lines else b"\r\n"
        self._stray = STRAY_CR if bare_lf_ends_lines else STRAY_LINE_END

    @property
    def octets(self) -> int:
        """How many octets wait."""
        return len(self.data) - self.at + self._later_octets

    def append(self, data: bytes) -> None:
        """Put octets behind those that wait."""
        if self.at == len(self.data) and not self._later_octets:
            self.data = data
            self.at = 0
        else:
            self._later.append(data)
            self._later_octets += len(data)

    @property
    def is_exhausted(self) -> bool:
        """Nothing waits.  Where something does, `data` from `at` on holds some of it."""
        if self.at != len(self.data):
            return False
        if self._later_octets:
            return not self.join()
        self.data, self.at = b"", 0  # an idle session keeps nothing
        return True

    def clear(self) -> None:
        """Forget everything."""
        self.data = b""
        self.at = 0
        self._later.clear()
        self._later_octets = 0
        self._skipping = False

    def join(self) -> bool:
        """Bring what arrived later next to the rest; False where there is nothing."""
        if not self._later_octets:
            if self.at == len(self.data):
                self.data, self.at = b"", 0  # an idle session keeps nothing
            return False
        self.data = b"".join((self.data[self.at :], *self._later))
        self.at = 0
        self._later.clear()
        self._later_octets = 0
        return True

    def take(self, most: int) -> bytes:
        """Take up to `most` octets."""
        if self.at == len(self.data):
            self.join()
        at, data = self.at, self.data
        self.at = min(at + most, len(data))
        return data[at : self.at]

    def next_line(self, most: int, most_auth: int) -> bytes | LineFault | None:
        """Take the next line, without its end; None while it is not complete.

        `most` is the greatest length in octets, the end included; `most_auth` that of a line which begins with AUTH.
        """
        at, data = self.at, self.data
        end = data.find(self._end, at)
        if end < 0:
            if self.join():
                return self.next_line(most, most_auth)
            return self._unfinished(most, most_auth) if self.data else None
        self.at = end + len(self._end)
        line = data[at:end]
        if self._stray is STRAY_CR and line.endswith(b"\r"):
            self.crlf_seen = True
            line = line[:-1]
        if self._skipping:
            self._skipping = False
            return self.next_line(most, most_auth)
        if len(line) > most - 2 or b"\r" in line or b"\n" in line:
            return self._fault(line, most, most_auth)
        return line

    def _fault(self, line: bytes, most: int, most_auth: int) -> bytes | LineFault:
        """Judge a complete line.  Only what is within the greatest length counts, however the line arrived."""
        length = (most_auth if line[:5].upper() == b"AUTH " else most) - 2
        stray = self._stray.search(line + b"\r\n")
        if stray is not None and stray.start() < length:
            return LineFault.STRAY_LINE_END
        return LineFault.TOO_LONG if len(line) > length else line

    def _unfinished(self, most: int, most_auth: int) -> LineFault | None:
        """Judge a line whose end is not here: a faulty one is answered now, and what is still to come of it is skipped."""
        rest = self.data[self.at :]
        self.at, self.data = 0, rest
        if not self._skipping:
            length = (most_auth if rest[:5].upper() == b"AUTH " else most) - 2
            stray = self._stray.search(rest)
            if stray is not None and stray.start() < length:
                fault = LineFault.STRAY_LINE_END
            elif len(rest) - rest.endswith(b"\r") > length:
                fault = LineFault.TOO_LONG
            else:
                return None
            self._skipping = True
        else:
            fault = None
        self.data = b"\r" if rest.endswith(b"\r") else b""
        return fault
