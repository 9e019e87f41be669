"""A dialogue put together from what both sides said: commands with their replies, content, and where TLS hides the rest.

Pieces come in the order in which they were captured, which is not always that in which they were said.  So both sides are read
as far as they go by themselves; `pairing` brings commands and replies together.  After DATA, AUTH and STARTTLS the client's next
octets are whatever the reply makes of them, and wait for it.  Pieces may be missing: then what is not known is said to be so,
and the reading goes on at the next command.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from mailserver.capture.events import ContentEnd, ContentStretch, Encrypted, Event, NotCaptured, ReplyCause
from mailserver.capture.pairing import RESETS, CapturedReply, Pairing, Waiting
from mailserver.capture.reassembly import PIECE_MEMORY, Gap, Piece
from mailserver.capture.view import COMMAND, SmtpView
from mailserver.smtp.content import END, FIND_LINE_DOT, HELD
from mailserver.smtp.vocabulary import CommandVerb, ReplyCode

__all__ = ["DialogueReader"]

PIECE_OCTETS = 1 << 14  # a larger one is cut: what is left of it is copied for each line
LINE_OCTETS = 1 << 16  # what has no line end by then is taken for a line
REPLY_OCTETS = 1 << 18
WAITING_OCTETS = 1 << 20  # of a client whose reply does not come; then its next line decides
REPLY = re.compile(rb"[2-5][0-9]{2}(?:[ -]|\r?\n|\Z)")
WHOLE_REPLY = re.compile(rb"(?:[2-5][0-9]{2}-[^\n]*\n)*([2-5][0-9]{2})(?: [^\n]*|\r?)\n")  # all lines of one that is in order
TLS_HANDSHAKE = b"\x16\x03"
# Looked up once: each line is compared with them.
DATA, STARTTLS, AUTH, BDAT, LHLO = [
    str(one) for one in (CommandVerb.DATA, CommandVerb.STARTTLS, CommandVerb.AUTH, CommandVerb.BDAT, CommandVerb.LHLO)
]
VERBS = {way(one.encode()): str(one) for one in CommandVerb for way in (bytes.upper, bytes.lower)}  # as nearly all write them
GOES_ON = {CommandVerb.MAIL, CommandVerb.RSET, CommandVerb.QUIT, CommandVerb.EHLO, CommandVerb.NOOP, CommandVerb.HELO}


class _State(enum.Enum):
    """What the client's next octets are."""

    COMMANDS = enum.auto()
    WAITING = enum.auto()  # for the reply to DATA, AUTH, STARTTLS
    RESPONSE = enum.auto()  # one line of AUTH
    DATA = enum.auto()
    CHUNK = enum.auto()
    ENCRYPTED = enum.auto()


START_CONTENT = int(ReplyCode.START_CONTENT)
COMMANDS, WAITING, CONTENT, ENCRYPTED = _State.COMMANDS, _State.WAITING, _State.DATA, _State.ENCRYPTED


