"""What is known of accounts that send, and what was counted lately: facts that nobody misses.

    since       <account>                 it was seen to send
    learning    <account>                 for the first time, not long ago
    networks    <account>                 the networks it has used lately (`mail.recent_tags`)
    to          <account> <digest>        somebody it has written to
    kept        <account>                 how many of those are kept
    count       <account> <signal>        how much there was of a signal in this window
    example     <account> <signal> <n>    the first of what was counted
    once        <account> <signal> <digest>   this one has counted already
    anew        <account>                 when counting began anew for it
    messages    <account>                 how many were remembered in this window
    told        <account>                 postmaster was told of it
    sent        <digest>                  the account that has sent the message with this Message-ID

A counter begins with the first event and ends a window later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

from mailserver.api import Clock, IStateStore
from mailserver.filters.account_signals import EXAMPLES_MOST, SIGNALS, SeenSignal
from mailserver.mail.recent_tags import TAG_OCTETS, day_of, is_recent, with_recent

__all__ = ["AccountMemory", "account_network"]

DAY_SECONDS = 86_400.0
NETWORK_DAYS = 30
NETWORKS_MOST = 64  # of one account, the latest
SINCE_SECONDS = 10 * 365 * DAY_SECONDS
WRITTEN_SECONDS = 400 * DAY_SECONDS
WRITTEN_MOST = 10_000  # of one account
SENT_SECONDS = 14 * DAY_SECONDS  # complaints come within days
SENT_MOST = 2_000  # of one account in a window
EXAMPLE_CHARACTERS = 150
COUNTED_MOST = 5_000  # of one account and signal in a window: each is a fact
IPV4_BITS, IPV6_BITS = 16, 32
TRIES = 20


def account_network(ip: IPv4Address | IPv6Address) -> str:
    """What counts as one network: an IPv4 /16, an IPv6 /32: what one provider gives the same user on another day."""
    return str(ip_network((ip, IPV4_BITS if ip.version == 4 else IPV6_BITS), strict=False))


class AccountMemory:
    """`learning_seconds` long after an account was first seen, its networks and recipients are learnt and not counted."""

    def __init__(self, state: IStateStore, clock: Clock, *, window_seconds: float, learning_seconds: float) -> None:
        self._state = state
        self._clock = clock
        self._window_seconds = window_seconds
        self._learning_seconds = learning_seconds

    async def is_learning(self, account: str) -> bool:
        """Whether the account is so new that nobody knows what is usual for it.  The first question begins that time."""
        if await self._state.put_if_absent(f"since\t{account}", b"1", SINCE_SECONDS):
            await self._state.put(f"learning\t{account}", b"1", self._learning_seconds)
        return self._learning_seconds > 0 and await self._state.get(f"learning\t{account}") is not None

    async def is_new_network(self, account: str, network: str) -> bool:
        """Whether the account has not used it within 30 days.  From now on it has."""
        tag, today, key = _digest(network)[:TAG_OCTETS], day_of(self._clock.seconds()), f"networks\t{account}"
        for _ in range(TRIES):
            kept = await self._state.get(key)
            try:
                was_known = is_recent(kept or b"", tag, today, NETWORK_DAYS)
                after = with_recent(kept or b"", tag, today, days=NETWORK_DAYS, most=NETWORKS_MOST)
            except ValueError:  # what is there is none of ours
                was_known, after = False, with_recent(b"", tag, today, days=NETWORK_DAYS, most=NETWORKS_MOST)
            if after == kept or await self._state.compare_and_put(key, kept, after, NETWORK_DAYS * DAY_SECONDS):
                return not was_known
        return False

    async def new_recipients(self, account: str, addresses: Sequence[str]) -> list[str]:
        """Those to whom it has never written.  From now on it has; beyond `WRITTEN_MOST` nobody is new."""
        found = []
        for address in addresses:
            key = f"to\t{account}\t{_short(address)}"
            if await self._state.get(key) is not None:
                continue
            if await self._state.add(f"kept\t{account}", 1, WRITTEN_SECONDS) > WRITTEN_MOST:
                break
            if await self._state.put_if_absent(key, b"1", WRITTEN_SECONDS):
                found.append(address)
        return found

    async def count(self, account: str, signal: str, what: str, example: str = "") -> bool:
        """One more, unless `what` has counted within this window, or `COUNTED_MOST` have.  Whether it counts."""
        if await self._number(f"count\t{account}\t{signal}") >= COUNTED_MOST:
            return False
        if not await self._state.put_if_absent(f"once\t{account}\t{signal}\t{_short(what)}", b"1", self._window_seconds):
            return False
        n = await self._state.add(f"count\t{account}\t{signal}", 1, self._window_seconds)
        if n <= EXAMPLES_MOST:
            text = (example or what)[:EXAMPLE_CHARACTERS].encode("utf-8", "replace")
            await self._state.put(f"example\t{account}\t{signal}\t{n}", text, self._window_seconds)
        return True

    async def seen(self, account: str) -> list[SeenSignal]:
        """What was counted in this window."""
        found = []
        for signal in SIGNALS:
            count = await self._number(f"count\t{account}\t{signal}")
            if count > 0:
                keys = [f"example\t{account}\t{signal}\t{n}" for n in range(1, min(count, EXAMPLES_MOST) + 1)]
                texts = [await self._state.get(key) for key in keys]
                found.append(SeenSignal(signal, count, tuple([text.decode("utf-8", "replace") for text in texts if text])))
        return found

    async def begin_anew(self, account: str) -> None:
        """Nothing was counted, and what was sent until now does not count."""
        await self._state.put(f"anew\t{account}", repr(self._clock.seconds()).encode(), SENT_SECONDS)
        for signal in SIGNALS:
            await self._state.drop(f"count\t{account}\t{signal}")

    async def anew_at(self, account: str) -> float:
        """When counting began anew, 0.0 where it never has."""
        try:
            return float(await self._state.get(f"anew\t{account}") or 0.0)
        except ValueError:
            return 0.0

    async def remember_sent(self, account: str, message_id: str) -> None:
        """The account has sent this message."""
        if not message_id or await self._state.get(f"sent\t{_short(message_id)}") is not None:
            return
        if await self._state.add(f"messages\t{account}", 1, self._window_seconds) <= SENT_MOST:
            await self._state.put_if_absent(f"sent\t{_short(message_id)}", account.encode(), SENT_SECONDS)

    async def sender_of(self, message_id: str) -> str:
        """Which account has sent it, "" where that is not known."""
        value = await self._state.get(f"sent\t{_short(message_id)}") if message_id else None
        return "" if value is None else value.decode("utf-8", "replace")

    async def is_first(self, key: str, seconds: float) -> bool:
        """Whether this was not asked within so many seconds."""
        return bool(await self._state.put_if_absent(f"told\t{key}", b"1", seconds))

    async def forget_first(self, key: str) -> None:
        """The next one is the first again."""
        await self._state.drop(f"told\t{key}")

    async def _number(self, key: str) -> int:
        try:
            return int(await self._state.get(key) or 0)
        except ValueError:
            return 0


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _short(text: str) -> str:
    return _digest(text)[:16].hex()
