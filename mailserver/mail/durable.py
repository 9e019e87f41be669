"""Syncs the names of files: a file that was synced can still lose its name with the power."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator

__all__ = ["locked_directory", "make_directory", "replace_file", "sync_directory", "sync_fd", "sync_file"]

LOCK_SECONDS = 10.0
LOCK_TRY_SECONDS = 0.002  # a writer that writes without end leaves the lock free for moments only


def sync_fd(fd: int) -> None:
    """fsync(2); on macOS the call that reaches the platter.  Blocking.  Raises OSError."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_file(path: str, flags: int = os.O_RDONLY, *, missing_ok: bool = False) -> None:
    """Make what was written to a file durable, by whichever process.  Blocking.  Raises OSError.

    `flags` are those it is opened with.  With `missing_ok` one that is gone has nothing to lose.
    """
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        if missing_ok:
            return
        raise
    try:
        sync_fd(fd)
    finally:
        os.close(fd)


def sync_directory(path: str, *, missing_ok: bool = False) -> None:
    """Make the names in a directory durable.  Blocking.  Raises OSError.

    With `missing_ok` a directory that is gone has no names to lose.
    """
    sync_file(path, os.O_RDONLY | os.O_DIRECTORY, missing_ok=missing_ok)


def make_directory(path: str, mode: int = 0o700) -> None:
    """Make a directory, and those above it that are missing, so that their names last.  Blocking.  Raises OSError.

    One that is there has its name synced again: a power cut may have come between its making and its sync.
    """
    path = os.path.abspath(path)
    parents = [os.path.dirname(path)]
    while not os.path.isdir(parents[-1]):
        parents.append(os.path.dirname(parents[-1]))
    is_new = not os.path.isdir(path)
    os.makedirs(path, mode, exist_ok=True)
    for parent in parents:
        try:
            sync_directory(parent)
        except PermissionError:  # it may be written but not read
            if is_new:
                os.sync()


def replace_file(path: str, text: str, dress: Callable[[int], None]) -> None:
    """Put a new file in the place of the old one: a reader, or a power cut, sees the one or the other.  Blocking.

    `dress` gives the new file, by its descriptor, its owner and its mode before anything is in it.  Raises OSError, and what
    `dress` raises; the old file stands then.
    """
    draft = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "w", encoding="utf-8", newline="") as file:
            dress(fd)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    sync_directory(os.path.dirname(path))


@contextlib.contextmanager
def locked_directory(directory: str, what: str) -> Iterator[None]:
    """One writer at a time.  The lock is on the folder, as the file in it is replaced.  Blocking.

    Raises TimeoutError, whose words name `what` is being changed.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"another program is changing {what}") from None
            time.sleep(LOCK_TRY_SECONDS)
        yield
    finally:
        os.close(fd)
