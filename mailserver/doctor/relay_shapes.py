"""The ways in which a stranger may try to send mail to others through a host (an open relay), and what its answers say.

Each is a pair of what stands in MAIL and in RCPT.  Names of others are those of RFC 2606, which nobody has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["STRANGER", "RelayShape", "RelaySeen", "relay_shapes", "relays"]

STRANGER = "relay-test@example.com"
FOREIGN = "example.net"
LOCAL_PART = "relay-test"


@dataclass(frozen=True, slots=True)
class RelayShape:
    """What is said, and what people call it.  `is_ours`: it is a name in our domain, as well: a domain that takes mail for every
    name takes this, too, and keeps it.
    """

    words: str
    sender: str
    recipient: str
    is_ours: bool = False

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.words} (MAIL FROM:<{self.sender}> RCPT TO:<{self.recipient}>)"


@dataclass(frozen=True, slots=True)
class RelaySeen:
    """What a host has answered to one of them at RCPT (or before)."""

    shape: RelayShape
    code: int
    reply: str

    @property
    def is_taken(self) -> bool:
        """Whether it would take the message."""
        return 200 <= self.code < 300


def relay_shapes(domain: str, address: str, token: str) -> tuple[RelayShape, ...]:
    """`domain` is one of ours, `address` the host's own, `token` a name that no account has.

    The first says whether the domain takes mail for every name.
    """
    foreign, ours = f"{LOCAL_PART}@{FOREIGN}", f"postmaster@{domain}"
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    return (
        RelayShape("a name that is nobody's", STRANGER, f"{token}@{domain}", True),
        RelayShape("plain", STRANGER, foreign),
        RelayShape("null sender", "", foreign),
        RelayShape("our domain as sender", ours, foreign),
        RelayShape("the host's address as sender", f"{LOCAL_PART}@{literal}", foreign),
        RelayShape("sender without a domain", LOCAL_PART, foreign),
        RelayShape("percent hack", STRANGER, f"{LOCAL_PART}%{FOREIGN}@{domain}", True),
        RelayShape("percent hack at the host's address", STRANGER, f"{LOCAL_PART}%{FOREIGN}@{literal}", True),
        RelayShape("percent hack without a domain", STRANGER, f"{LOCAL_PART}%{FOREIGN}", True),
        RelayShape("quoted local part", STRANGER, f'"{foreign}"@{domain}', True),
        RelayShape("quoted address", STRANGER, f'"{foreign}"'),
        RelayShape("source route", STRANGER, f"@{domain}:{foreign}"),
        RelayShape("source route over the host's address", STRANGER, f"@{literal}:{foreign}"),
        RelayShape("two domains", STRANGER, f"{foreign}@{domain}", True),
        RelayShape("bang path", STRANGER, f"{FOREIGN}!{LOCAL_PART}@{domain}", True),
        RelayShape("bang path without a domain", STRANGER, f"{FOREIGN}!{LOCAL_PART}"),
        RelayShape("domain literal of another host", STRANGER, f"{LOCAL_PART}@[192.0.2.1]"),
    )


def relays(seen: Iterable[RelaySeen]) -> Sequence[RelaySeen]:
    """Those by which a message would go to others.  Names of a domain that takes all of them do not count."""
    found = [*seen]
    takes_all = bool(found) and found[0].is_taken
    return [one for one in found[1:] if one.is_taken and not (takes_all and one.shape.is_ours)]
