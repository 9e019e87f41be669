"""A message in memory, and what of it is on its way.

Memory and store both know something of a message, and neither knows all.  The store knows the message and the attempts that
have been written.  Memory knows what is under way, and what has happened and is not written yet.  A read runs in a thread and
its answer may be old when it comes.  So whoever takes a destination from the store first asks the masks here: a destination
whose bit is in `not_to_be_taken` is in somebody's hands already.

Each mask has a bit for each destination index.  What each one guards against:

`open` (not done for good).  A message goes to a mailbox here and to another host.  Two active queues deliver it, and each flush
ends one destination.  When the second ends, the attempt for the first may not be in the store yet, so the store cannot tell that
nothing is left to do.  `open` can: whoever clears the last bit settles the message.  The runner forgets it then, and
`OutcomeWriter.settling` has its number until the store has forgotten it, too.  A destination whose bit is gone is not taken
again, however old the read that shows it as untried.

`active` (waits in an active queue, is under way, or is delivered and not flushed).  The retry timer may find an entry more than
once, a person may ask for a retry, the recovery and the backlog may both name it: the store shows the destination as due all the
while.  Its bit in `active` says that it is in memory once; it is not taken in twice.  It goes when the attempt has its outcome,
not when the call ends: a delivery that has said "delivered" may still fail its flush.

`unwritten` (its last attempt has an outcome that the store has not got yet).  The destination is neither active nor recorded: a
read in this moment finds the attempt before, which is due, or none at all.  Without the bit it would be tried again at once,
again and again while a disk is full; and a delivery whose sender wants to hear of it would be repeated.  The bit goes with the
very attempt that is written, never with all of them together.  Another destination of the same message may be due in that
moment, and what is passed over here is not found again: only the writing of its own attempt brings a destination back (the retry
timer is told its due time).

One interleaving is left: the read begins, then the attempt is written and the bit goes, then the read's old answer comes.  No
mask helps, since all of them are right.  The active queue remembers which entries the store has learnt of while it reads
(`ActiveQueue.outrun`); those are read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mailserver.mail.envelope import Envelope
from mailserver.mail.parcel import Destination, Parcel
from mailserver.queue.entry import Attempt

__all__ = ["EVERY_DESTINATION", "ActiveMessage", "ActiveParcel", "Backlogged", "Unflushed", "WaitingEntry"]


EVERY_DESTINATION = -1
"""The mask with all bits."""


class ActiveMessage:
    """One message while any of its destinations is in memory, or has an outcome that is not written yet.

    `open`, `active` and `unwritten` are masks of destination indexes: see above.  `passed_on` is another, of those whose next
    host tells the sender of the success (RFC 3461 section 5.2).  `recorded`: the store has attempts of it, or gets some.
    `spooled`: its content is a file.  `attempts` has the last attempt of each destination that has had any.
    """

    __slots__ = ("active", "attempts", "envelope", "number", "open", "passed_on", "recorded", "spooled", "unwritten")

    def __init__(self, *, number: int, envelope: Envelope, open: int, spooled: bool) -> None:
        self.number = number
        self.envelope = envelope
        self.open = open
        self.active = 0
        self.unwritten = 0
        self.passed_on = 0
        self.spooled = spooled
        self.recorded = False
        self.attempts: dict[int, Attempt] | None = None

    @property
    def not_to_be_taken(self) -> int:
        """The destinations that memory knows better than the store: a mask."""
        return self.active | self.unwritten | ~self.open

    @property
    def is_over(self) -> bool:
        """The store knows all of it: it may leave memory."""
        return not (self.active or self.unwritten)


@dataclass(slots=True)
class ActiveParcel:
    """A parcel in its active queue.  `key` says which others it takes turns with; `octets` is what it weighs in memory."""

    entry: ActiveMessage
    parcel: Parcel
    octets: int
    key: str


class Unflushed(NamedTuple):
    """A destination that its delivery has called delivered, and has not flushed."""

    entry: ActiveMessage
    destination: Destination


class WaitingEntry(NamedTuple):
    """An entry that waits in the store alone.  `again`: it has been handed to a delivery before, or may have been."""

    number: int
    again: bool


class Backlogged(NamedTuple):
    """A waiting entry, and the key whose turns it has: "" where that is not known yet."""

    key: str
    entry: WaitingEntry
