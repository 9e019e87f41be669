"""Load and what it does: smtp-source for the many, a small client for latency, memory and large messages."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

from bench.servers import ACCOUNT, Server

__all__ = ["Probe", "Threads", "Usage", "idle_octets", "large_message", "smtp_source", "wait_until_there"]

SENDER = "load@bench.test"


def smtp_source(
    server: Server,
    *,
    messages: int,
    octets: int,
    sessions: int,
    reconnect: bool,
    recipient: str = ACCOUNT,
    senders: int = 1,
) -> float:
    """Send with Postfix's smtp-source, which stops at the first refusal.  Returns seconds until the last 250.

    `senders` programs share the messages, each with so many sessions.
    """
    program = shutil.which("smtp-source", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("smtp-source is missing: it comes with Debian's package postfix")
    command = [program, "-s", str(sessions), "-m", str(messages // senders), "-l", str(octets), "-f", SENDER]
    command += ["-t", recipient, *([] if reconnect else ["-d"]), f"127.0.0.1:{server.port}"]
    begin = time.monotonic()
    programs = [subprocess.Popen(command) for _ in range(senders)]
    if sum([one.wait(900) for one in programs]):
        raise RuntimeError("smtp-source was refused")
    return time.monotonic() - begin


def wait_until_there(maildir: Path, messages: int, octets: int) -> None:
    """Return when all messages stand in new/.  Raises RuntimeError where one is missing, doubled or torn."""
    new = maildir / "new"
    end = time.monotonic() + 120
    while (count := len(os.listdir(new)) if new.exists() else 0) < messages and time.monotonic() < end:
        time.sleep(0.02)
    if count != messages:
        raise RuntimeError(f"{messages} were accepted, {count} were delivered")
    torn = [entry.name for entry in os.scandir(new) if entry.stat().st_size < octets * 0.9]
    if torn:
        raise RuntimeError(f"{len(torn)} messages are too small, such as {torn[0]}")


class Usage:
    """Processor time and memory of a server's processes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._begin = self.processor_seconds()

    def processor_seconds(self) -> float:
        """User and system time of the processes that live, and of those that they have waited for."""
        total = 0
        for pid in self._server.pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            total += sum(int(field) for field in fields[11:15])
        return total / os.sysconf("SC_CLK_TCK")

    def since_begin(self) -> float:
        return self.processor_seconds() - self._begin

    def memory_octets(self, key: str = "VmRSS") -> int:
        """The sum of ``VmRSS`` (now) or ``VmHWM`` (the peak) over the processes."""
        total = 0
        for pid in self._server.pids():
            try:
                found = re.search(rf"{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            except OSError:
                continue
            total += int(found[1]) * 1024 if found else 0
        return total


class Threads:
    """Processor time and voluntary switches of each thread of a server's first process: does one of them bound it?"""

    def __init__(self, server: Server) -> None:
        self._pid = server.pids()[0]
        self._begin, self._at = self._read(), time.monotonic()

    def _read(self) -> dict[int, tuple[int, int]]:
        """Nanoseconds and switches, by the thread's number; those of the thread with the process's number are the reactor's."""
        found: dict[int, tuple[int, int]] = {}
        for task in Path(f"/proc/{self._pid}/task").iterdir():
            try:
                switches = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.MULTILINE)
                found[int(task.name)] = (int((task / "schedstat").read_text().split()[0]), int(switches[1]) if switches else 0)
            except OSError:  # it has ended
                continue
        return found

    def since_begin(self, messages: int) -> dict[str, float]:
        """For each message microseconds and switches of the reactor's thread and of the others, and how busy the former was."""
        wall, now = time.monotonic() - self._at, self._read()
        spent = {number: (ns - self._begin.get(number, (0, 0))[0], n - self._begin.get(number, (0, 0))[1])
            for number, (ns, n) in now.items()}  # fmt: skip
        reactor = spent.pop(self._pid)
        return {
            "reactor us/msg": reactor[0] / messages / 1000,
            "reactor busy %": reactor[0] / wall / 1e7,
            "reactor waits/msg": reactor[1] / messages,
            "other threads us/msg": sum([ns for ns, _ in spent.values()]) / messages / 1000,
            "their waits/msg": sum([n for _, n in spent.values()]) / messages,
        }


class Client:
    """A blocking SMTP client that does no more than it must."""

    def __init__(self, port: int, *, source: str = "", sender: str = SENDER) -> None:
        self._sender = sender
        self._socket = socket.create_connection(("127.0.0.1", port), 60, (source, 0) if source else None)
        self._replies = self._socket.makefile("rb")
        self._expect(b"2")

    def command(self, line: bytes, expected: bytes = b"2") -> None:
        self._socket.sendall(line + b"\r\n")
        self._expect(expected)

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def close(self) -> None:
        self.command(b"QUIT")
        self._replies.close()
        self._socket.close()

    def message(self, content: bytes) -> None:
        """One transaction; `content` ends with CRLF and needs no dots doubled."""
        self.begin()
        self._socket.sendall(content)
        self.command(b".")

    def begin(self) -> None:
        self.command(f"MAIL FROM:<{self._sender}>".encode())
        self.command(f"RCPT TO:<{ACCOUNT}>".encode())
        self.command(b"DATA", b"3")

    def _expect(self, first: bytes) -> None:
        while True:
            line = self._replies.readline()
            if not line.startswith(first):
                raise RuntimeError(f"the server said {line!r}")
            if line[3:4] != b"-":
                return


class Probe(threading.Thread):
    """Sends a message every 20 ms beside the load and times it: from MAIL to 250, or with `reconnect` from connect to 250."""

    def __init__(self, port: int, *, octets: int, reconnect: bool) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._reconnect = reconnect
        self._content = b"Subject: probe\r\n\r\n" + (b"x" * 70 + b"\r\n") * max(1, octets // 72)
        self._over = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        client: Client | None = None
        while not self._over.wait(0.02):
            begin = time.monotonic()
            if client is None:
                client = Client(self._port)
                client.command(b"EHLO probe.bench.test")
                if not self._reconnect:
                    begin = time.monotonic()
            client.message(self._content)
            self.seconds.append(time.monotonic() - begin)
            if self._reconnect:
                client.close()
                client = None
        if client is not None:
            client.close()

    def finish(self) -> None:
        """Stop after the message that is under way."""
        self._over.set()
        self.join(60)

    def percentile_ms(self, percent: int) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000 if ordered else 0.0


def idle_octets(server: Server, usage: Usage, connections: int) -> float:
    """Growth of the resident memory for each connection that has said EHLO and is silent."""
    before = usage.memory_octets()
    clients = []
    for _ in range(connections):
        client = Client(server.port)
        client.command(b"EHLO idle.bench.test")
        clients.append(client)
    growth = usage.memory_octets() - before
    for client in clients:
        client.close()
    return growth / connections


def large_message(server: Server, usage: Usage, octets: int) -> tuple[float, float]:
    """Send one message; return octets a second and the growth of the peak memory in octets."""
    block = (b"x" * 70 + b"\r\n") * 1024
    before = usage.memory_octets("VmHWM")
    client = Client(server.port)
    client.command(b"EHLO large.bench.test")
    begin = time.monotonic()
    client.begin()
    client.send(b"Subject: large\r\n\r\n")
    for _ in range(octets // len(block)):
        client.send(block)
    client.command(b".")
    seconds = time.monotonic() - begin
    client.close()
    return octets / seconds, usage.memory_octets("VmHWM") - before
