"""What people may see of DMARC reports: those of others, those that were sent, those that are about to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mailserver.api import (
    Argument,
    CannotDo,
    Clock,
    ComponentCommand,
    LookupFailed,
    normal_domain,
)
from mailserver.filters.dmarc_facts import DMARCFacts, ReportGroup
from mailserver.filters.dmarc_sending import DMARCSending, ReportDestination
from mailserver.filters.received_reports import ReceivedReports
from mailserver.filters.report_days import DAY_SECONDS, DAYS, day_of, start_of
from mailserver.filters.report_inbox import ReportInbox
from mailserver.trust.dmarc_record import DMARCRecord
from mailserver.trust.dmarc_report import AggregateReport, report_xml

__all__ = ["commands_of"]

SHOWN_MOST = 500  # sources, reports
DOCUMENT_OCTETS = 400_000
SINCE = Argument("since", "in seconds: what reports say about this time until now", kind="number", required=False)
DAY = Argument("day", "the day in UTC: 2026-11-30; absent: today", required=False)


def commands_of(
    *,
    received: ReceivedReports[AggregateReport],
    inbox: ReportInbox,
    sending: DMARCSending | None,
    facts: DMARCFacts,
    clock: Clock,
) -> Sequence[ComponentCommand]:
    """``show``, ``list``, ``unread``, ``reports``, ``send``, ``preview``."""
    orders = _Orders(received, inbox, sending, facts, clock)
    domain = Argument("domain", "a domain of ours")
    return (
        ComponentCommand("show", "who sends mail in the name of a domain, by reports of others", orders.show, (domain, SINCE)),
        ComponentCommand("list", "the reports of others", orders.listed, (
            Argument("domain", "about this domain; absent: about all", required=False), SINCE,
        )),
        ComponentCommand("unread", "mail for the address of reports that was not read, and why", orders.unread, (SINCE,)),
        ComponentCommand("reports", "the reports that were sent, and those that will be", orders.reports),
        ComponentCommand("send", "send the reports that are due, without waiting", orders.send, deadline_seconds=300.0),
        ComponentCommand("preview", "a report as it would be sent now; nothing is sent", orders.preview, (
            Argument("domain", "the domain that it is about"), DAY,
        )),
    )  # fmt: skip


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


class _Orders:
    def __init__(
        self,
        received: ReceivedReports[AggregateReport],
        inbox: ReportInbox,
        sending: DMARCSending | None,
        facts: DMARCFacts,
        clock: Clock,
    ) -> None:
        self._received = received
        self._sending = sending
        self._facts = facts
        self._inbox = inbox
        self._clock = clock

    async def show(self, domain: str, since: float | None = None) -> dict[str, Any]:
        """The sources, those with most failures first, and the sums."""
        found: dict[str, _Source] = {}
        reports = 0
        async for kept in self._received.all(_domain(domain), self._from(since)):
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
            "domain": _domain(domain),
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
        async for kept in self._received.all("" if domain is None else _domain(domain), self._from(since)):
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

    async def unread(self, since: float | None = None) -> list[dict[str, Any]]:
        """What was not read, the latest first."""
        return await self._inbox.unread(self._from(since))

    async def reports(self) -> list[dict[str, Any]]:
        """A row for each report, the latest first."""
        sending = self._needed()
        sent = [
            {
                "day": one.day, "domain": one.domain, "state": "sent" if one.is_done else "being sent", "due": one.at,
                "messages": one.count, "to": one.to, "report": one.id,
            }
            for one in await sending.sent.all(day_of(self._clock.seconds() - 30 * DAY_SECONDS))
        ]  # fmt: skip
        known = {(one["day"], one["report"]) for one in sent}
        now = self._clock.seconds()
        for n in range(DAYS + 2):
            day = day_of(start_of(day_of(now)) - n * DAY_SECONDS)
            messages = await self._facts.messages(day)
            for group, _ in (await self._facts.groups(day))[:SHOWN_MOST]:
                id = sending.id_of(group)
                if (day, id) not in known:
                    words = "collecting" if n == 0 else "waiting" if n <= DAYS else "given up"
                    sent.append({
                        "day": day, "domain": group.domain, "state": words, "due": sending.due_at(group),
                        "messages": messages.get(group, 0), "to": {}, "report": id,
                    })  # fmt: skip
        return sorted(sent, key=lambda one: (one["day"], one["domain"]), reverse=True)[:SHOWN_MOST]

    async def send(self) -> str:
        """How many."""
        return f"{await self._needed().run()} reports were due"

    async def preview(self, domain: str, day: str | None = None) -> list[dict[str, Any]]:
        """A row for each report of that day about the domain: where it would go, and its document."""
        sending, name = self._needed(), _domain(domain)
        try:
            wanted = day_of(self._clock.seconds()) if day is None else day_of(start_of(day))
        except ValueError as error:
            raise CannotDo(f"{day!r} is no day such as 2026-11-30") from error
        found = [one for one in await self._facts.groups(wanted) if one[0].domain == name]
        if not found:
            raise CannotDo(f"there is nothing to report about {name} on {wanted}")
        return [await self._previewed(sending, group, record) for group, record in found]

    async def _previewed(self, sending: DMARCSending, group: ReportGroup, record: DMARCRecord) -> dict[str, Any]:
        report = await sending.report(group, record)
        document = report_xml(report).decode() if report.rows else ""
        if len(document) > DOCUMENT_OCTETS:
            document = f"{document[:DOCUMENT_OCTETS]}\n… and {len(document) - DOCUMENT_OCTETS} characters more"
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
            "document": document,
        }

    def _needed(self) -> DMARCSending:
        if self._sending is None:
            raise CannotDo("no reports are sent: the filter has no `sender`")
        return self._sending

    def _from(self, since: float | None) -> float:
        return 0.0 if since is None else self._clock.seconds() - since


def _words(one: ReportDestination) -> str:
    if one.why_not:
        return one.why_not
    return "wanted" if one.octets_most is None else f"wanted, with {one.octets_most} octets at most"


def _domain(text: str) -> str:
    return normal_domain(text).removesuffix(".")
