"""The dialogue with a milter, as the MTA holds it, without I/O: octets of answers in, octets of commands out.

`MOVES` has which command may follow which.  One command waits for its answer at a time; what a milter says when nobody has
asked it is a fault, as are answers that belong elsewhere, and after a fault nothing more may be said.

A milter may leave steps out (`Omits.NO_…`): nothing is said then, and it counts as "go on".  So it is where it will not answer
(`Omits.NR_…`): the command goes out, and nobody waits.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NoReturn

from mailserver.filters.milter_answers import (
    Accepted,
    Agreement,
    Answer,
    BodyPart,
    Change,
    Continued,
    Declined,
    Skipped,
    StillWorking,
    read_answer,
    read_offer,
)
from mailserver.filters.milter_wire import (
    OLDEST_VERSION,
    VERSION,
    Actions,
    Frames,
    MilterFault,
    MilterStep,
    Omits,
    frame,
    texts,
)

__all__ = ["MACRO_STAGES", "MOVES", "MilterDialogue", "Position"]

CHANGES_MOST = 1000  # what one message may have changed, as with every modifier; pieces of a body do not count
CHANGES_OCTETS_MOST = 1_048_576  # of all of them, without the body


class Position(enum.Enum):
    """How far it is."""

    NEW = "nothing is agreed upon"
    OFFERED = "the offer is out"
    READY = "no peer is there"
    CONNECTED = "a peer is there"
    GREETED = "it has said its name"
    MAIL = "a message has a sender"
    RCPT = "it has been given a recipient"
    DATA = "its data begin"
    HEADER = "fields are under way"
    TEXT = "the header section is over"
    OVER = "the message has had its last answer"
    BROKEN = "something was wrong"


P = Position
MOVES: Mapping[MilterStep, Mapping[Position, Position]] = MappingProxyType(
    {
        MilterStep.CONNECT: {P.READY: P.CONNECTED},
        MilterStep.HELO: {P.CONNECTED: P.GREETED, P.GREETED: P.GREETED},
        MilterStep.MAIL: {P.CONNECTED: P.MAIL, P.GREETED: P.MAIL},
        MilterStep.RCPT: {P.MAIL: P.RCPT, P.RCPT: P.RCPT},
        MilterStep.DATA: {P.MAIL: P.DATA, P.RCPT: P.DATA},
        MilterStep.HEADER: {P.DATA: P.HEADER, P.HEADER: P.HEADER},
        MilterStep.END_OF_HEADER: {P.DATA: P.TEXT, P.HEADER: P.TEXT},
        MilterStep.BODY: {P.TEXT: P.TEXT},
        MilterStep.END: {P.TEXT: P.OVER},
    }
)
IN_A_MESSAGE = frozenset({P.MAIL, P.RCPT, P.DATA, P.HEADER, P.TEXT, P.OVER})
WITH_A_PEER = frozenset({P.CONNECTED, P.GREETED}) | IN_A_MESSAGE
NOT_WANTED: Mapping[MilterStep, Omits] = MappingProxyType(
    {
        MilterStep.CONNECT: Omits.NO_CONNECT,
        MilterStep.HELO: Omits.NO_HELO,
        MilterStep.MAIL: Omits.NO_MAIL,
        MilterStep.RCPT: Omits.NO_RCPT,
        MilterStep.DATA: Omits.NO_DATA,
        MilterStep.HEADER: Omits.NO_HEADER,
        MilterStep.END_OF_HEADER: Omits.NO_END_OF_HEADER,
        MilterStep.BODY: Omits.NO_BODY,
    }
)
NOT_ANSWERED: Mapping[MilterStep, Omits] = MappingProxyType(
    {
        MilterStep.CONNECT: Omits.NR_CONNECT,
        MilterStep.HELO: Omits.NR_HELO,
        MilterStep.MAIL: Omits.NR_MAIL,
        MilterStep.RCPT: Omits.NR_RCPT,
        MilterStep.DATA: Omits.NR_DATA,
        MilterStep.HEADER: Omits.NR_HEADER,
        MilterStep.END_OF_HEADER: Omits.NR_END_OF_HEADER,
        MilterStep.BODY: Omits.NR_BODY,
    }
)
# The numbers of the stages at which a milter may name its macros (SMFIM_…).  Fields and pieces of the body have none.
MACRO_STAGES: Mapping[MilterStep, int] = MappingProxyType(
    {
        MilterStep.CONNECT: 0,
        MilterStep.HELO: 1,
        MilterStep.MAIL: 2,
        MilterStep.RCPT: 3,
        MilterStep.DATA: 4,
        MilterStep.END: 5,
        MilterStep.END_OF_HEADER: 6,
    }
)
WITH_DATA = 4  # the first version that has the command
WITH_ANOTHER_PEER = 6
NOTHING_CHOSEN = Agreement(0, 0, 0, MappingProxyType({}))


class MilterDialogue:
    """One connection's.  Raises `MilterFault` for what the milter does wrong, RuntimeError for what we do."""

    __slots__ = ("_change_octets", "_changes", "_frames", "_skipped", "awaits", "offer", "position")

    def __init__(self) -> None:
        self._frames = Frames()
        self.position = Position.NEW
        self.awaits: MilterStep | None = None  # whose answer is waited for; amid the offer it is None
        self.offer = NOTHING_CHOSEN
        self._skipped: set[MilterStep] = set()
        self._changes = self._change_octets = 0

    # --- commands ---

    def begin(self) -> bytes:
        """Agreement all that there is."""
        if self.position is not Position.NEW:
            raise RuntimeError("the offer is out already")
        self.position = Position.OFFERED
        return frame(b"O", struct.pack("!III", VERSION, Actions.ALL, Omits.OFFERED))

    def macros(self, step: MilterStep) -> tuple[str, ...] | None:
        """The names that the milter has asked for at this step; None where it has not said any."""
        return self.offer.macros.get(MACRO_STAGES.get(step, -1))

    def wants(self, step: MilterStep) -> bool:
        """It is to be told."""
        if step is MilterStep.DATA and self.offer.version < WITH_DATA:
            return False
        return step not in self._skipped and not self.offer.omits & NOT_WANTED.get(step, 0)

    @property
    def keeps_leading_space(self) -> bool:
        """Values of fields come and go with the blanks after the colon."""
        return bool(self.offer.omits & Omits.LEADING_SPACE)

    @property
    def is_in_message(self) -> bool:
        """A message is under way, or its last answer was given: the next one begins after `abort`, or at `CONNECT`."""
        return self.position in IN_A_MESSAGE

    def say(self, step: MilterStep, data: bytes = b"", macros: Mapping[str, str] | None = None) -> bytes:
        """The octets of a command, b"" where it is left out; `awaits` says afterwards whether there will be an answer."""
        if self.awaits is not None:
            raise RuntimeError(f"{step.name} while {self.awaits.name} has no answer")
        if self.position is Position.OVER and step is MilterStep.MAIL:
            self.position = Position.GREETED
        if self.position not in MOVES[step]:
            raise RuntimeError(f"{step.name} where {self.position.value}")
        self.position = MOVES[step][self.position]
        if step is MilterStep.MAIL:
            self._skipped.clear()
            self._changes = self._change_octets = 0
        if not self.wants(step):
            return b""
        octets = b""
        if macros is not None:
            pairs = [part for pair in macros.items() for part in pair]
            octets = frame(b"D", step.value + texts(pairs))
        if not self.offer.omits & NOT_ANSWERED.get(step, 0):
            self.awaits = step
        return octets + frame(step.value, data)

    def abort(self) -> bytes:
        """Nothing comes of the message; b"" where there is none.  Nobody answers."""
        if not self.is_in_message:
            return b""
        if self.awaits is not None:
            raise RuntimeError(f"abort while {self.awaits.name} has no answer")
        self.position = Position.GREETED
        return frame(b"A")

    @property
    def takes_another(self) -> bool:
        """When this peer has gone, another one may come on the same connection."""
        return self.offer.version >= WITH_ANOTHER_PEER and self.awaits is None and self.position in WITH_A_PEER

    def release(self) -> bytes:
        """The peer is gone; another one may come.  Nobody answers."""
        if self.awaits is not None or self.position not in WITH_A_PEER:
            raise RuntimeError(f"no peer is there to go: {self.position.value}")
        octets = self.abort() + frame(b"K")
        self.position = Position.READY
        return octets

    def quit(self) -> bytes:
        """The last word; b"" after a fault."""
        if self.position in (Position.NEW, Position.BROKEN):
            return b""
        octets = self.abort() if self.awaits is None else b""
        self.position = Position.BROKEN
        return octets + frame(b"Q")

    # --- answers ---

    @property
    def buffered(self) -> int:
        """So many octets have not been looked at."""
        return len(self._frames)

    def receive(self, octets: bytes) -> None:
        """Some of what the milter says.  Nothing is looked at before `next_event`; raises where nobody has asked it."""
        if self.awaits is None and self.position is not Position.OFFERED:
            self._break("it speaks when nobody has asked it")
        self._frames.add(octets)

    def next_event(self) -> Agreement | Answer | StillWorking | Change | None:
        """What it has said next; None where that is not whole yet."""
        try:
            found = self._frames.next()
            if found is None:
                return None
            return self._read(*found)
        except MilterFault as fault:
            self._break(str(fault))

    def _break(self, why: str) -> NoReturn:
        self.position, self.awaits = Position.BROKEN, None
        raise MilterFault(why)

    def _read(self, letter: bytes, data: bytes) -> Agreement | Answer | StillWorking | Change:
        step = self.awaits
        if self.position is Position.OFFERED:
            return self._agree(letter, data)
        if step is None:
            raise MilterFault("it speaks when nobody has asked it")
        event = read_answer(step, letter, data)
        if isinstance(event, Change):
            if not isinstance(event, BodyPart):
                self._changes += 1
                self._change_octets += len(data)
                if self._changes > CHANGES_MOST or self._change_octets > CHANGES_OCTETS_MOST:
                    raise MilterFault(f"more than {CHANGES_MOST} changes, or {CHANGES_OCTETS_MOST} octets of them")
            return event
        if isinstance(event, StillWorking):
            return event
        self.awaits = None
        if len(self._frames):
            raise MilterFault("it says more than it was asked")
        if isinstance(event, Skipped):
            self._skipped.add(step)
        elif not isinstance(event, Continued) and not (step is MilterStep.RCPT and isinstance(event, Declined)):
            self._end_of(step, event)
        return event

    def _end_of(self, step: MilterStep, event: Answer) -> None:
        """Declined or accepted: of the message, or of the connection, there is nothing more to say."""
        if step not in (MilterStep.CONNECT, MilterStep.HELO):
            self.position = Position.OVER
        elif isinstance(event, Accepted):
            self.position = Position.GREETED

    def _agree(self, letter: bytes, data: bytes) -> Agreement:
        if letter != b"O":
            raise MilterFault(f"the answer {letter!r} to the offer")
        offer = read_offer(data)
        if not OLDEST_VERSION <= offer.version <= VERSION:
            raise MilterFault(f"version {offer.version} of the protocol")
        if offer.actions & ~int(Actions.ALL) or offer.omits & ~int(Omits.OFFERED):  # int: ~ knows no flags but those with names
            raise MilterFault(f"it chooses what was not offered: {offer.actions:#x}, {offer.omits:#x}")
        if len(self._frames):
            raise MilterFault("it says more than it was asked")
        self.position, self.offer = Position.READY, offer
        return offer
