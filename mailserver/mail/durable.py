"""Making names durable: a file that was synced can still lose its name with the power."""

from __future__ import annotations

import os

__all__ = ["make_directory", "sync_directory"]


def sync_directory(path: str) -> None:
    """Make the names in a directory durable.  Blocking.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
