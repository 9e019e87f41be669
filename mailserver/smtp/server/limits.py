"""How much a session takes from its peer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

__all__ = ["SessionLimits"]


@dataclass(frozen=True)
class SessionLimits:
    """Lengths in octets; one value serves many sessions.

    `command_line_octets` is the longest command line, CRLF included (RFC 5321 section 4.5.3.1.4 asks for 512, and extensions
    for more); `auth_line_octets` that of AUTH and its responses (RFC 4954 section 4); `message_octets` and `header_octets` the
    largest message and header section, 0 for no limit; `excess_octets` is how far past `message_octets` a peer may go on at
    least before it is cut off.

    `stray_line_ends` says what becomes of a CR or LF outside CRLF in the content (RFC 5321 section 2.3.8): "normalize" makes a
    bare LF a CRLF and a lone CR a blank, "refuse" gives the message a fault, as it does for a NUL.
    """

    command_line_octets: int = 2048
    auth_line_octets: int = 12288
    message_octets: int = 52_428_800
    header_octets: int = 262_144
    excess_octets: int = 10_485_760
    stray_line_ends: Literal["normalize", "refuse"] = "normalize"

    @cached_property
    def cut_off_octets(self) -> int:
        """The size at which a message is not read any further, 0 for none."""
        return self.message_octets + max(self.message_octets, self.excess_octets) if self.message_octets else 0
