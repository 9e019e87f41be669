"""Memory over a soak: peers that come and go in the middle of everything, and what the server's process holds after each while.

    python -m tests.proofs.growth SECONDS [DIAGNOSE]
"""

from __future__ import annotations

import contextlib
import random
import ssl
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.proofs.letters import letter
from tests.scenarios.support import BASIC, Server, Wire

__all__ = ["Growth", "soak"]

CLIENTS = 8
CONFIG = BASIC.replace('tls = "none"', 'tls = "starttls"') + (
    "\n[limits]\nconnections_per_network = 1000\nminimum_free_bytes = 0\n"
)
ENVELOPE = b"MAIL FROM:<s@example.net>\r\nRCPT TO:<bob@example.org>\r\n"


@dataclass(slots=True)
class Growth:
    """`samples`: seconds since the start, KiB resident of the main process."""

    seconds: float = 0.0
    connections: int = 0
    samples: list[tuple[float, int]] = field(default_factory=list)

    def at(self, part: float) -> int:
        """KiB at this part of the time, the median of a twentieth of it."""
        near = sorted(self.samples, key=lambda sample: abs(sample[0] - part * self.seconds))[: max(1, len(self.samples) // 20)]
        return sorted(kib for _, kib in near)[len(near) // 2]

    def report(self) -> str:
        rows = [f"{part * self.seconds:6.0f} s  {self.at(part) / 1024:7.1f} MiB" for part in (0, 0.05, 0.1, 0.25, 0.5, 0.75, 1)]
        return f"{self.connections} connections\n" + "\n".join(rows)

    def faults(self) -> list[str]:
        """Before a connection's end freed its TLS layer a soak of 100 seconds added 28 MiB; since then, 5."""
        grown = {"since the start": (self.at(1) - self.at(0), 16), "in the second half": (self.at(1) - self.at(0.5), 4)}
        return [
            f"{kib} KiB more {when}, {self.connections} connections" for when, (kib, most) in grown.items() if kib > most * 1024
        ]


class Visitor(threading.Thread):
    """One that connects again and again, and goes in any state."""

    def __init__(self, server: Server, seed: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.connections = 0
        self._port = server.port
        self._chance = random.Random(seed)
        self._over = over
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    def run(self) -> None:
        while not self._over.is_set():
            self.connections += 1
            with contextlib.suppress(OSError, EOFError), Wire(self._port, timeout=5) as wire:
                self._visit(wire)

    def _visit(self, wire: Wire) -> None:
        chance = self._chance
        if chance.random() < 0.1:
            return wire.reset()
        wire.command("EHLO client.example")
        if chance.random() < 0.5:
            wire.command("STARTTLS")
            if chance.random() < 0.2:
                wire.send(b"\x16\x03\x01\x02\x00\x01"[: chance.randint(1, 6)])
                return wire.reset() if chance.random() < 0.5 else None
            wire.socket = self._tls.wrap_socket(wire.socket)
            wire.command("EHLO client.example")
        size = chance.choice((500, 4000, 40_000, 2_000_000))
        said = ENVELOPE + b"DATA\r\n" + letter("1", size)
        kind = chance.randrange(4)
        if kind == 0:
            wire.send(said[: chance.randrange(len(said))])
        elif kind == 1:
            wire.send(ENVELOPE + b"BDAT %d LAST\r\n" % (2 * size) + said[:size])
        elif kind == 2:
            wire.send(ENVELOPE + b"NOOP\r\n" * chance.randrange(200))
        else:
            wire.dialogue("MAIL FROM:<s@example.net>", "RCPT TO:<bob@example.org>", "DATA")
            wire.send(letter("1", min(size, 4000)) + b"\r\n.\r\n")
            if chance.random() < 0.7:
                wire.reply()
        if chance.random() < 0.5:
            wire.reset()


def soak(seconds: float, *, diagnose: str = "") -> Growth:
    """Let visitors come and go for so long.  `diagnose`: Python that is put before the server's own, as sitecustomize."""
    found = Growth()
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        work = Path(folder).resolve()
        server = Server(work, CONFIG, ("alice@example.org", "bob@example.org"))
        server.is_forked = False  # a process of its own from the start: nothing of its memory is shared
        if diagnose:
            (work / "site").mkdir()
            (work / "site" / "sitecustomize.py").write_text(diagnose)
        server.start()
        over = threading.Event()
        visitors = [Visitor(server, seed, over) for seed in range(CLIENTS)]
        try:
            began = time.monotonic()
            for visitor in visitors:
                visitor.start()
            while (since := time.monotonic() - began) < seconds:
                assert server.process is not None
                if server.process.poll() is not None:
                    raise RuntimeError(f"the server has ended:\n{server.log()[-4000:]}")
                found.samples.append((since, resident_kib(server.process.pid)))
                time.sleep(min(1.0, seconds / 100))
            found.seconds = seconds
            found.connections = sum(visitor.connections for visitor in visitors)
        finally:
            over.set()
            for visitor in visitors:
                visitor.join(20)
            if server.process is not None:
                server.kill()
            if diagnose and (work / "diagnosis").exists():
                print((work / "diagnosis").read_text())
    return found


def resident_kib(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    print(soak(float(sys.argv[1]), diagnose=Path(sys.argv[2]).read_text() if len(sys.argv) > 2 else "").report())
