"""Replies as a peer says them: read with bounds; and the replies that we give in its place where it says none.

    Greeting   = ( "220 " Domain [ SP textstring ] CRLF ) / ( "220-" ... )
    Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
    Reply-code = %x32-35 %x30-35 %x30-39

A code may stand alone on its line (RFC 5321 section 4.2: "250" without a space).  The second digit is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.mail.reply import Reply
from mailserver.smtp.buffer import LineFault, ReceiveBuffer
from mailserver.smtp.client_limits import ClientLimits

__all__ = ["ReplyFault", "ReplyReader"]

REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)")  # RFC 2034 section 4
REMEMBERED = 16  # most answers of a peer are word for word those that it gave to the last message
REMEMBERED_OCTETS = 80


class ReplyFault(Exception):
    """What came is no reply, or is too long for one.  The message says why, in words fit for a log."""


class ReplyReader:
    """The octets of a peer, as replies."""

    __slots__ = ("_buffer", "_lines", "_limits", "_octets", "_remembered")

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._buffer = ReceiveBuffer(bare_lf_ends_lines=False)
        self._lines: list[bytes] = []  # of the reply that is coming in, all but the last
        self._octets = 0
        self._remembered: dict[bytes, Reply] = {}

    @property
    def is_empty(self) -> bool:
        """Nothing waits, not even the beginning of a reply."""
        return not self._lines and self._buffer.octets == 0

    def append(self, data: bytes) -> None:
        """Store what came."""
        self._buffer.append(data)

    def clear(self) -> None:
        """Forget what came."""
        self._buffer.clear()
        self._lines.clear()
        self._octets = 0

    def next_reply(self) -> Reply | None:
        """Take the next reply; None while it is not complete.  Raises `ReplyFault`."""
        most = self._limits.reply_line_octets
        while True:
            line = self._buffer.next_line(most, most)
            if line is None:
                return None
            if isinstance(line, LineFault):
                raise ReplyFault(f"in a reply: {line.value}")
            if line[3:4] == b"-":
                self._keep(line)
            elif self._lines:
                self._keep(line)
                return self._joined()
            else:
                return self._remembered.get(line) or self._single(line)

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._octets += len(line) + 2
        if len(self._lines) > self._limits.reply_lines or self._octets > self._limits.reply_octets:
            raise ReplyFault("the reply is too long")

    def _joined(self) -> Reply:
        reply = _reply(self._lines)
        self._lines.clear()
        self._octets = 0
        return reply

    def _single(self, line: bytes) -> Reply:
        reply = _reply((line,))
        if len(line) <= REMEMBERED_OCTETS:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[line] = reply
        return reply


def _reply(lines: Sequence[bytes]) -> Reply:
    code, texts = b"", []
    for line in lines:
        found = REPLY_LINE.fullmatch(line)
        if found is None:
            raise ReplyFault(f"not a line of a reply: {line[:60]!r}")
        if code and found[1] != code:  # RFC 5321 section 4.2.1: the same code on each line
            raise ReplyFault("a reply with two codes")
        code = found[1]
        texts.append((found[3] or b"").decode("utf-8", "replace"))
    enhanced = ENHANCED.match(texts[-1])
    if enhanced is None or enhanced[1][0] != chr(code[0]):
        return Reply.heard(int(code), "", texts)
    status = enhanced[1]
    return Reply.heard(int(code), status, [_without(status, text) for text in texts])


def _without(status: str, text: str) -> str:
    """A line's words without the enhanced code in front of them."""
    found = ENHANCED.match(text)
    return text[found.end() :] if found is not None and found[1] == status else text
