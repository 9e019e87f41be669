"""Expected failures of storage, as the receiving side tells them to the peer."""

from __future__ import annotations

__all__ = ["StorageBroken", "StorageDamaged", "StorageFault", "StorageFull"]


class StorageFault(Exception):
    """A message, a fact or a record could not be kept, or not be read.  The words are for the log, not for the peer.

    `may_come_back`: the disk failed while it was written.  Nobody knows what of it a crash would bring back, so the file of a
    large content stays, and is the queue's.
    """

    may_come_back = False


class StorageFull(StorageFault):
    """No room: 452 4.3.1."""


class StorageBroken(StorageFault):
    """The disk or the store does not work: 451 4.3.0."""


class StorageDamaged(StorageBroken):
    """What stands in the store cannot be right; a person has to look."""
