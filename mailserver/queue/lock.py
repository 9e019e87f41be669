"""One process for one data directory: a server, or a command while there is none."""

from __future__ import annotations

import fcntl
import os

from mailserver.mail.faults import StorageBroken

__all__ = ["QueueInUse", "lock_directory"]


class QueueInUse(StorageBroken):
    """Another process works on this data directory."""


def lock_directory(path: str) -> int:
    """Take the data directory for this process.  Raises `QueueInUse`.  The lock ends with the process, however it ends."""
    descriptor = os.open(os.path.join(path, "queue.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise QueueInUse(f"another process works on {path}") from None
    return descriptor