class DialogueReader:
    """Pieces of both sides in, events out.  No octets make it raise.

    `is_lmtp`: the client has said LHLO.
    """

    def __init__(self, *, from_start: bool) -> None:
        self._state = _State.COMMANDS
        self._pairing = Pairing(from_start=from_start)
        self.is_lmtp = False
        self._client: deque[Piece | Gap] = deque()  # still to be read
        self._client_octets = 0
        self._read_to = -1  # of the client's octets; -1 before the first
        self._line = b""
        self._is_after_gap = not from_start  # up to the first line that is a command
        # Up to a line with a verb.  What comes before it is a secret, also where nobody is known to have asked for it: the 334
        # was not captured, or the client says it all in one go and AUTH is refused.
        self._is_after_auth = False
        self._chunk = 0
        self._is_last_chunk = False
        self._content: list[int] | None = None  # when it began, its size, whether it has no gap
        self._tail = b""  # of the content: what may be the beginning of its end
        self._is_end_ahead = False
        self._server = b""
        self._reply: list[bytes] = []
        self._reply_octets = 0

    @property
    def held_memory(self) -> int:
        """How much memory is taken by what waits for something, about."""
        held = len(self._line) + len(self._server) + self._reply_octets
        pairing = self._pairing
        if len(pairing.waiting) + len(pairing.replies) > 1:  # the one of an ordinary dialogue costs no look
            held += pairing.held_memory
        return held + self._client_octets + PIECE_MEMORY * len(self._client) if self._client else held

    # --- in ---

    def client(self, pieces: Sequence[Piece | Gap]) -> list[Event]:
        """The client said this, or something that was not captured."""
        if self._state is ENCRYPTED:
            return []
        events: list[Event] = []
        if self._is_next(pieces):
            (piece,) = pieces
            self._read_piece(piece, events)  # type: ignore[arg-type]
            if self._client or self._pairing.replies or self._pairing.is_full:
                self._go_on(events)
            return events
        heard = -1
        for piece in pieces:
            if isinstance(piece, Gap):
                self._client.append(piece)
                continue
            heard = max(heard, piece.heard)
            self._client_octets += len(piece.octets)
            if len(piece.octets) <= PIECE_OCTETS:
                self._client.append(piece)
            else:
                self._client.extend(_cut(piece))
        if self._pairing.lost_to >= 0 and self._pairing.must_give_up(heard):
            events += self._decide() if self._state is WAITING else self._pairing.give_up()
        self._go_on(events)
        while self._state is WAITING and self._client_octets + PIECE_MEMORY * len(self._client) > WAITING_OCTETS:
            events += self._decide()
        return events

    def _is_next(self, pieces: Sequence[Piece | Gap]) -> bool:
        """Nothing waits, and nothing is missing: this is read next, as nearly always."""
        pairing = self._pairing
        return (
            len(pieces) == 1
            and not self._client
            and not pairing.replies
            and pairing.lost_to < 0
            and self._state is not WAITING
            and isinstance(pieces[0], Piece)
            and len(pieces[0].octets) <= PIECE_OCTETS
        )

    def server(self, pieces: Sequence[Piece | Gap]) -> list[Event]:
        """The server said this, or something that was not captured."""
        if self._state is ENCRYPTED:
            return []
        events: list[Event] = []
        for piece in pieces:
            if isinstance(piece, Gap):
                events.append(NotCaptured(piece.time, False, piece.missing))
                self._server, self._reply, self._reply_octets = b"", [], 0
                self._pairing.miss(piece.place)
            else:
                self._read_replies(piece)
            self._go_on(events)
        return events

    def hurry(self) -> list[Event]:
        """Let nothing wait any longer: replies that have not come so far are taken for lost."""
        events: list[Event] = []
        while self._client and self._state is _State.WAITING:
            events += self._decide()
        if self._state is not _State.ENCRYPTED:
            events += self._unfinished(self._client[0].time if self._client else 0)
            events += self._pairing.give_up() + self._pairing.rest()
        return events

    def end(self, time: int) -> list[Event]:
        """Neither side says any more."""
        events: list[Event] = []
        while self._client and self._state is not _State.ENCRYPTED:
            before = len(self._client), self._client_octets, self._state
            if self._state is _State.WAITING:
                events += self._decide()
            else:
                self._go_on(events)
            if (len(self._client), self._client_octets, self._state) == before:
                break
        if self._state is _State.ENCRYPTED:
            return events
        events += self._unfinished(time)
        return events + self._close_content(time, is_whole=False) + self._pairing.give_up() + self._pairing.rest()

    def _unfinished(self, time: int) -> list[Event]:
        """Lines whose ends are not there, of both sides: take them as they are."""
        events: list[Event] = []
        if rest := b"".join([*self._reply, self._server]):
            self._server, self._reply, self._reply_octets = b"", [], 0
            self._pairing.replies.append(CapturedReply(time, rest, 0, 0, SmtpView(rest).reply_code or 0))
            self._go_on(events)
        if self._state is _State.COMMANDS and self._line:
            verb = SmtpView(self._line).command or ""
            cause = ReplyCause.COMMAND
            if verb not in CommandVerb.__members__ and self._is_after_auth:
                cause, verb = ReplyCause.RESPONSE, AUTH
            if verb in CommandVerb.__members__ or not self._is_after_gap:
                self._pairing.waiting.append(Waiting(time, cause, self._line, verb, self._read_to))
            self._line, self._is_after_gap = b"", True
        return events

    # --- both sides ---

    def _go_on(self, events: list[Event]) -> None:
        """Pair and read until one side has to wait for more."""
        pairing, client = self._pairing, self._client
        while self._state is not ENCRYPTED:
            if pairing.replies and self._pair(events):
                continue
            if not client or self._state is WAITING:
                break
            piece = client.popleft()
            if isinstance(piece, Gap):
                self._read_to = piece.place
                events.append(NotCaptured(piece.time, True, piece.missing))
                events += self._miss(piece)
            else:
                self._client_octets -= len(piece.octets)
                self._read_piece(piece, events)
        if pairing.is_full:
            events += pairing.overflow()

    def _read_piece(self, piece: Piece, events: list[Event]) -> None:
        """Read what the client has said; what is not read stays the next."""
        self._read_to = piece.place
        rest = self._read(piece, events)
        if rest:
            self._client.appendleft(Piece(piece.time, rest, piece.place, piece.heard))
            self._client_octets += len(rest)
            self._read_to -= len(rest)

    def _read(self, piece: Piece, events: list[Event]) -> bytes:
        """Read what the client has said; return what is something else, or has to wait until replies have been paired."""
        if self._state is COMMANDS:
            return self._read_lines(piece, events)
        if self._state is CONTENT:
            return self._read_data(piece, events)
        if self._state is _State.RESPONSE:
            return self._read_response(piece)
        return self._read_chunk(piece, events)

    def _pair(self, events: list[Event]) -> bool:
        """Give the oldest reply to what it answers; False where that has not been read yet."""
        pairing = self._pairing
        if not pairing.waiting and self._has_lost_its_end():
            time = pairing.replies[0].time
            events += self._close_content(time, is_whole=False)
            pairing.waiting.append(Waiting(time, ReplyCause.CONTENT, ends_content=True))
            self._state, self._is_after_gap, self._line = _State.COMMANDS, True, b""
        heard = None
        if pairing.lost_to >= 0 and self._client and isinstance(following := self._client[0], Piece):
            heard = following.heard
        found = pairing.pair(events, self._read_to, heard, is_deciding=self._state is WAITING)
        if found is None:
            return False
        if found.reply is None:
            events += self._decide()
        elif self._state is WAITING or found.reply.code == START_CONTENT:
            self._answered(found.to, found.reply, events)
        return True

    def _answered(self, to: Waiting | None, reply: CapturedReply, events: list[Event]) -> None:
        """What a reply means for what the client says next."""
        code = reply.code
        if code == ReplyCode.START_CONTENT and self._state is _State.COMMANDS and (to is None or to.cause is ReplyCause.UNKNOWN):
            self._start_data(reply.time)
            assert self._content is not None
            self._content[2] = to is None or to.place <= reply.heard  # else what is missing goes on into the content
        if self._state is not _State.WAITING or self._pairing.waiting or to is None:
            return
        if to.verb == CommandVerb.DATA and code == ReplyCode.START_CONTENT:
            self._start_data(reply.time)
        elif to.verb == CommandVerb.AUTH and code == ReplyCode.AUTH_CHALLENGE:
            self._state = _State.RESPONSE
        elif to.verb == CommandVerb.STARTTLS and code == ReplyCode.SERVICE_READY:
            self._hide(reply.time, events)
        else:
            self._state = _State.COMMANDS

    def _decide(self) -> list[Event]:
        """The reply that says what the client's octets are does not come: let them say it."""
        verb = self._pairing.waiting[-1].verb if self._pairing.waiting else ""
        octets = b"".join([one.octets for one in islice(self._client, 8) if isinstance(one, Piece)])[:1000]
        events: list[Event] = [*self._pairing.give_up()]
        time = self._client[0].time if self._client else 0
        if verb == CommandVerb.STARTTLS and octets.startswith(TLS_HANDSHAKE):
            self._hide(time, events)
        elif verb == CommandVerb.DATA and SmtpView(octets).command not in GOES_ON:
            self._start_data(time)
        elif verb == CommandVerb.AUTH and SmtpView(octets).command not in GOES_ON:
            self._state = _State.RESPONSE
        else:
            self._state = _State.COMMANDS
        self._go_on(events)
        return events

    def _hide(self, time: int, events: list[Event]) -> None:
        self._state = _State.ENCRYPTED
        self._client.clear()
        self._client_octets = 0
        self._pairing.replies.clear()
        events.append(Encrypted(time))

    # --- the server's side ---

    def _read_replies(self, piece: Piece) -> None:
        octets, at, replies = self._server + piece.octets, 0, self._pairing.replies
        if self._server and len(octets) <= LINE_OCTETS and b"\n" not in piece.octets:
            self._server = octets  # not looked through again for each octet that a slow server says
            return
        while not self._reply and (found := WHOLE_REPLY.match(octets, at)) is not None and found.end() - at <= REPLY_OCTETS:
            whole, at = found[0], found.end()
            replies.append(CapturedReply(piece.time, whole, piece.place - len(octets) + at, piece.heard, int(found[1])))
        if at == len(octets):
            self._server = b""
            return
        # Whatever else there is: line by line.
        *lines, self._server = octets[at:].split(b"\n")
        if len(self._server) > LINE_OCTETS:
            lines, self._server = [*lines, self._server], b""
        behind = sum([len(line) + 1 for line in lines]) + len(self._server)
        for line in lines:
            behind -= len(line) + 1
            line += b"\n"
            self._reply.append(line)
            self._reply_octets += len(line)
            is_reply = REPLY.match(line) is not None
            if not is_reply or line[3:4] != b"-" or self._reply_octets > REPLY_OCTETS:
                code = int(line[:3]) if is_reply else 0
                replies.append(CapturedReply(piece.time, b"".join(self._reply), piece.place - behind, piece.heard, code))
                self._reply, self._reply_octets = [], 0

    # --- the client's side ---

    def _miss(self, gap: Gap) -> list[Event]:
        """Octets of the client are missing here."""
        events: list[Event] = []
        if self._content is not None:
            self._hand_on_tail(gap.time, events)
            self._content[1:] = [max(0, self._content[1]), False]
        if self._state is _State.DATA:
            return events
        if self._state is _State.CHUNK and gap.missing < self._chunk:
            self._chunk -= gap.missing
            return events
        is_end = self._state is _State.CHUNK and self._is_last_chunk
        self._state, self._line, self._is_after_gap = _State.COMMANDS, b"", True
        self._pairing.waiting.append(Waiting(gap.time, ReplyCause.UNKNOWN, place=gap.place))
        return events + self._close_content(gap.time, is_whole=False) if is_end else events

    def _read_lines(self, piece: Piece, events: list[Event]) -> bytes:
        """Read commands; return what follows the last one, where it is something else or replies wait."""
        octets, at = self._line + piece.octets, 0
        self._line = b""
        while self._state is COMMANDS and at < len(octets):
            end = octets.find(b"\n", at) + 1
            if not end:
                if len(octets) - at <= LINE_OCTETS:
                    self._line = octets[at:]
                    return b""
                end = at + LINE_OCTETS
            self._read_line(piece, octets[at:end], piece.place - len(octets) + end, events)
            at = end
            if self._pairing.replies:
                break
        return octets[at:]

    def _read_line(self, piece: Piece, line: bytes, place: int, events: list[Event]) -> None:
        """Read one command; `place` is the number of the octet behind it."""
        found = COMMAND.match(line)
        verb = "" if found is None else VERBS.get(found[1]) or found[1].decode("ascii").upper()
        if self._is_after_gap:
            if verb not in CommandVerb.__members__:
                return  # the end of what was lost, of content, of AUTH
            self._is_after_gap = False
        if self._is_after_auth:
            if verb not in CommandVerb.__members__:
                self._pairing.waiting.append(Waiting(piece.time, ReplyCause.RESPONSE, line, AUTH, place, piece.heard))
                return
            self._is_after_auth = False
        waiting = Waiting(piece.time, ReplyCause.COMMAND, line, verb, place, piece.heard)
        self._pairing.waiting.append(waiting)
        if found is None:
            return
        if verb == AUTH or (verb in (DATA, STARTTLS) and not line[found.end() :].strip()):
            self._state, self._is_after_auth = WAITING, verb == AUTH
        elif verb == BDAT and (view := SmtpView(line)).chunk_size is not None:
            self._chunk, self._is_last_chunk = view.chunk_size, bool(view.is_last_chunk)
            waiting.ends_content = self._is_last_chunk
            if self._content is None:
                self._content = [piece.time, 0, True]
            self._state = _State.CHUNK
            if not self._chunk:
                events += self._end_chunk(piece.time)
        elif verb in RESETS:
            if verb == LHLO:
                self._pairing.is_lmtp = self.is_lmtp = True
            events += self._close_content(piece.time, is_whole=False)

    def _read_response(self, piece: Piece) -> bytes:
        """Read one line of AUTH, which is a secret."""
        octets = self._line + piece.octets
        end = octets.find(b"\n") + 1
        if not end and len(octets) <= LINE_OCTETS:
            self._line = octets
            return b""
        end = end or LINE_OCTETS
        self._line = b""
        place = piece.place - len(octets) + end
        self._pairing.waiting.append(Waiting(piece.time, ReplyCause.RESPONSE, octets[:end], CommandVerb.AUTH, place, piece.heard))
        self._state = _State.WAITING
        return octets[end:]

    def _start_data(self, time: int) -> None:
        self._state = _State.DATA
        self._tail = b"\r\n"  # a dot may be the first octet
        self._content = [time, -2, True]

    def _read_data(self, piece: Piece, events: list[Event]) -> bytes:
        """Read content up to CRLF.CRLF, which is not part of it but for its first CRLF; return what follows."""
        assert self._content is not None
        octets = self._tail + piece.octets
        stretches, at, rest, is_end = [], 0, b"", False
        while True:
            found = FIND_LINE_DOT.search(octets, at)
            if found is None:
                held = HELD.search(octets, max(at, len(octets) - len(END)))
                end = len(octets) if held is None else held.start()
                stretches.append(octets[at:end])
                self._tail = octets[end:]
                break
            dot = found.end() - 1
            if octets.startswith(b"\r\n", dot + 1):
                stretches.append(octets[at:dot])
                rest, is_end, self._tail = octets[dot + 3 :], True, b""
                break
            if dot + 1 == len(octets) or octets[dot + 1 :] == b"\r":  # perhaps the end
                stretches.append(octets[at : found.start()])
                self._tail = octets[found.start() :]
                break
            stretches.append(octets[at:dot])
            at = dot + 1
        self._hand_on(piece.time, b"".join(stretches), events)
        if is_end:
            self._state = _State.COMMANDS
            events += self._close_content(piece.time, is_whole=True)
            place = piece.place - len(rest)
            waiting = Waiting(piece.time, ReplyCause.CONTENT, place=place, heard=piece.heard, ends_content=True)
            self._pairing.waiting.append(waiting)
        return rest

    def _hand_on(self, time: int, octets: bytes, events: list[Event]) -> None:
        """A stretch of content; the CRLF that `_start_data` put before it is none of it."""
        assert self._content is not None
        before, self._content[1] = self._content[1], self._content[1] + len(octets)
        octets = octets[max(0, -before) :] if before < 0 else octets
        if octets:
            events.append(ContentStretch(time, octets))

    def _hand_on_tail(self, time: int, events: list[Event]) -> None:
        """What might have been the beginning of the end is content, but for its dot."""
        tail, self._tail = self._tail.partition(b".")[0], b""
        if tail:
            self._hand_on(time, tail, events)

    def _has_lost_its_end(self) -> bool:
        """The server answers to content with a gap: where its end is not among what is to be read, it was in there."""
        if self._state is not _State.DATA or self._content is None or self._content[2]:
            return False
        if not self._is_end_ahead:  # looked for once: a long content would be searched for each piece
            octets = self._tail + b"".join([one.octets for one in self._client if isinstance(one, Piece)])
            self._is_end_ahead = END in octets
        return not self._is_end_ahead

    def _read_chunk(self, piece: Piece, events: list[Event]) -> bytes:
        """Read what BDAT has announced; return what follows."""
        octets, rest = piece.octets[: self._chunk], piece.octets[self._chunk :]
        self._chunk -= len(octets)
        self._hand_on(piece.time, octets, events)
        if not self._chunk:
            events += self._end_chunk(piece.time)
        return rest

    def _end_chunk(self, time: int) -> list[Event]:
        self._state = _State.COMMANDS
        return self._close_content(time, is_whole=True) if self._is_last_chunk else []

    def _close_content(self, time: int, *, is_whole: bool) -> list[Event]:
        if self._content is None:
            return []
        events: list[Event] = []
        self._hand_on_tail(time, events)
        (began, size, has_all), self._content = self._content, None
        self._is_end_ahead = False
        return [*events, ContentEnd(time, began, max(0, size), bool(is_whole and has_all))]


def _cut(piece: Piece) -> Iterator[Piece]:
    size = len(piece.octets)
    for at in range(0, size, PIECE_OCTETS):
        octets = piece.octets[at : at + PIECE_OCTETS]
        yield piece._replace(octets=octets, place=piece.place - size + at + len(octets))
