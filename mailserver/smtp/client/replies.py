"""Replies of the peer, parsed within bounds.

    Greeting   = ( "220 " Domain [ SP textstring ] CRLF ) / ( "220-" ... )
    Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
    Reply-code = %x32-35 %x30-35 %x30-39

A code may stand alone on its line (RFC 5321 section 4.2: "250" without a space).  The second digit is not looked at.

Hosts that break this form are many, and mail for them is not lost for it.  Where the caller says so (`lenient`), LF alone ends a
line, empty lines between replies are passed over, and of two codes in one reply the last line's counts.  All of that is safe only
while one answer is waited for: with several, a line that is taken for two would shift each answer to the next command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.mail.reply import Reply
from mailserver.smtp.client.limits import ClientLimits

__all__ = ["ReplyFault", "ReplyReader"]

REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:[ -](?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|\Z))?([^\r\n]*))?")
REMEMBERED = 16  # most answers of a peer are word for word those that it gave to the last message
REMEMBERED_OCTETS = 80


class ReplyFault(Exception):
    """What came is not a reply, or is too long for one.  The message says why, in words fit for a log."""


class ReplyReader:
    """The octets of a peer, as replies.

    Only CRLF ends a line, unless `next_reply` is told to be lenient; a CR or LF inside one is a fault, since it could hide a
    reply.  `is_sloppy` says that leniency was needed.
    """

    __slots__ = ("_at", "_blanks", "_data", "_limits", "_lines", "_octets", "_remembered", "is_sloppy")

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._data = b""
        self._at = 0  # where in `_data` the octets begin that wait
        self._lines: list[bytes] = []  # of the reply that is coming in, all but the last
        self._octets = 0
        self._blanks = 0  # empty lines since the last reply
        self._remembered: dict[bytes, Reply] = {}
        self.is_sloppy = False

    @property
    def is_empty(self) -> bool:
        """Nothing waits, not even the beginning of a reply."""
        return self._at == len(self._data) and not self._lines

    def pass_over_blanks(self) -> None:
        """Forget what waits where that is empty lines and nothing else."""
        if not (self.is_empty or self._lines) and not self._data[self._at :].strip(b"\r\n"):
            self.is_sloppy = True
            self.clear()

    def append(self, data: bytes) -> None:
        """Store what came."""
        self._data = data if self._at == len(self._data) else self._data[self._at :] + data
        self._at = 0

    def clear(self) -> None:
        """Forget what came."""
        self._data = b""
        self._at = self._octets = 0
        self._lines.clear()

    def next_reply(self, *, lenient: bool = False) -> Reply | None:
        """Take the next reply; None while it is not complete.  Raises `ReplyFault`."""
        data = self._data
        while True:
            at = self._at
            end = data.find(b"\n", at)
            if end < 0:
                if len(data) - at > self._limits.reply_line_octets:
                    raise ReplyFault("a line of a reply is too long")
                return None
            self._at = end + 1
            is_whole = data.endswith(b"\r", at, end)
            line = data[at : end - 1 if is_whole else end]
            if is_whole and not self._lines:
                known = self._remembered.get(line)
                if known is not None:
                    return known
            if end + 1 - at > self._limits.reply_line_octets:
                raise ReplyFault("a line of a reply is too long")
            if not is_whole:
                if not lenient:  # at once: to wait for a CRLF could take for ever
                    raise ReplyFault(f"not a line of a reply: {data[at : end + 1][:60]!r}")
                self.is_sloppy = True
            if lenient and not line and not self._lines:
                self._pass_over()
                continue
            if line[3:4] != b"-":
                return self._last_line(line, lenient)
            self._keep(line)

    def _pass_over(self) -> None:
        self.is_sloppy = True
        self._blanks += 1
        if self._blanks > self._limits.reply_lines:
            raise ReplyFault("empty lines in place of a reply")

    def _keep(self, line: bytes) -> None:
        if not line[:3].isdigit():
            raise ReplyFault(f"not a line of a reply: {line[:60]!r}")
        self._lines.append(line)
        self._octets += len(line) + 2
        if len(self._lines) > self._limits.reply_lines or self._octets > self._limits.reply_octets:
            raise ReplyFault("the reply is too long")

    def _last_line(self, line: bytes, lenient: bool) -> Reply:
        self._blanks = 0
        if not self._lines:
            reply = _single(line)
            if len(line) <= REMEMBERED_OCTETS and len(self._remembered) < REMEMBERED:
                self._remembered[line] = reply
            return reply
        self._keep(line)
        parts = [_part(line) for line in self._lines]
        code = parts[-1][0]
        if any(part[0] != code for part in parts):  # RFC 5321 section 4.2.1: the same code on each line
            if not lenient:
                raise ReplyFault("a reply with two codes")
            self.is_sloppy = True
        reply = _joined(self._lines, parts, code)
        self._lines.clear()
        self._octets = 0
        return reply


def _single(line: bytes) -> Reply:
    code, status, text = _part(line)
    if status[:1] != code[:1]:
        status, text = b"", line[4:]
    words = text.decode("utf-8", "replace")
    if words.isprintable():
        return Reply(int(code), status.decode("ascii"), (words,))
    return Reply.heard(int(code), status.decode("ascii"), (words,))


def _joined(lines: Sequence[bytes], parts: Sequence[tuple[bytes, bytes, bytes]], code: bytes) -> Reply:
    status = parts[-1][1]
    # RFC 2034 section 4: the enhanced code has the class of the code, and stands on each line.
    if status[:1] != code[:1] or any(part[1] != status for part in parts):
        status = b""
        texts = [line[4:] for line in lines]
    else:
        texts = [text for _, _, text in parts]
    return Reply.heard(int(code), status.decode("ascii"), [text.decode("utf-8", "replace") for text in texts])


def _part(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Code, enhanced code and text of a line."""
    found = REPLY_LINE.fullmatch(line)
    if found is None:
        raise ReplyFault(f"not a line of a reply: {line[:60]!r}")
    return found.groups(b"")  # type: ignore[return-value]
