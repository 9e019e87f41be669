"""A tcp address, bound and not listened on yet.  Root's process imports this: nothing but the standard library."""

from __future__ import annotations

import socket

__all__ = ["bound_socket"]


def bound_socket(interface: str, port: int) -> socket.socket:
    """Bind it; `interface` is an address or a name, "" for all of IPv4.  Raises OSError.

    Where somebody listens there already, bind(2) fails; where somebody has only bound it, as we do, listen(2) of the later one.
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
