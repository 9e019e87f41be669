"""What people may see of TLS reports: those of others, those that were sent, those that are about to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mailserver.api import CannotDo, Clock, LookupFailed
from mailserver.filters.received_reports import ReceivedReports
from mailserver.filters.report_commands import SHOWN_MOST, ReportOrders, by_day, domain_of, shortened
from mailserver.filters.report_inbox import ReportInbox
from mailserver.filters.tls_report_facts import TLSReportFacts, TLSReportGroup
from mailserver.filters.tls_report_sending import TLSSending
from mailserver.trust.tls_report import TLSReport, report_json

__all__ = ["TLSReportOrders"]


@dataclass(slots=True)
class _Failing:
    """One kind of failure at one host, in all reports."""

    result: str
    host: str
    sessions: int = 0
    reporters: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    information: set[str] = field(default_factory=set)


class TLSReportOrders(ReportOrders[TLSSending]):
    """The commands of `tls_reports`."""

    def __init__(
        self,
        received: ReceivedReports[TLSReport],
        inbox: ReportInbox,
        sending: TLSSending | None,
        facts: TLSReportFacts,
        clock: Clock,
    ) -> None:
        super().__init__(inbox, sending, clock)
        self._received = received
        self._facts = facts

    async def show(self, domain: str, since: float | None = None) -> dict[str, Any]:
        """The failures, those with most sessions first, and the sums by policy."""
        failing: dict[tuple[str, str], _Failing] = {}
        policies: dict[tuple[str, str], list[int]] = {}
        reports = 0
        async for kept in self._received.all(domain_of(domain), self._from(since)):
            reports += 1
            for row in kept.report.rows:
                sums = policies.setdefault((row.kind, row.domain), [0, 0])
                sums[0] += row.successes
                sums[1] += row.failures
                for one in row.details:
                    found = failing.setdefault((one.result, one.receiving_host), _Failing(one.result, one.receiving_host))
                    found.sessions += one.count
                    found.reporters.add(kept.reporter)
                    found.addresses |= {one.receiving_ip} - {""}
                    found.information |= {one.information, one.reason} - {""}
        rows = sorted(failing.values(), key=lambda one: (-one.sessions, one.result, one.host))
        return {
            "domain": domain_of(domain),
            "reports": reports,
            "successes": sum([good for good, _ in policies.values()]),
            "failures": sum([bad for _, bad in policies.values()]),
            "policies": [
                {"policy": kind, "domain": name, "successes": good, "failures": bad}
                for (kind, name), (good, bad) in sorted(policies.items())[:SHOWN_MOST]
            ],
            "kinds": len(rows),
            "rows": [
                {
                    "result": one.result, "host": one.host, "sessions": one.sessions, "addresses": sorted(one.addresses)[:20],
                    "reporters": sorted(one.reporters)[:20], "information": sorted(one.information)[:5],
                }
                for one in rows[:SHOWN_MOST]
            ],
        }  # fmt: skip

    async def listed(self, domain: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
        """The reports, the latest first."""
        found: list[dict[str, Any]] = []
        async for kept in self._received.all("" if domain is None else domain_of(domain), self._from(since)):
            report = kept.report
            found.append({
                "domain": report.domain, "begin": report.begin, "end": report.end, "reporter": kept.reporter,
                "organization": report.organization, "policies": sorted({row.kind for row in report.rows}),
                "successes": sum([row.successes for row in report.rows]), "failures": sum([row.failures for row in report.rows]),
                "report": report.id, "id": kept.id, "received": kept.at,
            })  # fmt: skip
        found.sort(key=lambda one: (-one["end"], one["domain"], one["reporter"]))
        return found[:SHOWN_MOST]

    async def reports(self) -> list[dict[str, Any]]:
        """A row for each report, the latest first."""
        sending, rows = self._needed(), await self._sent("sessions")
        known = {(one["day"], one["domain"]) for one in rows}
        for day, state in self._days():
            sessions = await self._facts.sessions(day)
            for group, count in list(sessions.items())[:SHOWN_MOST]:
                if (group.day, group.domain) not in known:
                    rows.append({
                        "day": group.day, "domain": group.domain, "state": state, "due": sending.due_at(group),
                        "sessions": count, "to": {}, "report": sending.id_of(group),
                    })  # fmt: skip
        return by_day(rows)

    async def preview(self, domain: str, day: str | None = None) -> dict[str, Any]:
        """The report of that day about the domain: where it would go, and its document."""
        sending, name, wanted = self._needed(), domain_of(domain), self._day(day)
        group = TLSReportGroup(wanted, name)
        report = await sending.report(group)
        if not report.rows:
            raise CannotDo(f"there is nothing to report about {name} on {wanted}")
        try:
            to: dict[str, str] = dict.fromkeys(await sending.wanted_at(name), "wanted")
        except LookupFailed as error:
            to = {"": f"the DNS cannot tell: {error}"}
        return {
            "day": wanted, "domain": name, "due": sending.due_at(group), "report": report.id,
            "sessions": sum([row.successes + row.failures for row in report.rows]),
            "left_out": await self._facts.left_out(wanted), "to": to,
            "document": shortened(report_json(report).decode()),
        }  # fmt: skip
