"""Whether a key may be taken into use, by what the DNS shows of it (RFC 7671 section 8.1).  The doctor looks."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mailserver.doctor.seen import Seen, SeenState

__all__ = ["KeyShown", "key_shown"]

TTL_MOST = 7 * 86_400


class Shown(enum.Enum):
    """What there is."""

    NO_DANE = "the host has no TLSA record"
    SHOWN = "each server of the zone shows it"
    NOT_SHOWN = "it is not shown"
    UNKNOWN = "nobody can tell"


@dataclass(frozen=True, slots=True)
class KeyShown:
    """Whether a TLSA record lets others believe a key; `ttl_seconds` is how long they may remember what was before."""

    shown: Shown
    why: str = ""
    ttl_seconds: int = 0

    @property
    def is_free(self) -> bool:
        """Nobody holds us to any key."""
        return self.shown is Shown.NO_DANE

    @property
    def is_shown(self) -> bool:
        """By all of them."""
        return self.shown is Shown.SHOWN


def key_shown(seen: Seen, hostname: str, spki: str) -> KeyShown:
    """Whether the servers of the host's zone show TLSA 3 1 1 for this key, beside others."""
    name = f"_25._tcp.{hostname}"
    found = seen.of(name, "TLSA")
    if found.alias:
        name = found.alias
        found = seen.of(name, "TLSA")
    if found.state is SeenState.FAILED or found.signature_fault:
        return KeyShown(Shown.UNKNOWN, found.why or f"the signatures of {name}: {found.signature_fault}")
    if found.state is not SeenState.FOUND and not found.differing:
        return KeyShown(Shown.NO_DANE)
    record = f"3 1 1 {spki}"
    if found.differing:
        return KeyShown(Shown.NOT_SHOWN, f"the servers of the zone do not agree on {name}")
    if record in found.records:
        return KeyShown(Shown.SHOWN, ttl_seconds=min(found.ttl_seconds, TTL_MOST))
    return KeyShown(Shown.NOT_SHOWN, f"{name} TLSA {record} is not in the zone")
