"""Root acts as somebody else for a while, where what it opens lies in that user's hand.

A link that he has put there then leads no further than he could go himself.  For the time before any thread runs: the identity is
the whole process's.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator

__all__ = ["acting_as", "as_owner_of"]


@contextlib.contextmanager
def acting_as(uid: int, gid: int = -1) -> Iterator[None]:
    """With this effective user and group (-1: his own), where we are root and he is not.  Raises OSError."""
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
    """As the owner of the folder, where there is one."""
    try:
        found = os.stat(folder)
    except OSError:
        yield
        return
    with acting_as(found.st_uid, found.st_gid):
        yield
