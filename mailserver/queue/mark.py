"""A mark beside the queue's file: that there has been a queue, and how its last user came to an end."""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from mailserver.mail.durable import sync_directory
from mailserver.mail.faults import StorageBroken

__all__ = ["End", "QueueFiles", "QueueGone", "has_lost_log", "read_mark", "required_files", "write_mark"]

DATABASE, LOG, MARK = "queue.db", "queue.db-wal", "queue.mark"
WIDTH = 8  # all marks are equally long: on a full disk one is written over another


class End(enum.StrEnum):
    """RUNNING: a server has it, or has died.  CLOSING: it is being closed, so its log may be gone any moment.  CLOSED: it was
    closed in order.  CHANGED: it was closed, but nobody has looked through it since a server had died, or what was found was
    damage.
    """

    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"
    CHANGED = "changed"


class QueueFiles(NamedTuple):
    """How the last user of a queue ended, None where there has been none; and the octets of its file, 0 where there is none."""

    mark: End | None
    octets: int


class QueueGone(StorageBroken):
    """There was a queue, and its file is missing or empty.  The message says what to do."""


def read_mark(directory: str) -> End | None:
    """How the last user ended; None where there has been no queue.  What cannot be understood counts as no good end."""
    try:
        with open(os.path.join(directory, MARK), "rb") as file:
            return End(file.read(WIDTH + 1).decode("ascii", "replace").strip())
    except FileNotFoundError:
        return None
    except ValueError:
        return End.RUNNING


def write_mark(directory: str, end: End) -> None:
    """Write and sync it.  Raises OSError."""
    descriptor = os.open(os.path.join(directory, MARK), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        is_new = os.fstat(descriptor).st_size == 0
        os.pwrite(descriptor, f"{end:<{WIDTH}}\n".encode(), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_directory(directory)


def required_files(directory: str) -> QueueFiles:
    """The mark, and the octets of the queue's file: 0 where there has been no queue.  Raises `QueueGone`."""
    mark = read_mark(directory)
    path = os.path.join(directory, DATABASE)
    octets = octets_of(path)
    if octets:
        return QueueFiles(mark, octets)
    state = "is missing" if octets is None else "is empty"
    if mark is not None:
        raise QueueGone(
            f"{path} {state}, though there has been a queue here, perhaps with mail that was acknowledged. Put the file back;"
            f" or, to begin with an empty queue, remove {os.path.join(directory, MARK)}"
        )
    if octets_of(os.path.join(directory, LOG)):
        raise QueueGone(
            f"{path} {state}, but its log {path}-wal is there: mail that was acknowledged may be in it. Put the file back;"
            " or, to begin with an empty queue, move the log away"
        )
    return QueueFiles(None, 0)


def has_lost_log(directory: str, mark: End | None) -> bool:
    """The server that has died had a log, and it is not there: somebody has removed it, with what stood in it alone."""
    return mark is End.RUNNING and octets_of(os.path.join(directory, LOG)) is None


def octets_of(path: str) -> int | None:
    """The size of a file, None where it is missing.  Raises `StorageBroken` where that cannot be found out."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageBroken(f"{path}: {error.strerror}") from error
