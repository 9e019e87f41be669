"""Looks once a day at what the DNS shows for our domains, and tells postmaster what has turned wrong since the look before.

What nobody can tell is no fault, and mends none: what was wrong there before is still thought to be.  After thirty days without
a fault postmaster hears once which policy can be stricter (`clean_days`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.doctor.clean_days import CleanDays, counted, is_clean, policies_of, proposal
from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.policy_change import policy_mark, unchanged_id
from mailserver.doctor.report_evidence import NO_EVIDENCE, ReportEvidence
from mailserver.interfaces import Clock, IStateStore
from mailserver.mail.faults import StorageFault
from mailserver.postmaster.notes import Problem

__all__ = ["DailyLook", "last_look"]

FIRST_SECONDS = 600.0  # after the start
DAY_SECONDS = 86_400.0
RESTED_SECONDS = 20 * 3600.0  # a server that is started anew does not look again within these
KEPT_SECONDS = 60 * DAY_SECONDS
COUNTS_KEPT_SECONDS = 400 * DAY_SECONDS
REPORT_DAYS_LEAST = 2  # reports come a day late
SHOWN_MOST = 20  # domains in `status`
LINES_MOST = 40
Found = Mapping[str, Sequence[CheckedRecord]]
AskReports = Callable[[str, str, float], ReportEvidence]


class DailyLook:
    """`look()` examines our domains, in a thread by `run_in_thread`; `give_up()` makes it come to its end.  There, too,
    `reports(kind, domain, seconds)` says what others have reported lately.  `wall()` is the time, which is only told.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        look: Callable[[], Found],
        give_up: Callable[[], None],
        run_in_thread: Callable[..., Awaitable[Any]],
        state: IStateStore,
        reports: AskReports = lambda kind, domain, seconds: NO_EVIDENCE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._look = look
        self._give_up = give_up
        self._run_in_thread = run_in_thread
        self._state = state
        self._reports = reports
        self._wall = wall
        self._timer: Any = None
        self._stopped = False
        self._news: dict[str, list[str]] = {}
        self._proposals: dict[tuple[str, str], tuple[str, ...]] = {}
        self._clean: dict[str, dict[str, CleanDays]] = {}
        self.faults: Mapping[str, int] | None = None
        """How many there are, by domain; None before the first look."""

    def start(self) -> None:
        """Look some time after the start, then each day."""
        self._timer = self._clock.callLater(FIRST_SECONDS, self._begin)

    def stop(self) -> None:
        """No more looks; one that is under way ends with the question that it waits for."""
        self._stopped = True
        self._give_up()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def problems(self) -> list[Problem]:
        """What postmaster should know: one note, of all domains."""
        return [*self._told_of_faults(), *self._told_of_proposals()]

    def _told_of_faults(self) -> list[Problem]:
        if not self._news:
            return []
        domains = sorted(self._news)
        more = f" and {len(domains) - 1} more" if len(domains) > 1 else ""
        lines = [line for domain in domains for line in (f"{domain}:", *self._news[domain], "")]
        if len(lines) > LINES_MOST:
            lines = [*lines[:LINES_MOST], "..."]
        words = ("Since the look before, the DNS shows this wrongly, or shows it no more:", "", *lines)
        end = "`mailserver dns DOMAIN --try` says what mends it (docs/dns-doctor.md)."
        return [Problem("dns", "", f"the DNS of {domains[0]}{more} needs attention", (*words, end), self._news.clear)]

    def _told_of_proposals(self) -> list[Problem]:
        """One note of all that are new."""
        if not self._proposals:
            return []
        keys = list(self._proposals)
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        lines = [line for key in keys for line in (*self._proposals[key], "")]
        end = "Nobody changes it by himself (docs/dns-doctor.md)."
        title = f"the {keys[0][1]} policy of {keys[0][0]}{more} can be stricter"
        return [Problem("stricter", "", title, (*lines[:LINES_MOST], end), self._proposals_are_told)]

    def _proposals_are_told(self) -> None:
        keys = list(self._proposals)
        self._proposals.clear()
        for domain, kind in keys:
            counts = self._clean.get(domain, {})
            if kind in counts:
                counts[kind] = replace(counts[kind], told=True)
        later = [self._keep_counts(domain) for domain in dict.fromkeys([domain for domain, _ in keys])]
        for one in later:
            Deferred.fromCoroutine(one)

    def figures(self) -> dict[str, Any]:
        """For `mailserver status`; empty before the first look."""
        if self.faults is None:
            return {}
        figures = {"looked_at": len(self.faults), "faults": {name: count for name, count in self.faults.items() if count}}
        clean = {name: {kind: one.days for kind, one in counts.items()} for name, counts in self._clean.items() if counts}
        return figures | ({"clean_days": dict([*clean.items()][:SHOWN_MOST])} if clean else {})

    async def report(self) -> dict[str, Any]:
        """About the last look, by whichever server: `at` (seconds since the epoch, None where there was none), the number of
        `faults` by domain, and of each domain and kind of policy the `clean` days.
        """
        return await last_look(self._state)

    # --- looks ---

    def _begin(self) -> None:
        self._timer = self._clock.callLater(DAY_SECONDS, self._begin)
        Deferred.fromCoroutine(self.look_now()).addErrback(
            lambda failure: self.log.failure("the daily look at the DNS has failed", failure)
        )

    async def look_now(self) -> None:
        """Look, unless that was done a short while ago by a server before this one."""
        if self.faults is None and not await self._is_first():
            self.faults = await self._known()
            return
        found: Found = await self._run_in_thread(self._look)
        if self._stopped:
            return
        await self._keep("looked", "1", RESTED_SECONDS)
        counts: dict[str, int] = {}
        for domain, seen in found.items():
            counts[domain] = 0
            try:
                records = [*seen, *await self._changed_policy(domain, seen)]
                counts[domain] = await self._compared(domain, records)
                await self._count(domain, records, counts[domain])
            except Exception:  # noqa: BLE001  the other domains are told of all the same
                self.log.failure("what the DNS shows for {domain} could not be compared", domain=domain)
        self.faults = counts
        await self._keep("last", json.dumps({"at": self._wall(), "faults": counts}), KEPT_SECONDS)

    async def _is_first(self) -> bool:
        try:
            return await self._state.put_if_absent("looked", b"1", RESTED_SECONDS)
        except StorageFault:
            return True

    async def _known(self) -> Mapping[str, int]:
        """What the server before this one has found."""
        found = await last_look(self._state)
        self._clean = {
            domain: {kind: one for kind, plain in counts.items() if (one := CleanDays.of(plain)) is not None}
            for domain, counts in found["clean"].items()
        }
        faults: Mapping[str, int] = found["faults"]
        return faults

    async def _compared(self, domain: str, records: Sequence[CheckedRecord]) -> int:
        """Note what is new; how many faults there are."""
        before = await self._before(domain)
        unknown = {(one.name, one.type) for one in records if one.verdict is RecordVerdict.UNKNOWN}
        wrong = {_key(one): one for one in records if one.is_to_be_done and one.verdict is not RecordVerdict.UNKNOWN}
        still = {key for key in before if tuple(key.split(" ")[1:]) in unknown}
        news = [f"    {one.name} {one.type}: {one.why} [{one.fault}]" for key, one in wrong.items() if key not in before]
        if news:
            self._news.setdefault(domain, []).extend(news)
            self.log.warn("the DNS of {domain} has new faults: {faults}", domain=domain, faults=", ".join(sorted(wrong)))
        now = {*wrong, *still}
        await self._keep(f"faults {domain}", json.dumps(sorted(now)), KEPT_SECONDS)
        return len(now)

    async def _changed_policy(self, domain: str, records: Sequence[CheckedRecord]) -> list[CheckedRecord]:
        """What only two looks show together."""
        now = policy_mark(records)
        try:
            kept = await self._state.get(f"policy {domain}")
            before = None if kept is None else json.loads(kept)
        except (StorageFault, ValueError):
            before = None
        fault = unchanged_id(domain, before if isinstance(before, dict) else None, now)
        if fault is not None:
            return [fault]
        if now is not None:
            await self._keep(f"policy {domain}", json.dumps(now), COUNTS_KEPT_SECONDS)
        return []

    async def _count(self, domain: str, records: Sequence[CheckedRecord], faults: int) -> None:
        """The clean days, and what can be stricter after as many as are wanted."""
        before = await _kept_counts(self._state, domain)
        policies, clean = policies_of(domain, records), is_clean(records, faults)
        found: dict[str, CleanDays] = {}
        for policy in policies:
            count = before.get(policy.kind)
            days = count.days + 1 if count is not None and count.stage == policy.stage else 0
            seconds = max(REPORT_DAYS_LEAST, days) * DAY_SECONDS
            evidence = await self._run_in_thread(self._reports, policy.kind, domain, seconds)
            one = found[policy.kind] = counted(count, policy, clean, evidence)
            lines = proposal(domain, policy, one, evidence)
            if lines:
                self._proposals[domain, policy.kind] = lines
            else:
                self._proposals.pop((domain, policy.kind), None)
        if clean is not True:  # a policy that cannot be seen now may still be there
            found = {**{kind: one if clean is None else replace(one, days=0) for kind, one in before.items()}, **found}
        self._clean[domain] = found
        await self._keep_counts(domain)

    async def _keep_counts(self, domain: str) -> None:
        counts = {kind: one.plain for kind, one in self._clean.get(domain, {}).items()}
        await self._keep(f"clean {domain}", json.dumps(counts), COUNTS_KEPT_SECONDS)

    async def _before(self, domain: str) -> set[str]:
        try:
            kept = await self._state.get(f"faults {domain}")
            return set() if kept is None else set(json.loads(kept))
        except (StorageFault, ValueError, TypeError):
            return set()

    async def _keep(self, key: str, text: str, seconds: float) -> None:
        try:
            await self._state.put(key, text.encode(), seconds)
        except StorageFault:
            self.log.warn("what the DNS shows for our domains could not be kept: {key}", key=key)


async def last_look(state: IStateStore) -> dict[str, Any]:
    """As `DailyLook.report` says, from the facts that it keeps."""
    found: dict[str, Any] = {"at": None, "faults": {}, "clean": {}}
    try:
        kept = await state.get("last")
        if kept is not None:
            said = json.loads(kept)
            found["at"] = float(said["at"])
            found["faults"] = {str(name): int(count) for name, count in said["faults"].items()}
        for domain in found["faults"]:
            found["clean"][domain] = {kind: one.plain for kind, one in (await _kept_counts(state, domain)).items()}
    except (StorageFault, ValueError, TypeError, AttributeError, LookupError):
        pass
    return found


async def _kept_counts(state: IStateStore, domain: str) -> dict[str, CleanDays]:
    try:
        kept = await state.get(f"clean {domain}")
        plain = {} if kept is None else json.loads(kept)
        return {str(kind): one for kind, value in plain.items() if (one := CleanDays.of(value)) is not None}
    except (StorageFault, ValueError, AttributeError):
        return {}


def _key(one: CheckedRecord) -> str:
    return f"{one.fault} {one.name} {one.type}"
