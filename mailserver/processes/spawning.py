"""Modules of ours that run as programs beside the server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import mailserver

__all__ = ["outlive_signals", "program", "spawn"]

BUFFER_OCTETS = 1024 * 1024


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


def outlive_signals() -> None:
    """A stopping server still delivers what is in flight; the closing socket is what ends us."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
