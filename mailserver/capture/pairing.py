"""Whose a reply is: what awaits one, and replies, as two queues.

Both are in the order in which they were said, so the first of one belongs to the first of the other, unless something was not
captured.  What each side had heard when it said something tells whose is missing then: nobody answers what he has not heard,
and after an answer a client says the next thing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from mailserver.capture.events import CommandReply, Event, ReplyCause
from mailserver.capture.reassembly import PIECE_MEMORY
from mailserver.mail.quick import maker
from mailserver.smtp.vocabulary import CommandVerb, ReplyCode

__all__ = ["Paired", "Pairing", "CapturedReply", "Waiting"]

MOST = 1000  # commands without a reply, replies without a command
# Replies that only one command has: what comes before it in the queue has lost its own.
OWNERS: dict[int, tuple[str, ...]] = {
    ReplyCode.START_CONTENT: (CommandVerb.DATA,),
    ReplyCode.CLOSING: (CommandVerb.QUIT,),
    ReplyCode.AUTH_CHALLENGE: (CommandVerb.AUTH,),
    ReplyCode.AUTH_SUCCEEDED: (CommandVerb.AUTH,),
}
UNKNOWN, RCPT = ReplyCause.UNKNOWN, str(CommandVerb.RCPT)  # looked up once: each reply is compared with them
UNSAID = (ReplyCause.GREETING, UNKNOWN)  # no words of the client
# What a server of LMTP does not say of each recipient.
ONE_FOR_ALL = (
    ReplyCode.SERVICE_UNAVAILABLE,
    ReplyCode.COMMAND_UNRECOGNISED,
    ReplyCode.ARGUMENT_SYNTAX,
    ReplyCode.COMMAND_NOT_IMPLEMENTED,
    ReplyCode.BAD_SEQUENCE,
)
RESETS = frozenset([CommandVerb.MAIL, CommandVerb.RSET, CommandVerb.EHLO, CommandVerb.HELO, CommandVerb.LHLO])


@dataclass(slots=True)
class Waiting:
    """What awaits a reply.

    `place` is the number of the client's octet behind it, `heard` that of the server's octet up to which the client had heard.
    """

    time: int
    cause: ReplyCause
    line: bytes = b""
    verb: str = ""
    place: int = 0
    heard: int = 0
    ends_content: bool = False
    replies: int = 1
    has_one: bool = False


@dataclass(slots=True)
class CapturedReply:
    """A reply; `place` and `heard` as of `Waiting`, the sides exchanged."""

    time: int
    octets: bytes
    place: int
    heard: int
    code: int  # 0 where it has none


class Paired(NamedTuple):
    """What a look at the queues gave: the `reply` that was taken, and what it answers.

    Without a reply: the one that the client's next octets wait for was not captured.
    """

    reply: CapturedReply | None = None
    to: Waiting | None = None


_paired = maker(Paired)


class Pairing:
    """The two queues.

    `recipients` were accepted in the transaction whose replies have come last.  `lost_to` is a place of the server's octets:
    some before it, not paired yet, were not captured; -1: none.
    """

    def __init__(self, *, from_start: bool) -> None:
        self.waiting: deque[Waiting] = deque([Waiting(0, ReplyCause.GREETING)] if from_start else [])
        self.replies: deque[CapturedReply] = deque()
        self.is_lmtp = False
        self.recipients = 0
        self.lost_to = -1
        self._has_paired = False

    @property
    def held_memory(self) -> int:
        """How much memory is taken by what waits, about."""
        count = len(self.waiting) + len(self.replies)
        octets = sum([len(one.line) for one in self.waiting]) + sum([len(one.octets) for one in self.replies])
        return octets + 2 * PIECE_MEMORY * count

    def miss(self, place: int) -> None:
        """The server has said something before this place that was not captured."""
        self.lost_to = place

    def must_give_up(self, heard: int) -> bool:
        """The client goes on after replies that were not captured: what waits will get none."""
        return 0 <= self.lost_to <= heard and not self.replies

    def give_up(self) -> list[CommandReply]:
        """What still awaits a reply has none in the capture."""
        self.lost_to = -1
        lost, self.waiting = self.waiting, deque()
        return [_without_reply(one) for one in lost if one.cause not in UNSAID and not one.has_one]

    @property
    def is_full(self) -> bool:
        """More waits for replies than may."""
        return len(self.waiting) > MOST

    def overflow(self) -> list[CommandReply]:
        """Too much waits for replies: give up what has waited for longest."""
        return [_without_reply(self.waiting.popleft()) for _ in range(len(self.waiting) - MOST)]

    def rest(self) -> list[CommandReply]:
        """Replies that answer nothing that was captured."""
        found = [self._alone(one) for one in self.replies]
        self.replies.clear()
        return found

    def pair(self, events: list[Event], read_to: int, following: int | None, *, is_deciding: bool) -> Paired | None:
        """Give the oldest reply to what it answers; None where that has not been read yet.  What is said goes into `events`.

        `read_to` is the place up to which the client has been read, -1 before its first octet; `following` what the client had
        heard when it said what is read next, None where that is not there (it matters where some are lost); `is_deciding`: its
        meaning waits for a reply.
        """
        reply = self.replies[0]
        if self.lost_to >= 0 and self._give_up_lost(events, reply, following, is_deciding=is_deciding):
            return Paired()
        waiting = self._first(reply) if len(self.waiting) != 1 else self.waiting[0]
        if waiting is None or 0 < reply.place <= waiting.heard:
            # It answers nothing that was captured, or the client had it before what it says next.
            is_early = waiting is None and read_to < reply.heard and len(self.replies) <= MOST
            if is_early and reply.code != ReplyCode.SERVICE_UNAVAILABLE:
                return None  # it has heard more than has been read
            events.append(self._alone(self.replies.popleft()))
            return _paired((reply, None))
        if waiting.cause is UNKNOWN and waiting.has_one and read_to < reply.heard:
            return None
        self.replies.popleft()
        events.append(self._answer(waiting, reply))
        return _paired((reply, waiting))

    def _give_up_lost(
        self, events: list[Event], reply: CapturedReply, following: int | None, *, is_deciding: bool
    ) -> bool:
        """Replies before this one are missing: take away what they answered.  Whether the client's next octets wait for one."""
        owners = OWNERS.get(reply.code, ())
        if any(one.verb in owners for one in self.waiting):
            while self.waiting[0].verb not in owners:
                events.append(_without_reply(self.waiting.popleft()))
            self.lost_to = -1
            return False
        start = reply.place - len(reply.octets)
        must_decide = False
        while self.waiting:
            heard = self.waiting[1].heard if len(self.waiting) > 1 else following
            if heard is None or not self.lost_to <= heard <= start:
                break
            if len(self.waiting) == 1:
                must_decide = is_deciding
                break
            events.append(_without_reply(self.waiting.popleft()))
        if self.waiting and self.waiting[0].heard >= self.lost_to:
            self.lost_to = -1
        return must_decide

    def _first(self, reply: CapturedReply) -> Waiting | None:
        """What this reply answers, as far as the queue knows it."""
        if len(self.waiting) < 2:
            return self.waiting[0] if self.waiting else None
        first, following = self.waiting[0], self.waiting[1]
        if first.cause is ReplyCause.GREETING and reply.code == ReplyCode.OK:
            self.waiting.popleft()  # inside TLS there is none, nor with a client that speaks first
        elif first.cause is ReplyCause.UNKNOWN and first.has_one and following.place <= reply.heard:
            self.waiting.popleft()  # the server had the next command: what was lost before it is answered
        return self.waiting[0]

    def _answer(self, waiting: Waiting, reply: CapturedReply) -> CommandReply:
        code = reply.code
        cause, verb = waiting.cause, waiting.verb
        if waiting.ends_content:
            if not waiting.has_one and self.is_lmtp and code not in ONE_FOR_ALL:
                waiting.replies = max(1, self.recipients)  # RFC 2033 section 4.2
            elif code == ReplyCode.ONE_EACH:
                waiting.replies = self.recipients + 2
        is_first, waiting.has_one = not waiting.has_one, True
        if cause is not UNKNOWN:  # of how many commands? it stays until the next one is answered
            waiting.replies -= 1
            if not waiting.replies:
                self.waiting.popleft()
        if verb == RCPT and code // 100 == 2:
            self.recipients += 1
        elif verb in RESETS:
            self.recipients = 0
        self._has_paired = True
        sent_at = reply.time if cause in UNSAID else waiting.time
        line = (waiting.line or None) if is_first else None
        return CommandReply(sent_at, cause, line, reply.time, reply.octets, verb)

    def _alone(self, reply: CapturedReply) -> CommandReply:
        """A reply to nothing that was captured; the first one may be the greeting."""
        is_greeting = reply.code == ReplyCode.SERVICE_READY and not self._has_paired
        self._has_paired = True
        cause = ReplyCause.GREETING if is_greeting else ReplyCause.NOTHING
        return CommandReply(reply.time, cause, None, reply.time, reply.octets)


def _without_reply(one: Waiting) -> CommandReply:
    return CommandReply(one.time, one.cause, one.line or None, None, None, one.verb)
