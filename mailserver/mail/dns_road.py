"""The roads that have no message: what the DNS has said of a name."""

from __future__ import annotations

__all__ = ["STEP", "is_dns_road", "road_of"]

STEP = "dns"
BEFORE = "dns "


def road_of(name: str) -> str:
    """The id of a name's road."""
    return BEFORE + name


def is_dns_road(id: str) -> bool:
    """Whether this is the id of such a road."""
    return id.startswith(BEFORE)
