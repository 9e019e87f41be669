"""The hosts that a delivery would try, for people."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Candidate"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One host with its numeric addresses.  Those of the lowest `rank` are tried first, in random order among equals."""

    name: str
    addresses: tuple[str, ...]
    port: int
    rank: int
