"""Whether a file is root's word alone: nobody else may write it, nor put another in its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

__all__ = ["foreign_owner", "steps_to", "why_not_of", "writable_by_others"]

LINKS = 40


class _TooManyLinks(OSError):
    """Too many symbolic links: probably a loop."""


def why_not_of(path: str, owner: int = 0) -> str:
    """Why others than `owner` (a user's number) and root could change what `path` leads to, "" where they cannot.

    Looks at the file, at every folder above it and at every symbolic link on the way.  A folder that all may write counts as safe
    where it is sticky (/tmp): the next step's owner is looked at, too.  Raises OSError where something cannot be looked at.
    """
    try:
        for step, found in steps_to(path):
            why = _foreign(step, found, {0, owner}) or _writable(step, found)
            if why:
                return why
    except _TooManyLinks as error:
        return str(error)
    return ""


def foreign_owner(path: str) -> str:
    """The first step on the way to the file that is not root's, in a sentence; "" where all are root's.  Raises OSError."""
    return next((why for step, found in steps_to(path) if (why := _foreign(step, found, {0}))), "")


def writable_by_others(path: str) -> str:
    """The first step on the way that others than its owner may write, in a sentence; "" for none.  Raises OSError."""
    return next((why for step, found in steps_to(path) if (why := _writable(step, found))), "")


def steps_to(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each step from / to the file, through every symbolic link: its path and its status (lstat(2))."""
    left = [part for part in os.path.abspath(path).split("/") if part]
    here, links = "/", 0
    while True:
        found = os.lstat(here)
        yield here, found
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > LINKS:
                raise _TooManyLinks(f"{path} leads through too many links")
            target = os.path.join(os.path.dirname(here), os.readlink(here))
            left = [part for part in target.split("/") if part] + left
            here = "/"
            continue
        if not left:
            return
        part = left.pop(0)
        if part == "..":
            here = os.path.dirname(here)
        elif part != ".":
            here = os.path.join(here, part)


def _foreign(step: str, found: os.stat_result, owners: set[int]) -> str:
    return "" if found.st_uid in owners else f"{step} belongs to user {found.st_uid}"


def _writable(step: str, found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o022:
        return ""
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return ""
    return f"{step} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
