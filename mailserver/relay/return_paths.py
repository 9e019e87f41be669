"""The return paths of forwarded mail: made for each sender, and led back to him (`mailserver.trust.srs`).

A sender whose address has no room in a local part of 64 octets, or no plain form, stands in a table of records under a token.
The table is bounded and its rows expire as the addresses do: what is written again is kept longer, and where it is full the one
goes that would expire first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger

from mailserver.interfaces import CannotTell, Clock, IRecords, RunInThread
from mailserver.mail.address import Address, AddressError, normal_domain
from mailserver.mail.faults import StorageFault
from mailserver.trust.srs import MAX_AGE_DAYS, NotOurs, ReturnPathKeys, SenderToken, is_return_path, token_of
from mailserver.trust.srs_keys import current_keys, former_secrets, read_srs_keys

__all__ = ["SENDERS_MOST", "SenderTable", "ReturnPaths"]

DAY_SECONDS = 86_400.0
KEYS_AGAIN_SECONDS = 300.0  # a key may have been made by a command, or be due for another
SENDERS_MOST = 20_000
AT_ONCE = 200  # rows that are taken away beside one that is written
PAGE = 10_000
KEPT_SECONDS = (MAX_AGE_DAYS + 2) * DAY_SECONDS


log = Logger()


class SenderTable:
    """Senders by their tokens, in records.  At most `most`."""

    def __init__(self, records: IRecords, *, most: int = SENDERS_MOST) -> None:
        self._records = records
        self._most = most
        self._until: dict[str, float] | None = None  # until when each is kept: what was written first, first

    async def keep(self, name: str, sender: Address, now: float) -> None:
        """The sender is found under this name for as long as a return path holds.  Raises `StorageFault`."""
        until = await self._known()
        if until.get(name, 0.0) >= now + KEPT_SECONDS - DAY_SECONDS:
            return
        value = json.dumps({"sender": [sender.local, sender.domain], "until": now + KEPT_SECONDS})
        await self._records.put(name, value.encode("ascii"))
        until.pop(name, None)
        until[name] = now + KEPT_SECONDS
        surplus = len(until) - self._most
        going = [one for n, (one, end) in enumerate(until.items()) if n < surplus or end < now][:AT_ONCE]
        for one in going:
            try:
                await self._records.drop(one)
            except StorageFault as fault:  # the next one that is kept takes it along; this one is there
                log.warn("a sender of forwarded mail who is not needed any more stays in the records: {fault}", fault=fault)
                return
            until.pop(one, None)

    async def find(self, name: str, now: float) -> Address | None:
        """The sender.  Raises `StorageFault`."""
        value = await self._records.get(name)
        if value is None:
            return None
        try:
            row = json.loads(value)
            local, domain = row["sender"]
            return Address(str(local), str(domain)) if row["until"] > now else None
        except (ValueError, TypeError, KeyError):
            return None

    async def _known(self) -> dict[str, float]:
        if self._until is None:
            rows: list[tuple[str, bytes]] = []
            while True:
                page = await self._records.items(first=rows[-1][0] + "\0" if rows else "", most=PAGE)
                rows += page
                if len(page) < PAGE:
                    break
            if self._until is None:
                self._until = dict(sorted([(name, _end(value)) for name, value in rows], key=lambda row: row[1]))
        return self._until


def _end(value: bytes) -> float:
    try:
        return float(json.loads(value)["until"])
    except (ValueError, TypeError, KeyError):
        return 0.0


class ReturnPaths:
    """Makes return paths in our domains, and opens them.

    The keys lie below `keys_directory`; the first is made when the first return path is.  `former` names a file with the secrets
    of another program that was here before, "" for none.
    """

    former = ""

    def __init__(
        self, *, keys_directory: str, table: SenderTable, run_in_thread: RunInThread, clock: Clock
    ) -> None:
        self._keys_directory = keys_directory
        self._table = table
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._keys: ReturnPathKeys | None = None
        self._first_key = b""
        self._read_at = 0.0
        self._read_for: tuple[bool, str] | None = None  # whether keys were made where there were none, and with which `former`

    def is_one(self, address: Address) -> bool:
        """The address looks like one of these."""
        return is_return_path(address.local)

    async def made(self, sender: Address, domain: str) -> Address:
        """The return path in `domain` for mail of this sender.  Raises `CannotTell`."""
        keys = await self._current(makes=True)
        if keys is None:
            raise CannotTell("there is no key for return paths")
        now = self._clock.seconds()
        day = int(now // DAY_SECONDS)
        try:
            sender = Address(sender.local, normal_domain(sender.domain))
        except AddressError as error:
            raise CannotTell(f"{sender}: {error}") from error
        path = keys.made(sender, domain, day)
        if path is not None:
            return path
        name = token_of(sender, self._first_key)
        try:
            await self._table.keep(name, sender, now)
        except StorageFault as fault:
            raise CannotTell(f"the sender could not be kept for his bounces: {fault}") from fault
        return keys.for_token(name, domain, day)

    async def opened(self, address: Address) -> Address | NotOurs:
        """To whom a bounce goes that comes to this address.  Raises `CannotTell`."""
        keys = await self._current(makes=False)
        if keys is None:
            return NotOurs("no return path was ever made here")
        now = self._clock.seconds()
        found = keys.opened(address.local, int(now // DAY_SECONDS))
        if not isinstance(found, SenderToken):
            return found
        try:
            sender = await self._table.find(found.name, now)
        except StorageFault as fault:
            raise CannotTell(f"the senders of forwarded mail cannot be read: {fault}") from fault
        return NotOurs("the sender is not kept any more") if sender is None else sender

    async def _current(self, *, makes: bool) -> ReturnPathKeys | None:
        now, former = self._clock.seconds(), self.former
        is_fresh = 0 <= now - self._read_at < KEYS_AGAIN_SECONDS
        if is_fresh and self._read_for in ((makes, former), (True, former)):
            return self._keys
        try:
            keys, secrets = await self._run_in_thread(_read, self._keys_directory, former, makes, now)
        except (OSError, ValueError) as error:
            if self._keys is None or self._read_for is None or self._read_for[1] != former:
                raise CannotTell(f"the keys of return paths cannot be read or made: {error}") from error
            log.error("the keys of return paths cannot be read; those known before go on: {error}", error=error)
            self._read_at = now
            return self._keys
        self._keys = ReturnPathKeys(keys, former=secrets) if keys or secrets else None
        self._first_key = keys[0] if keys else b""
        self._read_at, self._read_for = now, (makes, former)
        return self._keys


def _read(keys_directory: str, former: str, makes: bool, now: float) -> Any:
    """In a thread."""
    keys: Sequence[bytes] = [key for _, key in read_srs_keys(keys_directory)]
    if makes:
        keys = current_keys(keys_directory, now)
    return keys, former_secrets(former) if former else []
