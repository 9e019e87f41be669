"""A directory that cannot be asked."""

from __future__ import annotations

__all__ = ["DirectoryGone", "DirectoryTrouble"]


class DirectoryTrouble(OSError):
    """The directory does not answer, or not so that anybody could tell who exists."""


class DirectoryGone(DirectoryTrouble):
    """The connection ended; a new one may do better."""
