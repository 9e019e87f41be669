"""What a figure was measured on: without it the figure means nothing."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path

__all__ = ["describe", "synced_appends_per_second"]


def describe(directory: Path) -> list[str]:
    """Lines that name the machine, the disk under `directory` and the versions."""
    import apsw

    import twisted

    fs = _file_system(directory)
    if fs.split()[1] in ("tmpfs", "ramfs"):
        raise SystemExit(f"{directory} is on {fs.split()[1]}: a sync there is no sync; name another --directory")
    return [
        f"processor   {_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start",
        f"kernel      {platform.release()}",
        f"disk        {fs}; {synced_appends_per_second(directory):.0f} synced 4 KB appends/s",
        f"versions    Python {platform.python_version()}, Twisted {twisted.__version__}, SQLite {apsw.sqlite_lib_version()}",
    ]


def synced_appends_per_second(directory: Path, seconds: float = 1.0) -> float:
    """How many 4 KB appends with an fdatasync each one thread manages: the latency of a lone commit."""
    block = os.urandom(4096)
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        fd, count, begin = file.fileno(), 0, time.monotonic()
        while time.monotonic() - begin < seconds:
            os.write(fd, block)
            os.fdatasync(fd)
            count += 1
        return count / (time.monotonic() - begin)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """Mount point, type and options of the file system that holds the directory."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    path = str(directory.resolve())
    holding = [m for m in mounts if path == m[1] or path.startswith(m[1].rstrip("/") + "/")]
    _, point, kind, options, *_ = max(holding, key=lambda m: len(m[1]))
    return f"{point} {kind} ({options})"
