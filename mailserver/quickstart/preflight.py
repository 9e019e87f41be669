"""Looks, before anything is made, at what a mail server needs: side by side, each for a bounded time.

What cannot be told says so, and stops nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from mailserver.quickstart.host_sightings import clock, disk, host_name, ports
from mailserver.quickstart.network_sightings import addresses, age, dns_lists, outwards, resolver, reverse_names
from mailserver.quickstart.verdicts import Outlook, Sighting
from mailserver.quickstart.what_is_seen import Seeing

__all__ = ["PREFLIGHT", "look"]

LOOK_SECONDS = 15.0

PREFLIGHT: Mapping[str, Callable[[Seeing], Sequence[Sighting]]] = {
    "resolver": resolver,
    "host name": host_name,
    "addresses": addresses,
    "reverse names": reverse_names,
    "port 25 outwards": outwards,
    "ports": ports,
    "disk": disk,
    "clock": clock,
    "DNS lists": dns_lists,
    "age of the domain": age,
}


def look(
    seeing: Seeing,
    looks: Mapping[str, Callable[[Seeing], Sequence[Sighting]]] = PREFLIGHT,
    seconds: float = LOOK_SECONDS,
) -> list[Sighting]:
    """All of it, in the order of `looks`.  A look that takes longer, or fails, cannot tell; its thread ends with the program."""
    found: dict[str, Sequence[Sighting]] = {}

    def one(name: str, look: Callable[[Seeing], Sequence[Sighting]]) -> None:
        try:
            found[name] = look(seeing)
        except Exception as error:  # noqa: BLE001 whatever one look stumbles over, the others tell what they see
            found[name] = [Sighting(name, Outlook.UNKNOWN, f"{type(error).__name__}: {error}")]

    threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in looks.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    told = dict(found)
    late = {name: [Sighting(name, Outlook.UNKNOWN, f"no answer in {seconds:g} s")] for name in looks}
    return [one for name in looks for one in told.get(name, late[name])]
