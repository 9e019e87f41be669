"""What people may see of TLS reports: those of others, those that were sent, those that are about to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mailserver.api import Argument, CannotDo, Clock, ComponentCommand, LookupFailed, normal_domain
from mailserver.filters.received_reports import ReceivedReports
from mailserver.filters.report_days import DAY_SECONDS, DAYS, day_of, start_of
from mailserver.filters.report_inbox import ReportInbox
from mailserver.filters.tls_report_facts import TLSReportFacts, TLSReportGroup
from mailserver.filters.tls_report_sending import TLSSending
from mailserver.trust.tls_report import TLSReport, report_json

__all__ = ["tls_commands_of"]

SHOWN_MOST = 500
DOCUMENT_CHARACTERS = 400_000
SINCE = Argument("since", "in seconds: what reports say about this time until now", kind="number", required=False)
DAY = Argument("day", "the day in UTC: 2026-11-30; absent: today", required=False)


def tls_commands_of(
    *, received: ReceivedReports[TLSReport], inbox: ReportInbox, sending: TLSSending | None, facts: TLSReportFacts, clock: Clock
) -> Sequence[ComponentCommand]:
    """``show``, ``list``, ``unread``, ``reports``, ``send``, ``preview``."""
    orders = _Orders(received, inbox, sending, facts, clock)
    domain = Argument("domain", "a domain of ours")
    return (
        ComponentCommand("show", "how TLS with our hosts has worked, by reports of others", orders.show, (domain, SINCE)),
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
class _Failing:
    """One kind of failure at one host, in all reports."""

    result: str
    host: str
    sessions: int = 0
    reporters: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    information: set[str] = field(default_factory=set)


class _Orders:
    def __init__(
        self,
        received: ReceivedReports[TLSReport],
        inbox: ReportInbox,
        sending: TLSSending | None,
        facts: TLSReportFacts,
        clock: Clock,
    ) -> None:
        self._received = received
        self._inbox = inbox
        self._sending = sending
        self._facts = facts
        self._clock = clock

    async def show(self, domain: str, since: float | None = None) -> dict[str, Any]:
        """The failures, those with most sessions first, and the sums by policy."""
        failing: dict[tuple[str, str], _Failing] = {}
        policies: dict[tuple[str, str], list[int]] = {}
        reports = 0
        async for kept in self._received.all(_domain(domain), self._from(since)):
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
            "domain": _domain(domain),
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
        async for kept in self._received.all("" if domain is None else _domain(domain), self._from(since)):
            report = kept.report
            found.append({
                "domain": report.domain, "begin": report.begin, "end": report.end, "reporter": kept.reporter,
                "organization": report.organization, "policies": sorted({row.kind for row in report.rows}),
                "successes": sum([row.successes for row in report.rows]), "failures": sum([row.failures for row in report.rows]),
                "report": report.id, "id": kept.id, "received": kept.at,
            })  # fmt: skip
        found.sort(key=lambda one: (-one["end"], one["domain"], one["reporter"]))
        return found[:SHOWN_MOST]

    async def unread(self, since: float | None = None) -> list[dict[str, Any]]:
        """What was not read, the latest first."""
        return await self._inbox.unread(self._from(since))

    async def reports(self) -> list[dict[str, Any]]:
        """A row for each report, the latest first."""
        sending = self._needed()
        rows = [
            {
                "day": one.day, "domain": one.domain, "state": "sent" if one.is_done else "being sent", "due": one.at,
                "sessions": one.count, "to": one.to, "report": one.id,
            }
            for one in await sending.sent.all(day_of(self._clock.seconds() - 30 * DAY_SECONDS))
        ]  # fmt: skip
        known = {(one["day"], one["domain"]) for one in rows}
        today = start_of(day_of(self._clock.seconds()))
        for n in range(DAYS + 2):
            sessions = await self._facts.sessions(day_of(today - n * DAY_SECONDS))
            words = "collecting" if n == 0 else "waiting" if n <= DAYS else "given up"
            for group, count in list(sessions.items())[:SHOWN_MOST]:
                if (group.day, group.domain) not in known:
                    rows.append({
                        "day": group.day, "domain": group.domain, "state": words, "due": sending.due_at(group),
                        "sessions": count, "to": {}, "report": sending.id_of(group),
                    })  # fmt: skip
        return sorted(rows, key=lambda one: (one["day"], one["domain"]), reverse=True)[:SHOWN_MOST]

    async def send(self) -> str:
        """How many."""
        return f"{await self._needed().run()} reports were due"

    async def preview(self, domain: str, day: str | None = None) -> dict[str, Any]:
        """The report of that day about the domain: where it would go, and its document."""
        sending, name = self._needed(), _domain(domain)
        try:
            wanted = day_of(self._clock.seconds()) if day is None else day_of(start_of(day))
        except ValueError as error:
            raise CannotDo(f"{day!r} is no day such as 2026-11-30") from error
        group = TLSReportGroup(wanted, name)
        report = await sending.report(group)
        if not report.rows:
            raise CannotDo(f"there is nothing to report about {name} on {wanted}")
        document = report_json(report).decode()
        if len(document) > DOCUMENT_CHARACTERS:
            document = f"{document[:DOCUMENT_CHARACTERS]}\n… and {len(document) - DOCUMENT_CHARACTERS} characters more"
        try:
            to: dict[str, str] = dict.fromkeys(await sending.wanted_at(name), "wanted")
        except LookupFailed as error:
            to = {"": f"the DNS cannot tell: {error}"}
        return {
            "day": wanted, "domain": name, "due": sending.due_at(group), "report": report.id,
            "sessions": sum([row.successes + row.failures for row in report.rows]),
            "left_out": await self._facts.left_out(wanted), "to": to, "document": document,
        }  # fmt: skip

    def _needed(self) -> TLSSending:
        if self._sending is None:
            raise CannotDo("no reports are sent: the filter has no `sender`")
        return self._sending

    def _from(self, since: float | None) -> float:
        return 0.0 if since is None else self._clock.seconds() - since


def _domain(text: str) -> str:
    return normal_domain(text).removesuffix(".")
