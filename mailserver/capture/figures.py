"""Figures of a capture: how often each reply was given, how long each phase waited for its reply, what TCP had to repeat."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from mailserver.capture.events import CommandReply, ContentEnd, Encrypted, Event, ReplyCause
from mailserver.capture.session import Session
from mailserver.smtp.vocabulary import CommandVerb

__all__ = ["Figures", "Latency"]

SAMPLE = 10_000  # times of a phase that are kept: of more, as many at random
CODES = 1000
OTHER = "other"


class Latency(NamedTuple):
    """How long a phase waited for its reply, in seconds."""

    replies: int
    median: float
    ninth: float  # nine of ten were as quick
    longest: float


@dataclass(slots=True)
class _Times:
    count: int = 0
    longest: int = 0
    sample: list[int] = field(default_factory=list)

    def add(self, nanoseconds: int, chance: random.Random) -> None:
        self.count += 1
        self.longest = max(self.longest, nanoseconds)
        if len(self.sample) < SAMPLE:
            self.sample.append(nanoseconds)
        elif (at := chance.randrange(self.count)) < SAMPLE:
            self.sample[at] = nanoseconds


class Figures:
    """Sums over sessions.  `replies` counts by code; a code of no reply is 0.

    `left_out` events are in no sum: whoever holds events back has had no room for them.
    """

    def __init__(self) -> None:
        self.sessions = 0
        self.encrypted = 0
        self.messages = 0
        self.content_octets = 0
        self.without_reply = 0
        self.octets = 0
        self.retransmitted = 0
        self.out_of_order = 0
        self.lost = 0
        self.left_out = 0
        self.endings: Counter[str] = Counter()
        self.replies: Counter[int] = Counter()
        self._times: dict[str, _Times] = {}
        self._chance = random.Random(0)  # the same capture has the same figures

    def add(self, session: Session, event: Event) -> None:
        """Take an event of a session."""
        match event:
            case CommandReply():
                self._exchange(session, event)
            case ContentEnd():
                self.messages += 1
                self.content_octets += event.size
            case Encrypted():
                self.encrypted += 1
            case _:
                pass

    def end(self, session: Session) -> None:
        """A session has ended."""
        self.sessions += 1
        self.octets += session.client_octets + session.server_octets
        self.retransmitted += session.retransmitted
        self.out_of_order += session.out_of_order
        self.lost += session.lost
        self.endings[str(session.ending)] += 1

    def latencies(self) -> dict[str, Latency]:
        """How long each phase waited: the greeting, each verb, the content; in the order in which a dialogue has them."""
        verbs = [str(one) for one in CommandVerb if one is not CommandVerb.QUIT]
        order = ["greeting", *verbs, "response", "content", str(CommandVerb.QUIT), OTHER]
        found = {}
        for phase in sorted(self._times, key=order.index):
            times = self._times[phase]
            sample = sorted(times.sample)
            places = [sample[int(part * (len(sample) - 1))] / 1e9 for part in (0.5, 0.9)]
            found[phase] = Latency(times.count, places[0], places[1], times.longest / 1e9)
        return found

    def _exchange(self, session: Session, event: CommandReply) -> None:
        if event.reply is None or event.replied is None:
            self.without_reply += 1
            return
        code = int(event.reply[:3]) if event.reply[:3].isdigit() else 0
        if code in self.replies or len(self.replies) < CODES:
            self.replies[code] += 1
        began = event.time
        if event.cause is ReplyCause.GREETING:
            if not session.has_start:
                return
            began = session.started
        elif event.cause in (ReplyCause.UNKNOWN, ReplyCause.NOTHING):
            return
        elif event.cause is ReplyCause.COMMAND and event.command is None:
            return  # a further reply to the same command
        phase = event.cause.value
        if event.cause is ReplyCause.COMMAND:
            phase = event.verb if event.verb in CommandVerb.__members__ else OTHER
        self._times.setdefault(phase, _Times()).add(max(0, event.replied - began), self._chance)
