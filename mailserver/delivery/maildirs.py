"""The open Maildirs: directory descriptors, so that a message costs no walk along its path.

Blocking, and for one thread only.  A Maildir that is not there yet is made, mode 0700.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from mailserver.delivery.names import folder_name
from mailserver.mail.answers import Mailbox

__all__ = ["Maildir", "Maildirs"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
PARTS = ("tmp", "new", "cur")
TRUSTED_SECONDS = 1.0  # how long a path may lead elsewhere than the descriptor before we see it


@dataclass(slots=True)
class Maildir:
    """One that is open.  `device` says on which file system it lies, `checked` when its path was last compared (seconds)."""

    path: str
    fd: int
    device: int
    inode: int
    checked: float


class Maildirs:
    """Opens Maildirs and keeps at most `open_at_most` of them open, the latest used.

    `path_of` gives the path of a user's inbox; `seconds` tells a time that never goes back.
    """

    def __init__(
        self, *, path_of: Callable[[Mailbox], str], open_at_most: int = 256, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._path_of = path_of
        self._open_at_most = open_at_most
        self._seconds = seconds
        self._open: dict[Mailbox, Maildir] = {}  # in order of use
        self._made: list[str] = []

    def find(self, mailbox: Mailbox) -> Maildir:
        """The open Maildir.  Raises OSError where it can be neither opened nor made."""
        now = self._seconds()
        maildir = self._open.pop(mailbox, None)
        if maildir is not None and now - maildir.checked > TRUSTED_SECONDS and not self._still_there(maildir, now):
            os.close(maildir.fd)
            maildir = None
        if maildir is None:
            maildir = self._opened(mailbox, now)
        self._open[mailbox] = maildir
        return maildir

    def forget(self, mailbox: Mailbox) -> None:
        """Close it: something was wrong with it."""
        maildir = self._open.pop(mailbox, None)
        if maildir is not None:
            os.close(maildir.fd)

    def take_made(self) -> list[str]:
        """The directories in which a new directory was made since the last call."""
        made, self._made = self._made, []
        return made

    def close(self) -> None:
        """Close all."""
        for mailbox in list(self._open):
            self.forget(mailbox)

    def _still_there(self, maildir: Maildir, now: float) -> bool:
        maildir.checked = now
        try:
            found = os.stat(maildir.path)
        except OSError:
            return False
        return found.st_ino == maildir.inode and found.st_dev == maildir.device

    def _opened(self, mailbox: Mailbox, now: float) -> Maildir:
        while len(self._open) >= self._open_at_most:
            self.forget(next(iter(self._open)))
        path = self._path_of(mailbox)
        if mailbox.folder:
            inbox = self._opened_at(path)
            try:
                path = self._folder_path(path, inbox, mailbox)
            finally:
                os.close(inbox)
        fd = self._opened_at(path)
        found = os.fstat(fd)
        return Maildir(path, fd, found.st_dev, found.st_ino, now)

    def _opened_at(self, path: str) -> int:
        """A descriptor of a whole Maildir at this path."""
        try:
            fd = os.open(path, DIRECTORY)
        except FileNotFoundError:
            self._make(path)
            fd = os.open(path, DIRECTORY)
        try:
            for part in PARTS:
                try:
                    os.mkdir(part, 0o700, dir_fd=fd)
                except FileExistsError:
                    continue
                self._made.append(path)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _folder_path(self, path: str, inbox: int, mailbox: Mailbox) -> str:
        """The path of the folder; the inbox's own where the folder must exist and does not."""
        name = folder_name(mailbox.folder)
        if mailbox.folder_must_exist:
            found = name if _is_directory(name, inbox) else _alike(name, inbox)
            return f"{path}/{found}" if found else path
        if not _is_directory(name, inbox):
            os.mkdir(name, 0o700, dir_fd=inbox)
            # Maildir++ marks a folder with this empty file.
            os.close(os.open(f"{name}/maildirfolder", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=inbox))
            self._made += [path, f"{path}/{name}"]
        return f"{path}/{name}"

    def _make(self, path: str) -> None:
        """Make a directory and those above it that are missing, all of them 0700 (`os.makedirs` would open the upper ones)."""
        above = os.path.dirname(path)
        if not os.path.isdir(above):
            self._make(above)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:  # another process was quicker; whatever is there must show itself as a directory
            return
        self._made.append(above)


def _is_directory(name: str, directory: int) -> bool:
    try:
        os.close(os.open(name, DIRECTORY, dir_fd=directory))
    except FileNotFoundError:
        return False
    return True


def _alike(name: str, directory: int) -> str:
    """A folder whose name differs in case only: tags come in any case.  "" where there is none."""
    wanted = name.casefold()
    with os.scandir(directory) as entries:
        return min((entry.name for entry in entries if entry.name.casefold() == wanted and entry.is_dir()), default="")
