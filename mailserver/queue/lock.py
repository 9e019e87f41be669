"""One process for one data directory: a server, or a command while there is none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailserver.interfaces import Clock
from mailserver.mail.faults import StorageBroken

__all__ = ["QueueInUse", "lock_directory", "take_directory"]

LOCK_SECONDS = 30.0
LOCK_AGAIN_SECONDS = 0.1

log = Logger()


class QueueInUse(StorageBroken):
    """Another process works on this data directory."""


async def take_directory(path: str, clock: Clock, is_stopping: Callable[[], bool]) -> int:
    """`lock_directory`, after half a minute at most: a command that changes the queue of a stopped server has it for seconds."""
    end = clock.seconds() + LOCK_SECONDS
    why: QueueInUse | None = None
    while why is None or not is_stopping():
        try:
            return lock_directory(path)
        except QueueInUse as error:
            if clock.seconds() >= end:
                raise
            if why is None:
                log.info("{why}; the server waits for it", why=error)
            why = error
        await deferLater(clock, LOCK_AGAIN_SECONDS)  # type: ignore[arg-type]
    raise why


def lock_directory(path: str) -> int:
    """Take the data directory for this process.  Raises `QueueInUse`.  The lock ends with the process, however it ends."""
    descriptor = os.open(os.path.join(path, "queue.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise QueueInUse(f"another process works on {path}") from None
    return descriptor
