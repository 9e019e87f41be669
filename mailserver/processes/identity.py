"""Root acts as another user for a while, where it opens files that this user controls.

A link that the user has put there then leads no further than the user could go.  Only for the time before any thread runs: the
effective identity belongs to the whole process.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import pwd
from collections.abc import Iterator

__all__ = ["acting_as", "as_owner_of"]

CODECS = ("ascii", "latin-1", "utf-8", "utf-16-be", "idna")  # the last but one: names of folders


@contextlib.contextmanager
def acting_as(uid: int, gid: int = -1) -> Iterator[None]:
    """Run the block with this effective user and group (-1: the user's own).  Does nothing without root.  Raises OSError."""
    if os.geteuid() != 0 or uid <= 0:
        yield
        return
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        group = gid if gid >= 0 else os.getegid()
        groups = [group]
    else:
        group = gid if gid >= 0 else entry.pw_gid
        groups = os.getgrouplist(entry.pw_name, group)
    for name in CODECS:  # modules that open() looks for when it needs them: the user need not be able to read where they are
        codecs.lookup(name)
    before, before_all = os.getegid(), os.getgroups()
    try:
        os.setgroups(groups)
        os.setegid(group)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(before)
        os.setgroups(before_all)


@contextlib.contextmanager
def as_owner_of(folder: str) -> Iterator[None]:
    """Run the block as the folder's owner.  Does nothing where the folder is missing."""
    try:
        found = os.stat(folder)
    except OSError:
        yield
        return
    with acting_as(found.st_uid, found.st_gid):
        yield
