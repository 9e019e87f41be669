"""What people may see of DMARC reports: those of others, those that were sent, those that are about to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mailserver.api import CannotDo, Clock, LookupFailed
from mailserver.filters.dmarc_facts import DMARCFacts, ReportGroup
from mailserver.filters.dmarc_sending import DMARCSending, ReportDestination
from mailserver.filters.received_reports import ReceivedReports
from mailserver.filters.report_commands import SHOWN_MOST, ReportOrders, by_day, domain_of, shortened
from mailserver.filters.report_inbox import ReportInbox
from mailserver.trust.dmarc_record import DMARCRecord
from mailserver.trust.dmarc_report import AggregateReport, report_xml

__all__ = ["DMARCReportOrders"]


@dataclass(slots=True)
class _Source:
    """One address, in all reports."""

    source: str
    messages: int = 0
    passed: int = 0
    dkim: int = 0
    spf: int = 0
    stopped: int = 0
    reporters: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)


class DMARCReportOrders(ReportOrders[DMARCSending]):
    """The commands of `dmarc_reports`."""

    def __init__(
        self,
        received: ReceivedReports[AggregateReport],
        inbox: ReportInbox,
        sending: DMARCSending | None,
        facts: DMARCFacts,
        clock: Clock,
    ) -> None:
        super().__init__(inbox, sending, clock)
        self._received = received
        self._facts = facts

    async def show(self, domain: str, since: float | None = None) -> dict[str, Any]:
        """The sources, those with most failures first, and the sums."""
        found: dict[str, _Source] = {}
        reports = 0
        async for kept in self._received.all(domain_of(domain), self._from(since)):
            reports += 1
            for row in kept.report.rows:
                one = found.setdefault(row.source, _Source(row.source))
                one.messages += row.count
                one.passed += row.count if row.passed else 0
                one.dkim += row.count if row.dkim == "pass" else 0
                one.spf += row.count if row.spf == "pass" else 0
                one.stopped += row.count if row.disposition in ("quarantine", "reject") else 0
                one.reporters.add(kept.reporter)
                one.domains.add(row.header_from)
        ordered = sorted(found.values(), key=lambda one: (one.passed - one.messages, -one.messages, one.source))
        return {
            "domain": domain_of(domain),
            "reports": reports,
            "sources": len(ordered),
            "messages": sum([one.messages for one in ordered]),
            "passed": sum([one.passed for one in ordered]),
            "rows": [
                {
                    "source": one.source,
                    "messages": one.messages,
                    "passed": one.passed,
                    "failed": one.messages - one.passed,
                    "dkim": one.dkim,
                    "spf": one.spf,
                    "stopped": one.stopped,
                    "reporters": sorted(one.reporters)[:20],
                    "domains": sorted(one.domains)[:20],
                }
                for one in ordered[:SHOWN_MOST]
            ],
        }

    async def listed(self, domain: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
        """The reports, the latest first."""
        found: list[dict[str, Any]] = []
        async for kept in self._received.all("" if domain is None else domain_of(domain), self._from(since)):
            report = kept.report
            found.append(
                {
                    "domain": report.published.domain,
                    "begin": report.begin,
                    "end": report.end,
                    "reporter": kept.reporter,
                    "organization": report.organization,
                    "policy": report.published.policy,
                    "messages": sum([row.count for row in report.rows]),
                    "passed": sum([row.count for row in report.rows if row.passed]),
                    "report": report.id,
                    "id": kept.id,
                    "received": kept.at,
                }
            )
        found.sort(key=lambda one: (-one["end"], one["domain"], one["reporter"]))
        return found[:SHOWN_MOST]

    async def reports(self) -> list[dict[str, Any]]:
        """A row for each report, the latest first."""
        sending, rows = self._needed(), await self._sent("messages")
        known = {(one["day"], one["report"]) for one in rows}
        for day, state in self._days():
            messages = await self._facts.messages(day)
            for group, _ in (await self._facts.groups(day))[:SHOWN_MOST]:
                id = sending.id_of(group)
                if (day, id) not in known:
                    rows.append({
                        "day": day, "domain": group.domain, "state": state, "due": sending.due_at(group),
                        "messages": messages.get(group, 0), "to": {}, "report": id,
                    })  # fmt: skip
        return by_day(rows)

    async def preview(self, domain: str, day: str | None = None) -> list[dict[str, Any]]:
        """A row for each report of that day about the domain: where it would go, and its document."""
        sending, name, wanted = self._needed(), domain_of(domain), self._day(day)
        found = [one for one in await self._facts.groups(wanted) if one[0].domain == name]
        if not found:
            raise CannotDo(f"there is nothing to report about {name} on {wanted}")
        return [await self._previewed(sending, group, record) for group, record in found]

    async def _previewed(self, sending: DMARCSending, group: ReportGroup, record: DMARCRecord) -> dict[str, Any]:
        report = await sending.report(group, record)
        try:
            to: dict[str, str] = {str(one.address): _words(one) for one in await sending.destinations(group.domain)}
        except LookupFailed as error:
            to = {"": f"the DNS cannot tell: {error}"}
        return {
            "day": group.day,
            "domain": group.domain,
            "due": sending.due_at(group),
            "report": report.id,
            "messages": sum([row.count for row in report.rows]),
            "left_out": await self._facts.left_out(group.day),
            "to": to,
            "document": shortened(report_xml(report).decode()) if report.rows else "",
        }


def _words(one: ReportDestination) -> str:
    if one.why_not:
        return one.why_not
    return "wanted" if one.octets_most is None else f"wanted, with {one.octets_most} octets at most"
