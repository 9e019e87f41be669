"""What this host can reach by itself: whether it has an address, and whether it has IPv6.  Sends nothing."""

from __future__ import annotations

import socket

from mailserver.relay.own_ipv6 import kernels_address

__all__ = ["has_ipv6", "is_ours"]


def is_ours(address: str) -> bool:
    """Whether this host has the address itself, and need not go over a router to reach it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def has_ipv6() -> bool:
    """Whether the kernel knows a way to the IPv6 Internet."""
    return bool(kernels_address())
