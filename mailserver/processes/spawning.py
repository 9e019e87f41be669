"""Starts a module of ours as a program beside the server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import mailserver
from mailserver.processes import frames
from mailserver.processes.version import VERSION_OCTETS, version

__all__ = ["STARTER_GONE", "OtherVersion", "ProcessStart", "begin", "name_version", "outlive_signals", "program", "spawn"]

BUFFER_OCTETS = 1024 * 1024
START_SECONDS = 20.0
STARTER_GONE = os.EX_UNAVAILABLE  # the exit status of a program whose starter has gone


class OtherVersion(OSError):
    """The program on the disk is of another version than the one that runs."""


@dataclass(frozen=True, slots=True)
class ProcessStart:
    """How a module is run.  `instructions` are sent over its socket, since every user of the host could read arguments."""

    module: str
    arguments: tuple[str, ...] = ()
    instructions: bytes = b""


def program(module: str, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that run a module of ours.

    The program finds our package in any working directory, and no file in that directory can replace a module (-P).
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(mailserver.__file__)))
    path = os.pathsep.join([package, *filter(os.path.isabs, sys.path)])
    environment = {"PYTHONPATH": path, "PATH": os.defpath, "LANG": "C.UTF-8"}
    return [sys.executable, "-P", "-m", module, *arguments], environment


def spawn(module: str, arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Run a module of ours as a program; its last argument is the number of its end of a socket pair.  Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_OCTETS)
        command, environment = program(module, [*arguments, str(theirs.fileno())])
        try:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C must reach only the server
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def begin(start: ProcessStart, expected: bytes) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Run a module that names its version first, and give it its instructions.

    Blocks for `START_SECONDS` at most.  Raises OSError where it does not start, `OtherVersion` where its version is not
    `expected`.
    """
    process, control = spawn(start.module, start.arguments)
    try:
        control.settimeout(START_SECONDS)
        if frames.exactly(control, VERSION_OCTETS) != expected:
            raise OtherVersion(f"{start.module} on the disk is of another version than this server: restart the server")
        if start.instructions:
            frames.send(control, start.instructions)
        control.settimeout(None)
    except (OSError, EOFError) as error:
        control.close()
        process.kill()
        process.wait()
        if isinstance(error, OtherVersion):
            raise
        raise OSError(f"{start.module} does not start: {error}") from error
    return process, control


def name_version(control: socket.socket) -> bytes:
    """Called in the program: send our version, as the sign that it is ready.  Return the version.

    Where the starter has gone meanwhile the program ends without output, with `STARTER_GONE`.  Raises OSError.
    """
    ours = version()
    try:
        control.sendall(ours)
    except ConnectionError:
        sys.exit(STARTER_GONE)
    return ours


def outlive_signals() -> None:
    """Ignore the signals that stop the server.  It still delivers what is in flight; its closing socket ends us."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
