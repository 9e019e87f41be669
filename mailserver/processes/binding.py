"""Sockets that are bound and do not listen yet.  The root process imports this, so it uses only the standard library."""

from __future__ import annotations

import errno
import os
import socket
import stat

__all__ = ["bound_socket", "bound_unix_socket"]


def bound_socket(interface: str, port: int) -> socket.socket:
    """Bind a tcp address.  `interface` is an address or a name, "" for all of IPv4.  Raises OSError.

    Where another socket listens there, bind(2) fails.  Where another is only bound, as ours are, the later listen(2) fails.
    """
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    [address, *_] = socket.getaddrinfo(interface or None, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address[4])
    except BaseException:
        bound.close()
        raise
    return bound


def bound_unix_socket(path: str, mode: int, *, replaces: bool) -> socket.socket:
    """Bind a path, which has `mode` from the start.  `replaces`: a stale socket there is removed.  Raises OSError.

    The mode is never changed by the path: in others' folder the path could be a link by then, and root would follow it.
    """
    if replaces:
        _remove_left_behind(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(bound.fileno(), mode)  # unix(7) takes it from the socket, less the umask
        if os.geteuid() == 0:
            before = os.umask(0)
            try:
                bound.bind(path)
            finally:
                os.umask(before)
        else:
            bound.bind(path)
            os.chmod(path, mode)
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_left_behind(path: str) -> None:
    """Remove a stale socket.  Raises OSError where a program listens there, and where it is not a socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "it is there and is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)
        try:
            knocking.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:  # its backlog is full
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path) from None
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
