"""Takes passwords out of a dialogue as it is spoken: what AUTH says becomes as many stars.

Both sides come in the order in which they were spoken, as one of the two sees them: in any pieces, with nothing missing.  Content
is passed on as it is, whatever its lines look like.
"""

from __future__ import annotations

import enum
import re

from mailserver.smtp.server.data import END
from mailserver.smtp.vocabulary import CommandVerb, ReplyCode

__all__ = ["SecretMask"]

LINE_OCTETS = 4096  # of a line whose beginning is remembered
REPLY_OCTETS = 8
# What follows the mechanism, well formed or not (RFC 4954 section 4).
SECRET = re.compile(rb"[ \t]*AUTH[ \t]+[^ \t\r\n]+[ \t]+(?=[^ \t\r\n])", re.I)
CHUNK = re.compile(rb"[ \t]*BDAT[ \t]+([0-9]{1,18})(?:[ \t]+LAST)?[ \t]*\r?\n", re.I)
NO_END = re.compile(rb"[^\r\n]")
MAY_BE = tuple([verb.encode() for verb in (CommandVerb.AUTH, CommandVerb.BDAT)])


class _Speaks(enum.Enum):
    """What the client's next octets are."""

    LINES = enum.auto()
    RESPONSE = enum.auto()  # of AUTH
    CONTENT = enum.auto()
    CHUNK = enum.auto()


class SecretMask:
    """Octets of both sides in, the same number of octets out.  No octets make it raise."""

    def __init__(self) -> None:
        self._speaks = _Speaks.LINES
        self._line = b""  # of the client, as far as it has come
        self._chunk = 0
        self._tail = b"\r\n"  # of the content
        self._reply = b""  # the beginning of the server's line

    def client(self, octets: bytes) -> bytes:
        """What the client says, without its secrets."""
        said = []
        while octets:
            if self._speaks is _Speaks.CHUNK:
                taken = octets[: self._chunk]
                self._chunk -= len(taken)
                if not self._chunk:
                    self._speaks = _Speaks.LINES
            elif self._speaks is _Speaks.CONTENT:
                taken = self._content(octets)
            else:
                end = octets.find(b"\n") + 1 or len(octets)
                taken = self._of_line(octets[:end])
            said.append(taken)
            octets = octets[len(taken) :]
        return b"".join(said)

    def server(self, octets: bytes) -> None:
        """What the server says: its replies tell what the client says next."""
        *lines, rest = octets.split(b"\n")
        for line in lines:
            self._replied((self._reply + line)[:REPLY_OCTETS])
            self._reply = b""
        self._reply = (self._reply + rest)[:REPLY_OCTETS]

    def encrypted(self) -> None:
        """TLS has begun: both begin anew (RFC 3207 section 4.2)."""
        self.__init__()  # type: ignore[misc]

    def _replied(self, line: bytes) -> None:
        if line[3:4] == b"-" or not line[:3].isdigit():
            return
        code = int(line[:3])
        if code == ReplyCode.START_CONTENT:
            self._speaks, self._tail = _Speaks.CONTENT, b"\r\n"
        elif code == ReplyCode.AUTH_CHALLENGE:
            self._speaks = _Speaks.RESPONSE

    def _content(self, octets: bytes) -> bytes:
        """As much of it as is content, its end included."""
        joined = self._tail + octets
        found = joined.find(END)
        if found < 0:
            self._tail = joined[-len(END) + 1 :]
            return octets
        self._speaks, self._line = _Speaks.LINES, b""
        return octets[: found + len(END) - len(self._tail)]

    def _of_line(self, octets: bytes) -> bytes:
        """A part of one line, or all of it."""
        before, self._line = self._line, (self._line + octets)[: LINE_OCTETS]
        is_whole = octets.endswith(b"\n")
        if self._speaks is _Speaks.RESPONSE:
            said = NO_END.sub(b"*", octets)
            if is_whole:
                self._speaks = _Speaks.LINES
        else:
            found = SECRET.match(self._line) if MAY_BE[0] in self._line[:100].upper() else None
            shown = len(octets) if found is None else max(0, found.end() - len(before))
            if found is not None and len(before) >= LINE_OCTETS:
                shown = 0
            said = octets[:shown] + NO_END.sub(b"*", octets[shown:])
            chunk = CHUNK.fullmatch(self._line) if is_whole and MAY_BE[1] in self._line[:100].upper() else None
            if chunk is not None and int(chunk[1]):
                self._speaks, self._chunk = _Speaks.CHUNK, int(chunk[1])
        if is_whole:
            self._line = b""
        return said
