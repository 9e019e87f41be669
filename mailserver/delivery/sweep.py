"""Remove what deliveries left in ``tmp/`` when they were cut off: files older than 36 hours, as the Maildir rules say.

The walk makes a few system calls for each mailbox, so it runs in a process of its own, at low priority.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import chain

from mailserver.delivery.open_maildirs import BELOW, DIRECTORY
from mailserver.processes.spawning import program

__all__ = ["STALE_SECONDS", "SweepProcess", "sweep", "sweep_tmp"]

STALE_SECONDS = 36 * 3600
SWEEP_SECONDS_MOST = 6 * 3600


def sweep(root: str, *, depth: int, now: float) -> int:
    """Sweep the Maildirs that lie `depth` levels below `root`, and their folders; return how many files were removed.

    `now` is seconds since the epoch.  What cannot be read is left, links are not followed.
    """
    level: Iterable[str] = [root]
    for _ in range(depth):
        level = chain.from_iterable(map(_directories, level))
    return sum([_sweep_maildir(maildir, BELOW if depth else DIRECTORY, None, now) for maildir in level])


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _sweep_maildir(name: str, flags: int, above: int | None, now: float) -> int:
    """Sweep a Maildir and its folders; or, with the Maildir `above` it, a folder."""
    removed = 0
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        maildir = os.open(name, flags, dir_fd=above)
        opened.callback(os.close, maildir)
        if above is None:
            with os.scandir(maildir) as entries:
                folders = [entry.name for entry in entries if entry.name.startswith(".")]
            removed += sum([_sweep_maildir(folder, BELOW, maildir, now) for folder in folders])
        tmp = os.open("tmp", BELOW, dir_fd=maildir)
        opened.callback(os.close, tmp)
        removed += sweep_tmp(tmp, now=now)
    return removed


def sweep_tmp(tmp: int, *, now: float) -> int:
    """Sweep one ``tmp/``, a descriptor; return how many files were removed."""
    removed = 0
    with contextlib.suppress(OSError), os.scandir(tmp) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if now - found.st_mtime > STALE_SECONDS and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=tmp)
                    removed += 1
    return removed


class SweepProcess:
    """`sweep`, elsewhere."""

    def __init__(self, root: str, depth: int) -> None:
        self._root = root
        self._depth = depth
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def run(self) -> int:
        """How many files were removed.  Blocking, but not for ever.  Raises OSError where the program fails or hangs."""
        arguments, environment = program("mailserver.delivery.sweep", [self._root, str(self._depth)])
        self._process = process = subprocess.Popen(
            arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            said, _ = process.communicate(timeout=SWEEP_SECONDS_MOST)
        except subprocess.TimeoutExpired:
            process.kill()
            raise OSError(f"the sweep of {self._root} hangs") from None
        if self._ended:
            return 0
        if process.returncode != 0:
            raise OSError(f"the sweep of {self._root} ended with {process.returncode}")
        return int(said)

    def end(self) -> None:
        """Break it off, from any thread: the server stops."""
        self._ended = True
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # the unit's SystemCallFilter may refuse it
        os.nice(10)
    sys.stdout.write(str(sweep(sys.argv[1], depth=int(sys.argv[2]), now=time.time())))
