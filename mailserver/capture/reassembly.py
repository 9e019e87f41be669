"""One direction of a TCP connection put together again: segments in, its octets in their order out.

What comes twice is counted and passed over, and of octets that overlap the first ones are taken.  What is missing is waited for.
It is lost to the capture when the other side has acknowledged it and it still has not come after a while, or when too much
waits behind it: then a `Gap` stands in its place.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from typing import NamedTuple

from mailserver.mail.quick import maker

__all__ = ["Direction", "Gap", "Piece"]

HELD_OCTETS = 4 << 20  # behind a gap; a window is rarely larger
HELD_SEGMENTS = 4096
PATIENCE_SEGMENTS = 64  # of either direction, since the gap was acknowledged: what the capture has put in another order
PATIENCE = 2_000_000_000  # nanoseconds
PIECE_MEMORY = 256  # that one takes besides its octets, about
NUMBERS = 1 << 32
HALF = 1 << 31


class Piece(NamedTuple):
    """Octets that one side said next, and when the segment that brought them was seen (nanoseconds).

    `place` is the number of the octet behind them, `heard` the number up to which the sender had what the other side said.
    """

    time: int
    octets: bytes
    place: int = 0
    heard: int = 0


_piece = maker(Piece)


class Gap(NamedTuple):
    """So many octets that were sent and not captured.

    `time` is that of what was captured behind them, `place` the number of the octet behind them.
    """

    time: int
    missing: int
    place: int = 0


class Direction:
    """What one side says.

    Its counts: `octets` handed on, `retransmitted` octets that came again, `out_of_order` segments that came early, `lost`
    octets.
    """

    __slots__ = (
        "_acknowledged",
        "_end",
        "_held",
        "_impatient_at",
        "_next",
        "_patience",
        "held_octets",
        "is_closing",
        "lost",
        "octets",
        "out_of_order",
        "retransmitted",
    )

    def __init__(self) -> None:
        # Numbers of octets count on beyond 2^32 here, so that they can be compared.
        self._next = -1  # that is awaited; -1 before the first segment
        self._end = -1  # behind the last octet, once FIN has said it
        self._acknowledged = False  # the gap that is waited for
        self._patience = 0
        self._impatient_at = 0
        self._held: list[tuple[int, int, bytes, int]] = []  # behind a gap: number, time, octets, heard; in order of the numbers
        self.is_closing = False  # a FIN has been seen; what was sent before it may be missing still
        self.held_octets = 0
        self.octets = 0
        self.retransmitted = 0
        self.out_of_order = 0
        self.lost = 0

    @property
    def has_begun(self) -> bool:
        """Whether a segment has been seen."""
        return self._next >= 0

    @property
    def held_memory(self) -> int:
        """How much memory is taken by what waits behind a gap, about."""
        return self.held_octets + PIECE_MEMORY * len(self._held) if self._held else 0

    @property
    def end(self) -> int:
        """The number behind the last octet that has been handed on, -1 before the first segment."""
        return self._next

    @property
    def is_ended(self) -> bool:
        """All that was sent before the FIN has been handed on."""
        return self._end >= 0 and self._next == self._end

    def is_heard(self, acknowledged: int) -> bool:
        """Whether the other side has everything, the FIN included."""
        return 0 <= self._end < self._next + self._ahead(acknowledged)

    def number(self, of_wire: int) -> int:
        """A number of the wire as one that goes on beyond 2^32."""
        following = self._next
        return of_wire if following < 0 else following + (of_wire - following + HALF) % NUMBERS - HALF

    def open(self, sequence: int) -> None:
        """A SYN: the next octet has the number behind its own."""
        if self._next < 0:
            self._next = sequence + 1

    def close(self, sequence: int) -> None:
        """A FIN that stands at this number."""
        if self._next >= 0:
            self._end = self._next + self._ahead(sequence)
            self.is_closing = True

    def take(self, time: int, sequence: int, payload: bytes, missing: int = 0, heard: int = 0) -> list[Piece | Gap]:
        """Take a segment; return what is next in order now, often this very segment.

        `missing` octets at its end were not captured: they are lost.  `heard` goes into the piece as it is.
        """
        following = self._next
        if following < 0:
            following = self._next = sequence
        if not ((sequence - following) % NUMBERS or missing or self._held):
            if not payload:
                return []
            count = len(payload)
            self._next = following = following + count
            self.octets += count
            return [_piece((time, payload, following, heard))]
        ahead = self._ahead(sequence)
        end = self._next + ahead + len(payload)
        if ahead > 0:
            self.out_of_order += 1
            if not self._held:
                self._acknowledged = False
        if payload:
            insort(self._held, (self._next + ahead, time, payload, heard), key=_number)
            self.held_octets += len(payload)
        found: list[Piece | Gap] = list(self._in_order())
        if missing and end <= self._next < end + missing:
            found += self._skip(time, end + missing)
        if self.held_octets > HELD_OCTETS or len(self._held) > HELD_SEGMENTS:
            found += self.give_up(time)
        return found

    def acknowledge(self, time: int, number: int) -> list[Piece | Gap]:
        """The other side has everything before this number.  Return what is next now, where a gap has waited too long."""
        if not self._held:
            return []
        if not self._acknowledged:
            if self._ahead(number) <= 0:
                return []
            self._acknowledged = True
            self._patience = PATIENCE_SEGMENTS
            self._impatient_at = time + PATIENCE
        self._patience -= 1
        if self._patience > 0 and time < self._impatient_at:
            return []
        return self.give_up(time)

    def give_up(self, time: int) -> list[Piece | Gap]:
        """The octets that are waited for are lost: return the gap and what stands behind it."""
        return self._skip(min(time, self._held[0][1]), self._held[0][0]) if self._held else []

    def finish(self, time: int) -> list[Piece | Gap]:
        """Nothing comes any more: return all that is held, each gap marked."""
        found: list[Piece | Gap] = []
        while self._held:
            found += self.give_up(time)
        if 0 <= self._next < self._end:
            found += self._skip(time, self._end)
        return found

    def _ahead(self, number: int) -> int:
        """How far a number of the wire is ahead of what is awaited; below 0 where it comes again (RFC 9293 section 3.4)."""
        return (number - self._next + HALF) % NUMBERS - HALF

    def _skip(self, time: int, number: int) -> list[Piece | Gap]:
        count, self._next = number - self._next, number
        self._acknowledged = False
        self.lost += count
        return [Gap(time, count, number), *self._in_order()]

    def _in_order(self) -> Iterator[Piece]:
        """Hand on what is held and follows what has been handed on."""
        while self._held and self._held[0][0] <= self._next:
            number, time, octets, heard = self._held.pop(0)
            self.held_octets -= len(octets)
            behind = self._next - number
            self.retransmitted += min(behind, len(octets))
            octets = octets[behind:]
            if octets:
                self._next += len(octets)
                self._acknowledged = False
                self.octets += len(octets)
                yield _piece((time, octets, self._next, heard))


def _number(held: tuple[int, int, bytes, int]) -> int:
    return held[0]
