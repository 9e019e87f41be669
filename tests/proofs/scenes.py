"""What is recorded for the proof of power cuts: a server, and clients that note what they sent.

    python -m tests.proofs.scenes NAME WORK SEED

WORK is a new folder.  What the server keeps is in WORK/disk; WORK/sent.json, at the end, says what was handed over and how the
server's answer is recognised in the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from mailserver.pickup.file_format import pickup_name
from tests.proofs.clients import PASSWORD, Clients
from tests.proofs.damage import Damaging
from tests.proofs.local_programs import LocalPrograms
from tests.proofs.scene import CONFIG, SUBMISSION, Scene, prepared
from tests.proofs.small_processes import SmallProcesses
from tests.scenarios.support import ROOT, Server, family

__all__ = ["SCENES", "scene_of"]


class Mail(Scene):
    """SMTP and sendmail into three Maildirs, small and spooled, one in four with a recipient that fails: reports."""


class Kills(Scene):
    """The server is killed meanwhile and started again, its small processes are killed or held for some seconds."""

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(4, 25, sendmails=4)
        for _ in range(4):
            time.sleep(chance.uniform(0.3, 1.5))
            if server.process is None:
                break
            members = list(family(server.process.pid))
            if len(members) > 1 and chance.random() < 0.6:
                with contextlib.suppress(OSError):  # one of the small ones; the server goes on
                    one = chance.choice(members[1:])
                    if chance.random() < 0.5:
                        os.kill(one, signal.SIGSTOP)
                        time.sleep(chance.uniform(0.5, 2.0))
                        os.kill(one, signal.SIGCONT)
                    else:
                        os.kill(one, signal.SIGKILL)
            else:
                server.kill()
                server.restart()
        clients.wait()


class Strange(Scene):
    """A delivery answers what is no answer at all; the pickup folder has entries that are no messages."""

    config = CONFIG.replace('use = "elsewhere"', 'use = "strange"')

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.besides = ("one@elsewhere.example", "two@elsewhere.example")
        clients.start(3, 20, sendmails=5, bounces=0.5)
        pickup = server.work / "disk" / "data" / "drop"
        for number in range(12):
            time.sleep(chance.uniform(0.1, 0.4))
            name = pickup / pickup_name(number, os.urandom(16))
            if number % 3 == 0:
                name.mkdir()
            elif number % 3 == 1:
                os.mkfifo(name)
            else:
                name.write_bytes(chance.randbytes(chance.choice((0, 5, 100_000))))
        clients.wait()


class Logins(Scene):
    """A user logs in and sends, while the store of what users have sent is locked by somebody else now and then."""

    config = CONFIG + SUBMISSION

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        command = [str(Path(sys.executable).parent / "mailserver"), "user", "password", "alice@example.org", "--password-stdin"]
        (server.work / "disk" / "data").mkdir(mode=0o700)
        subprocess.run(
            [*command, "--config", str(server.config_path)], input=PASSWORD.encode() + b"\n",
            check=True, stdout=subprocess.DEVNULL, env=server._environment(),
        )  # fmt: skip
        server.start()
        clients.start(2, 15, sendmails=2)
        clients.start_users(25)
        for _ in range(3):
            time.sleep(chance.uniform(0.3, 1.0))
            with contextlib.closing(sqlite3.connect(server.work / "disk" / "data" / "state.db", isolation_level=None)) as store:
                store.execute("BEGIN EXCLUSIVE")
                time.sleep(chance.uniform(0.5, 6.0))
        clients.wait()


class ClockJumps(Scene):
    """After the cut the clock is a year ahead, or a year behind; some messages have been deferred before."""

    config = Strange.config
    clocks = ("+370d", "-370d")

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(3, 20, sendmails=3, bounces=0.4)
        clients.wait()


LATER = """
import os

from twisted.plugins.elsewhere_plugin import Elsewhere, ElsewhereFactory

FLAG = os.path.join(__file__.partition("/site/")[0], "gone")


