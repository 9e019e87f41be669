"""The pickup folder on the disk: who may put files into it, and how one is taken out.

    {path}/                 complete files, and under names with a dot those that are being written
    {path}/taken/           those that the server is bringing into the queue: "ID.ID of a report"; "….progress" beside some
    {path}/bad/             those that are not messages

The folder hands its group on to the files in it (setgid), so that the server may read what another user wrote with mode 0640.  It
may not be listed by those who may only write (no r), and nobody may remove another's file (sticky).  A file is taken by moving it
into a folder that is the server's alone; its new name is the message id that it will have, so that after a crash it is known
whether the queue has it already.

Others write here, so each entry is looked at for itself: only regular files are moved, one that cannot be moved or read
does not delay the others, and many files of one user delay no other user's.  All functions block.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import heapq
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.mail.durable import make_directory, sync_directory
from mailserver.pickup.file_format import ENVELOPE_OCTETS, PickupEnvelope, PickupFault, is_pickup_name
from mailserver.pickup.progress import PickupProgress

__all__ = ["PIECE_OCTETS", "PickupFolder", "FoundFile", "Listing", "OpenedFile"]

BAD, TAKEN = "bad", "taken"
PROGRESS = ".progress"
PIECE_OCTETS = 262_144
UNFINISHED_SECONDS = 36 * 3600.0  # what has not been written for so long was given up
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
GROUP = "group:"
LISTED_OF_A_USER = 200  # the oldest; the others when these have gone
ODD_LISTED = 100
BAD_OF_A_USER = 100  # a user's files in bad/; further ones stay where they are


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file in the folder, and whose it is."""

    name: str
    uid: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What stands in the folder.

    `files` are those that may be messages: each user's oldest first, the users by turns.  `misnamed` are files whose names
    are not those of messages, `odd` entries that are not regular files; of both the first `ODD_LISTED`.
    """

    files: tuple[FoundFile, ...]
    misnamed: tuple[FoundFile, ...]
    odd: tuple[FoundFile, ...]


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A taken file: its envelope, whose it is, its open descriptor and the first octets of the message.

    `size` is the message's in octets when it was opened, `changed_at` the file's modification time in nanoseconds.  `is_whole`
    says that `start` is all of it; the descriptor is closed then.
    """

    envelope: PickupEnvelope
    uid: int
    descriptor: int
    start: bytes
    is_whole: bool
    size: int
    changed_at: int

    @property
    def is_unchanged(self) -> bool:
        """It is still the file that was opened: nobody has gone on writing."""
        if self.is_whole:
            return len(self.start) == self.size
        facts = os.fstat(self.descriptor)
        return facts.st_mtime_ns == self.changed_at


