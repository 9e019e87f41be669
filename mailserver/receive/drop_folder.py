"""The drop folder on the disk: who may put files into it, and how one is taken out.

    {path}/                 complete files, and under names with a dot those that are being written
    {path}/taken/           those that the server is bringing into the queue: "ID.ID of a report"
    {path}/bad/             those that are no messages

The folder hands its group on to the files in it (setgid), so that the server may read what another user wrote with mode 0640.  It
may not be listed by those who may only write (no r), and nobody may remove another's file (sticky).  A file is taken by moving it
into a folder that is the server's alone; its new name is the message id that it will have, so that after a crash it is known
whether the queue has it already.  All functions block.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from mailserver.mail.dropped import ENVELOPE_OCTETS, DropEnvelope, DropFault, is_drop_name
from mailserver.mail.durable import sync_directory

__all__ = ["DropFolder", "Opened"]

BAD, TAKEN = "bad", "taken"
PIECE_OCTETS = 262_144
UNFINISHED_SECONDS = 36 * 3600.0  # what has not been written for so long was given up
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
GROUP = "group:"


@dataclass(frozen=True, slots=True)
class Opened:
    """A taken file: its envelope, whose it is, its open descriptor and the first octets of the message.

    `is_whole` says that these are all of them; the descriptor is closed then.
    """

    envelope: DropEnvelope
    uid: int
    descriptor: int
    start: bytes
    is_whole: bool


class DropFolder:
    """The folder `path`.  `users` is "owner" (root and the server's user), "group:NAME" or "all"."""

    def __init__(self, path: str, users: str) -> None:
        self.path = path
        self._users = users

    def make(self) -> None:
        """Make it with its modes.  Raises OSError."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        mode = 0o2700
        if self._users.startswith(GROUP):
            os.chown(self.path, -1, group_number(self._users.removeprefix(GROUP)))
            mode = 0o3730
        elif self._users == "all":
            mode = 0o3733
        if stat.S_IMODE(os.stat(self.path).st_mode) != mode:
            os.chmod(self.path, mode)
        for name in (BAD, TAKEN):
            folder = os.path.join(self.path, name)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.chmod(folder, 0o700)
        sync_directory(self.path)

    def changed_at(self) -> float:
        """When a file last came or went, in seconds since the epoch."""
        return os.stat(self.path).st_mtime

    def take(self, next_id: Callable[[], str], most: int) -> tuple[list[str], list[str]]:
        """Take up to `most` files, the oldest first: their new names; and the names of those that can be none."""
        taken: list[str] = []
        bad: list[str] = []
        for name in sorted(os.listdir(self.path)):
            if name in (BAD, TAKEN) or name.startswith("."):
                continue
            if len(taken) >= most:
                break
            if not is_drop_name(name) or not stat.S_ISREG(os.lstat(os.path.join(self.path, name)).st_mode):
                self.reject(os.path.join(self.path, name))
                bad.append(name)
                continue
            new = f"{next_id()}.{next_id()}"
            os.rename(os.path.join(self.path, name), self.taken_path(new))
            taken.append(new)
        if taken:
            sync_directory(os.path.join(self.path, TAKEN))
            sync_directory(self.path)
        return taken, bad

    def left_over(self) -> list[str]:
        """What an earlier run took and did not bring to its end."""
        return sorted(os.listdir(os.path.join(self.path, TAKEN)))

    def taken_path(self, name: str) -> str:
        """Where a taken file stands."""
        return os.path.join(self.path, TAKEN, name)

    def open(self, name: str) -> Opened:
        """Open a taken file.  Raises `DropFault` for what is no message, OSError."""
        descriptor = os.open(self.taken_path(name), READ)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
                raise DropFault("it is no file of its own")  # a second name could make another's file a message
            start = b""
            while b"\n" not in start and (piece := os.read(descriptor, PIECE_OCTETS)):
                start += piece
                if len(start) > ENVELOPE_OCTETS:
                    raise DropFault("its first line is too long")
            line, newline, rest = start.partition(b"\n")
            if not newline:
                raise DropFault("it has no message")
            envelope = DropEnvelope.decode(line)
            is_whole = len(start) >= facts.st_size
        except BaseException:
            os.close(descriptor)
            raise
        if is_whole:
            os.close(descriptor)
        return Opened(envelope, facts.st_uid, descriptor, rest, is_whole)

    def remove(self, name: str) -> None:
        """The message is the queue's now."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.taken_path(name))

    def reject(self, path: str) -> None:
        """Keep the file for the administrator."""
        os.rename(path, os.path.join(self.path, BAD, os.path.basename(path)))

    def sweep(self, now: float) -> int:
        """Remove what was begun and never completed; how many files that were."""
        removed = 0
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            with contextlib.suppress(OSError):
                if name.startswith(".") and now - os.lstat(path).st_mtime > UNFINISHED_SECONDS:
                    os.unlink(path)
                    removed += 1
        return removed


def group_number(name: str) -> int:
    """Raises OSError for a group that does not exist."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, "there is no such group", name) from None
