"""Looks once a day at what the DNS shows for our domains, and tells postmaster what has turned wrong since the look before.

What nobody can tell is no fault, and mends none: what was wrong there before is still thought to be.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.interfaces import Clock, IStateStore
from mailserver.mail.faults import StorageFault
from mailserver.postmaster.notes import Problem

__all__ = ["DailyLook"]

FIRST_SECONDS = 600.0  # after the start
DAY_SECONDS = 86_400.0
RESTED_SECONDS = 20 * 3600.0  # a server that is started anew does not look again within these
KEPT_SECONDS = 60 * DAY_SECONDS
LINES_MOST = 40
Found = Mapping[str, Sequence[CheckedRecord]]


class DailyLook:
    """`look()` examines our domains, in a thread by `run_in_thread`; `give_up()` makes it come to its end."""

    log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        look: Callable[[], Found],
        give_up: Callable[[], None],
        run_in_thread: Callable[..., Awaitable[Any]],
        state: IStateStore,
    ) -> None:
        self._clock = clock
        self._look = look
        self._give_up = give_up
        self._run_in_thread = run_in_thread
        self._state = state
        self._timer: Any = None
        self._stopped = False
        self._news: dict[str, list[str]] = {}
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
        if not self._news:
            return []
        domains = sorted(self._news)
        more = f" and {len(domains) - 1} more" if len(domains) > 1 else ""
        lines = [line for domain in domains for line in (f"{domain}:", *self._news[domain], "")]
        if len(lines) > LINES_MOST:
            lines = [*lines[:LINES_MOST], "..."]
        words = ("Since the look before, the DNS shows this wrongly, or shows it no more:", "", *lines)
        end = "`mailserver dns DOMAIN` says what mends it (docs/dns-doctor.md)."
        return [Problem("dns", "", f"the DNS of {domains[0]}{more} needs attention", (*words, end), self._news.clear)]

    def figures(self) -> dict[str, Any]:
        """For `mailserver status`; empty before the first look."""
        if self.faults is None:
            return {}
        return {"looked_at": len(self.faults), "faults": {name: count for name, count in self.faults.items() if count}}

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
        counts: dict[str, int] = {}
        for domain, records in found.items():
            counts[domain] = await self._compared(domain, records)
        self.faults = counts
        await self._keep("counts", json.dumps(counts), KEPT_SECONDS)

    async def _is_first(self) -> bool:
        try:
            return await self._state.put_if_absent("looked", b"1", RESTED_SECONDS)
        except StorageFault:
            return True

    async def _known(self) -> Mapping[str, int]:
        """What the server before this one has found."""
        try:
            kept = await self._state.get("counts")
            return {} if kept is None else {str(name): int(count) for name, count in json.loads(kept).items()}
        except (StorageFault, ValueError, TypeError, AttributeError):
            return {}

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

    async def _before(self, domain: str) -> set[str]:
        try:
            kept = await self._state.get(f"faults {domain}")
            return set() if kept is None else set(json.loads(kept))
        except (StorageFault, ValueError):
            return set()

    async def _keep(self, key: str, text: str, seconds: float) -> None:
        try:
            await self._state.put(key, text.encode(), seconds)
        except StorageFault:
            self.log.warn("what the DNS shows for our domains could not be kept: {key}", key=key)


def _key(one: CheckedRecord) -> str:
    return f"{one.fault} {one.name} {one.type}"
