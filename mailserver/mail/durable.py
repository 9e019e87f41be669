"""Making names durable: a file that was synced can still lose its name with the power."""

from __future__ import annotations

import os

__all__ = ["sync_directory"]


def sync_directory(path: str) -> None:
    """Make the names in a directory durable.  Blocking.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
