"""TLS reports (RFC 8460): those that we send about TLS with other hosts, and those of others about ours.

The filter judges nothing.  It counts what the relay has seen, sends the reports of each day when that is over, and reads the mail
for ``tls-reports@`` of each of our domains.  No report is about the sessions of reports, so two hosts never keep each other
writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailserver.api import (
    ComponentCommand,
    Content,
    ICommands,
    IComponent,
    IComponentFactory,
    IContentFilter,
    IMailReader,
    IPeriodic,
    Services,
    StorageFault,
)
from mailserver.filters.report_inbox import TLS_FINDING
from mailserver.filters.reporting import LocalPart, Reporting, ReportingOptions
from mailserver.filters.tls_report_commands import TLSReportOrders
from mailserver.filters.tls_report_facts import TLSReportFacts
from mailserver.filters.tls_report_sending import TLSSending
from mailserver.filters.tls_report_wishes import ReportWishes
from mailserver.trust.tls_report import TLSReport, policy_row_of
from mailserver.trust.tls_report_reading import tls_report_in_plain_values
from mailserver.trust.tls_result import TLSResult

__all__ = ["TLSReports", "TLSReportsOptions", "factory"]

COUNTING_MOST = 5_000  # results that wait for the DNS or the store


class TLSReportsOptions(ReportingOptions):
    """Who reports, and where reports of others are read."""

    local_part: LocalPart = "tls-reports"
    """The mail for this name in each of our domains is read as reports of others. Empty: none are read."""


@implementer(IContentFilter, IMailReader, IPeriodic, ICommands, IComponent)
class TLSReports(Reporting[TLSReport, TLSSending]):
    """Joins the parts: `TLSReportFacts`, `TLSSending`, `ReceivedReports`, `ReportInbox`."""

    def __init__(self, options: TLSReportsOptions, services: Services) -> None:
        super().__init__(
            options,
            services,
            what="TLS",
            finding=TLS_FINDING,
            of=TLSReport.of,
            row_of=policy_row_of,
            parse=tls_report_in_plain_values,
        )
        self._name = services.name
        self._results: Any = services.tls_results
        self._counting = 0
        self._wishes = ReportWishes(self._query, services.steady_seconds)
        self.facts = TLSReportFacts(services.state, services.clock)
        if self._reporter is not None:
            self.sending = TLSSending(self._reporter, facts=self.facts, fetch=services.fetch)

    async def start(self) -> None:
        """Hear from now on how TLS with other hosts comes out."""
        if self._results is not None and self.sending is not None:
            self._results.listen(self._name, self.heard)

    async def stop(self) -> None:
        """Hear nothing more."""
        if self._results is not None:
            self._results.unlisten(self._name, self.heard)

    def commands(self) -> Sequence[ComponentCommand]:
        """``show``, ``list``, ``unread``, ``reports``, ``send``, ``preview``."""
        orders = TLSReportOrders(self.received, self.inbox, self.sending, self.facts, self._clock)
        return orders.commands("how TLS with our hosts has worked, by reports of others")

    def _looks_like_one(self, content: Content) -> bool:
        return bool(content.headers.get("TLS-Report-Domain"))

    # --- What we report. ---

    def heard(self, result: object) -> None:
        """The relay has had a session."""
        if not isinstance(result, TLSResult):
            return
        if self._counting >= COUNTING_MOST:
            self._metrics.count("sessions_left_out")
            return
        self._counting += 1
        Deferred.fromCoroutine(self._count(result)).addBoth(self._counted)

    async def _count(self, result: TLSResult) -> None:
        try:
            if await self._wishes.has(result.domain):
                is_counted = await self.facts.take(result)
                self._metrics.count("sessions_counted" if is_counted else "sessions_left_out")
        except StorageFault as fault:
            self._metrics.count("sessions_left_out")
            self.log.warn("a TLS session with {host} cannot be counted: {fault}", host=result.host, fault=fault)
        except Exception:  # noqa: BLE001  of one session
            self.log.failure("a TLS session with {host} cannot be counted", host=result.host)

    def _counted(self, _: object) -> None:
        self._counting -= 1


@implementer(IComponentFactory)
class TLSReportsFactory:
    """Makes the filter for ``[[filter]] use = "tls_reports"``."""

    name = "tls_reports"
    summary = "Sends reports about TLS with other hosts, and reads those of others about ours (RFC 8460)."
    api_version = "1.1"
    replays = True
    provides = (IContentFilter,)
    options = TLSReportsOptions

    def build(self, options: Any, services: Services) -> TLSReports:
        """Return the filter."""
        return TLSReports(options, services)


factory = TLSReportsFactory()
