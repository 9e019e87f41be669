"""Tells who holds the reactor: while one call does not return, no mail goes on.

A thread looks a few times a second at what the reactor's thread is doing.  Where it is not waiting for the network, it is asked
for a beat; one that is late means that a call holds it, and its stack says which.  Nothing is done for a message, and nothing
while the server is idle.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.logger import Logger

from mailserver.plugins.lent import Lent
from mailserver.plugins.rarely import Rarely
from mailserver.plugins.register import Register

__all__ = ["Heartbeat", "Watchdog", "frames_of"]

LOOKS = 4  # in the time that a call may take: whatever holds the reactor a quarter longer is seen
STACK_FRAMES = 15  # the innermost: further out are the server's and Twisted's
# Where a reactor waits for the network: Twisted's, and those of asyncio.
WAITING = frozenset(
    {("twisted.internet.epollreactor", "doPoll"), ("twisted.internet.pollreactor", "doPoll"), ("selectors", "select")}
)


class Heartbeat:
    """The beats that are asked for: one at a time.  No clock: times are given in, in seconds.

    `starved` seconds are those in which the reactor's thread wanted to run and the system had no processor for it: they are
    nobody's fault here.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._asked: float | None = None
        self._starved = 0.0
        self._is_told = False

    @property
    def is_told(self) -> bool:
        """Whether the beat that is asked for is late already."""
        return self._is_told

    @property
    def is_asked(self) -> bool:
        """Whether a beat was asked for that has not come."""
        return self._asked is not None

    def ask(self, now: float, starved: float = 0.0) -> None:
        """A beat is asked for."""
        self._asked, self._starved, self._is_told = now, starved, False

    def late(self, now: float, starved: float = 0.0) -> bool:
        """Whether the beat is late; True once for each."""
        if self._asked is None or self._is_told or self._held(now, starved) < self.seconds:
            return False
        self._is_told = True
        return True

    def came(self, now: float, starved: float = 0.0) -> float | None:
        """The beat is there: how long the reactor was held, None where that was short or was not told."""
        if self._asked is None:
            return None
        held, is_told, self._asked = self._held(now, starved), self._is_told, None
        return held if is_told else None

    def _held(self, now: float, starved: float) -> float:
        return 0.0 if self._asked is None else now - self._asked - max(0.0, starved - self._starved)


class Watchdog:
    """`seconds` is how long a call may hold the reactor; it may change.  `call_from_thread` is the reactor's.

    `register` says in whose call the frames of a stack are (`who`), and is told (`held`), when the reactor is free again, for how
    long it was not.
    """

    log = Logger()

    def __init__(
        self,
        *,
        seconds: float,
        call_from_thread: Callable[..., Any],
        register: Register,
        steady_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._heart = Heartbeat(seconds)
        self._call_from_thread = call_from_thread
        self._register = register
        self._steady_seconds = steady_seconds
        self._rarely = Rarely()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched = 0
        self._schedstat = ""
        self._suspect: Lent | None = None

    @property
    def seconds(self) -> float:
        """How long a call may hold the reactor."""
        return self._heart.seconds

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        self._heart.seconds = seconds

    def start(self) -> None:
        """In the reactor's thread, which is the one that is watched."""
        self._watched = threading.get_ident()
        self._schedstat = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The thread ends by itself, in a moment."""
        self._stopping.set()

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping.wait(self._heart.seconds / LOOKS):
            try:
                self._look()
            except Exception:  # noqa: BLE001  # a fault here must not end the watch
                if self._rarely.may("fault"):
                    self.log.failure("the watchdog failed")

    def _look(self) -> None:
        heart = self._heart
        if not heart.is_asked:
            if not _is_waiting(sys._current_frames().get(self._watched)):
                heart.ask(self._steady_seconds(), self._starved())
                self._call_from_thread(self._beat)
        elif heart.late(self._steady_seconds(), self._starved()):
            self._tell()

    def _tell(self) -> None:
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return
        frames = frames_of(frame)
        self._suspect = self._register.who(frames)
        place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}"
        if self._rarely.may((str(self._suspect), place)):
            stack = "".join(traceback.format_stack(frame, STACK_FRAMES))
            del frame, frames
            self.log.warn(
                "{who} holds the reactor for more than {seconds:g} s: no mail goes on meanwhile.  It is in\n{stack}",
                who="the server itself" if self._suspect is None else str(self._suspect),
                seconds=self._heart.seconds,
                stack=stack,
            )

    def _starved(self) -> float:
        """How long the reactor's thread has waited for a processor in all; 0 where Linux does not say."""
        try:
            with open(self._schedstat, encoding="ascii") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    # --- the reactor's thread ---

    def _beat(self) -> None:
        held = self._heart.came(self._steady_seconds(), self._starved() if self._heart.is_told else 0.0)
        if held is not None:
            self._register.held(self._suspect, held)


def frames_of(frame: FrameType) -> list[FrameType]:
    """The frame and those that called it, the innermost first."""
    found = [frame]
    while (outer := found[-1].f_back) is not None:
        found.append(outer)
    return found


def _is_waiting(frame: FrameType | None) -> bool:
    return frame is None or (str(frame.f_globals.get("__name__")), frame.f_code.co_name) in WAITING
