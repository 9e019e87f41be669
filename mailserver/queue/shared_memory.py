"""SQLite's shared memory file, ``queue.db-shm``, on a disk that fills up.

SQLite maps the file into memory and, so that a full disk cannot end the process by SIGBUS, writes one octet into each page of
4096 before.  Where the file system's blocks are smaller (ext4 makes them 1 KiB on a small disk) that allocates the last block of
each page; the others are holes, and the first write into one of them, through the map and on a full disk, ends the process.
"""

from __future__ import annotations

import os

from mailserver.mail.faults import StorageFull

__all__ = ["SharedMemory"]

PAGE_OCTETS = 4096
OCTETS = 1 << 20  # indexes a log of some 2 GiB


class SharedMemory:
    """Fills those holes while there is room.  On other file systems there is nothing to do."""

    def __init__(self, path: str) -> None:
        self._directory = os.path.dirname(path)
        self._path = f"{path}-shm"
        self._descriptor: int | None = None

    def require_room(self) -> None:
        """Before SQLite opens the file.  Raises `StorageFull`."""
        try:
            figures = os.statvfs(self._directory)
        except OSError:
            return  # SQLite will say so
        if figures.f_bsize < PAGE_OCTETS and not self._is_filled() and figures.f_bavail * figures.f_frsize < 2 * OCTETS:
            raise StorageFull(f"{self._directory} has no room for SQLite's shared memory; {2 * OCTETS >> 20} MiB are needed")

    def fill(self) -> None:
        """After SQLite has opened it.  Raises OSError.

        The descriptor is kept: to close one would drop the locks that SQLite has on the file.  When the file has been removed,
        SQLite has none any more.
        """
        if os.statvfs(self._directory).f_bsize >= PAGE_OCTETS or self._is_filled():
            return
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            os.close(self._descriptor)
            self._descriptor = None
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        os.posix_fallocate(self._descriptor, 0, OCTETS)

    def gone(self) -> None:
        """Every connection of this process to the store is closed."""
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_filled(self) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        return found.st_size >= OCTETS and found.st_blocks * 512 >= OCTETS
