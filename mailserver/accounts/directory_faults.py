"""Two kinds of `CannotTell`, after which another try may be worth it."""

from __future__ import annotations

from mailserver.interfaces import CannotTell

__all__ = ["DirectoryGone", "DirectorySilent"]


class DirectorySilent(CannotTell):
    """The directory has not answered in time."""


class DirectoryGone(CannotTell):
    """The connection ended; a new one may do better."""
