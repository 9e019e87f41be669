"""A batch in pieces that a writer takes one by one, and the answers put together again.

Each piece has a deadline of its own, so it must not be too much work; and whatever becomes of the later ones, the earlier ones
have their answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailserver.delivery.batch_format import Letter

__all__ = ["Frame", "frames"]

CARRIED_OCTETS = 4 * 1024 * 1024  # what of a frame crosses in memory; one large letter may exceed it
WRITTEN_OCTETS = 64 * 1024 * 1024  # what the disk has to take for a frame; one large copy may exceed it
SYNCED_COPIES = 32  # those that come again are synced one by one


@dataclass(slots=True)
class Frame:
    """Some letters, each perhaps with a part of its copies.

    `numbers` are their places in the batch, `octets` is what they weigh on the disk, `synced` how many copies are synced.
    """

    letters: list[Letter]
    numbers: list[int]
    octets: int = 0
    synced: int = 0

    def room(self, size: int, again: bool) -> int:
        """How many copies of so many octets may be added; one at least to an empty frame."""
        room = (WRITTEN_OCTETS - self.octets) // size
        if again:
            room = min(room, SYNCED_COPIES - self.synced)
        return max(room, 0 if self.letters else 1)


def frames(letters: Sequence[Letter]) -> Iterator[Frame]:
    """In the order of the letters.  Every copy is in one frame."""
    frame, carried = Frame([], []), 0
    for number, letter in enumerate(letters):
        again, data, copies = letter[0], letter[2], letter[7]
        weight, size = len(data or b""), max(letter[4], 1)
        if frame.letters and carried + weight > CARRIED_OCTETS:
            yield frame
            frame, carried = Frame([], []), 0
        carried += weight
        while True:
            fit = frame.room(size, again)
            some, left = copies[:fit], copies[fit:]
            if some or not left:
                frame.letters.append(letter if len(some) == len(letter[7]) else (again, *letter[1:7], some))
                frame.numbers.append(number)
                frame.octets += size * len(some)
                frame.synced += again * len(some)
            if not left:
                break
            yield frame
            frame, carried, copies = Frame([], []), weight, left
            again = again or bool(some)  # a mailbox to which several ways lead may have its copy already
    if frame.letters:
        yield frame
