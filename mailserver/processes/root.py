"""The root process: keeps root's privileges where the server gives them up, and does as little as possible.

It accepts no connection and reads no mail.  It starts the small processes (courier, launcher, PAM, web) and hands their
sockets to the server.  At a reload it binds ports and Unix sockets.  The kinds of process are those below.

It knows from the configuration itself how each process is started and which addresses there are.  A short-lived program
(`mailserver.assembly.root_plan`) reads the file, and refuses one that others than root could have written.  The server
can only choose among these.  How processes are started is fixed at the start, as the settings of the server's parts are.
The addresses are read again when the server asks for it.

The server's end is `root_client`.  Question and answer are each one frame of JSON:

    [number, "start", kind] | [number, "bind", endpoint] | [number, "read", ""]   →   [number, why or ""] and perhaps a descriptor

It ends when the server closes its end.  The processes that it has started then end for the same reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mailserver.processes import frames
from mailserver.processes.binding import bound_socket, bound_unix_socket
from mailserver.processes.spawning import ProcessStart, begin, name_version, outlive_signals

__all__ = ["KINDS", "READING", "RootPlan", "Root", "main"]

KINDS: Mapping[str, str] = {
    "accounts.pam": "mailserver.authentication.pam",
    "delivery.courier": "mailserver.delivery.courier",
    "delivery.launcher": "mailserver.delivery.launcher",
    "relay.courier": "mailserver.delivery.courier",
    "relay.launcher": "mailserver.delivery.launcher",
    "web": "mailserver.web.process",
}
READING = "mailserver.assembly.root_plan"
READ_SECONDS = 30.0
PLAN_OCTETS = 4 * 1024 * 1024
WHY_CHARACTERS = 4096


class RootRefusal(Exception):
    """The root process will not do what was asked.  The message is for the server's log."""


class RootPlan:
    """What the configuration allows.

    `addresses` holds interface and port by endpoint.  `paths` holds a Unix socket's path, its mode, and whether a stale one
    is replaced.  `unsafe` says why root must not use a path.  `starts` says how a process is started, by kind.
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.addresses: dict[str, tuple[str, int]] = {
            endpoint: (str(interface), int(port)) for endpoint, (interface, port) in members["addresses"].items()
        }
        self.paths: dict[str, tuple[str, int, bool]] = {
            endpoint: (str(path), int(mode), bool(replaces)) for endpoint, (path, mode, replaces) in members["paths"].items()
        }
        self.unsafe: dict[str, str] = {endpoint: str(why) for endpoint, why in members["unsafe"].items()}
        self.starts: dict[str, ProcessStart] = {
            kind: ProcessStart(KINDS[kind], tuple(map(str, arguments)), instructions.encode("ascii"))
            for kind, (arguments, instructions) in members["starts"].items()
        }


class Root:
    """Answers the server's questions.  `path` is the configuration file's; `ours` is the version of this program at its start."""

    def __init__(self, *, path: str, ours: bytes, reading: str = READING) -> None:
        self._path = path
        self._ours = ours
        self._reading = reading
        self._plan: RootPlan | None = None
        self._starts: Mapping[str, ProcessStart] | None = None  # those of the first plan
        self._started: dict[str, tuple[subprocess.Popen[bytes], int]] = {}  # with a descriptor by which its end is seen

    def serve(self, control: socket.socket) -> None:
        """Answer questions until the server closes its end."""
        while True:
            poll = select.poll()
            for descriptor in (control.fileno(), *(ended for _, ended in self._started.values())):
                poll.register(descriptor, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll()]
            self._reap()
            if control.fileno() not in ready:
                continue
            try:
                question, descriptors = frames.receive(control)
                for descriptor in descriptors:
                    os.close(descriptor)
                number, verb, word = json.loads(question)
            except (EOFError, OSError, ValueError, TypeError, RecursionError):
                return
            with contextlib.ExitStack() as stack:
                why, found = "", None
                try:
                    found = self.answer(str(verb), str(word))
                except Exception as error:  # noqa: BLE001  # one question's failure must not take root's part away from the others
                    why = str(error) if isinstance(error, RootRefusal | OSError) else f"{type(error).__name__}: {error}"
                    why = why[:WHY_CHARACTERS] or type(error).__name__
                if found is not None:
                    stack.enter_context(found)
                descriptors = [] if found is None else [found.fileno()]
                try:
                    frames.send(control, json.dumps([number, why]).encode("ascii"), descriptors)
                except OSError:
                    return

    def answer(self, verb: str, word: str) -> socket.socket | None:
        """Do what is asked; return the socket for the server, if any.  Raises `RootRefusal`, OSError, or another error."""
        if verb == "start":
            return self._start(word)
        if verb == "bind":
            return self._bind(word)
        if verb == "read":
            self._read()
            return None
        raise RootRefusal("there is no such question")

    def _start(self, kind: str) -> socket.socket:
        start = (self._starts or {}).get(kind)
        if start is None:
            raise RootRefusal(f"the configuration at the start asked for no {kind}")
        self._end(kind)
        process, control = begin(start, self._ours)
        self._started[kind] = process, os.pidfd_open(process.pid)
        return control

    def _bind(self, endpoint: str) -> socket.socket:
        plan = self._plan
        if plan is not None and endpoint in plan.unsafe:
            raise RootRefusal(plan.unsafe[endpoint])
        try:
            if plan is not None and endpoint in plan.addresses:
                return bound_socket(*plan.addresses[endpoint])
            if plan is not None and endpoint in plan.paths:
                path, mode, replaces = plan.paths[endpoint]
                return bound_unix_socket(path, mode, replaces=replaces)
        except OSError as error:
            raise RootRefusal(f"{endpoint}: {error.strerror or error}") from error
        raise RootRefusal(f"the configuration has no endpoint {endpoint!r}")

    def _read(self) -> None:
        process, pipe = begin(ProcessStart(self._reading, (self._path,)), self._ours)
        with pipe:
            try:
                pipe.settimeout(READ_SECONDS)
                octets = b""
                while len(octets) < PLAN_OCTETS and (piece := pipe.recv(65536)):
                    octets += piece
            finally:
                process.kill()
                process.wait()
        try:
            members = json.loads(octets)
        except ValueError:
            raise RootRefusal("the configuration could not be read: the program that reads it has died") from None
        if members["why"]:
            raise RootRefusal(members["why"])
        self._plan = RootPlan(members)
        if self._starts is None:
            self._starts = self._plan.starts

    def _end(self, kind: str) -> None:
        """End the previous process of this kind, should it still run.  Its children go on."""
        process, ended = self._started.pop(kind, (None, -1))
        if process is not None:
            process.kill()
            process.wait()
            os.close(ended)

    def _reap(self) -> None:
        for kind, (process, _) in list(self._started.items()):
            if process.poll() is not None:
                self._end(kind)


def main(arguments: Sequence[str]) -> None:
    """Arguments: the configuration's path, the number of our end of the socket pair."""
    path, number = arguments
    outlive_signals()
    os.umask(0o077)
    with socket.socket(fileno=int(number)) as control:
        control.set_inheritable(False)
        Root(path=path, ours=name_version(control)).serve(control)


if __name__ == "__main__":
    main(sys.argv[1:])
