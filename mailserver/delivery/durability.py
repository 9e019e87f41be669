"""Make what was written durable, all at once.

`syncfs` writes out a whole file system with one call; where the system has none, each file and directory is synced, several side
by side.  Blocking: call it in a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from mailserver.delivery.names import marker_in
from mailserver.mail.durable import sync_directory, sync_fd

__all__ = ["Disk", "Touched", "find_syncfs"]

SIDE_BY_SIDE = 16
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class Touched:
    """What deliveries wrote since the last flush: file systems by device number with a directory on each, and where there is
    no syncfs the files.
    """

    devices: dict[int, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)  # (Maildir, file below it)
    directories: set[str] = field(default_factory=set)

    def add(self, other: Touched) -> None:
        self.devices.update(other.devices)
        self.files += other.files
        self.directories |= other.directories


def find_syncfs() -> Callable[[int], None] | None:
    """The system's syncfs(2), None where it has none.  A failure is an OSError, also one of an earlier write-back (Linux 5.8)."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        call = library.syncfs
    except AttributeError:
        return None

    def syncfs(fd: int) -> None:
        if call(ctypes.c_int(fd)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "syncfs")

    return syncfs


class Disk:
    """Knows a descriptor of each file system that was written to.

    It stays open: the kernel tells a write-back error once to each descriptor, and to a new one only if nobody has heard of it.
    `syncfs` None: files are synced one by one.
    """

    def __init__(self, *, syncfs: Callable[[int], None] | None) -> None:
        self._syncfs = syncfs
        self._devices: dict[int, int] = {}

    def sync(self, touched: Touched) -> None:
        """Returns when everything in `touched` is durable.  Raises OSError."""
        if self._syncfs is not None:
            _side_by_side(self._syncfs, [self._descriptor(device, path) for device, path in touched.devices.items()])
            return
        _side_by_side(_sync_message, touched.files)
        parts = {f"{maildir}/{name.partition('/')[0]}" for maildir, name in touched.files}
        _side_by_side(partial(sync_directory, missing_ok=True), parts | touched.directories)

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self._devices.values():
            os.close(fd)
        self._devices.clear()

    def _descriptor(self, device: int, path: str) -> int:
        if device not in self._devices:
            fd = os.open(_standing(path), DIRECTORY)
            if os.fstat(fd).st_dev != device:  # the Maildir has gone, what is above it lies elsewhere; others may be on its disk
                os.close(fd)
                raise OSError(errno.ENOENT, "no path leads to the file system any more", path)
            self._devices[device] = fd
        return self._devices[device]


def _sync_message(file: tuple[str, str]) -> None:
    maildir, name = file
    found = _opened(f"{maildir}/{name}")
    if found is None:  # a mail program has moved it to cur/, or its user has deleted it
        marker = marker_in(name)
        try:
            moved = [entry for entry in os.listdir(f"{maildir}/cur") if marker_in(entry) == marker]
        except FileNotFoundError:
            return
        found = _opened(f"{maildir}/cur/{moved[0]}") if moved else None
    if found is None:
        return
    try:
        sync_fd(found)
    finally:
        os.close(found)


def _standing(path: str) -> str:
    """The path, or the nearest directory above it where someone has removed it since."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _opened(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None


def _side_by_side(function: Callable[..., None], arguments: Iterable[object]) -> None:
    """Call it for each argument; the first error is raised after all have ended.

    In daemon threads: where the disk hangs, they do not hinder the server's end.
    """
    work = deque(arguments)
    if len(work) < 2:
        for argument in work:
            function(argument)
        return
    errors: list[BaseException] = []

    def take() -> None:
        while True:
            try:
                argument = work.popleft()
            except IndexError:  # there is no more
                return
            try:
                function(argument)
            except BaseException as error:  # noqa: BLE001  # raised below, in the caller's thread
                errors.append(error)

    threads = [threading.Thread(target=take, name="sync", daemon=True) for _ in range(min(SIDE_BY_SIDE, len(work)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
