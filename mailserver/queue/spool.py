"""Large contents as files, and the room on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from mailserver.mail.content import Content
from mailserver.mail.durable import make_directory, sync_directory
from mailserver.mail.until import still_holds

__all__ = ["Room", "Spool"]

SHUT_SECONDS_MOST = 60.0
MEASURE_SECONDS = 1.0


class Spool:
    """The directory `spool/`: one file for each large content, named by the message id.

    The receiver writes the file, syncs it and the directory, and only then commits.  Until the commit has answered, the file is
    the receiver's to remove, and so it is where the answer is an error, unless that `may_come_back`.  Else it is the queue's.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def create(self) -> None:
        """Make the directory, mode 0700, durably."""
        make_directory(self.directory)
        sync_directory(self.directory)

    def put_aside(self, moment: float) -> str | None:
        """Move the files, those of a queue that is gone, out of the way: to where; None where there are none."""
        return self.move_aside(self.names(), moment) or None

    def move_aside(self, names: Sequence[str], moment: float) -> str:
        """Move these files to a folder beside, named by the time: where that is, "" where there are none."""
        if not names:
            return ""
        place = f"{self.directory}.{int(moment)}"
        os.makedirs(place, mode=0o700, exist_ok=True)
        for name in names:
            os.rename(self.path(name), os.path.join(place, name))
        return place

    def path(self, id: str) -> str:
        """Where the content of this message stands."""
        return f"{self.directory}/{id}"

    def holds(self, content: Content, id: str) -> bool:
        """The content is a file at its place here."""
        return content.path is not None and os.path.abspath(content.path) == os.path.abspath(self.path(id))

    def fault(self, id: str, size: int) -> str | None:
        """What is wrong with the file of an entry, None where it is as it was committed."""
        try:
            found = os.stat(self.path(id)).st_size
        except FileNotFoundError:
            return "its file is missing in the spool"
        except OSError as error:
            return f"its file in the spool cannot be read: {error.strerror}"
        return None if found == size else f"its file in the spool has {found} octets in place of {size}"

    def remove(self, id: str) -> None:
        """Remove a file.  One that is gone is no error: a crash came between this and the settlement."""
        try:
            os.unlink(self.path(id))
        except FileNotFoundError:
            pass

    def names(self) -> list[str]:
        """The names of all its files."""
        with os.scandir(self.directory) as files:
            return [file.name for file in files if file.is_file(follow_symlinks=False)]


class Room:
    """Says whether the disk has room, without asking it more than once a second.

    Between two looks it subtracts what it has promised, so that a burst cannot run past the reserve.
    """

    def __init__(
        self,
        *,
        directory: str,
        seconds: Callable[[], float],
        minimum_free_bytes: int,
        free_bytes: Callable[[str], int] | None = None,
    ) -> None:
        self._directory = directory
        self._seconds = seconds
        self.minimum_free_bytes = minimum_free_bytes
        self._free_bytes = free_bytes or free_bytes_of
        self._free = 0
        self._looked_at: float | None = None
        self._shut_until = 0.0
        self.full_at: float | None = None  # when the last no was said

    def holds(self, octets: int) -> bool:
        """There is room for so many octets beside the reserve."""
        now = self._seconds()
        if still_holds(self._shut_until, now, SHUT_SECONDS_MOST):
            self.full_at = now
            return False
        if self._looked_at is None or not 0 <= now - self._looked_at < MEASURE_SECONDS:
            self._looked_at = now
            try:
                self._free = self._free_bytes(self._directory)
            except OSError:
                self._free = 0
        if self._free - octets < self.minimum_free_bytes:
            self.full_at = now
            return False
        self._free -= octets
        return True

    def shut(self, seconds: float) -> bool:
        """A write found the disk full: say no for so long, whatever the file system claims.  True where it was not shut yet."""
        now = self._seconds()
        was_open = not still_holds(self._shut_until, now, SHUT_SECONDS_MOST)
        self._shut_until = now + seconds
        self.full_at = now
        return was_open


def free_bytes_of(directory: str) -> int:
    """What an ordinary user may still write there."""
    figures = os.statvfs(directory)
    return figures.f_bavail * figures.f_frsize
