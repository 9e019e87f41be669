"""What sends the reports of the days that are over: what DMARC's and TLS's have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from mailserver.api import Address, Clock, IRecords, Send
from mailserver.filters.report_days import G, ReportDays
from mailserver.filters.sent_reports import SentReports
from mailserver.trust.dmarc import Query

__all__ = ["ReportSending", "ReportSender"]


@dataclass(frozen=True, slots=True)
class ReportSender:
    """Who reports, and what he needs for it.

    `sender` is who reports, `hostname` the server that does, `organization` a name for people ("": the sender's domain).
    `spread_seconds`: the reports of a day leave within so long after its end.  `make` calls a function that takes its time, in a
    thread.  Domains in `without` get no reports.
    """

    records: IRecords
    query: Query
    send: Send
    make: Callable[..., Awaitable[Any]]
    clock: Clock
    sender: Address
    hostname: str
    organization: str
    spread_seconds: float
    without: Sequence[str] = ()


class ReportSending(Generic[G]):
    """The reports of one kind."""

    kind = ""  # of report, for the log

    def __init__(self, reporter: ReportSender) -> None:
        self._query = reporter.query
        self._send = reporter.send
        self._make = reporter.make
        self._clock = reporter.clock
        self._sender = reporter.sender
        self._domain = reporter.sender.domain_key
        self._organization = reporter.organization or self._domain
        self._without = frozenset(reporter.without)
        self._hostname = reporter.hostname
        self.sent = SentReports(reporter.records)
        self._days: ReportDays[G] = ReportDays(
            name=self.kind, clock=reporter.clock, hostname=reporter.hostname, spread_seconds=reporter.spread_seconds,
            groups=self._groups, report=self._report,
        )  # fmt: skip

    async def _groups(self, day: str) -> Iterable[G]:
        """What there is to report of a day that is over."""
        raise NotImplementedError

    async def _report(self, group: G) -> None:
        """Send the report to all who want it."""
        raise NotImplementedError

    async def run(self) -> int:
        """Send what is due; how many reports that were."""
        return await self._days.run()

    def due_at(self, group: G) -> float:
        """When a report leaves."""
        return self._days.due_at(group)

    async def _mailed(self, message: bytes, to: Address) -> str:
        """The id of the message, or why there is none.  Raises `CannotTell` and `StorageFault` for later again."""
        try:
            return await self._send(message, sender=self._sender, recipients=[to], reports=False)
        except ValueError as error:
            return f"not sent: {error}"
