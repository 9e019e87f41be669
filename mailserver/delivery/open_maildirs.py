"""The open Maildirs: directory descriptors, so that a message costs no walk along its path.

Blocking, and for one thread only.  A Maildir that is not there yet is made, mode 0700.

The path of a Maildir is the administrator's and may lead over symbolic links.  What stands in it may be its user's work: below
the path no link is followed, each level is opened from the descriptor of the one above it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mailserver.delivery.names import folder_name
from mailserver.mail.answers import Mailbox

__all__ = ["BELOW", "DIRECTORY", "Maildir", "Maildirs"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
BELOW = DIRECTORY | os.O_NOFOLLOW
EMPTY_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PARTS = ("tmp", "new", "cur")
TRUSTED_SECONDS = 1.0  # how long a path may lead elsewhere than the descriptor before we see it, and a new folder wait
NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(slots=True)
class Maildir:
    """One that is open: descriptors of itself, of ``tmp`` and of ``new``.

    `device` and `inode` are its own, `new_inode` is that of ``new``; `checked` is when both were last compared with its path
    (seconds).  `instead` says that it is the inbox because the folder was not there: somebody may make that any moment.
    """

    path: str
    fd: int
    tmp: int
    new: int
    device: int
    inode: int
    new_inode: int
    checked: float
    instead: bool

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.fd, self.tmp, self.new):
            os.close(fd)


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

    def chosen(self, mailbox: Mailbox, stands: Callable[[Maildir], bool]) -> Mailbox:
        """Which mailbox gets a copy that was meant for this one: Junk's where it was put aside.

        `stands(maildir)` says that the message stands there already: then there is no second copy in Junk.  Raises OSError.
        """
        if not mailbox.junk:
            return mailbox
        meant = replace(mailbox, junk=False)
        if stands(self.find(meant)):
            return meant
        return replace(meant, folder=mailbox.place, folder_must_exist=False)

    def find(self, mailbox: Mailbox) -> Maildir:
        """The open Maildir.  Raises OSError where it can be neither opened nor made."""
        now = self._seconds()
        maildir = self._open.pop(mailbox, None)
        if maildir is not None and now - maildir.checked > TRUSTED_SECONDS and not self._still_there(maildir, now):
            maildir.close()
            maildir = None
        if maildir is None:
            maildir = self._opened(mailbox, now)
        self._open[mailbox] = maildir
        return maildir

    def forget(self, mailbox: Mailbox) -> None:
        """Close it: something was wrong with it."""
        maildir = self._open.pop(mailbox, None)
        if maildir is not None:
            maildir.close()

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
        if maildir.instead:
            return False
        try:
            found = os.stat(maildir.path)
            new = os.stat("new", dir_fd=maildir.fd, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_ino, found.st_dev, new.st_ino) == (maildir.inode, maildir.device, maildir.new_inode)

    def _opened(self, mailbox: Mailbox, now: float) -> Maildir:
        while len(self._open) >= self._open_at_most:
            self.forget(next(iter(self._open)))
        try:
            return self._opened_now(mailbox, now)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
        self.close()  # the system allows fewer
        return self._opened_now(mailbox, now)

    def _opened_now(self, mailbox: Mailbox, now: float) -> Maildir:
        path = self._path_of(mailbox)
        fd = self._opened_at(path)
        try:
            self._make_parts(fd, path)
            folder = self._folder(fd, path, mailbox)
            if folder:
                inbox, fd = fd, os.open(folder, BELOW, dir_fd=fd)
                os.close(inbox)
                path = f"{path}/{folder}"
                self._make_parts(fd, path)
            return _whole(path, fd, now, instead=bool(mailbox.folder) and not folder)
        except BaseException:
            os.close(fd)
            raise

    def _opened_at(self, path: str) -> int:
        try:
            return os.open(path, DIRECTORY)
        except FileNotFoundError:
            self._make(path)
            return os.open(path, DIRECTORY)

    def _make_parts(self, fd: int, path: str) -> None:
        for part in PARTS:
            try:
                os.mkdir(part, 0o700, dir_fd=fd)
            except FileExistsError:
                continue
            self._made.append(path)

    def _folder(self, inbox: int, path: str, mailbox: Mailbox) -> str:
        """The name of the folder; "" for the inbox, also where the folder must exist and does not."""
        if not mailbox.folder:
            return ""
        name = folder_name(mailbox.folder)
        if _is_directory(name, inbox):
            return name
        if mailbox.folder_must_exist:
            return _alike(name, inbox)
        os.mkdir(name, 0o700, dir_fd=inbox)
        folder = os.open(name, BELOW, dir_fd=inbox)
        try:  # Maildir++ marks a folder with this empty file
            os.close(os.open("maildirfolder", EMPTY_FILE, 0o600, dir_fd=folder))
        finally:
            os.close(folder)
        self._made += [path, f"{path}/{name}"]
        return name

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


def _whole(path: str, fd: int, now: float, *, instead: bool) -> Maildir:
    tmp = os.open("tmp", BELOW, dir_fd=fd)
    try:
        new = os.open("new", BELOW, dir_fd=fd)
    except OSError:
        os.close(tmp)
        raise
    found = os.fstat(fd)
    return Maildir(path, fd, tmp, new, found.st_dev, found.st_ino, os.fstat(new).st_ino, now, instead)


def _is_directory(name: str, directory: int) -> bool:
    """Neither a file nor a link is one."""
    try:
        os.close(os.open(name, BELOW, dir_fd=directory))
    except OSError as error:
        if error.errno in NO_FOLDER:
            return False
        raise
    return True


def _alike(name: str, directory: int) -> str:
    """A folder whose name differs in case only, as tags come in any case; "" where none is found."""
    wanted = name.casefold()
    with os.scandir(directory) as entries:
        alike = [entry for entry in entries if entry.name.casefold() == wanted]
        return min((entry.name for entry in alike if entry.is_dir(follow_symlinks=False)), default="")
