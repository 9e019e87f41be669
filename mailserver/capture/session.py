"""A session of SMTP or LMTP in a capture: who spoke with whom, when, and what became of its connection."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

__all__ = ["Session", "SessionEnding"]


class SessionEnding(enum.StrEnum):
    """How a session ended, as far as the capture shows."""

    CLOSED = "closed"
    RESET = "reset"
    NOT_SEEN = "not seen"  # the capture ended before
    GIVEN_UP = "given up"  # to make room
    REPLACED = "replaced"  # another connection between the same ports


@dataclass(slots=True)
class Session:
    """One connection.  Times are in nanoseconds since 1970; the counts grow while it lasts.

    `has_start`: its SYN was seen.  `is_tls`: encrypted from the first octet.
    """

    number: int
    client: IPv4Address | IPv6Address
    client_port: int
    server: IPv4Address | IPv6Address
    server_port: int
    started: int
    has_start: bool
    is_tls: bool = False
    is_lmtp: bool = False
    ended: int = 0
    ending: SessionEnding | None = None
    client_octets: int = 0
    server_octets: int = 0
    retransmitted: int = 0
    out_of_order: int = 0
    lost: int = 0
