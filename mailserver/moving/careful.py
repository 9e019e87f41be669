"""Files of others, opened so that no name there leads elsewhere or waits; and new files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from mailserver.config.ownership import steps_to

__all__ = ["named_by_others", "new_file", "opened_file", "own_file"]


def opened_file(name: str, directory: int | None = None, *, follow: bool = False) -> int:
    """A descriptor of the regular file, for reading.  Raises OSError.

    A pipe that nobody writes to would wait for ever, and a device may have no end.  The last part of the name is no link unless
    `follow` says so.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return _regular(os.open(name, flags, dir_fd=directory), name)


def named_by_others(path: str, descriptor: int) -> str:
    """Where a user has led root to: a sentence, "" where it is right.  `descriptor` is what was opened by this path.

    A link on the way is right where root or who runs this has made it, or who owns what it leads to: a user's link to the mail of
    another would make that the user's own.  Without root nobody can be led to what he may not read.
    """
    if os.geteuid() != 0:
        return ""
    found, links, last = os.fstat(descriptor), dict[str, int](), None
    for step, last in steps_to(path):
        if stat.S_ISLNK(last.st_mode):
            links[step] = last.st_uid
    if last is None or (last.st_dev, last.st_ino) != (found.st_dev, found.st_ino):
        return "another file stands there now"
    return next(
        (
            f"{step} is a link of user {owner} to what belongs to user {found.st_uid}: name the file that you mean"
            for step, owner in links.items()
            if owner not in (0, found.st_uid)
        ),
        "",
    )


def own_file(name: str, directory: int, more: int = 0) -> int:
    """A descriptor of the regular file in a folder of ours, to read and write; made where it is not there.  Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | more
    return _regular(os.open(name, flags, 0o600, dir_fd=directory), name)


def new_file(path: str, content: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    """Make a file that is not there yet, all of it at once: a kill or a full disk leaves none that is half written.

    `owner` (None: who writes) is given only by root.  Its mode is `mode`, less the umask.  Durable afterwards.  Raises OSError,
    FileExistsError where something has the name.
    """
    folder, name = os.path.split(path)
    directory = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _is_there(name, directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        draft = f".{name[:200]}.{os.getpid()}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(draft, flags, mode, dir_fd=directory), "wb") as file:
                if owner is not None and os.geteuid() == 0:
                    os.fchown(file.fileno(), *owner)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, name, src_dir_fd=directory, dst_dir_fd=directory)  # unlike a rename it writes over nothing
        finally:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)


def _regular(fd: int, name: str) -> int:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no file", name)
    return fd


def _is_there(name: str, directory: int) -> bool:
    try:
        os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True
