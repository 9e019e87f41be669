"""What systemd is told: that we have started, reload, stop, and that the reactor turns (sd_notify(3)).

Datagrams to the socket that $NOTIFY_SOCKET names, ``NAME=value`` lines.  Without one nothing is said.  It is so little that no
library is worth its place: the one of systemd has to be compiled, the others do the same in as many lines.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

__all__ = ["Systemd"]

GO_ON_SECONDS = 10.0  # how often we say that a start or a stop goes on
PATIENCE_SECONDS = 60.0  # how long systemd waits for the next word
SEND_SECONDS = 1.0
STATUS_CHARACTERS = 500


class Systemd:
    """The one way to tell systemd something; an unreachable one is nobody's trouble.

    `environment` is the process's: its variables of this protocol are removed, they are not meant for our children.
    """

    def __init__(self, clock: IReactorTime, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        self._watchdog_seconds = int(microseconds) / 1e6 if ours and microseconds.isascii() and microseconds.isdigit() else 0.0
        self._going_on, self._turning = LoopingCall(self._go_on), LoopingCall(self._tell, "WATCHDOG=1")
        for call in (self._going_on, self._turning):
            call.clock = clock

    def starting(self) -> None:
        """A queue may take long to open.  While the reactor turns, systemd goes on waiting."""
        if self._address:
            self._going_on.start(GO_ON_SECONDS)

    def ready(self, status: str) -> None:
        """Connections are taken; `status` is for `systemctl status`.  From now on a reactor that hangs is noticed."""
        if self._going_on.running:
            self._going_on.stop()
        self._tell("READY=1", f"MAINPID={os.getpid()}", _status(status))
        if self._address and self._watchdog_seconds and not self._turning.running:
            self._turning.start(self._watchdog_seconds / 2)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The stop begins; each of its parts has a bound.  While the reactor turns, systemd waits, and its watchdog is fed."""
        self._tell("STOPPING=1")
        if self._address and not self._going_on.running:
            self._going_on.start(GO_ON_SECONDS)

    def _go_on(self) -> None:
        self._tell(f"EXTEND_TIMEOUT_USEC={int(PATIENCE_SECONDS * 1e6)}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.settimeout(SEND_SECONDS)
                datagrams.sendto("\n".join(lines).encode("utf-8", "replace"), address)
        except (OSError, ValueError):
            pass  # who cannot be told does not wait for it


def _status(words: str) -> str:
    return "STATUS=" + " ".join(words.split())[:STATUS_CHARACTERS]
