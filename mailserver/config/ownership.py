"""Whether a file is root's word alone: nobody else may write it, nor put another in its place."""

from __future__ import annotations

import os
import stat

__all__ = ["why_not_of"]

LINKS = 40


def why_not_of(path: str, owner: int = 0) -> str:
    """Why others than `owner` (a user's number) and root could change what `path` leads to, "" where they cannot.

    Looks at the file, at every folder above it and at every symbolic link on the way.  A folder that all may write counts as safe
    where it is sticky (/tmp): the next step's owner is looked at, too.  Raises OSError where something cannot be looked at.
    """
    owners = {0, owner}
    left = [part for part in os.path.abspath(path).split("/") if part]
    here, links = "/", 0
    while True:
        found = os.lstat(here)
        if found.st_uid not in owners:
            return f"{here} belongs to user {found.st_uid}"
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > LINKS:
                return f"{path} leads through too many links"
            target = os.path.join(os.path.dirname(here), os.readlink(here))
            left = [part for part in target.split("/") if part] + left
            here = "/"
            continue
        if found.st_mode & 0o022 and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
            return f"{here} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
        if not left:
            return ""
        part = left.pop(0)
        if part == "..":
            here = os.path.dirname(here)
        elif part != ".":
            here = os.path.join(here, part)
