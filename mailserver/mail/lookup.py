"""What a resolver answers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Answer", "LookupFailed"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one name and type; none where the name or the type does not exist.

    `records` are in the text form of zone files (``"10 mx.example.org"``), the strings of a TXT record joined and unquoted.
    `name_exists` is False for NXDOMAIN.  `authenticated` is the resolver's AD bit.
    """

    records: tuple[str, ...]
    ttl_seconds: int = 0
    authenticated: bool = False
    name_exists: bool = True


class LookupFailed(Exception):
    """The resolver cannot tell: a time-out or SERVFAIL.  It never means that there is no such record."""
