"""A directory that cannot be asked."""

from __future__ import annotations

__all__ = ["DirectoryGone", "DirectorySilent", "DirectoryTrouble"]


class DirectoryTrouble(OSError):
    """The directory does not answer, or not so that anybody could tell who exists."""


class DirectorySilent(DirectoryTrouble):
    """There was no answer in time."""


class DirectoryGone(DirectoryTrouble):
    """The connection ended; a new one may do better."""
