"""How much an account may send: messages, recipients and new recipients, within an hour and within a day.

A stolen password is worth what can be sent with it.  Whoever writes to hundreds of people whom the account has never written to
is rarely its owner.  Only what is accepted in the end is charged.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from mailserver.interfaces import Clock
from mailserver.mail.address import Address, AddressError, normal_name
from mailserver.mail.recent_tags import TAG_OCTETS, day_of, is_recent, with_recent
from mailserver.receive.submission.usage import DAY_SLOTS, HOUR_SLOTS, SLOT_SECONDS, Sent, Usage

__all__ = ["Allowance", "AllowanceLimits", "Claim"]

USAGE_SPACE = "allowance"
KNOWN_SPACE = "allowance.known"
KEY_SPACE = "allowance.key"
DAY_SECONDS = 86400
USAGE_SECONDS = (DAY_SLOTS + 1) * SLOT_SECONDS
KEY_SECONDS = 3650 * DAY_SECONDS
KNOWN_DAYS = 30
SHARDS = 16  # so that a new recipient does not cause all of them to be written again
KNOWN_MOST = 1250  # in one shard: 20,000 of an account, 160 KB


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
    """Keeps what each account has sent in `state` (an `IStateStore`), where it survives a restart.

    To whom an account has written within 30 days is kept as short hashes under a key of this installation: 20,000 for each
    account, those not written to for the longest time leave.
    """

    def __init__(self, *, clock: Clock, state: Any, limits: AllowanceLimits) -> None:
        self._clock = clock
        self._state = state
        self.limits = limits
        self._key = b""

    def claim(self, account: str) -> Claim:
        """For one message of the account."""
        return Claim(self, account.lower(), self._usage(account.lower()), self._clock.seconds())

    def is_new(self, account: str, tag: bytes) -> bool:
        """Whether the account has not written to this recipient lately."""
        entries = self._state.get(KNOWN_SPACE, shard_of(account, tag))
        return entries is None or not is_recent(entries, tag, day_of(self._clock.seconds()), KNOWN_DAYS)

    def charge(self, account: str, sent: Sent) -> str | None:
        """Charge it, or return the limit that it would exceed."""
        now, usage = self._clock.seconds(), self._usage(account)
        excess = self.limits.excess(*after(usage, now, sent))
        if excess is None:
            self._keep(account, usage.with_sent(now, sent))
        return excess

    def refund(self, account: str, sent: Sent) -> None:
        """It was not accepted after all."""
        self._keep(account, self._usage(account).with_sent(self._clock.seconds(), sent, -1))

    def remember(self, account: str, tags: frozenset[bytes]) -> None:
        """The account has written to them."""
        today = day_of(self._clock.seconds())
        shards: dict[str, list[bytes]] = {}
        for tag in tags:
            shards.setdefault(shard_of(account, tag), []).append(tag)
        for key, members in shards.items():
            before = after = self._state.get(KNOWN_SPACE, key) or b""
            for tag in members:
                after = with_recent(after, tag, today, days=KNOWN_DAYS, most=KNOWN_MOST)
            if after is not before:
                self._state.put(KNOWN_SPACE, key, after, KNOWN_DAYS * DAY_SECONDS)

    def tag(self, address: Address) -> bytes:
        """What is kept of a recipient."""
        if not self._key:
            self._key = self._state.get(KEY_SPACE, "") or secrets.token_bytes(32)
            self._state.put(KEY_SPACE, "", self._key, KEY_SECONDS)
        try:
            name = normal_name(address)
        except AddressError:
            name = str(address)
        octets = name.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(octets, key=self._key, digest_size=TAG_OCTETS).digest()

    def _usage(self, account: str) -> Usage:
        try:
            return Usage.decode(self._state.get(USAGE_SPACE, account) or b"")
        except ValueError:
            return Usage()

    def _keep(self, account: str, usage: Usage) -> None:
        self._state.put(USAGE_SPACE, account, usage.encode(), USAGE_SECONDS)


class Claim:
    """What one message would cost.  `message`, `recipient` and `charge` return the limit that stands in the way, or None."""

    __slots__ = ("_account", "_allowance", "_day", "_hour", "_new", "_recipients", "_sent", "_tags")

    def __init__(self, allowance: Allowance, account: str, usage: Usage, now: float) -> None:
        self._allowance = allowance
        self._account = account
        self._hour, self._day = after(usage, now, Sent(1))
        self._recipients = self._new = 0
        self._tags: set[bytes] = set()
        self._sent: Sent | None = None  # what was charged and not settled yet: a second `settle` gives nothing back again

    def message(self) -> str | None:
        """At MAIL: one more message."""
        return self._allowance.limits.excess(self._hour, self._day)

    def recipient(self, address: Address) -> str | None:
        """At RCPT, last of all: one more recipient, who is counted where the answer is None."""
        limits, new = self._allowance.limits, 0
        tag = self._allowance.tag(address) if limits.counts_new else b""
        if tag and tag not in self._tags:
            new = self._allowance.is_new(self._account, tag)
        more = Sent(0, self._recipients + 1, self._new + new)
        excess = limits.excess(self._hour.plus(more), self._day.plus(more))
        if excess is None:
            self._recipients, self._new = more.recipients, more.new_recipients
            if tag:
                self._tags.add(tag)
        return excess

    def charge(self) -> str | None:
        """Before the commit: other connections may have spent the rest in the meantime."""
        sent = Sent(1, self._recipients, self._new)
        excess = self._allowance.charge(self._account, sent)
        if excess is None:
            self._sent = sent
        return excess

    def settle(self, accepted: bool) -> None:
        """After the commit.  What was not accepted costs nothing.  Without a charge, or again, it does nothing."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        if accepted:
            self._allowance.remember(self._account, frozenset(self._tags))
        else:
            self._allowance.refund(self._account, sent)


def after(usage: Usage, now: float, sent: Sent) -> tuple[Sent, Sent]:
    """What would have been sent within the hour, and within the day."""
    return usage.within(now, HOUR_SLOTS).plus(sent), usage.within(now, DAY_SLOTS).plus(sent)


def shard_of(account: str, tag: bytes) -> str:
    """The key of the part of an account's recipients where this one is."""
    return f"{account} {tag[0] % SHARDS:x}"
