"""How TLS with other hosts came out, counted for the reports: by day, domain, policy and kind of failure.

The facts are in the state store, so they outlive a restart; a power loss may cost seconds of them.  All is bounded: domains of a
day, policies of a domain, kinds of failure.  What goes beyond is counted and told.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.filters.report_days import day_of
from mailserver.filters.report_facts import ENCODE, KEPT_SECONDS, ReportFacts
from mailserver.trust.tls_report import FailureDetail, PolicyRow
from mailserver.trust.tls_result import TLSPolicyFound, TLSResult

__all__ = ["TLSReportFacts", "TLSReportGroup"]

POLICIES_MOST = 50  # of a domain
POLICIES_OF_DAY_MOST = 20_000
DETAILS_MOST = 300  # of a domain
DETAILS_OF_DAY_MOST = 20_000
STRINGS_MOST = 40
STRING_CHARACTERS = 500
PATTERNS_MOST = 100
POLICY_OCTETS_MOST = 16_384  # as it is kept: the domain's own policy host says what stands in it
TEXT_CHARACTERS = 200
DOMAIN = re.compile(r"[a-z0-9._\-]{1,253}")


@dataclass(frozen=True, slots=True, order=True)
class TLSReportGroup:
    """What one report is about: a UTC day and a domain."""

    day: str
    domain: str

    @property
    def path(self) -> str:
        """In keys."""
        return f"{self.day}/{self.domain}"


class TLSReportFacts(ReportFacts):
    """`take` counts a session, the others read.

    group/DAY/DOMAIN; policy/DAY/DOMAIN/P: the policy; detail/DAY/DOMAIN/P/D: the failure; count/DAY/DOMAIN/P/good, /bad, /D.
    """

    beyond = "TLS reports of {day}: too many different sessions; not all will be told whole"

    async def take(self, result: TLSResult) -> bool:
        """Count the session.  Whether it will be in a report.  Raises `StorageFault`."""
        if DOMAIN.fullmatch(result.domain) is None:
            return False
        group = TLSReportGroup(day_of(self._clock.seconds()), result.domain)
        policy = _policy_text(result.policy)
        place = f"{group.path}/{_digest(policy)}"
        if not await self._has_policy(group, place, policy):
            return await self._beyond(group.day)
        if not result.failure:
            await self._state.add(f"count/{place}/good", 1, KEPT_SECONDS)
            return True
        await self._state.add(f"count/{place}/bad", 1, KEPT_SECONDS)
        detail = _detail_text(result)
        if await self._has_detail(group, f"{place}/{_digest(detail)}", detail):
            await self._state.add(f"count/{place}/{_digest(detail)}", 1, KEPT_SECONDS)
        else:  # it is in the sum all the same
            await self._beyond(group.day)
        return True

    async def groups(self, day: str) -> list[TLSReportGroup]:
        """What there is to report of a day."""
        return [TLSReportGroup(*key.split("/")[1:3]) for key, _ in await self._all(f"group/{day}/")]

    async def rows(self, group: TLSReportGroup) -> list[PolicyRow]:
        """What a report says: the policy with most sessions first."""
        counts = {key.partition("/")[2]: int(value) for key, value in await self._all(f"count/{group.path}/")}
        details: dict[str, list[FailureDetail]] = {}
        for key, value in await self._all(f"detail/{group.path}/"):
            place = key.partition("/")[2]
            if counts.get(place, 0) > 0:
                details.setdefault(place.rpartition("/")[0], []).append(_detail_of(value, counts[place]))
        rows = []
        for key, value in await self._all(f"policy/{group.path}/"):
            place = key.partition("/")[2]
            good, bad = (counts.get(f"{place}/{name}", 0) for name in ("good", "bad"))
            if good or bad:
                found = sorted(details.get(place, ()), key=lambda one: (-one.count, one.result, one.receiving_host))
                kind, domain, strings, patterns = json.loads(value)
                rows.append(PolicyRow(kind, domain, good, bad, tuple(strings), tuple(patterns), tuple(found)))
        return sorted(rows, key=lambda row: (-row.successes - row.failures, row.kind, row.domain))

    async def sessions(self, day: str) -> dict[TLSReportGroup, int]:
        """How many sessions each report of a day is about."""
        found: Counter[TLSReportGroup] = Counter()
        for key, value in await self._all(f"count/{day}/"):
            if key.endswith(("/good", "/bad")):
                found[TLSReportGroup(*key.split("/")[1:3])] += int(value)
        return dict(found)

    async def _has_policy(self, group: TLSReportGroup, place: str, policy: str) -> bool:
        """Whether it is there, or has a place now."""
        key = f"policy/{place}"
        if key in self._known:
            return True
        if await self._state.get(key) is None:
            if not await self._has_group(group.day, group.path, b""):
                return False
            counts = (f"policies/{group.path}", POLICIES_MOST), (f"policies-of/{group.day}", POLICIES_OF_DAY_MOST)
            if not await self._have_room(*counts):
                return False
            await self._state.put_if_absent(key, policy.encode(), KEPT_SECONDS)
        self._remember(key)
        return True

    async def _has_detail(self, group: TLSReportGroup, place: str, detail: str) -> bool:
        key = f"detail/{place}"
        if key in self._known:
            return True
        if await self._state.get(key) is None:
            counts = (f"details/{group.path}", DETAILS_MOST), (f"details-of/{group.day}", DETAILS_OF_DAY_MOST)
            if not await self._have_room(*counts):
                return False
            await self._state.put_if_absent(key, detail.encode(), KEPT_SECONDS)
        self._remember(key)
        return True


def _policy_text(policy: TLSPolicyFound) -> str:
    """The same text for the same policy.  It has the first of its strings and patterns for which there is room."""
    strings = _first([one[:STRING_CHARACTERS] for one in policy.strings[:STRINGS_MOST]])
    return ENCODE([policy.kind, policy.domain[:TEXT_CHARACTERS], strings, _first(policy.mx_patterns[:PATTERNS_MOST])])


def _first(texts: Sequence[str]) -> list[str]:
    room, found = POLICY_OCTETS_MOST // 2, []
    for one in texts:
        room -= len(ENCODE(one))
        if room < 0:
            break
        found.append(one)
    return found


def _detail_text(result: TLSResult) -> str:
    """A failure without its count: the same text for equal ones."""
    values = result.failure, result.own_address, result.host, result.address, result.information
    return ENCODE([one[:TEXT_CHARACTERS] for one in values])


def _detail_of(text: bytes, count: int) -> FailureDetail:
    result, own_address, host, address, information = json.loads(text)
    return FailureDetail(result, count, own_address, host, address, information=information)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
