"""What an administrator has said of a domain's TLS, for a time: in records, and in memory while the server runs.

Each override has an end, by the wall clock; one that weakens something does not hold before it was added either.  One that is
over stays in the records until the next one is written, so that it can be seen for a while; it holds nothing.  An override never
weakens what a message itself demands (REQUIRETLS).
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.interfaces import CannotDo, Clock, IRecords
from mailserver.mail.address import Address, AddressError
from mailserver.mail.faults import StorageFault
from mailserver.relay.security import OverrideKind, TLSOverride

__all__ = ["SPACE", "KeptOverride", "TLSOverrides"]

SPACE = "relay/tls-overrides"

OVERRIDES_MOST = 1_000
DAYS_MOST = 366
DAY_SECONDS = 86_400.0
OVER_KEPT_SECONDS = 30 * DAY_SECONDS
WORDS_CHARACTERS = 200
FINGERPRINT_CHARACTERS = 64
AGAIN_SECONDS = 60.0
SLACK_SECONDS = 3600.0  # by which a clock may be set back


@dataclass(frozen=True, slots=True)
class KeptOverride:
    """One override as it is kept.  `added` and `until` are Unix time; `fingerprint` is "" but for the kind "trust"."""

    domain: str
    kind: str
    until: float
    fingerprint: str = ""
    why: str = ""
    by: str = ""
    added: float = 0.0

    @property
    def override(self) -> TLSOverride:
        """What the decision takes."""
        return TLSOverride(OverrideKind(self.kind), self.until, self.fingerprint)


class TLSOverrides:
    """Of a server.  `records` are those of `SPACE`, `clock` is the wall clock."""

    log = Logger()

    def __init__(self, records: IRecords, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._kept: dict[str, KeptOverride] = {}
        self._told_over: set[str] = set()
        self._again: Any = None

    # --- life ---

    async def start(self) -> None:
        """Read them.  Until that has worked there are none, which is told."""
        self._again = None
        try:
            found = await self._all()
        except StorageFault as fault:
            self.log.error("what was said of domains' TLS (tls-override) cannot be read, and does not hold: {fault}", fault=fault)
            self._again = self._clock.callLater(AGAIN_SECONDS, self._start_again)
            return
        self._kept = {one.domain: one for one in found} | self._kept

    def _start_again(self) -> None:
        Deferred.fromCoroutine(self.start())

    def stop(self) -> None:
        """Read no more, where they could not be read yet."""
        if self._again is not None:
            self._again.cancel()
            self._again = None

    # --- for the relay ---

    def find(self, domain: str) -> TLSOverride | None:
        """The override for the domain (lower case, A-labels) that holds now."""
        if not self._kept:
            return None
        kept = self._kept.get(domain)
        if kept is None:
            return None
        now = self._clock.seconds()
        if now < kept.until and (now >= kept.added - SLACK_SECONDS or kept.kind == OverrideKind.REQUIRE.value):
            return kept.override
        if now < kept.until:  # else a clock that was set back would give it years
            self._tell_not_begun(kept)
            return None
        if domain not in self._told_over:
            self._told_over.add(domain)
            self.log.info("the override of TLS for {domain} ({kind}) is over", domain=domain, kind=kept.kind)
        return None

    def _tell_not_begun(self, kept: KeptOverride) -> None:
        if kept.domain not in self._told_over:
            self._told_over.add(kept.domain)
            self.log.warn(
                "the override of TLS for {domain} ({kind}) does not hold: by the clock it has not been added yet",
                domain=kept.domain, kind=kept.kind,
            )  # fmt: skip

    # --- for people ---

    async def listed(self) -> Sequence[KeptOverride]:
        """All that are kept, by domain.  Raises `StorageFault`."""
        return await self._all()

    async def add(
        self, *, domain: str, kind: str, seconds: float, fingerprint: str = "", why: str = "", by: str = ""
    ) -> KeptOverride:
        """Keep one for so many seconds from now, in the place of the domain's former one.

        Raises `CannotDo` for what makes no sense, and `StorageFault`.
        """
        now = self._clock.seconds()
        kept = _checked(domain, kind, seconds, fingerprint, why, by, now)
        known = await self._all()
        for one in known:
            if one.until < now - OVER_KEPT_SECONDS and one.domain != kept.domain:
                await self._records.drop(one.domain)
                self._kept.pop(one.domain, None)
        if sum(one.domain != kept.domain for one in known) >= OVERRIDES_MOST:
            raise CannotDo(f"there are {OVERRIDES_MOST} overrides already")
        await self._records.put(kept.domain, json.dumps(asdict(kept), separators=(",", ":")).encode())
        self._kept[kept.domain] = kept
        self._told_over.discard(kept.domain)
        return kept

    async def remove(self, domain: str) -> KeptOverride:
        """End the domain's override.  Raises `CannotDo` where there is none, and `StorageFault`."""
        name = _domain_of(domain)
        known = await self._records.get(name)
        if known is None:
            raise CannotDo(f"there is no override for {name}")
        await self._records.drop(name)
        self._kept.pop(name, None)
        return _kept_of(name, known) or KeptOverride(name, OverrideKind.REQUIRE.value, 0.0)

    async def _all(self) -> list[KeptOverride]:
        found = []
        for key, value in await self._records.items(most=OVERRIDES_MOST * 2):
            kept = _kept_of(key, value)
            if kept is None:
                self.log.error("the override of TLS for {domain} is damaged and does not hold", domain=key)
            else:
                found.append(kept)
        return found


def _checked(
    domain: str, kind: str, seconds: float, fingerprint: str, why: str, by: str, now: float
) -> KeptOverride:
    kinds = [one.value for one in OverrideKind]
    if kind not in kinds:
        raise CannotDo(f"{kind!r} is none of {', '.join(kinds)}")
    if not (math.isfinite(seconds) and 0 < seconds <= DAYS_MOST * DAY_SECONDS):
        raise CannotDo(f"an override has an end, within {DAYS_MOST} days: for good a  [[route]]  says it")
    digits = fingerprint.replace(":", "").replace(" ", "").lower()
    if kind == OverrideKind.TRUST.value:
        if len(digits) != FINGERPRINT_CHARACTERS or any(one not in "0123456789abcdef" for one in digits):
            raise CannotDo("trust needs the SHA-256 fingerprint of the host's certificate: 64 hexadecimal digits")
    elif digits:
        raise CannotDo(f"{kind} takes no fingerprint")
    return KeptOverride(
        _domain_of(domain), kind, now + seconds, digits, why[:WORDS_CHARACTERS], by[:WORDS_CHARACTERS], now
    )


def _domain_of(text: str) -> str:
    """As the relay knows it: in lower case, A-labels; a smarthost's number as it is.  Raises `CannotDo`."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return Address.parse(f"postmaster@{text}", utf8=True).domain_key
    except AddressError as error:
        raise CannotDo(f"{text!r} is no domain: {error}") from error


def _kept_of(domain: str, value: bytes) -> KeptOverride | None:
    """What `add` has written, None for all else."""
    try:
        fields: Mapping[str, Any] = json.loads(value)
        kept = KeptOverride(**fields)
        texts = (kept.domain, kept.kind, kept.fingerprint, kept.why, kept.by)
        if not all(isinstance(one, str) for one in texts) or kept.domain != domain:
            return None
        OverrideKind(kept.kind)
        bytes.fromhex(kept.fingerprint)
        return kept if math.isfinite(kept.until) and math.isfinite(kept.added) else None
    except (ValueError, TypeError):
        return None
