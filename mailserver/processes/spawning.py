"""Modules of ours that run as programs beside the server."""

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
STARTER_GONE = os.EX_UNAVAILABLE  # the status of a program that nobody waits for


class OtherVersion(OSError):
    """What stands on the disk is not the program that runs."""


@dataclass(frozen=True, slots=True)
class ProcessStart:
    """How a module is run.  `instructions` are what it is told first, since everybody could read its arguments."""

    module: str
    arguments: tuple[str, ...] = ()
    instructions: bytes = b""


def program(module: str, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that run a module of ours.

    It finds our package whatever the working directory is, and nothing in that directory can stand in for a module (-P).
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
                start_new_session=True,  # a terminal's Ctrl-C is for the server alone
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def begin(start: ProcessStart, expected: bytes) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Run a module that names its version first, and give it its instructions.

    Blocking, for `START_SECONDS` at most.  Raises OSError where it does not start, `OtherVersion` where it is not `expected`.
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
    """In the program: the first that it says, once it can work.  Returns the version.

    Where whoever started it has gone meanwhile, it ends, with a status and without a word.  Raises OSError.
    """
    ours = version()
    try:
        control.sendall(ours)
    except ConnectionError:
        sys.exit(STARTER_GONE)
    return ours


def outlive_signals() -> None:
    """A stopping server still delivers what is in flight; the closing socket is what ends us."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
