"""Free loopback ports for servers of the tests.

No port is given twice, not in this process and not in another that runs tests beside it: whoever asked first may not listen there
yet.  A port that was given stays locked, one octet of a common file for each, until the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

__all__ = ["free_port", "own_loopback"]

_given: set[int] = set()  # the locks of this process do not shut itself out
_file: list[int] = []


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host`, free for TCP and UDP, below those that the system gives to clients: there a client may meet itself
    while no server is up."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(min(20000, first - 2000), first)
        if port not in _given and _lock(port) and _is_free(host, port):
            _given.add(port)
            return port


def own_loopback(number: int) -> str:
    """A loopback address that no other process of the tests uses: for servers whose port is fixed.  `number` is from 1 to 99."""
    pid = os.getpid()
    return f"127.{100 + number}.{pid // 250 % 250 + 1}.{pid % 250 + 1}"


def _lock(port: int) -> bool:
    if not _file:
        path = os.path.join(tempfile.gettempdir(), f"ports-of-tests-{os.geteuid()}")
        _file.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        fcntl.lockf(_file[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.bind((host, port))
        datagram.bind((host, port))
        return True
    return False
