"""How much an account may send: messages, recipients and new recipients, within an hour and within a day.

A stolen password is worth what can be sent with it.  Whoever writes to hundreds of people whom the account has never written to
is rarely its owner.  Only what is accepted in the end is charged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mailserver.authentication.kept_secrets import kept_secret
from mailserver.interfaces import IStateStore
from mailserver.mail.address import Address, AddressError, normal_name
from mailserver.mail.recent_tags import TAG_OCTETS, day_of, is_recent, with_recent
from mailserver.receive.submission.usage import DAY_SLOTS, HOUR_SLOTS, SLOT_SECONDS, Sent, Usage

__all__ = ["Allowance", "AllowanceLimits", "Claim"]

USAGE_SPACE = "allowance"
KNOWN_SPACE = "allowance.known"
KEY_SPACE = "allowance.key"
DAY_SECONDS = 86400
USAGE_SECONDS = (DAY_SLOTS + 1) * SLOT_SECONDS
KNOWN_DAYS = 30
SHARDS = 16  # so that a new recipient does not cause all of them to be written again
KNOWN_MOST = 1250  # in one shard: 20,000 of an account, 160 KB


class AllowanceClock(Protocol):
    """The time by which hours and days are counted, in seconds since the epoch."""

    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class AllowanceLimits:
    """0 stands for any number."""

    messages_per_hour: int = 300
    messages_per_day: int = 2000
    recipients_per_hour: int = 1000
    recipients_per_day: int = 5000
    new_recipients_per_hour: int = 200
    new_recipients_per_day: int = 500

    @property
    def counts_new(self) -> bool:
        """It matters who is new."""
        return bool(self.new_recipients_per_hour or self.new_recipients_per_day)

    def excess(self, hour: Sent, day: Sent) -> str | None:
        """The limit that this is above, in words ("300 messages within an hour"), None where it is within all of them."""
        for limit, sent, what in (
            (self.messages_per_hour, hour.messages, "messages within an hour"),
            (self.messages_per_day, day.messages, "messages within a day"),
            (self.recipients_per_hour, hour.recipients, "recipients within an hour"),
            (self.recipients_per_day, day.recipients, "recipients within a day"),
            (self.new_recipients_per_hour, hour.new_recipients, "new recipients within an hour"),
            (self.new_recipients_per_day, day.new_recipients, "new recipients within a day"),
        ):
            if limit and sent > limit:
                return f"{limit} {what}"
        return None


class Allowance:
    """Keeps what each account has sent in `spaces(name)` (an `IStateStore`), where it survives a restart.

    `clock` is best one that nobody sets.  Messages of an account go on side by side, and between what one of them reads and what
    it writes another may have written: so what was sent is changed by `compare_and_put`.

    To whom an account has written within 30 days is kept as short hashes under a key of this installation: 20,000 for each
    account, those not written to for the longest time leave.
    """

    def __init__(self, *, clock: AllowanceClock, spaces: Callable[[str], IStateStore], limits: AllowanceLimits) -> None:
        self._clock = clock
        self._used = spaces(USAGE_SPACE)
        self._known = spaces(KNOWN_SPACE)
        self._keys = spaces(KEY_SPACE)
        self.limits = limits

    def claim(self, account: str) -> Claim:
        """For one message of the account."""
        return Claim(self, account.lower())

    async def with_message(self, account: str) -> tuple[Sent, Sent]:
        """What the account would have sent within the hour, and within the day, with one more message."""
        return after(decoded(await self._used.get(account)), self._clock.seconds(), Sent(1))

    async def is_new(self, account: str, tag: bytes) -> bool:
        """Whether the account has not written to this recipient lately."""
        entries = await self._known.get(shard_of(account, tag))
        return entries is None or not is_recent(entries, tag, day_of(self._clock.seconds()), KNOWN_DAYS)

    async def charge(self, account: str, sent: Sent) -> str | None:
        """Charge it, or return the limit that it would exceed."""
        while True:
            now, found = self._clock.seconds(), await self._used.get(account)
            usage = decoded(found)
            excess = self.limits.excess(*after(usage, now, sent))
            if excess is not None or await self._keep(account, found, usage.with_sent(now, sent)):
                return excess

    async def refund(self, account: str, sent: Sent) -> None:
        """It was not accepted after all."""
        is_done = False
        while not is_done:
            found = await self._used.get(account)
            is_done = await self._keep(account, found, decoded(found).with_sent(self._clock.seconds(), sent, -1))

    async def remember(self, account: str, tags: frozenset[bytes]) -> None:
        """The account has written to them."""
        today = day_of(self._clock.seconds())
        shards: dict[str, list[bytes]] = {}
        for tag in tags:
            shards.setdefault(shard_of(account, tag), []).append(tag)
        for key, members in shards.items():
            is_done = False
            while not is_done:
                found = await self._known.get(key)
                before = after = found or b""
                for tag in members:
                    after = with_recent(after, tag, today, days=KNOWN_DAYS, most=KNOWN_MOST)
                is_done = after is before or await self._known.compare_and_put(key, found, after, KNOWN_DAYS * DAY_SECONDS)

    async def tag(self, address: Address) -> bytes:
        """What is kept of a recipient."""
        key = await kept_secret(self._keys, "")
        try:
            name = normal_name(address)
        except AddressError:
            name = str(address)
        octets = name.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(octets, key=key, digest_size=TAG_OCTETS).digest()

    async def _keep(self, account: str, found: bytes | None, usage: Usage) -> bool:
        return await self._used.compare_and_put(account, found, usage.encode(), USAGE_SECONDS)


class Claim:
    """What one message would cost.  `message`, `recipient` and `charge` return the limit that stands in the way, or None."""

    __slots__ = ("_account", "_allowance", "_day", "_hour", "_new", "_recipients", "_sent", "_tags")

    def __init__(self, allowance: Allowance, account: str) -> None:
        self._allowance = allowance
        self._account = account
        self._hour = self._day = Sent(1)
        self._recipients = self._new = 0
        self._tags: set[bytes] = set()
        self._sent: Sent | None = None  # what was charged and not settled yet: a second `settle` gives nothing back again

    async def message(self) -> str | None:
        """At MAIL, first of all: one more message."""
        self._hour, self._day = await self._allowance.with_message(self._account)
        return self._allowance.limits.excess(self._hour, self._day)

    async def recipient(self, address: Address) -> str | None:
        """At RCPT, last of all: one more recipient, who is counted where the answer is None."""
        limits, new = self._allowance.limits, 0
        tag = await self._allowance.tag(address) if limits.counts_new else b""
        if tag and tag not in self._tags:
            new = await self._allowance.is_new(self._account, tag)
        more = Sent(0, self._recipients + 1, self._new + new)
        excess = limits.excess(self._hour.plus(more), self._day.plus(more))
        if excess is None:
            self._recipients, self._new = more.recipients, more.new_recipients
            if tag:
                self._tags.add(tag)
        return excess

    async def charge(self) -> str | None:
        """Before the commit: other connections may have spent the rest in the meantime."""
        sent = Sent(1, self._recipients, self._new)
        excess = await self._allowance.charge(self._account, sent)
        if excess is None:
            self._sent = sent
        return excess

    async def settle(self, accepted: bool) -> None:
        """After the commit.  What was not accepted costs nothing.  Without a charge, or again, it does nothing."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        if accepted:
            await self._allowance.remember(self._account, frozenset(self._tags))
        else:
            await self._allowance.refund(self._account, sent)


def decoded(octets: bytes | None) -> Usage:
    """What was sent; what cannot be read counts as nothing."""
    try:
        return Usage.decode(octets or b"")
    except ValueError:
        return Usage()


def after(usage: Usage, now: float, sent: Sent) -> tuple[Sent, Sent]:
    """What would have been sent within the hour, and within the day."""
    return usage.within(now, HOUR_SLOTS).plus(sent), usage.within(now, DAY_SLOTS).plus(sent)


def shard_of(account: str, tag: bytes) -> str:
    """The key of the part of an account's recipients where this one is."""
    return f"{account} {tag[0] % SHARDS:x}"
