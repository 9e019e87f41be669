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

from mailserver.processes.spawning import program

__all__ = ["STALE_SECONDS", "sweep", "sweep_in_process", "sweep_tmp"]

STALE_SECONDS = 36 * 3600


def sweep(root: str, *, depth: int, now: float) -> int:
    """Sweep the Maildirs that lie `depth` levels below `root`, and their folders; return how many files were removed.

    `now` is seconds since the epoch.  What cannot be read is left, links are not followed.
    """
    level: Iterable[str] = [root]
    for _ in range(depth):
        level = chain.from_iterable(map(_directories, level))
    removed = 0
    for maildir in level:
        folders = [path for path in _directories(maildir) if path.startswith(f"{maildir}/.")]
        for place in (maildir, *folders):
            removed += sweep_tmp(f"{place}/tmp", now=now)  # noqa: S108  # a Maildir's own
    return removed


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def sweep_tmp(tmp: str, *, now: float) -> int:
    """Sweep one ``tmp/``; return how many files were removed."""
    removed = 0
    with contextlib.suppress(OSError), os.scandir(tmp) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if now - found.st_mtime > STALE_SECONDS and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def sweep_in_process(root: str, depth: int) -> int:
    """`sweep`, elsewhere.  Blocking.  Raises OSError where the program cannot be run."""
    arguments, environment = program("mailserver.delivery.sweep", [root, str(depth)])
    done = subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise OSError(f"the sweep of {root} ended with {done.returncode}")
    return int(done.stdout)


if __name__ == "__main__":
    os.nice(10)
    sys.stdout.write(str(sweep(sys.argv[1], depth=int(sys.argv[2]), now=time.time())))
