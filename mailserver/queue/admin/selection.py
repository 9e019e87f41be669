"""Which messages of the queue a person means, and which of their destinations.  Pure.

A message is meant where its id, sender, login and age fit; of its destinations those whose recipient, domain and state fit.  A
message of which no destination fits is not meant.  Names are compared without regard to case; ``*`` and ``?`` stand for what they
do in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from mailserver.mail.ids import ALPHABET
from mailserver.queue.admin.states import STATES
from mailserver.queue.entry import (
    CLOSED,
    FROM_ID,
    HIGHEST_NUMBER,
    NUMBER_CHARACTERS,
    DestinationSummary,
    EntryState,
    EntrySummary,
)

__all__ = ["STATES", "Selection", "SelectionError"]

ID_START = re.compile(f"[{ALPHABET}]{{0,16}}")
NULL_SENDER = "<>"


class SelectionError(ValueError):
    """What was asked for is no selection; the message is for the person who asked."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to look for; an empty one means every message.

    `id` is the beginning of an id, `sender` "<>" for the null reverse-path, `domain` that of the recipient or of the address
    where its mail goes, `states` some of `STATES`; a message is older or younger than so many seconds.  `held`: only copies that
    verdicts hold; of these `finding` is the name of something found, or ``filter/name``, and `holders` are filters, one of which
    holds it; `known` are filters, one of which holds it or has found something.  `index` is one destination of the
    message, `user` the account, or the address, that a copy is for.  `login` is the account that has handed the message in,
    `note` what is noted of the destination.  `since` and `before`: received from the one time on and before the other, seconds
    since the epoch.
    """

    id: str = ""
    sender: str = ""
    recipient: str = ""
    domain: str = ""
    older_seconds: float | None = None
    younger_seconds: float | None = None
    states: tuple[str, ...] = ()
    held: bool = False
    finding: str = ""
    holders: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    index: int | None = None
    user: str = ""
    login: str = ""
    note: str = ""
    since: float | None = None
    before: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id.upper())
        if ID_START.fullmatch(self.id) is None:
            raise SelectionError(f"{self.id!r} is not the beginning of an id")
        unknown = [state for state in self.states if state not in STATES]
        if unknown:
            raise SelectionError(f"{unknown[0]!r} is no state: {', '.join(STATES)}")

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Selection:
        """What `as_json` gave.  Raises `SelectionError`."""
        try:
            lists = {name: tuple(row.get(name, ())) for name in ("states", "holders", "known")}
            return cls(**{**row, **lists})
        except (TypeError, AttributeError) as error:
            raise SelectionError(f"not a selection: {error}") from None

    def as_json(self) -> dict[str, Any]:
        """For the control socket."""
        return asdict(self)

    @property
    def is_everything(self) -> bool:
        """No filter was given."""
        return self == Selection()

    @property
    def numbers(self) -> tuple[int, int]:
        """The keys between which such entries stand, both included."""
        start = self.id[:NUMBER_CHARACTERS]
        if not start:
            return 0, HIGHEST_NUMBER
        low, high = (start.ljust(NUMBER_CHARACTERS, fill).translate(FROM_ID) for fill in (ALPHABET[0], ALPHABET[-1]))
        return int(low, 32), int(high, 32)

    def chosen(self, entry: EntrySummary, now: float) -> tuple[int, ...] | None:
        """The indexes of the destinations that are meant, None where the message is not.

        An entry that cannot be read has no destinations: it is meant as a whole, with ().
        """
        if not self._means(entry, now):
            return None
        if entry.state == EntryState.DAMAGED:
            if self.held:
                return None
            named = [one for one in entry.destinations if self._names(one)]
            meant = not self.states or EntryState.DAMAGED in self.states
            return () if meant and (named or not (self.recipient or self.domain)) else None
        chosen = tuple(
            [one.index for one in entry.destinations if self._names(one) and self._has_state(one) and self._is_held(one)]
        )
        return chosen or None

    def _means(self, entry: EntrySummary, now: float) -> bool:
        age = now - entry.received_at
        return (
            entry.id.startswith(self.id)
            and (self.older_seconds is None or age >= self.older_seconds)
            and (self.younger_seconds is None or age <= self.younger_seconds)
            and (self.since is None or entry.received_at >= self.since)
            and (self.before is None or entry.received_at < self.before)
            and (not self.sender or fits(self.sender, entry.sender or NULL_SENDER))
            and (not self.login or fits(self.login, entry.login))
        )

    def _names(self, one: DestinationSummary) -> bool:
        names = (one.recipient, one.destination)
        return (not self.recipient or any(fits(self.recipient, name) for name in names)) and (
            not self.domain or any(fits(self.domain, domain_of(name)) for name in names)
        ) and (not self.note or fits(self.note, one.note))

    def _is_held(self, one: DestinationSummary) -> bool:
        if self.index is not None and one.index != self.index:
            return False
        names = (one.recipient, one.destination.partition("/")[0])
        if self.user and not any(self.user.lower() == name.lower() for name in names):
            return False
        if not self.held:
            return True
        found = [(finding.name, f"{finding.source}/{finding.name}") for finding in one.findings]
        known = {*one.held_by, *[finding.source for finding in one.findings]}
        return (
            bool(one.hold)
            and one.state == EntryState.HELD
            and (not self.finding or any(fits(self.finding, name) for names in found for name in names))
            and (not self.holders or not set(self.holders).isdisjoint(one.held_by))
            and (not self.known or not known.isdisjoint(self.known))
        )

    def _has_state(self, one: DestinationSummary) -> bool:
        if self.states:
            return one.state in self.states
        return one.state not in CLOSED


def fits(pattern: str, name: str) -> bool:
    """The name fits the pattern."""
    return fnmatchcase(name.lower(), pattern.lower())


def domain_of(name: str) -> str:
    """What follows the last @ of an address or a mailbox's name (``user@domain/folder``)."""
    return name.rpartition("@")[2].partition("/")[0]
