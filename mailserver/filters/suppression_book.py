"""Addresses that an account writes to no more, since their own hosts have said that there is no such mailbox: in the records.

    address  <account>  <address>     its value says on which days, in which words, and since when

An account is a login, or ``@domain`` for mail of this domain that comes without one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from twisted.logger import Logger

from mailserver.api import Address, AddressError, Clock, IRecords, normal_names
from mailserver.filters.account_records import account_name
from mailserver.filters.contact_records import decoded, encoded

__all__ = ["Suppression", "SuppressionBook", "account_named", "address_named", "day_of"]

GAP = "\t"
PAGE = 1000
DAY_SECONDS = 86_400.0
WHO_CHARACTERS = 100
STATUSES = ("", "5.1.1", "5.1.2", "5.1.6", "5.1.10")


@dataclass(frozen=True, slots=True)
class Suppression:
    """What is known of `address` for `account`.

    `first` is when it was first refused (seconds since the epoch), with the enhanced `status`.  `since` is when it was refused
    for the second time, on another day, or when a person (`by`) has said so: from then on it gets no mail.  0.0: not yet.
    """

    account: str
    address: str
    status: str = ""
    first: float = 0.0
    since: float = 0.0
    by: str = ""

    @property
    def key(self) -> str:
        """Under which it is kept."""
        return GAP.join(("address", self.account, self.address))

    def octets(self) -> bytes:
        """The record's value."""
        kept = {"status": self.status, "first": self.first, "since": self.since, "by": self.by}
        return encoded({name: value for name, value in kept.items() if value})

    def end(self, within_seconds: float, expire_seconds: float) -> float:
        """When it is forgotten: a first refusal, and what was learnt.  What a person has said stays (infinity)."""
        if self.by:
            return math.inf
        return self.since + expire_seconds if self.since else self.first + within_seconds


def day_of(moment: float) -> int:
    """The day of UTC, counted from the epoch."""
    return int(moment // DAY_SECONDS)


def account_named(text: str) -> str:
    """An account as a person writes it: an address, or ``@domain``.  Raises ValueError."""
    if text.startswith("@"):
        return "@" + Address.parse(f"x{text}", utf8=True).domain_key
    return account_name(text)


def address_named(address: Address) -> str:
    """In the form in which addresses are compared; "" for one that cannot be kept."""
    try:
        local, domain = normal_names(address)
    except AddressError:
        return ""
    return f"{local}@{domain}" if domain and GAP not in local else ""


class SuppressionBook:
    """`most` are kept of each account.  A second refusal counts within `within_seconds`; what was learnt ends after
    `expire_seconds`.  Raises what `IRecords` raises.
    """

    log = Logger()

    def __init__(
        self, records: IRecords, *, clock: Clock, most: int, within_seconds: float, expire_seconds: float
    ) -> None:
        self._records = records
        self._clock = clock
        self._most = most
        self._within = within_seconds
        self._expire = expire_seconds
        self._told: set[str] = set()
        self._known: set[str] | None = None  # all keys, once they were read: most mail concerns none of them

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.seconds()

    async def get(self, account: str, address: str) -> Suppression | None:
        """None where nothing is known of it, or what was is over."""
        key = Suppression(account, address).key
        if key not in await self._keys():
            return None
        value = await self._records.get(key)
        found = None if value is None else self._read(key, value)
        return None if found is None or self._is_over(found) else found

    async def of(self, account: str = "") -> list[Suppression]:
        """Those of this account, of all with "".  What is over is forgotten."""
        prefix = f"address\t{account}\t" if account else "address\t"
        first, before = prefix, prefix[:-1] + "\n"  # the tab's successor
        found: list[Suppression] = []
        while page := await self._records.items(first, before, PAGE):
            for key, value in page:
                one = self._read(key, value)
                if one is not None and self._is_over(one):
                    await self._records.compare_and_put(key, value, None)
                elif one is not None:
                    found.append(one)
            first = page[-1][0] + "\0"
        return found

    async def refused(self, account: str, address: str, status: str) -> Suppression | None:
        """Its host has said now that it does not exist.  What is kept, None where there is no room for it."""
        before = await self.get(account, address)
        if before is not None and before.since:
            return before
        after = Suppression(account, address, status, self.now)
        if before is not None:
            if day_of(before.first) == day_of(self.now):
                return before
            if before.first < self.now:
                after = replace(before, status=status, since=self.now)
        elif not await self._make_room(account, for_person=False):
            return None
        await self._put(after)
        return after

    async def reached(self, account: str, address: str) -> None:
        """A message was delivered there: what was learnt of it is wrong."""
        there = await self.get(account, address)
        if there is not None and not there.by:
            await self.drop(there)

    async def add(self, account: str, address: str, by: str) -> Suppression:
        """A person says so.  Raises ValueError where there is no room for more."""
        if await self.get(account, address) is None and not await self._make_room(account, for_person=True):
            raise ValueError(f"{account} has {self._most} such addresses already: remove some")
        said = Suppression(account, address, "", 0.0, self.now, by[:WHO_CHARACTERS] or "a person")
        await self._put(said)
        return said

    async def drop(self, one: Suppression) -> None:
        """Forget it."""
        await self._records.drop(one.key)
        (await self._keys()).discard(one.key)

    def read_anew(self) -> None:
        """The records may have changed behind this book."""
        self._known = None

    # --- inside ---

    async def _put(self, one: Suppression) -> None:
        keys = await self._keys()
        await self._records.put(one.key, one.octets())
        keys.add(one.key)

    async def _keys(self) -> set[str]:
        known = self._known
        while known is None:
            read: set[str] = set()
            first = "address\t"
            while page := await self._records.items(first, "address\n", PAGE):
                read.update([key for key, _ in page])
                first = page[-1][0] + "\0"
            known = self._known = read if self._known is None else self._known
        return known

    async def _make_room(self, account: str, *, for_person: bool) -> bool:
        """The oldest leave: those that were refused once, then what was learnt; what a person has said stays."""
        there = await self.of(account)
        if len(there) < self._most:
            return True
        learnt = sorted([one for one in there if not one.by], key=lambda one: (one.since, one.first))
        if not learnt or (learnt[0].since and not for_person):
            return False
        await self.drop(learnt[0])
        return True

    def _is_over(self, one: Suppression) -> bool:
        return self.now >= one.end(self._within, self._expire)

    def _read(self, key: str, value: bytes) -> Suppression | None:
        """A record that is damaged is told of once, and does nothing."""
        try:
            return _suppression(key, value)
        except ValueError as error:
            if key not in self._told and len(self._told) < PAGE:
                self._told.add(key)
                self.log.warn("the record {key!r} is damaged and does nothing: {error}", key=key[:200], error=str(error)[:200])
            return None


def _suppression(key: str, value: bytes) -> Suppression:
    """Raises ValueError for what is none."""
    _, account, address = key.split(GAP)
    kept = decoded(value)
    status, by = kept.get("status", ""), kept.get("by", "")
    first, since = _moment(kept.get("first", 0.0)), _moment(kept.get("since", 0.0))
    if account_named(account) != account or not re.fullmatch(r"[^@]+@[^@\s]+|\".*\"@[^@\s]+", address):
        raise ValueError("its names are none")
    if status not in STATUSES or not isinstance(by, str) or not (first or since) or (by and not since):
        raise ValueError("it is not what such a record is")
    return Suppression(account, address, str(status), first, since, by[:WHO_CHARACTERS])


def _moment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError("its time is none")
    return float(value)
