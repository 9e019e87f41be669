"""A batch in pieces that a writer takes one by one, and the answers put together again.

Each piece has a deadline of its own, so it must not be too much work; and whatever becomes of the later ones, the earlier ones
have their answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailserver.delivery.batch_format import BatchMessage

__all__ = ["Frame", "frames"]

CARRIED_OCTETS = 4 * 1024 * 1024  # what of a frame crosses in memory; one large message may exceed it
WRITTEN_OCTETS = 64 * 1024 * 1024  # what the disk has to take for a frame; one large copy may exceed it
SYNCED_COPIES = 32  # those that come again are synced one by one


@dataclass(slots=True)
class Frame:
    """Some messages, each perhaps with a part of its copies.

    `numbers` are their places in the batch, `octets` is what they weigh on the disk, `synced` how many copies are synced.
    """

    messages: list[BatchMessage]
    numbers: list[int]
    octets: int = 0
    synced: int = 0

    def room(self, size: int, again: bool) -> int:
        """How many copies of so many octets may be added; one at least to an empty frame."""
        room = (WRITTEN_OCTETS - self.octets) // size
        if again:
            room = min(room, SYNCED_COPIES - self.synced)
        return max(room, 0 if self.messages else 1)


def frames(messages: Sequence[BatchMessage]) -> Iterator[Frame]:
    """In the order of the messages.  Every copy is in one frame."""
    frame, carried = Frame([], []), 0
    for number, message in enumerate(messages):
        again, copies = message.again, message.copies
        weight, size = len(message.data or b""), max(message.stored_size, 1)
        if frame.messages and carried + weight > CARRIED_OCTETS:
            yield frame
            frame, carried = Frame([], []), 0
        carried += weight
        while True:
            fit = frame.room(size, again)
            some, left = (copies, []) if fit >= len(copies) else (copies[:fit], copies[fit:])
            if some or not left:
                is_whole = some is message.copies
                frame.messages.append(message if is_whole else message._replace(again=again, copies=some))
                frame.numbers.append(number)
                frame.octets += size * len(some)
                frame.synced += again * len(some)
            if not left:
                break
            yield frame
            frame, carried, copies = Frame([], []), weight, left
            again = again or bool(some)  # a mailbox that several recipients share may have its copy already
    if frame.messages:
        yield frame
