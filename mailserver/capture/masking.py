"""Takes passwords out of a dialogue as it is spoken: what AUTH says becomes as many stars, and so does a server's signature.

Both sides come in the order in which they were spoken, as one of the two sees them: in any pieces, with nothing missing.  Content
is passed on as it is, whatever its lines look like, unless it came before the 354.

Some clients do not wait for their turn and say AUTH, name and password in one go.  So what follows AUTH is a secret until the
server has said 235, or a line begins with the verb of a command; and octets that came ahead of the 354 are looked at twice, as
lines and as content.
"""

from __future__ import annotations

import enum
import re

from mailserver.smtp.content import END
from mailserver.smtp.vocabulary import CommandVerb, ReplyCode

__all__ = ["SIGNATURE", "SecretMask"]

LINE_OCTETS = 4096  # of a line whose beginning is remembered
REPLY_OCTETS = 8
# What follows the mechanism, well formed or not (RFC 4954 section 4).
SECRET = re.compile(rb"[ \t]*AUTH[ \t]+[^ \t\r\n]+[ \t]+(?=[^ \t\r\n])", re.I)
AUTH = re.compile(rb"[ \t]*AUTH[ \t]", re.I)
DATA = re.compile(rb"DATA[ \t]*\r?\n", re.I)
# As strict as the server: what it does not obey has no octets behind it.
CHUNK = re.compile(rb"BDAT ([0-9]{1,20})(?: LAST)? {0,200}\r?\n", re.I)
# The server's signature of SCRAM, "v=" in base64: with the rest of the exchange a password can be tried against it, as it can
# against the client's proof (RFC 5802 sections 3 and 9).
SIGNATURE = re.compile(rb"334 (?=dj[0-3])")
NO_END = re.compile(rb"[^\r\n]")
WORD = re.compile(rb"[ \t]*([A-Za-z]*)")
VERBS = frozenset([verb.encode() for verb in CommandVerb])
BEGINNINGS = frozenset([verb[:length] for verb in VERBS for length in range(len(verb) + 1)])


class _Speaks(enum.Enum):
    """What the client's next octets are."""

    LINES = enum.auto()
    RESPONSE = enum.auto()  # of AUTH: the server asks for it
    OUT_OF_TURN = enum.auto()  # after AUTH or a response, without a 235: another response that nobody has asked for, or a command
    AHEAD = enum.auto()  # after DATA, without a 354: content that nobody has asked for, or commands
    CONTENT = enum.auto()
    CHUNK = enum.auto()


class SecretMask:
    """Octets of both sides in, the same number of octets out.  No octets make it raise."""

    def __init__(self) -> None:
        self._speaks = _Speaks.LINES
        self._line = b""  # of the client, as far as it has come
        self._chunk = 0
        self._tail = b"\r\n"  # of the content
        self._has_ended = False  # the content that came ahead of its 354
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
            elif self._speaks is _Speaks.AHEAD:
                end = octets.find(b"\n") + 1 or len(octets)
                taken = octets[:end] if self._has_ended else self._content(octets[:end])
                taken = self._of_line(taken)
            else:
                end = octets.find(b"\n") + 1 or len(octets)
                taken = self._of_line(octets[:end])
            said.append(taken)
            octets = octets[len(taken) :]
        return b"".join(said)

    def server(self, octets: bytes) -> bytes:
        """What the server says, without what a password could be tried against; its replies tell what the client says next."""
        said = []
        for line in _lines(octets):
            before, self._reply = self._reply, (self._reply + line.removesuffix(b"\n"))[:REPLY_OCTETS]
            found = SIGNATURE.match(self._reply)
            shown = len(line) if found is None else max(0, found.end() - len(before))
            said.append(line[:shown] + NO_END.sub(b"*", line[shown:]))
            if line.endswith(b"\n"):
                self._replied(self._reply)
                self._reply = b""
        return b"".join(said)

    def encrypted(self) -> None:
        """TLS has begun: both begin anew (RFC 3207 section 4.2)."""
        self.__init__()  # type: ignore[misc]

    def _replied(self, line: bytes) -> None:
        if line[3:4] == b"-" or not line[:3].isdigit():
            return
        code = int(line[:3])
        if code == ReplyCode.START_CONTENT:
            if self._speaks is not _Speaks.AHEAD:
                self._tail, self._has_ended = b"\r\n", False
            self._speaks = _Speaks.LINES if self._has_ended else _Speaks.CONTENT
        elif code == ReplyCode.AUTH_CHALLENGE:
            self._speaks = _Speaks.RESPONSE
        elif (
            self._speaks is _Speaks.CONTENT  # it has ended as the server sees it, or it was given up
            or (self._speaks in (_Speaks.RESPONSE, _Speaks.OUT_OF_TURN) and code == ReplyCode.AUTH_SUCCEEDED)
            or (self._speaks is _Speaks.AHEAD and code >= 400)
        ):
            self._speaks = _Speaks.LINES
        elif self._speaks is _Speaks.RESPONSE:
            self._speaks = _Speaks.OUT_OF_TURN

    def _content(self, octets: bytes) -> bytes:
        """As much of it as is content, its end included."""
        joined = self._tail + octets
        found = joined.find(END)
        if found < 0:
            self._tail = joined[-len(END) + 1 :]
            return octets
        taken = octets[: found + len(END) - len(self._tail)]
        self._tail = b""
        if self._speaks is _Speaks.AHEAD:
            self._has_ended = True
        else:
            self._speaks, self._line = _Speaks.LINES, b""
        return taken

    def _of_line(self, octets: bytes) -> bytes:
        """A part of one line, or all of it."""
        before, self._line = self._line, (self._line + octets)[:LINE_OCTETS]
        is_whole = octets.endswith(b"\n")
        if self._speaks is _Speaks.RESPONSE or (self._speaks is _Speaks.OUT_OF_TURN and not _may_be_command(self._line)):
            said = NO_END.sub(b"*", octets)
            if is_whole:
                self._speaks, self._line = _Speaks.OUT_OF_TURN, b""
            return said
        found = SECRET.match(self._line)
        shown = len(octets) if found is None else max(0, found.end() - len(before))
        if found is not None and len(before) >= LINE_OCTETS:
            shown = 0
        if is_whole:
            self._obey(self._line)
            self._line = b""
        return octets[:shown] + NO_END.sub(b"*", octets[shown:])

    def _obey(self, line: bytes) -> None:
        """What follows this command."""
        if AUTH.match(line) is not None:
            self._speaks = _Speaks.OUT_OF_TURN
        elif self._speaks is not _Speaks.AHEAD:  # else it may be a line of content
            self._speaks = _Speaks.LINES
            if (chunk := CHUNK.fullmatch(line)) is not None and int(chunk[1]):
                self._speaks, self._chunk = _Speaks.CHUNK, int(chunk[1])
            elif DATA.fullmatch(line) is not None:
                self._speaks, self._tail, self._has_ended = _Speaks.AHEAD, b"\r\n", False


def _lines(octets: bytes) -> list[bytes]:
    """With their ends; the last one may have none."""
    *lines, rest = octets.split(b"\n")
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


def _may_be_command(line: bytes) -> bool:
    """Whether this, perhaps cut, begins with the verb of a command."""
    found = WORD.match(line)
    word, rest = (b"", b"") if found is None else (found[1].upper(), line[found.end() :])
    return word in VERBS and rest[:1] in (b" ", b"\t", b"\r", b"\n") if rest else word in BEGINNINGS
