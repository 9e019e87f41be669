"""Moving house, beside the real thing: Postfix is asked where its mail goes.

    python -m tests.proofs moving [--scene postfix]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.moving.asked_postfix import asked, running
from tests.moving.postfix_houses import HOUSES

__all__ = ["SCENES"]

Found = tuple[dict[str, int], list[str]]


def postfix() -> Found:
    """What tests/moving/postfix_houses.py expects of each house, asked of the installed Postfix.  Takes root."""
    trips, wrong = 0, []
    for house in HOUSES:
        with tempfile.TemporaryDirectory(prefix="postfix-") as work, running(house, Path(work)) as folder:
            for trip, ends in zip(house.trips, asked(house, folder, house.trips), strict=True):
                trips += 1
                if ends != set(trip.ends):
                    wrong.append(f"{house.name}: {trip.sender} to {trip.recipient}: Postfix {sorted(ends)}, expected {sorted(trip.ends)}")
    return {"trips asked of Postfix": trips}, wrong


SCENES: Mapping[str, Callable[[], Found]] = {"postfix": postfix}
