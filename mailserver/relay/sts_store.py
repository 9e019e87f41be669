"""The MTA-STS policies that are in force, in the relay's state store: each as long as its max_age says (RFC 8461 section 3.3).

The store's lifetimes go by a clock that nobody sets, so a wall clock that jumps ends no policy.  A restart keeps all of them; a
power loss may cost those of the last seconds, which are fetched again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

from twisted.logger import Logger

from mailserver.interfaces import Clock, IStateStore
from mailserver.mail.faults import StorageFault
from mailserver.trust.mta_sts import STSMode, STSPolicy

__all__ = ["KeptPolicies"]

TEXT_CHARACTERS = 8_192  # of a policy: for reports and for people
VALUE_OCTETS_MOST = 65_536
UNPACKED_OCTETS_MOST = 1 << 20
DAY_SECONDS = 86_400.0
USED_SECONDS = 30 * DAY_SECONDS  # for so long after mail went there a policy is renewed ahead of its end
USED_MOST = 50_000  # names in memory
PAGE = 200


class KeptPolicies:
    """What cannot be read is told, and is as if it were not there; what cannot be written is told, too."""

    log = Logger()

    def __init__(self, state: IStateStore, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._used: set[str] = set()
        self._used_from = 0.0
        self._told = ""

    async def get(self, domain: str) -> STSPolicy | None:
        """The domain's policy, with mode *none*, too; None where there is none or it has ended."""
        try:
            value = await self._state.get(f"policy/{domain}")
            if value is None:
                return None
            policy = _read(value)
            if policy is None:
                self.log.warn("the MTA-STS policy of {domain} is damaged on the disk: it is fetched anew", domain=domain)
                await self._state.drop(f"policy/{domain}")
            return policy
        except StorageFault as fault:
            self._tell(f"cannot be read, and are fetched anew: {fault}")
            return None

    async def seconds_left(self, domain: str) -> float | None:
        """For how long the domain's policy is in force; None where there is none, or nobody can tell."""
        key = f"policy/{domain}"
        try:
            found = await self._state.items(key, key + "\0", 1)
        except StorageFault:
            return None
        return found[0][2] - self._clock.seconds() if found else None

    async def put(self, domain: str, policy: STSPolicy) -> None:
        """Keep it from now on; one with a max_age of 0 ends at once."""
        value = _octets(policy)
        if len(value) > VALUE_OCTETS_MOST:
            self.log.warn("the MTA-STS policy of {domain} is too large to be kept", domain=domain)
            return
        try:
            await self._state.put(f"policy/{domain}", value, float(policy.max_age_seconds))
        except StorageFault as fault:
            self._tell(f"cannot be kept: {fault}")

    async def all(self) -> AsyncIterator[tuple[str, STSPolicy, float]]:
        """Domain, policy, and for how many seconds it is in force.  Raises `StorageFault`."""
        at = "policy/"
        while page := await self._state.items(at, "policy/\U0010ffff", PAGE):
            now = self._clock.seconds()
            for key, value, end in page:
                policy = _read(value)
                if policy is not None:
                    yield key.partition("/")[2], policy, end - now
            at = page[-1][0] + "\0"

    async def use(self, domain: str) -> None:
        """Mail goes there."""
        now = self._clock.seconds()
        if not 0 <= now - self._used_from < DAY_SECONDS or len(self._used) >= USED_MOST:
            self._used.clear()
            self._used_from = now
        if domain not in self._used:
            self._used.add(domain)
            try:
                await self._state.put(f"used/{domain}", b"", USED_SECONDS)
            except StorageFault as fault:
                self._tell(f"cannot be kept: {fault}")

    async def is_used(self, domain: str) -> bool:
        """Whether mail has gone there of late."""
        try:
            return await self._state.get(f"used/{domain}") is not None
        except StorageFault:
            return True

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            self.log.warn("MTA-STS policies {words}", words=words)


def _octets(policy: STSPolicy) -> bytes:
    text = policy.text[:TEXT_CHARACTERS]
    values = [policy.id, policy.mode.value, policy.mx, policy.max_age_seconds, text]
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode())


def _read(value: bytes) -> STSPolicy | None:
    """What `_octets` has made, None for all else."""
    try:
        id, mode, mx, max_age, text = json.loads(_unpacked(value))
        policy = STSPolicy(id, STSMode(mode), tuple(mx), max_age, text)
    except (ValueError, TypeError, zlib.error):
        return None
    return policy if all(_is_text(one) for one in (id, text, *mx)) and type(max_age) is int else None


def _unpacked(value: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    octets = unpacking.decompress(value, UNPACKED_OCTETS_MOST)
    if not unpacking.eof:
        raise ValueError("it breaks off, or is too large")
    return octets


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
