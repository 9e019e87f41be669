"""The mail for an address of reports: who has written it, what is read of it, and what was not read and why.

Only what shows from whom it is is read, in a process that may be killed.  Nothing is answered or bounced: two hosts would keep
each other busy.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from twisted.logger import Logger

from mailserver.api import (
    Address,
    Clock,
    Content,
    Delayed,
    Delivered,
    Envelope,
    IStateStore,
    Outcome,
    ProcessFailed,
    Reply,
    RunInProcess,
    StorageFault,
    normal_local,
)
from mailserver.filters.received_reports import ReportTooLarge
from mailserver.filters.report_days import DAY_SECONDS, day_of

__all__ = ["DMARC_FINDING", "REPORT_FINDINGS", "TLS_FINDING", "ReportInbox", "passed_for"]

DMARC_FINDING = "dmarc-report"
TLS_FINDING = "tls-report"
REPORT_FINDINGS = frozenset({DMARC_FINDING, TLS_FINDING})  # no report is about a message with one of them

READ_SECONDS = 15.0
PASSED_SECONDS = 35 * 86_400.0  # longer than a message is in the queue, or held
REPORTS_OF_ONE_MOST = 300  # in a day
UNREAD_MOST = 1_000  # in a day
SHOWN_MOST = 500
LATER = Reply.of(451, "4.3.0", "Local error, please try again later")


def passed_for(envelope: Envelope) -> str | None:
    """The author's domain, where DMARC has passed."""
    for one in envelope.findings:
        said = one.properties
        if one.name == "dmarc" and said.get("result") == "pass" and said.get("domain") and not said.get("weak"):
            return str(said["domain"])
    return None


class ReportInbox:
    """`name` is the kind of report, for people; `reads` are the local parts, in each of our domains.

    `parse(content)` runs in a process, and returns a report in plain values, or in a text why there is none.
    `keep(plain, reporter, id, at)` keeps it, and returns "" or why it does not; it may raise `StorageFault`.
    `own_sender` is who sends our own reports.
    """

    log = Logger()

    def __init__(
        self,
        *,
        name: str,
        reads: Iterable[str],
        state: IStateStore,
        clock: Clock,
        retention_seconds: float,
        is_own_domain: Callable[[str], bool],
        run_in_process: RunInProcess,
        parse: Callable[[Content], Any],
        keep: Callable[[Any, str, str, float], Awaitable[str]],
        own_sender: Address | None = None,
    ) -> None:
        self._name = name
        self.reads = tuple(reads)
        self._state = state
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._is_own_domain = is_own_domain
        self._run_in_process = run_in_process
        self._parse = parse
        self._keep = keep
        self._own_sender = own_sender

    def is_addressed(self, envelope: Envelope) -> bool:
        """Whether one of the recipients is such an address of ours."""
        return any(
            normal_local(one.address.local).partition("+")[0] in self.reads and self._is_own_domain(one.address.domain)
            for one in envelope.recipients
        )

    def is_own(self, domain: str) -> bool:
        """A domain of ours, or one below it."""
        labels = domain.split(".")
        return any(self._is_own_domain(".".join(labels[n:])) for n in range(len(labels)))

    async def remember(self, envelope: Envelope, passed: str) -> None:
        """DMARC has passed for this domain: until the message is read, nothing else will say so."""
        try:
            await self._state.put(f"passed/{envelope.id}", passed.encode(), PASSED_SECONDS)
        except StorageFault as fault:  # then it is not read; no mail waits for that
            self.log.warn("{id}: that DMARC has passed cannot be remembered: {fault}", id=envelope.id, fault=fault)

    async def read(self, envelope: Envelope, content: Content, address: Address) -> tuple[Outcome, bool]:
        """The outcome, and whether a report was read.  What cannot be read is told, and nobody hears of it."""
        if envelope.sender is None:  # of one of ours that has failed, say; whoever answers it keeps a loop going
            return Delivered("not read: it has the null sender, as reports of delivery have"), False
        try:
            why_not = await self._read(envelope, content)
            if not why_not:
                return Delivered(f"a {self._name} report: it is kept"), True
            await self._tell_unread(envelope, address, why_not)
        except StorageFault as fault:
            return Delayed(LATER, f"the report cannot be kept: {fault}"), False
        return Delivered(f"not read: {why_not}"[:500]), False

    async def unread(self, since: float = 0.0) -> list[dict[str, Any]]:
        """What was not read, the latest first."""
        first = f"unread/{max(0.0, since):014.2f}"
        found = [json.loads(value) for _, value, _ in await self._state.items(first, "unread/\U0010ffff", 10_000)]
        names = ("at", "id", "sender", "address", "why")
        return [dict(zip(names, one, strict=True)) for one in reversed(found[-SHOWN_MOST:])]

    async def _read(self, envelope: Envelope, content: Content) -> str:
        """Why it is not read, "" where it is kept.  Raises `StorageFault`."""
        reporter = await self._reporter(envelope)
        if not reporter:
            return "nothing shows that it is from whom it says (DMARC has not passed)"
        now = self._clock.seconds()
        if await self._state.add(f"from/{day_of(now)}/{reporter}", 1, 2.0 * DAY_SECONDS) > REPORTS_OF_ONE_MOST:
            return f"{reporter} has sent more than {REPORTS_OF_ONE_MOST} reports today"
        try:
            found = await self._run_in_process(self._parse, content, seconds=READ_SECONDS)
        except ProcessFailed as error:
            return f"reading it has failed: {error}"
        if isinstance(found, str):
            return found
        try:
            return await self._keep(found, reporter, envelope.id, now)
        except ReportTooLarge as error:  # tomorrow it will not be smaller
            return str(error)

    async def _reporter(self, envelope: Envelope) -> str:
        """The author's domain, where DMARC has passed for it; our own for what we have written."""
        if envelope.peer.service == "report" and self._own_sender is not None and envelope.sender == self._own_sender:
            return self._own_sender.domain_key
        return (await self._state.get(f"passed/{envelope.id}") or b"").decode()

    async def _tell_unread(self, envelope: Envelope, address: Address, why: str) -> None:
        now = self._clock.seconds()
        self.log.info(
            "{id}: a {name} report for {address} is not read: {why}",
            id=envelope.id, name=self._name, address=str(address), why=why,
        )  # fmt: skip
        if await self._state.add(f"unread-of/{day_of(now)}", 1, 2.0 * DAY_SECONDS) <= UNREAD_MOST:
            sender = "" if envelope.sender is None else envelope.sender.domain_key
            told = json.dumps([now, envelope.id, sender, str(address), why[:1000]])
            await self._state.put(f"unread/{now:014.2f}/{envelope.id}", told.encode(), self._retention_seconds)
