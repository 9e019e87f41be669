"""Subaddresses that users have given to somebody (`alice+shop@example.org`): in the records, with how often each was used.

    address  <user>  <detail>     its value says for whom it is, and whether it is closed
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from mailserver.api import Address, AddressError, Clock, IRecords, IStateStore, StorageBroken, normal_names
from mailserver.filters.contact_records import decoded, encoded, read_user
from mailserver.filters.list_entries import read_subject

__all__ = ["ANYBODY", "Subaddress", "SubaddressBook", "split_subaddress"]

ANYBODY = "*"
UNKNOWN = ""  # who sends first
HOWS = ("opened", "learnt", "closed")
GAP = "\t"
PAGE = 1000
COUNT_SECONDS = 3650 * 86_400.0
WHO_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Subaddress:
    """`alice+shop@example.org` of the user `alice@example.org`.

    `domain` is who may write to it, with the domains below and above: `ANYBODY`, or "" for whoever does so first.  `how` is
    "opened" or "closed" by a person, or "learnt".  `at` is seconds since the epoch.
    """

    user: str
    detail: str
    domain: str = UNKNOWN
    how: str = "opened"
    at: float = 0.0
    by: str = ""

    @property
    def key(self) -> str:
        """Under which it is kept."""
        return GAP.join(("address", self.user, self.detail))

    @property
    def is_closed(self) -> bool:
        """It takes no mail."""
        return self.how == "closed"

    def octets(self) -> bytes:
        """The record's value."""
        return encoded({"is": self.how, "at": self.at, "domain": self.domain, **({"by": self.by} if self.by else {})})

    def is_for(self, domain: str) -> bool:
        """Somebody at this domain may write to it: it is the same, or one is below the other."""
        if self.domain == ANYBODY:
            return True
        pair = f".{self.domain}", f".{domain}"
        return "." in domain and (pair[0].endswith(pair[1]) or pair[1].endswith(pair[0]))


def split_subaddress(address: Address, separator: str) -> tuple[str, str] | None:
    """The user and the detail; None for an address that has none, or is nobody's."""
    try:
        local, domain = normal_names(address)
    except AddressError:
        return None
    base, found, detail = local.partition(separator) if separator else (local, "", "")
    return (f"{base}@{domain}", detail) if found and base and detail and domain and GAP not in local else None


class SubaddressBook:
    """`most` are kept of each user.  Raises what `IRecords` raises."""

    log = Logger()

    def __init__(self, records: IRecords, *, clock: Clock, state: IStateStore | None, most: int) -> None:
        self._records = records
        self._clock = clock
        self._state: Any = state
        self._most = most
        self._told: set[str] = set()

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.seconds()

    async def get(self, user: str, detail: str) -> Subaddress | None:
        """None where nothing is kept of it."""
        key = GAP.join(("address", user, detail))
        value = await self._records.get(key)
        return None if value is None else self._read(key, value)

    async def of(self, user: str = "") -> list[Subaddress]:
        """Those of this user, of all users with ""."""
        prefix = f"address\t{user}\t" if user else "address\t"
        first, before = prefix, prefix[:-1] + "\n"  # the tab's successor
        found: list[Subaddress] = []
        while page := await self._records.items(first, before, PAGE):
            found += [one for key, value in page if (one := self._read(key, value)) is not None]
            first = page[-1][0] + "\0"
        return found

    async def put(self, address: Subaddress) -> None:
        """Keep what a person says.  Raises ValueError where there is no room for more."""
        if await self.get(address.user, address.detail) is None:
            await self._make_room(address.user)
        await self._records.put(address.key, address.octets())

    async def learn(self, address: Subaddress, before: Subaddress | None) -> bool:
        """Keep who has written first, unless somebody was quicker or there is no room.  Whether it is kept."""
        if before is None:
            try:
                await self._make_room(address.user)
            except ValueError as error:
                self.log.warn("{why}: a further one is not learnt", why=str(error))
                return False
        return await self._records.compare_and_put(address.key, None if before is None else before.octets(), address.octets())

    async def drop(self, address: Subaddress) -> None:
        """Forget it, and its counts."""
        await self._records.drop(address.key)
        if self._state is not None:
            for what in ("right", "other", "refused"):
                await self._counted(self._state.drop(_count_key(what, address)))

    async def _make_room(self, user: str) -> None:
        """The oldest that were only learnt leave."""
        there = await self.of(user)
        surplus = len(there) + 1 - self._most
        if surplus <= 0:
            return
        learnt = sorted([one for one in there if one.how == "learnt"], key=lambda one: one.at)
        if len(learnt) < surplus:
            raise ValueError(f"{user} has {self._most} subaddresses already: forget some")
        for one in learnt[:surplus]:
            await self._records.compare_and_put(one.key, one.octets(), None)

    # --- Counts: for people, so that mail does not wait for them. ---

    async def count(self, what: str, address: Subaddress) -> None:
        """`what` is "right", "other" or "refused"."""
        if self._state is not None:
            await self._counted(self._state.add(_count_key(what, address), 1, COUNT_SECONDS))

    async def counts(self, address: Subaddress) -> Sequence[int | None]:
        """Right, other, refused; None where nobody can tell."""
        if self._state is None:
            return (None, None, None)
        values = [await self._counted(self._state.get(_count_key(what, address))) for what in ("right", "other", "refused")]
        return [int(value) if isinstance(value, bytes) else 0 if value is None else None for value in values]

    async def _counted(self, verb: Any) -> Any:
        try:
            return await verb
        except StorageBroken as fault:
            self.log.warn("how often a subaddress is used cannot be counted: {fault}", fault=fault)
            return fault

    def _read(self, key: str, value: bytes) -> Subaddress | None:
        """A record that is damaged is told of once, and does nothing."""
        try:
            return _subaddress(key, value)
        except ValueError as error:
            if key not in self._told and len(self._told) < PAGE:
                self._told.add(key)
                self.log.warn("the record {key!r} is damaged and does nothing: {error}", key=key[:200], error=str(error)[:200])
            return None


def _subaddress(key: str, value: bytes) -> Subaddress:
    """Raises ValueError for what is none."""
    _, user, detail = key.split(GAP)
    kept = decoded(value)
    how, domain, at, by = kept.get("is"), kept.get("domain", UNKNOWN), kept.get("at", 0.0), kept.get("by", "")
    if read_user(user, "") != user or not detail or how not in HOWS or not isinstance(domain, str) or not isinstance(by, str):
        raise ValueError("it is not what such a record is")
    if domain not in (UNKNOWN, ANYBODY) and read_subject(f"domain:{domain}") != ("domain", domain):
        raise ValueError("its domain is none")
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise ValueError("its time is none")
    return Subaddress(user, detail, domain, str(how), float(at), by[:WHO_CHARACTERS])


def _count_key(what: str, address: Subaddress) -> str:
    return f"{what}\t{address.user}\t{address.detail}"
