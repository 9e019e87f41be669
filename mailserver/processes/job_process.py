"""The program that calls functions for a component, one after the other, until the server closes its end.

It has the server's identity and none of its descriptors.  It cannot gain rights, its memory is bounded, and it gives way to the
server where processor or memory are scarce.  What its functions print goes nowhere: the answer has a socket of its own.  A call
that takes longer than it may is ended by the server, or by an alarm of the kernel's where the server does not come to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence

from mailserver.processes import frames
from mailserver.processes.job_format import RESULT_OCTETS, call_job, refused, seconds_of
from mailserver.processes.spawning import outlive_signals
from mailserver.processes.version import version

__all__ = ["ALARM_SECONDS", "OTHER_VERSION"]

OTHER_VERSION = "the program on the disk is of another version than this server: restart the server"
ALARM_SECONDS = 5.0  # after the call's time
NICE = 5
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


def main(arguments: Sequence[str]) -> None:
    """The arguments are octets of memory, the version that is expected ("" for any), and the number of our end."""
    memory, expected, number = arguments
    outlive_signals()
    _give_way()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    octets = int(memory) if most == resource.RLIM_INFINITY else min(int(memory), most)
    resource.setrlimit(resource.RLIMIT_AS, (octets, octets))
    with socket.socket(fileno=int(number)) as server:
        server.set_inheritable(False)
        ours = os.getpid()
        why = OTHER_VERSION if expected and version().decode("ascii") != expected else ""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        while True:
            try:
                job, descriptors = frames.receive(server, octets_most=frames.LONGEST_OCTETS)
                for descriptor in descriptors:
                    os.close(descriptor)
                answer = refused(why) if why else _called(job)
                if os.getpid() != ours:  # the function has forked, and its child comes back as well
                    os._exit(0)
                frames.send(server, answer, octets_most=2 * RESULT_OCTETS)
                del job
            except (EOFError, OSError):
                return


def _called(job: bytes) -> bytes:
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds_of(job) + ALARM_SECONDS)
        return call_job(job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_way() -> None:
    """Where something of this is not to be had, the rest of it serves."""
    os.umask(0o077)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # where the server is killed in the middle of a call


if __name__ == "__main__":
    main(sys.argv[1:])
