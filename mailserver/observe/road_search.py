"""Searches the roads, the newest first, for messages whose id is not known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import apsw

from mailserver.mail.dns_road import is_dns_road
from mailserver.observe.roads import RoadsUnreadable, Step, opened_for_reading, steps_of

__all__ = ["FoundRoad", "Wanted", "search_roads"]

PAGE = 1000
WORD = re.compile(r"[A-Za-z0-9._@-]+")
FIELDS = {
    "sender": ("sender",),
    "recipient": ("recipient", "recipients", "destination", "to"),
    "host": ("peer", "hello", "host"),
    "message_id": ("message_id",),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for: patterns with ``*`` and ``?``, "" for any; times in seconds since the epoch.

    `sender` "<>" is the null reverse-path.  `host` is a peer's address, its name in EHLO, or a host that mail was relayed to.
    """

    sender: str = ""
    recipient: str = ""
    host: str = ""
    message_id: str = ""
    since: float | None = None
    until: float | None = None

    @property
    def patterns(self) -> dict[str, str]:
        """The patterns that are given, by name."""
        given = {name: getattr(self, name) for name in FIELDS}
        return {name: pattern for name, pattern in given.items() if pattern}


@dataclass(frozen=True, slots=True)
class FoundRoad:
    """A message that was found, or a connection without one."""

    id: str
    time: float
    sender: str | None
    recipients: tuple[str, ...]
    steps: tuple[str, ...]


def search_roads(path: str, wanted: Wanted, limit: int) -> list[FoundRoad]:
    """Up to `limit` matching roads, the newest first.  Blocks; may read the whole file.  Raises `RoadsUnreadable`."""
    found: list[FoundRoad] = []
    seen: set[str] = set()
    connection: apsw.Connection | None = None
    try:
        connection = opened_for_reading(path)
        for id in _candidates(connection, wanted):
            if id in seen or is_dns_road(id):
                continue
            seen.add(id)
            steps = steps_of(connection, id)
            if _is_meant(steps, wanted):
                found.append(_found(id, steps))
                if len(found) == limit:
                    break
    except (apsw.Error, ValueError) as error:
        raise RoadsUnreadable(f"{path}: {error}") from error
    finally:
        if connection is not None:
            connection.close()
    return found


def _candidates(connection: apsw.Connection, wanted: Wanted) -> Iterator[str]:
    """Ids of rows that contain a piece of a pattern.  SQLite finds these faster than we can parse the JSON."""
    words = [max(WORD.findall(pattern), key=len, default="") for pattern in wanted.patterns.values()]
    word = max(words, key=len, default="")
    like = "%" + word.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%") + "%"
    number = (1 << 63) - 1
    while True:
        rows: list[Any] = connection.execute(
            "SELECT number, id, time, steps LIKE ? ESCAPE '\\' FROM road WHERE number < ? ORDER BY number DESC LIMIT ?",
            (like, number, PAGE),
        ).fetchall()
        for _, id, time, fits in rows:
            is_later = wanted.until is not None and time > wanted.until
            is_earlier = wanted.since is not None and time < wanted.since
            if fits and not is_later and not is_earlier:
                yield id
        if len(rows) < PAGE:
            return
        number = rows[-1][0]


def _is_meant(steps: list[Step], wanted: Wanted) -> bool:
    return all(
        any(_fits(pattern, value) for value in _values(steps, FIELDS[name])) for name, pattern in wanted.patterns.items()
    )


def _fits(pattern: str, value: str) -> bool:
    if pattern == "<>":
        return value == ""
    bare = value.strip().lower()
    return fnmatchcase(bare, pattern.lower()) or fnmatchcase(bare, f"<{pattern.lower()}>")


def _values(steps: list[Step], fields: tuple[str, ...]) -> Iterator[str]:
    for step in steps:
        for name in fields:
            value = step.fields.get(name)
            if isinstance(value, str):
                yield value
            elif isinstance(value, list):
                yield from (one for one in value if isinstance(one, str))


def _found(id: str, steps: list[Step]) -> FoundRoad:
    sender = next((value for step in steps if isinstance(value := step.fields.get("sender"), str)), None)
    recipients = tuple(dict.fromkeys(value for value in _values(steps, ("recipients", "recipient")) if value))
    return FoundRoad(id, steps[0].time, sender, recipients, tuple(step.step for step in steps))
