"""The server's end of a small process that is kept running: one that has died is replaced.

Whoever notices first starts the next: a sender in its thread, or the reactor, which watches (`watching`).  After a process that
died soon after its start, or did not start, the next has to wait, longer each time.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from mailserver.processes import frames

__all__ = ["LONGEST_SECONDS", "STEADY_SECONDS", "Begin", "KeptProcess", "StartBackOff", "see_off"]

Begin = Callable[[], tuple["subprocess.Popen[bytes] | None", socket.socket]]

STEADY_SECONDS = 60.0  # a process that has run so long did not fail at its start
LONGEST_SECONDS = 60.0  # between two starts
SEND_SECONDS = 10.0  # a process that reads nothing for so long (it was stopped, say) counts as dead
END_SECONDS = 10.0


class StartBackOff:
    """How long the next start has to wait: not at all after a process that ran steadily, then longer each time."""

    def __init__(self) -> None:
        self._early_deaths = 0  # in a row

    def pause(self, ran_seconds: float) -> float:
        """Seconds until the next start, after a process that ran for so many."""
        if ran_seconds >= STEADY_SECONDS:
            self._early_deaths = 0
        found = min(LONGEST_SECONDS, 2.0 ** (self._early_deaths - 1)) if self._early_deaths else 0.0
        self._early_deaths = min(self._early_deaths + 1, 16)
        return found


class KeptProcess:
    """A process that is started again when it dies.

    `begin` starts it and may block.  It returns the process (None where it is not our child) and our end of its socket.
    `send` may be called in several threads.  `seconds` is a monotonic clock.  Raises OSError where the process does not start.
    """

    def __init__(self, *, name: str, begin: Begin, seconds: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.missing = ""  # why it does not run; "" while it does
        self.deaths = 0
        self._begin = begin
        self._seconds = seconds
        self._lock = threading.Lock()
        self.is_closed = False
        self._back_off = StartBackOff()
        self._next_start = 0.0
        self._begun = seconds()
        process, control = begin()
        self._process: subprocess.Popen[bytes] | None = process
        self._control: socket.socket | None = control
        control.settimeout(SEND_SECONDS)

    def send(self, octets: bytes, descriptors: Sequence[int]) -> None:
        """Hand a request over, with the descriptors of its reply and (for mail) its content.  Blocks.  Raises OSError."""
        if len(octets) > frames.FRAME_OCTETS:
            raise OSError(f"a request of {len(octets)} octets is too long")
        with self._mine():
            control = self._running()
            try:
                frames.send(control, octets, descriptors)
            except OSError as error:  # half a request may be on its way, so no other can follow it
                self._bury(f"it takes no request: {error}")
                raise OSError(f"the {self.name} takes no request: {error}") from error

    def revive(self) -> socket.socket | None:
        """Start the next process where this one has died and the pause is over.  Blocks: never call it in the reactor's thread.

        Return a socket that becomes readable when the present process ends; the caller closes it.  None where no process runs;
        `missing` then says why.
        """
        with contextlib.suppress(OSError), self._mine():
            return self._running().dup()
        return None

    def seconds_to_next_start(self) -> float:
        """How many seconds are left until the next start may be tried."""
        return max(0.0, self._next_start - self._seconds())

    def close(self) -> None:
        """Let the process end, and wait for it.  Its children finish what they have begun."""
        with self._lock:
            self.is_closed = True
            self.missing = "it was ended"
            control, self._control = self._control, None
            process, self._process = self._process, None
        if control is not None:
            _hang_up(control)
        if process is not None:
            see_off(process, END_SECONDS)

    # --- with the lock ---

    @contextlib.contextmanager
    def _mine(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=SEND_SECONDS):
            raise OSError(f"the {self.name} is busy with another request")
        try:
            yield
        finally:
            self._lock.release()

    def _running(self) -> socket.socket:
        """The socket of the running process, started where needed.  Raises OSError."""
        if self.is_closed:
            raise OSError(f"the {self.name} was ended")
        if self._control is not None and _has_ended(self._control):
            self._bury("it has died")
        if self._control is None:
            if (left := self.seconds_to_next_start()) > 0:
                raise OSError(f"the {self.name} is missing: {self.missing}; the next try is in {left:.0f} s")
            return self._start()
        return self._control

    def _start(self) -> socket.socket:
        self._begun = self._seconds()
        try:
            self._process, control = self._begin()
        except Exception as error:  # whatever it is, the next start has to wait its time
            self._has_died(str(error) or type(error).__name__)
            raise OSError(f"the {self.name} is missing: {self.missing}") from error
        control.settimeout(SEND_SECONDS)
        self._control, self.missing = control, ""
        return control

    def _bury(self, why: str) -> None:
        if self._control is not None:
            _hang_up(self._control)
        if self._process is not None:
            _kill(self._process)
        self._control = self._process = None
        self.deaths += 1
        self._has_died(why)

    def _has_died(self, why: str) -> None:
        now = self._seconds()
        self._next_start = now + self._back_off.pause(now - self._begun)
        self.missing = why


def _has_ended(control: socket.socket) -> bool:
    poll = select.poll()
    poll.register(control, select.POLLIN)  # it never says anything after its version
    return bool(poll.poll(0))


def _hang_up(control: socket.socket) -> None:
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)  # the watcher has a duplicate
    control.close()


def see_off(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process whose socket was closed; one that was stopped does not see it, and is killed in the end.  Blocks."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):  # it was started before the privileges were dropped
        process.kill()
        process.wait()
