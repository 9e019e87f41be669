"""Remove what deliveries left in ``tmp/`` when they were cut off: files older than 36 hours, as the Maildir rules say.

The walk makes a few system calls for each mailbox, so it runs in a process of its own, at low priority.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from mailserver.delivery.process import program

__all__ = ["STALE_SECONDS", "sweep", "sweep_in_process", "sweep_maildir"]

STALE_SECONDS = 36 * 3600
DEPTH = 8  # directories between the root and a Maildir; a folder of Maildir++ lies one below


def sweep(root: str, *, now: float) -> int:
    """Sweep every Maildir below `root`; return how many files were removed.  What cannot be read is left."""
    removed = 0
    waiting = [(root, 0)]
    while waiting:
        path, depth = waiting.pop()
        try:
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        if {"tmp", "new", "cur"} <= set(names):
            removed += sweep_maildir(f"{path}/tmp", now=now)  # noqa: S108  # a Maildir's own
            names = [name for name in names if name.startswith(".")]
        if depth < DEPTH:
            waiting += [(f"{path}/{name}", depth + 1) for name in names]
    return removed


def sweep_maildir(tmp: str, *, now: float) -> int:
    """Sweep one ``tmp/``."""
    removed = 0
    with contextlib.suppress(OSError), os.scandir(tmp) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if now - found.st_mtime > STALE_SECONDS and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def sweep_in_process(root: str) -> int:
    """`sweep`, elsewhere.  Blocking.  Raises OSError where the program cannot be run."""
    arguments, environment = program("mailserver.delivery.sweep", [root])
    done = subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise OSError(f"the sweep of {root} ended with {done.returncode}")
    return int(done.stdout)


if __name__ == "__main__":
    os.nice(10)
    sys.stdout.write(str(sweep(sys.argv[1], now=time.time())))
