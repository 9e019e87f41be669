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
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mailserver.mail.dropped import drop_name
from tests.proofs.letters import letter
from tests.scenarios.support import ID, ROOT, Server, Wire, family
from tests.scenarios.test_reports import PLUGIN

__all__ = ["SCENES", "Scene", "Sent", "prepared", "scene_of"]

USERS = ("alice", "bob", "carol")
CONFIG = """
hostname = "mx.example.org"
data = "{work}/disk/data"

[[listen]]
service = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "none"

[accounts]
use = "file"
path = "{work}/accounts.toml"

[delivery]
use = "maildir"
path = "{work}/disk/mail/{user}"

[domain."example.org"]

[domain."example.org".aliases]
all = ["alice@example.org", "bob@example.org", "carol@example.org"]

[relay]
use = "elsewhere"
networks = ["127.0.0.0/8"]

[limits]
connections_per_network = 100
minimum_free_bytes = 0
memory_bytes = 100000

[queue]
retry = ["1s"]
"""
STRANGE = """
from twisted.internet.defer import succeed
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IDelivery
from mailserver.mail.answers import Deferred, Delivered, Failed
from mailserver.mail.reply import Reply


@implementer(IDelivery)
class Strange:
    \"\"\"Its first word about a message makes no sense, its second one does.\"\"\"

    stores = True

    def __init__(self):
        self.seen = set()

    async def deliver(self, envelope, content, destinations):
        first = envelope.id not in self.seen
        self.seen.add(envelope.id)
        return {one.index: self.outcome(envelope.id, first, one.recipient.address.local) for one in destinations}

    def outcome(self, id, first, user):
        if user == "gone":
            return Failed(Reply.of(550, "5.1.1", "Nobody of that name"), peer="mx.elsewhere.example", phase="RCPT")
        words = "a file \\udcff \\x00 of that name" if first else ""
        kinds = [Delivered(words), Delivered(None), Deferred(None, words), Failed("550 no reply"), Deferred(Reply.of(451, "4.3.0", "x"), 7), None, 5]
        return kinds[sum(id.encode()) % len(kinds)] if first else Delivered("at last")

    async def flush(self):
        pass


@implementer(IComponentFactory)
class StrangeFactory:
    name = "strange"
    summary = "Answers in strange ways."
    provides = IDelivery
    options = Options

    def build(self, options, services):
        return Strange()


strange = StrangeFactory()
"""
PASSWORD = "correct horse battery staple"
SUBMISSION = """
[[listen]]
service = "submission"
endpoint = "tcp:{subport}:interface=127.0.0.1"
tls = "starttls"

[lockout]
delay = 0
"""
SIZES = (300, 4000, 4000, 20_000, 120_000, 400_000)  # memory_bytes is 100,000: above it the spool has a file


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was handed over with success.  `id` is in the 250; `process` is that of a sendmail, which ended with 0.

    `holders` have to have it; `report`: alice, its sender, has to have a report of it.
    """

    number: str
    holders: tuple[str, ...]
    report: bool = False
    id: str = ""
    process: int = 0


class Clients:
    """Threads that send until each has sent its share, or `stop`."""

    def __init__(self, server: Server, seed: int) -> None:
        self.sent: list[Sent] = []
        self.stop = threading.Event()
        self.besides: tuple[str, ...] = ()  # more recipients of what bounces
        self._server = server
        self._seed = seed
        self._threads: list[threading.Thread] = []

    def start(self, senders: int, messages: int, *, sendmails: int = 0, bounces: float = 0.25) -> None:
        for sender in range(senders):
            self._start(self._send_on, f"s{sender}", messages, bounces)
        if sendmails:
            self._start(self._hand_over, "m", sendmails, bounces)

    def _start(self, what: Callable[[str, int, float, random.Random], None], *arguments: object) -> None:
        chance = random.Random(f"{self._seed} {arguments[0]}")
        self._threads.append(threading.Thread(target=what, args=(*arguments, chance), daemon=True))
        self._threads[-1].start()

    def wait(self, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))
        self.stop.set()
        for thread in self._threads:
            thread.join(30)

    def letter(self, name: str, count: int, bounces: float, chance: random.Random) -> tuple[Sent, str, list[str]]:
        """What is to be sent, its sender, and its recipients."""
        number = f"{name}-{count}"
        if chance.random() < bounces:
            holders = ("bob",) if chance.random() < 0.3 else ()
            to = ["gone@elsewhere.example", *self.besides, *(f"{user}@example.org" for user in holders)]
            return Sent(number, holders, report=True), "alice@example.org", to
        if chance.random() < 0.2:
            return Sent(number, USERS), "sender@example.net", ["all@example.org"]
        holders = tuple(sorted(chance.sample(USERS, chance.choice((1, 1, 1, 2, 3)))))
        return Sent(number, holders), "sender@example.net", [f"{user}@example.org" for user in holders]

    def _send_on(self, name: str, messages: int, bounces: float, chance: random.Random) -> None:
        count = 0
        while count < messages and not self.stop.is_set():
            try:
                with Wire(self._server.port, timeout=20) as wire:
                    wire.command("EHLO client.example")
                    while count < messages and not self.stop.is_set():
                        count += 1
                        self._send(wire, *self.letter(name, count, bounces, chance), chance.choice(SIZES))
            except (OSError, EOFError):
                self.stop.wait(0.05)  # it is down: once more

    def _send(self, wire: Wire, sent: Sent, sender: str, to: list[str], octets: int) -> None:
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in to), "DATA"):
            if wire.command(line).code >= 400:
                wire.command("RSET")
                self.stop.wait(0.05)
                return
        wire.send(letter(sent.number, octets) + b"\r\n.\r\n")
        answer = wire.reply()
        if answer.code == 250:
            self.sent.append(Sent(sent.number, sent.holders, sent.report, id=answer.id))
        else:
            self.stop.wait(0.05)

    def start_users(self, messages: int) -> None:
        """Alice logs in and sends.  What she hears is encrypted: an acknowledgement is said once more, in clear, for the record."""
        self._start(self._submit, "u", messages, 0.0)

    def _submit(self, name: str, messages: int, bounces: float, chance: random.Random) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        ours, theirs = socket.socketpair()
        count = 0
        with ours, theirs:
            while count < messages and not self.stop.is_set():
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    with smtplib.SMTP("127.0.0.1", self._server.ports["subport"], timeout=20) as client:
                        client.starttls(context=context)
                        client.login("alice@example.org", PASSWORD)
                        while count < messages and not self.stop.is_set():
                            count += 1
                            sent, _, to = self.letter(name, count, bounces, chance)
                            client.mail("alice@example.org")
                            for one in to:
                                client.rcpt(one)
                            code, words = client.data(letter(sent.number, chance.choice(SIZES)))
                            if code == 250 and (id := ID.search(words.decode())):
                                ours.send(b"250 2.0.0 heard of %b\r\n" % id[0].encode())
                                self.sent.append(Sent(sent.number, sent.holders, id=id[0]))
                self.stop.wait(0.05)

    def _hand_over(self, name: str, messages: int, bounces: float, chance: random.Random) -> None:
        for count in range(1, messages + 1):
            if self.stop.is_set():
                return
            sent, sender, to = self.letter(name, count, bounces, chance)
            command = [str(Path(sys.executable).parent / "mailserver"), "sendmail", "-C", str(self._server.config_path)]
            with subprocess.Popen([*command, "-i", "-f", sender, *to], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
                with contextlib.suppress(OSError):
                    program.communicate(letter(sent.number, chance.choice(SIZES)).replace(b"\r\n", b"\n") + b"\n")
            if program.returncode == 0:
                self.sent.append(Sent(sent.number, sent.holders, sent.report, process=program.pid))


def prepared(work: Path, *, config: str = CONFIG) -> Server:
    """A server in the folder `work`, which exists; not started."""
    server = Server(work, config, tuple(f"{user}@example.org" for user in USERS))
    server.mail = work / "disk" / "mail"
    server.install_plugin("elsewhere_plugin", PLUGIN)
    server.install_plugin("strange_plugin", STRANGE)
    return server


# --- the scenes ---


class Scene:
    """A name, faults that strace puts in, and what happens.  Sizes are bounded: a record takes some seconds, and some tens of megabytes."""

    inject: tuple[str, ...] = ()
    small: str = ""  # the size of a file system of its own for WORK/disk
    needs_root = False
    config = CONFIG
    clocks: tuple[str, ...] = ()  # by how much the clock is wrong after the cut: the first cut has the first

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        """Start the server, let the clients send, leave whatever stands."""
        server.start()
        clients.start(4, 25, sendmails=5)
        clients.wait()


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
    """A delivery answers what is no answer at all; the drop folder has entries that are no messages."""

    config = CONFIG.replace('use = "elsewhere"', 'use = "strange"')

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.besides = ("one@elsewhere.example", "two@elsewhere.example")
        clients.start(3, 20, sendmails=5, bounces=0.5)
        drop = server.work / "disk" / "data" / "drop"
        for number in range(12):
            time.sleep(chance.uniform(0.1, 0.4))
            name = drop / drop_name(number, os.urandom(16))
            if number % 3 == 0:
                name.mkdir()
            elif number % 3 == 1:
                os.mkfifo(name)
            else:
                name.write_bytes(chance.randbytes(chance.choice((0, 5, 100_000))))
        clients.wait()


class LogIns(Scene):
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


class FullDisk(Scene):
    """The disk fills while mail comes and while reports are made; then there is room again."""

    small = "6m"
    needs_root = True

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        disk = server.work / "disk"
        server.start()
        clients.start(3, 20, sendmails=2, bounces=0.5)
        for _ in range(3):
            time.sleep(chance.uniform(0.5, 1.5))
            fill(disk / "ballast", disk)
            time.sleep(chance.uniform(0.5, 1.5))
            (disk / "ballast").unlink(missing_ok=True)
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        clients.wait()


class Quota(Scene):
    """The store's writes fail with EDQUOT, for a while, again and again."""

    inject = ("pwrite64:error=EDQUOT:when=60..75", "pwrite64:error=EDQUOT:when=160..200")

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(4, 25, sendmails=3, bounces=0.4)
        clients.wait()


