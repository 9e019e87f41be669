"""What attacks share: room for many connections, and a watch over the server's memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire

__all__ = ["GROWTH_KIB", "ROOMY", "HostileCase", "flood"]

GROWTH_KIB = 32 * 1024
ROOMY = (
    BASIC
    + """
[limits]
connections = 2000
connections_per_network = 2000
"""
)


class HostileCase(ScenarioCase):
    """After each attack the server takes normal mail, and has not grown by more than 32 MiB at any moment."""

    @contextlib.contextmanager
    def bounded(self, server: Server) -> Iterator[None]:
        self.assertServes(server)  # warm: all is imported and every thread runs
        assert server.process is not None
        pid = server.process.pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM begins anew, proc(5)
        before = server.resident_kib()
        yield
        growth = max(server.resident_kib(), peak_kib(pid)) - before
        self.assertLess(growth, GROWTH_KIB, f"the server has grown by {growth} KiB")
        self.assertServes(server)


def peak_kib(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) if match else 0


def flood(wire: Wire, piece: bytes, octets: int) -> int:
    """Send `piece` again and again; how much left before the server ended the connection, `octets` at most."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < octets:
            wire.send(piece)
            sent += len(piece)
    return sent