class PickupFolder:
    """The folder `path`.  `users` is "owner" (root and the server's user), "group:NAME" or "all"."""

    def __init__(self, path: str, users: str) -> None:
        self.path = path
        self._users = users

    def make(self) -> None:
        """Make it with its modes.  Raises OSError."""
        make_directory(self.path)
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

    def listing(self) -> Listing:
        """Look at every entry, and take none.  Raises OSError where the folder cannot be read."""
        files: dict[int, list[str]] = {}
        misnamed: list[FoundFile] = []
        odd: list[FoundFile] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                name = entry.name
                if name in (BAD, TAKEN) or name.startswith("."):
                    continue
                try:
                    facts = entry.stat(follow_symlinks=False)
                except OSError:  # it has gone, or its disk is sick: the next look tells
                    continue
                if not stat.S_ISREG(facts.st_mode):
                    if len(odd) < ODD_LISTED:
                        odd.append(FoundFile(name, facts.st_uid))
                elif not is_pickup_name(name):
                    if len(misnamed) < ODD_LISTED:
                        misnamed.append(FoundFile(name, facts.st_uid))
                else:
                    own = files.setdefault(facts.st_uid, [])
                    own.append(name)
                    if len(own) > 4 * LISTED_OF_A_USER:  # a million files of one user take no more memory than these
                        own[:] = heapq.nsmallest(LISTED_OF_A_USER, own)
        return Listing(_by_turns(files), tuple(misnamed), tuple(odd))

    def take(self, moves: Sequence[tuple[str, str]]) -> tuple[list[str], OSError | None]:
        """Take files: pairs of a name and the name that it gets.  Return the new names of those that could be had.

        The error says that the moves are not durable yet; `sync` makes them so.
        """
        taken: list[str] = []
        for name, new in moves:
            with contextlib.suppress(OSError):  # it has gone, or cannot be moved: it is listed again
                os.rename(os.path.join(self.path, name), self.taken_path(new))
                taken.append(new)
        try:
            if taken:
                self.sync()
        except OSError as error:
            return taken, error
        return taken, None

    def sync(self) -> None:
        """Make all moves durable.  Raises OSError."""
        sync_directory(os.path.join(self.path, TAKEN))
        sync_directory(self.path)

    def left_over(self) -> list[FoundFile]:
        """What an earlier run took and did not bring to its end."""
        found: list[FoundFile] = []
        names = sorted(os.listdir(os.path.join(self.path, TAKEN)))
        for name in names:
            path = self.taken_path(name)
            with contextlib.suppress(OSError):
                if not name.endswith((PROGRESS, PROGRESS + ".new")):
                    found.append(FoundFile(name, os.lstat(path).st_uid))
                elif not os.path.lexists(path.partition(PROGRESS)[0]):
                    os.unlink(path)  # the file went first, and then the power
        return found

    def taken_path(self, name: str) -> str:
        """Where a taken file stands."""
        return os.path.join(self.path, TAKEN, name)

    def open(self, name: str) -> OpenedFile:
        """Open a taken file.  Raises `PickupFault` where it is not a message, OSError."""
        try:
            descriptor = os.open(self.taken_path(name), READ)
        except PermissionError:
            raise PickupFault("the server's user may not read it") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket
                raise PickupFault("it is not a regular file") from None
            raise
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
                # By a second name another's file would be a message.
                raise PickupFault("it is not a regular file, or has a second name")
            start = b""
            while b"\n" not in start and (piece := os.read(descriptor, PIECE_OCTETS)):
                start += piece
                if len(start) > ENVELOPE_OCTETS:
                    raise PickupFault("its first line is too long")
            line, newline, rest = start.partition(b"\n")
            if not newline:
                raise PickupFault("it has no message")
            envelope = PickupEnvelope.decode(line)
            is_whole = len(start) >= facts.st_size
        except BaseException:
            os.close(descriptor)
            raise
        if is_whole:
            os.close(descriptor)
        size = facts.st_size - len(line) - 1
        return OpenedFile(envelope, facts.st_uid, descriptor, rest, is_whole, size, facts.st_mtime_ns)

    def remove(self, name: str) -> None:
        """The message is the queue's now."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.taken_path(name))
        self._forget(name)

    def reject(self, found: FoundFile, *, is_taken: bool) -> bool:
        """Keep the file for the administrator.  False where its user has too many there: it stays where it is."""
        folder = os.path.join(self.path, BAD)
        own = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    own += entry.stat(follow_symlinks=False).st_uid == found.uid
        if own >= BAD_OF_A_USER:
            return False
        path = self.taken_path(found.name) if is_taken else os.path.join(self.path, found.name)
        os.rename(path, os.path.join(folder, found.name))
        if is_taken:
            self._forget(found.name)
        return True

    def progress(self, name: str) -> PickupProgress:
        """How far a taken file has come.  Raises OSError; ValueError where it is damaged."""
        try:
            with open(self.taken_path(name) + PROGRESS, "rb") as file:
                return PickupProgress.decode(file.read())
        except FileNotFoundError:
            return PickupProgress()

    def keep(self, name: str, progress: PickupProgress) -> None:
        """Write down how far it has come, durably.  Raises OSError."""
        path = self.taken_path(name) + PROGRESS
        descriptor = os.open(path + ".new", WRITE, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(progress.encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".new", path)
        sync_directory(os.path.dirname(path))
        progress.is_kept = True

    def sweep(self, now: float) -> int:
        """Remove what was begun and never completed; how many files that were."""
        removed = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if not entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
                        continue
                    if now - entry.stat(follow_symlinks=False).st_mtime > UNFINISHED_SECONDS:
                        os.unlink(entry.path)
                        removed += 1
        return removed

    def _forget(self, name: str) -> None:
        for end in (PROGRESS, PROGRESS + ".new"):  # the second: a power cut came while it was written
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.taken_path(name) + end)


def group_number(name: str) -> int:
    """Raises OSError for a group that does not exist."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, "there is no such group", name) from None


def _by_turns(files: dict[int, list[str]]) -> tuple[FoundFile, ...]:
    """Each user's oldest files, one of each user after the other; who has the oldest file begins."""
    oldest = {uid: heapq.nsmallest(LISTED_OF_A_USER, names) for uid, names in files.items()}
    placed = [(place, names[place], uid) for uid, names in oldest.items() for place in range(len(names))]
    return tuple([FoundFile(name, uid) for _, name, uid in sorted(placed)])