class FailingSync(Scene):
    """Syncs fail with EIO now and then: what they should have written is gone, whatever a later one says."""

    inject = ("fdatasync:error=EIO:when=25+11", "fsync:error=EIO:when=25+11")

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(4, 15, sendmails=3)
        clients.wait()


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
                squeeze(group, server)
            time.sleep(0.3)
            if server.process is not None and server.process.poll() is not None:
                server.process = None
                server.restart()
                if group is not None:
                    join(group, server)
        clients.wait()
        if group is not None:
            print(f"out of memory: {kills_of(group)} processes were killed")


class Short(Scene):
    """A little of `Mail`, for the suite."""

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.start(3, 6, sendmails=1)
        clients.wait()


SHORT = Short()
SCENES: dict[str, Scene] = {
    "mail": Mail(), "kills": Kills(), "full-disk": FullDisk(), "quota": Quota(), "failing-sync": FailingSync(),
    "out-of-memory": OutOfMemory(), "strange": Strange(), "log-ins": LogIns(), "clock": ClockJumps(),
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


def squeeze(group: Path, server: Server) -> None:
    """Bound the group's memory a little above what it has until something in it was killed."""
    (group / "memory.force_empty").write_text("0")
    used = int((group / "memory.usage_in_bytes").read_text())
    before = kills_of(group)
    limit = used
    while limit > used // 4 and kills_of(group) == before:
        limit -= used // 20
        with contextlib.suppress(OSError):  # it cannot be brought down so far by reclaiming alone
            (group / "memory.limit_in_bytes").write_text(str(limit))
        time.sleep(0.05)
    (group / "memory.limit_in_bytes").write_text("-1")


def kills_of(group: Path) -> int:
    for line in (group / "memory.oom_control").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def main(name: str, work: str, seed: str) -> None:
    chance = random.Random(seed)
    server = prepared(Path(work), config=scene_of(name).config)
    clients = Clients(server, int(seed))
    try:
        scene_of(name).play(server, clients, chance)
    finally:
        if server.process is not None:
            server.kill()
    Path(work, "sent.json").write_text(json.dumps([asdict(one) for one in clients.sent]))


if __name__ == "__main__":
    os.chdir(ROOT)
    main(*sys.argv[1:])
