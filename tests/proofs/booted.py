"""The units, by systemd itself: a Debian with the package is booted in a container of its own (systemd-nspawn), which has no network.

    python -m tests.proofs packages --scene systemd

Takes root, debootstrap and systemd-container.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Booted", "booted"]

UP = ("running", "degraded")


class Booted:
    """A system that runs in `root`; `leader` is the process 1 in it, as it is called outside."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader

    def ran(self, *command: str, text: str = "", seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """A command in it, as its root."""
        inside = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"]
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"]
        return subprocess.run([*inside, *environment, *command], input=text, capture_output=True, text=True, timeout=seconds, check=False)

    def until(self, is_so: Callable[[], bool], seconds: float = 60) -> bool:
        """Wait for it."""
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end:
                return False
            time.sleep(0.3)
        return True


@contextmanager
def booted(root: Path) -> Iterator[Booted]:
    """Boot it; whatever runs in it has ended afterwards."""
    log = root.parent / f"{root.name}.boot"
    command = [
        "systemd-nspawn", f"--directory={root}", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe",
        "--machine=mailserver-proof",
    ]  # fmt: skip
    with open(log, "wb") as output:
        nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        leader = _leader(nspawn, log)
        system = Booted(root, leader)
        if not system.until(lambda: system.ran("systemctl", "is-system-running").stdout.strip() in UP, 120):
            raise RuntimeError(f"it does not come up: {log.read_text(errors='replace')[-2000:]}")
        yield system
    finally:
        nspawn.terminate()
        try:
            nspawn.wait(60)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()


def _leader(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if nspawn.poll() is not None:
            raise RuntimeError(f"it does not boot: {log.read_text(errors='replace')[-2000:]}")
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        time.sleep(0.2)
    raise RuntimeError("it has no process 1")


def can_boot() -> bool:
    """Whether this machine has what it takes."""
    return os.geteuid() == 0 and shutil.which("systemd-nspawn") is not None
