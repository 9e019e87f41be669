"""One message from MAIL to its end, and content that is thrown away."""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.mail.reply import Reply
from mailserver.smtp import replies
from mailserver.smtp.events import EndOfData, Event, Mail
from mailserver.smtp.faults import LocalProtocolError
from mailserver.smtp.server.buffer import ReceiveBuffer
from mailserver.smtp.server.data import ChunkReader, DotReader, LineFeedReader
from mailserver.smtp.server.limits import SessionLimits

__all__ = ["ServerTransaction", "ThrowAway"]


class ServerTransaction:
    """What a session knows of a message while it comes in.

    `chunk_octets` are still to come of the current BDAT; `chunk_is_last` says that it ends the message, as the only part of
    DATA does.
    """

    __slots__ = ("chunk_is_last", "chunk_octets", "content", "is_binary", "prdr", "recipients", "smtputf8")

    def __init__(self, mail: Mail) -> None:
        self.smtputf8 = mail.parameters.smtputf8
        self.is_binary = mail.parameters.body == "BINARYMIME"
        self.prdr = mail.parameters.prdr
        self.recipients = 0
        self.content: DotReader | ChunkReader | None = None
        self.chunk_octets = 0
        self.chunk_is_last = True

    @property
    def size(self) -> int:
        """Octets of content so far."""
        return 0 if self.content is None else self.content.size

    @property
    def is_cut_off(self) -> bool:
        """The content is so far past the limit that reading on is not worth it."""
        return self.content is not None and self.content.is_cut_off

    def answers(self, reply: Reply) -> Sequence[Reply]:
        """The same reply for all that end with the message: in LMTP there is one for each recipient (RFC 2033 section 4.2)."""
        return [reply] * self.recipients if self.chunk_is_last else [reply]

    def one_each(self, answers: Sequence[Reply], overall: Reply | None, *, lmtp: bool) -> Sequence[Reply]:
        """What is said where each recipient has an answer; with PRDR 353 goes before, and `overall` follows."""
        if not (lmtp if overall is None else self.prdr and not lmtp):
            raise LocalProtocolError("each recipient has an answer in LMTP, or where MAIL had PRDR")
        if len(answers) != self.recipients:
            raise LocalProtocolError(f"{len(answers)} replies for {self.recipients} recipients")
        if overall is None:
            return answers if self.chunk_is_last else answers[:1]
        return (replies.ONE_EACH, *answers, overall) if self.chunk_is_last else (overall,)

    @property
    def lf_ends_data(self) -> bool:
        """LF.LF would end the data that come in now."""
        return isinstance(self.content, DotReader) and self.content.lf_ends

    def start_data(self, limits: SessionLimits, *, converts: bool, lf_ends: bool) -> None:
        """DATA is let in; `lf_ends`: so far the peer has ended every line with LF alone, and may end the data so."""
        self.content = LineFeedReader(limits) if lf_ends else DotReader(limits, converts=converts)

    def start_chunks(self, limits: SessionLimits, *, converts: bool) -> None:
        """The first BDAT is let in."""
        self.content = ChunkReader(limits, converts=converts, is_binary=self.is_binary)

    def read_data(self, buffer: ReceiveBuffer) -> tuple[bytes, EndOfData | None]:
        """Read what waits of DATA; `buffer` is not exhausted."""
        reader = self.content
        if not isinstance(reader, DotReader):
            raise TypeError("the content does not come with DATA")
        if reader.lf_ends:
            buffer.join()
        content, end = reader.read(buffer.data, buffer.at)
        if end < 0:
            buffer.at = len(buffer.data)
            return content, None
        buffer.at = end
        return content, EndOfData(reader.size, reader.fault, reader.stray_in_header)

    def read_chunk(self, buffer: ReceiveBuffer) -> tuple[bytes, EndOfData | None]:
        """Read what waits of the current BDAT.  A message with a fault ends with the chunk that has it."""
        reader = self.content
        if not isinstance(reader, ChunkReader):
            raise TypeError("the content does not come with BDAT")
        octets = buffer.take(self.chunk_octets)
        self.chunk_octets -= len(octets)
        is_complete = self.chunk_octets == 0
        content = reader.read(octets, is_last=is_complete and self.chunk_is_last)
        if is_complete and (self.chunk_is_last or reader.fault is not None):
            return content, EndOfData(reader.size, reader.fault, reader.stray_in_header)
        return content, None


class ThrowAway:
    """The octets of a refused BDAT: they are read and thrown away before the refusal is said (RFC 3030 section 2).

    `event` tells the caller of the refusal, None where the caller refused it.
    """

    __slots__ = ("_octets", "answers", "event")

    def __init__(self, octets: int, answers: Sequence[Reply], event: Event | None) -> None:
        self._octets = octets
        self.answers = answers
        self.event = event

    def is_done(self, buffer: ReceiveBuffer) -> bool:
        """Throw away what has come; say whether that was all."""
        while self._octets and not buffer.is_exhausted:
            self._octets -= len(buffer.take(self._octets))
        return self._octets == 0
