"""The keys of ``[relay]`` that say how fast mail goes where, and the table that they make."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, Field

from mailserver.config import Count, Options
from mailserver.config.values import COUNT_MOST, host_name
from mailserver.relay.operators import Operator, PaceLimit, PaceTable

__all__ = ["PaceKeys", "PaceOptions", "pace_table"]


def _host_suffix(value: str) -> str:
    try:
        return str(ip_address(value.strip("[]")))  # of a route whose host is one
    except ValueError:
        pass
    return host_name(value.removeprefix("*").removeprefix("."))


class PaceOptions(Options):
    """How fast mail goes to some hosts.  Each destination without one has the limits of ``[relay]``."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    """What the pace is called: one of those that are known (`google`, `microsoft`, …), whose limits are changed, or a new one."""
    hosts: tuple[Annotated[str, AfterValidator(_host_suffix)], ...] = ()
    """The hosts that share it, mail exchangers as a rule: their names, the domain in which they are, or the address that a route
    names as its host. Those that are known need none."""
    connections: Count | None = None
    """Connections at once to all of them together. Absent: as in `[relay]`, as for the next two."""
    messages_per_connection: Count | None = None
    """Messages on one connection; then a new one is opened."""
    messages_per_minute: Annotated[int, Field(ge=0, le=COUNT_MOST)] | None = None
    """Messages a minute to all of them together; 0: as many as they take."""


class PaceKeys(Options):
    """How fast mail goes where."""

    connections_per_host: Count = 20
    """Connections at once to one host, over all its addresses, or to all hosts of one operator."""
    messages_per_connection: Count = 100
    """Messages on one connection; then a new one is opened."""
    messages_per_minute: Annotated[int, Field(ge=0, le=COUNT_MOST)] = 0
    """Messages a minute to one host, or to all hosts of one operator; 0: as many as it takes. A host that says that they are too
    many gets fewer, whatever stands here."""
    pace: tuple[PaceOptions, ...] = ()
    """Other limits for some destinations, each as a table `[[relay.pace]]`."""


def pace_table(keys: PaceKeys) -> PaceTable:
    """Limits by destination.  Raises ValueError for a pace that is there twice, or that has no hosts."""
    names = [one.name for one in keys.pace]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two of pace are called {name!r}")
    return PaceTable(
        PaceLimit(keys.connections_per_host, keys.messages_per_connection, keys.messages_per_minute),
        [
            Operator(one.name, one.hosts, one.connections, one.messages_per_connection, one.messages_per_minute)
            for one in keys.pace
        ],
    )
