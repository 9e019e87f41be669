"""DMARC aggregate reports (RFC 9990): those that we send about mail we have judged, and those of others about our domains.

The filter judges nothing.  It counts what the filter `dmarc` has found, sends the reports of each day when that is over, and
reads the mail for ``dmarc-reports@`` of each of our domains.  No report is about a report, so two hosts never keep each other
writing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from mailserver.api import (
    ComponentCommand,
    Content,
    Envelope,
    ICommands,
    IComponentFactory,
    IContentFilter,
    IMailReader,
    IPeriodic,
    ITransactionEnd,
    Services,
    TransactionEnd,
)
from mailserver.filters.dmarc_facts import DMARCFacts, row_about
from mailserver.filters.dmarc_report_commands import DMARCReportOrders
from mailserver.filters.dmarc_sending import DMARCSending
from mailserver.filters.report_inbox import DMARC_FINDING, REPORT_FINDINGS
from mailserver.filters.reporting import LocalPart, Reporting, ReportingOptions
from mailserver.trust.dmarc_report import AggregateReport, row_of
from mailserver.trust.dmarc_report_reading import report_in_plain_values

__all__ = ["DMARCReports", "DMARCReportsOptions", "factory"]

SUBJECT = re.compile(r"report\s+domain\s*:", re.IGNORECASE)  # what RFC 9990 prescribes, more or less


class DMARCReportsOptions(ReportingOptions):
    """Who reports, and where reports of others are read."""

    local_part: LocalPart = "dmarc-reports"
    """The mail for this name in each of our domains is read as reports of others. Empty: none are read."""


@implementer(IContentFilter, ITransactionEnd, IMailReader, IPeriodic, ICommands)
class DMARCReports(Reporting[AggregateReport, DMARCSending]):
    """Joins the parts: `DMARCFacts`, `DMARCSending`, `ReceivedReports`, `ReportInbox`."""

    def __init__(self, options: DMARCReportsOptions, services: Services) -> None:
        super().__init__(
            options,
            services,
            what="DMARC",
            finding=DMARC_FINDING,
            of=AggregateReport.of,
            row_of=row_of,
            parse=report_in_plain_values,
        )
        self.facts = DMARCFacts(services.state, services.clock)
        if self._reporter is not None:
            self.sending = DMARCSending(self._reporter, facts=self.facts)

    def commands(self) -> Sequence[ComponentCommand]:
        """``show``, ``list``, ``unread``, ``reports``, ``send``, ``preview``."""
        orders = DMARCReportOrders(self.received, self.inbox, self.sending, self.facts, self._clock)
        return orders.commands("who sends mail in the name of a domain, by reports of others")

    def _looks_like_one(self, content: Content) -> bool:
        return SUBJECT.search(content.headers.get("Subject") or "") is not None

    async def ended(self, envelope: Envelope, how: TransactionEnd) -> None:
        """Count the message."""
        if self.sending is None or how not in (TransactionEnd.ACCEPTED, TransactionEnd.REFUSED):
            return
        found = next((one for one in envelope.findings if one.name == "dmarc"), None)
        if found is None or any(one.name in REPORT_FINDINGS for one in envelope.findings) or self.inbox.is_addressed(envelope):
            return
        row = row_about(envelope, found)
        if row is not None:
            is_counted = await self.facts.take(str(found.properties["terms"]), str(found.properties["record"]), row)
            self._metrics.count("messages_counted" if is_counted else "messages_left_out")


@implementer(IComponentFactory)
class DMARCReportsFactory:
    """Makes the filter for ``[[filter]] use = "dmarc_reports"``."""

    name = "dmarc_reports"
    summary = "Sends DMARC reports about mail that was judged, and reads those of others about our domains (RFC 9990)."
    api_version = "1.1"
    replays = True
    provides = (IContentFilter, ITransactionEnd)
    options = DMARCReportsOptions

    def build(self, options: Any, services: Services) -> DMARCReports:
        """Return the filter."""
        return DMARCReports(options, services)


factory = DMARCReportsFactory()
