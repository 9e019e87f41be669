"""The server's end of the root process (`root`)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable

from mailserver.processes import frames
from mailserver.processes.spawning import ProcessStart, begin

__all__ = ["RootGone", "RootClient", "start_root_process"]

ANSWER_SECONDS = 60.0  # more than it waits itself: 20 s for a process to start, 30 s for the configuration to be read
END_SECONDS = 10.0


class RootGone(OSError):
    """The root process has died, and cannot be started again without root's privileges."""


class RootClient:
    """Asks the root process, `process`.  Each question blocks; several threads may ask.  All raise OSError with a sentence."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._process = process
        self._control = control
        self._seconds = seconds
        self._lock = threading.Lock()
        self._number = 0
        self.ending = os.pidfd_open(process.pid)  # ready to be read when it has ended; `close` closes it

    @property
    def pid(self) -> int:
        """The number of the root process."""
        return self._process.pid

    def start(self, kind: str) -> socket.socket:
        """Have a small process started.  Return our end of its socket."""
        return self._ask_for_socket("start", kind)

    def bind(self, endpoint: str) -> socket.socket:
        """Have the address of an endpoint bound.  Return a socket that does not listen yet."""
        return self._ask_for_socket("bind", endpoint)

    def read(self) -> None:
        """Have the configuration read again."""
        self._ask("read", "")

    def close(self) -> None:
        """Let the root process end, and wait for it."""
        with self._lock:
            self._control.close()
            os.close(self.ending)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is root's, so we could not end it
            self._process.wait(END_SECONDS)

    def _ask_for_socket(self, verb: str, word: str) -> socket.socket:
        descriptors = self._ask(verb, word)
        if len(descriptors) != 1:
            raise OSError("the root process gave no socket")
        return socket.socket(fileno=descriptors[0])

    def _ask(self, verb: str, word: str) -> list[int]:
        if not self._lock.acquire(timeout=ANSWER_SECONDS):
            raise OSError("the root process is busy with another question")
        try:
            self._number += 1
            self._control.settimeout(ANSWER_SECONDS)
            frames.send(self._control, json.dumps([self._number, verb, word]).encode("ascii"))
            return self._answer(self._number)
        except TimeoutError:
            raise OSError("the root process does not answer") from None
        except ValueError:
            raise OSError("the root process gave no answer") from None
        except (EOFError, ConnectionError):
            raise RootGone("the root process has died: restart the server") from None
        finally:
            self._lock.release()

    def _answer(self, number: int) -> list[int]:
        end = self._seconds() + ANSWER_SECONDS
        while True:
            self._control.settimeout(max(0.01, end - self._seconds()))
            octets, descriptors = frames.receive(self._control)
            answered, why = json.loads(octets)
            if answered == number and not why:
                return descriptors
            for descriptor in descriptors:
                os.close(descriptor)
            if answered == number:
                raise OSError(why)
            # the answer to a question that was given up


def start_root_process(path: str, ours: bytes) -> RootClient:
    """Start the root process for the configuration at `path`; `ours` is our version.  Blocks.  Raises OSError with a reason."""
    process, control = begin(ProcessStart("mailserver.processes.root", (path,)), ours)
    found = RootClient(process, control)
    try:
        found.read()
    except OSError:
        found.close()
        raise
    return found
