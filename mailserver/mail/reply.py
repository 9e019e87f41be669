"""What a server says: a code, an enhanced status code and lines of text.

A `Reply` is three fields and is never parsed back out of a string.  RFC 5321 section 4.2 gives the
syntax, RFC 2034 and RFC 3463 the enhanced code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailserver.mail.quick import quick

__all__ = ["Reply"]

CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # all but the tab


@quick
@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP or LMTP reply.

    `code` is the three-digit reply code (RFC 5321 section 4.2.1), `enhanced` the enhanced status
    code such as ``"5.1.1"`` or ``""`` where RFC 2034 section 4 forbids one (the greeting, EHLO, 334, 354),
    `lines` the text, at least one line, each printable ASCII or UTF-8.  A control character in them raises ValueError, so
    that no text can end a reply and begin another; the words of a peer go through `heard`.
    """

    code: int
    enhanced: str
    lines: tuple[str, ...]
    _octets: bytes = field(default=b"", init=False, repr=False, compare=False)  # most replies go out many times

    def __post_init__(self) -> None:
        for line in self.lines or ("\0",):
            if not line.isprintable() and CONTROLS.search(line):  # a tab, say, is harmless and not printable
                raise ValueError(f"not the text of a reply: {self.lines!r}")

    @classmethod
    def of(cls, code: int, enhanced: str, *lines: str) -> Reply:
        """Make a reply from its text lines."""
        return cls(code, enhanced, lines)

    @classmethod
    def heard(cls, code: int, enhanced: str, lines: Sequence[str]) -> Reply:
        """A reply in the words of a peer: each control character becomes "?", no lines at all become one empty line."""
        return cls(code, enhanced, tuple([CONTROLS.sub("?", line) for line in lines]) or ("",))

    @property
    def in_ascii(self) -> Reply:
        """For a peer who has not asked for SMTPUTF8 (RFC 6531 section 3.7.4.2): other characters become "?"."""
        if all(line.isascii() for line in self.lines):
            return self
        return Reply(self.code, self.enhanced, tuple([line.encode("ascii", "replace").decode("ascii") for line in self.lines]))

    @property
    def is_positive(self) -> bool:
        """2yz or 3yz: the command is taken."""
        return self.code < 400

    @property
    def is_transient(self) -> bool:
        """4yz: worth another try."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: the same command will fail again."""
        return self.code >= 500

    def encode(self) -> bytes:
        """The octets on the wire, CRLF included (RFC 5321 section 4.2.1; RFC 2034 section 4)."""
        if not self._octets:
            object.__setattr__(self, "_octets", self._encoded())
        return self._octets

    def _encoded(self) -> bytes:
        status = self.enhanced + " " if self.enhanced else ""
        if len(self.lines) == 1:
            return f"{self.code} {status}{self.lines[0]}\r\n".encode()
        last = len(self.lines) - 1
        return "".join(
            f"{self.code}{' ' if n == last else '-'}{status}{line}\r\n" for n, line in enumerate(self.lines)
        ).encode()

    def __str__(self) -> str:
        status = self.enhanced + " " if self.enhanced else ""
        return f"{self.code} {status}{' / '.join(self.lines)}"
