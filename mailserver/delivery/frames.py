"""A batch in pieces that a writer takes one by one, and the answers put together again.

Each piece has a deadline of its own, so it must not be too much work; and whatever becomes of the later ones, the earlier ones
have their answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailserver.delivery.letters import Letter

__all__ = ["Frame", "frames"]

CARRIED_OCTETS = 4 * 1024 * 1024  # what of a frame crosses in memory; one large letter may exceed it
WRITTEN_OCTETS = 64 * 1024 * 1024  # what the disk has to take for a frame; one large copy may exceed it


@dataclass(slots=True)
class Frame:
    """Some letters, each perhaps with a part of its copies.

    `numbers` are their places in the batch, `octets` is what they weigh on the disk.
    """

    letters: list[Letter]
    numbers: list[int]
    octets: int = 0


def frames(letters: Sequence[Letter]) -> Iterator[Frame]:
    """In the order of the letters.  Every copy is in one frame."""
    frame, carried = Frame([], []), 0
    for number, letter in enumerate(letters):
        data, copies = letter[2], letter[7]
        weight, size = len(data or b""), max(letter[4], 1)
        if frame.letters and carried + weight > CARRIED_OCTETS:
            yield frame
            frame, carried = Frame([], []), 0
        carried += weight
        if frame.octets + size * len(copies) <= WRITTEN_OCTETS:
            frame.letters.append(letter)
            frame.numbers.append(number)
            frame.octets += size * len(copies)
            continue
        left = copies
        again = letter[0]
        while left:
            fit = max((WRITTEN_OCTETS - frame.octets) // size, 0 if frame.letters else 1)
            some, left = left[:fit], left[fit:]
            if some:
                frame.letters.append((again, *letter[1:7], some))
                again = True  # a mailbox to which several ways lead may have its copy already
                frame.numbers.append(number)
                frame.octets += size * len(some)
            if left:
                yield frame
                frame, carried = Frame([], []), weight
    if frame.letters:
        yield frame