class Later(Elsewhere):
    def outcome(self, user):
        return super().outcome("gone" if os.path.exists(FLAG) else "slow")


class LaterFactory(ElsewhereFactory):
    name = "later"
    summary = "Refuses everything, from some moment on."

    def build(self, options, services):
        return Later()


later = LaterFactory()
"""


class FullDisk(Scene):
    """The disk fills while mail comes; then what waits for other hosts fails, and reports cannot be made; then there is room again."""

    small = "12m"
    needs_root = True
    config = CONFIG.replace('use = "elsewhere"', 'use = "later"')

    def equip(self, server: Server, cut: int | None) -> None:
        server.install_plugin("later_plugin", LATER)
        if cut is not None:
            (server.work / "gone").touch()

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        disk, gone = server.work / "disk", server.work / "gone"
        clients.sizes = (300, 4000, 4000, 120_000)
        server.start()
        while_full = 0
        for turn in range(3):
            gone.unlink(missing_ok=True)
            clients.start(3, 10, sendmails=1, bounces=0.7, name=f"s{turn}")
            time.sleep(chance.uniform(0.5, 2.0))
            log = len(server.log())
            for number in range(chance.randint(15, 30)):
                fill(disk / f"ballast-{number}", disk)  # what is removed makes room again
                gone.touch()
                time.sleep(0.1)  # they are tried once a second
            said = server.log()[log:]
            while_full += said.count(" failed recipient=<gone@") - said.count(" reported condition=failure ")
            for ballast in disk.glob("ballast-*"):
                ballast.unlink()
            time.sleep(chance.uniform(0.0, 1.5))
            subprocess.run(["mount", "-o", f"remount,size={12 * (turn + 2)}m", str(disk)], check=True)
            clients.join()
        clients.wait()
        print(f"full disk: {while_full} reports were owed while nothing could be written", flush=True)


class Quota(Scene):
    """The store's writes fail with EDQUOT, for a while, again and again."""

    inject = ("pwrite64:error=EDQUOT:when=60..75", "pwrite64:error=EDQUOT:when=160..200")

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(4, 25, sendmails=3, bounces=0.4)
        clients.wait()


FULL_FILES = """
import errno, os

write, writev, fsync = os.write, os.writev, os.fsync
calls = 0


def fault(fd):
    global calls
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return 0
    if "/disk/data/spool/" not in path and "/disk/mail/" not in path:
        return 0
    calls += 1
    return 0 if calls % 20 < 12 else (errno.EDQUOT, errno.ENOSPC)[calls // 20 % 2]


def full_write(fd, data):
    number = fault(fd)
    if not number:
        return write(fd, data)
    if calls % 20 == 12 and len(data) > 1:  # a part goes first
        return write(fd, data[: len(data) // 2])
    raise OSError(number, os.strerror(number))


def full_writev(fd, pieces):
    return full_write(fd, b"".join(pieces))


def full_fsync(fd):
    if number := fault(fd):
        raise OSError(number, os.strerror(number))
    fsync(fd)


os.write, os.writev, os.fsync = full_write, full_writev, full_fsync
"""


class FullFiles(Scene):
    """Writes of the spool's files and of Maildirs, and syncs of them, fail with EDQUOT or ENOSPC, eight in twenty, the first of them after half
    of what was to be written.  These calls fail in the server's Python: strace cannot tell one write(2) from another.
    """

    def equip(self, server: Server, cut: int | None) -> None:
        if cut is None:
            (server.work / "site" / "sitecustomize.py").write_text(FULL_FILES)
            server.is_forked = False  # a Python of its own from the start

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        clients.sizes = (300, 4000, 120_000, 400_000)
        server.start()
        clients.start(4, 20, sendmails=4, bounces=0.3)
        clients.wait()
        time.sleep(1.5)  # what was deferred is tried again


class FailingSync(Scene):
    """Syncs fail with EIO now and then: what they should have written is gone, whatever a later one says."""

    inject = ("fdatasync:error=EIO:when=25+11", "fsync:error=EIO:when=25+11")

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(4, 15, sendmails=3)
        clients.wait()


SQUEEZE_OCTETS, SQUEEZE_SECONDS = 4 << 20, 20.0
EATER = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
eaten = []
while len(eaten) < 1024:
    eaten.append(b"x" * (1 << 20))
    time.sleep(0.005)
time.sleep(60)
"""


class OutOfMemory(Scene):
    """The kernel's killer takes processes of the server: a control group with too little memory; without one, SIGKILL does its work."""

    needs_root = True

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(4, 20, sendmails=3)
        group = memory_group(server)
        for _ in range(3):
            time.sleep(chance.uniform(0.3, 1.0))
            if server.process is None:
                break
            if group is None:
                os.kill(chance.choice(list(family(server.process.pid))), signal.SIGKILL)
            else:
                squeeze(group, chance.choice(list(family(server.process.pid))))
            time.sleep(0.3)
            if server.process is not None and server.process.poll() is not None:
                server.process = None
                server.restart()
                if group is not None:
                    join(group, server)
        clients.wait()
        if group is not None:
            print(f"out of memory: {kills_of(group)} processes were killed")
            if not kills_of(group):
                raise RuntimeError("the kernel has killed none of the server's processes")


class Short(Scene):
    """A little of `Mail`, for the suite."""

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(3, 6, sendmails=1)
        clients.wait()


SHORT = Short()
SCENES: dict[str, Scene] = {
    "mail": Mail(), "kills": Kills(), "full-disk": FullDisk(), "quota": Quota(), "full-files": FullFiles(), "failing-sync": FailingSync(),
    "out-of-memory": OutOfMemory(), "strange": Strange(), "logins": Logins(), "clock": ClockJumps(),
    "pickup": LocalPrograms(), "small-processes": SmallProcesses(), "damage": Damaging(),
}  # fmt: skip


def scene_of(name: str) -> Scene:
    return SHORT if name == "short" else SCENES[name]


def fill(ballast: Path, disk: Path) -> None:
    """Leave no room."""
    room = os.statvfs(disk)
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize))


def memory_group(server: Server) -> Path | None:
    """A control group with the server's processes in it; None where the system gives none."""
    path = Path(f"/sys/fs/cgroup/memory/power-cut-{os.getpid()}")
    try:
        path.mkdir()
        join(path, server)
    except OSError:
        return None
    return path


def join(group: Path, server: Server) -> None:
    assert server.process is not None
    for process in family(server.process.pid):
        (group / "cgroup.procs").write_text(str(process))


def squeeze(group: Path, victim: int) -> None:
    """Another process in the group takes memory until the kernel has killed one: the victim before all others.

    To bring the limit down does not do it: the kernel takes back what can be written out, and what the server had before it joined
    is not the group's.
    """
    Path(f"/proc/{victim}/oom_score_adj").write_text("1000")
    used, before = int((group / "memory.usage_in_bytes").read_text()), kills_of(group)
    (group / "memory.limit_in_bytes").write_text(str(used + SQUEEZE_OCTETS))
    with subprocess.Popen([sys.executable, "-c", EATER, str(group / "cgroup.procs")]) as eater:
        try:
            end = time.monotonic() + SQUEEZE_SECONDS
            while kills_of(group) == before and time.monotonic() < end:
                time.sleep(0.02)
        finally:
            eater.kill()
    (group / "memory.limit_in_bytes").write_text("-1")

def kills_of(group: Path) -> int:
    for line in (group / "memory.oom_control").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def main(name: str, work: str, seed: str) -> None:
    chance = random.Random(seed)
    scene = scene_of(name)
    server = prepared(Path(work), scene)
    clients = Clients(server, int(seed))
    try:
        scene.play(server, clients, chance)
    finally:
        if server.process is not None:
            server.kill()
    Path(work, "sent.json").write_text(json.dumps([asdict(one) for one in clients.sent]))


if __name__ == "__main__":
    os.chdir(ROOT)
    main(*sys.argv[1:])
