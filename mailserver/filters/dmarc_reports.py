"""DMARC aggregate reports (RFC 9990): those that we send about mail we have judged, and those of others about our domains.

The filter judges nothing.  It counts what the filter `dmarc` has found, sends the reports of each day when that is over, and
reads the mail for ``dmarc-reports@`` of each of our domains.  No report is about a report, so two hosts never keep each other
writing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Address,
    Clock,
    ComponentCommand,
    Content,
    Delivered,
    DomainName,
    Duration,
    Envelope,
    Finding,
    ICommands,
    IComponentFactory,
    IContentFilter,
    IMailReader,
    IPeriodic,
    ITransactionEnd,
    LookupFailed,
    MailAddress,
    Options,
    Outcome,
    Pass,
    Services,
    StorageFault,
    TransactionEnd,
    Verdict,
)
from mailserver.filters.dmarc_facts import DMARCFacts, row_about
from mailserver.filters.dmarc_report_commands import commands_of
from mailserver.filters.dmarc_sending import DMARCSending
from mailserver.filters.received_reports import ReceivedReports
from mailserver.filters.report_inbox import DMARC_FINDING, REPORT_FINDINGS, ReportInbox, passed_for
from mailserver.trust.dmarc_report import AggregateReport, row_of
from mailserver.trust.dmarc_report_reading import report_in_plain_values

__all__ = ["DMARCReports", "DMARCReportsOptions", "factory"]

FINDING = DMARC_FINDING
SUBJECT = re.compile(r"report\s+domain\s*:", re.IGNORECASE)  # what RFC 9990 prescribes, more or less
HOUR_SECONDS = 3600.0
def _in_ascii(address: Address) -> Address:
    if not address.local.isascii():
        raise ValueError("the address from which reports are sent is in ASCII")
    return Address(address.local, address.domain_key)


Sender = Annotated[MailAddress, AfterValidator(_in_ascii)]
LocalPart = Annotated[str, Field(pattern=r"^[a-z0-9._\-]{0,64}$")]


class DMARCReportsOptions(Options):
    """Who reports, and where reports of others are read."""

    sender: Sender | None = None
    """From whom reports are sent, of a domain of ours with keys for DKIM: `dmarc-reports@example.org`. Absent: none are sent."""
    organization: str = Field(default="", max_length=100)
    """The name under which they are sent; empty: the sender's domain."""
    spread: Duration = 4 * 3600.0
    """The reports of a day (in UTC) leave within so long after its end, each domain's at a moment of its own."""
    without: tuple[DomainName, ...] = ()
    """Domains to which none are sent."""
    local_part: LocalPart = "dmarc-reports"
    """The mail for this name in each of our domains is read as reports of others. Empty: none are read."""
    retention: Duration = 180 * 86_400.0
    """How long reports of others are kept, and what is known of those that were sent."""


@implementer(IContentFilter, ITransactionEnd, IMailReader, IPeriodic, ICommands)
class DMARCReports:
    """Joins the parts: `DMARCFacts`, `DMARCSending`, `ReceivedReports`."""

    cost = 160  # after `dmarc`
    interval_seconds = 60.0
    deadline_seconds = 1800.0
    log = Logger()

    def __init__(self, options: DMARCReportsOptions, services: Services) -> None:
        self._options = options
        self._clock: Clock = services.clock
        self._resolver: Any = services.resolver
        self._metrics = services.metrics
        self._tidied_at = 0.0
        self.reads = (options.local_part,) if options.local_part else ()
        self.facts = DMARCFacts(services.state, services.clock)
        self.received = ReceivedReports(
            services.records, services.state, options.retention, of=AggregateReport.of, row_of=row_of
        )
        self.inbox = ReportInbox(
            name="DMARC",
            reads=self.reads,
            state=services.state,
            clock=services.clock,
            retention_seconds=options.retention,
            is_own_domain=services.is_own_domain,
            run_in_process=services.run_in_process,
            parse=report_in_plain_values,
            keep=self._keep,
            own_sender=options.sender,
        )
        self.sending: DMARCSending | None = None
        if options.sender is not None:
            self.sending = DMARCSending(
                facts=self.facts,
                records=services.records,
                query=self._query,
                send=services.send,
                make=services.run_in_thread,
                clock=services.clock,
                sender=options.sender,
                hostname=services.hostname,
                organization=options.organization,
                spread_seconds=options.spread,
                without=options.without,
            )

    def commands(self) -> Sequence[ComponentCommand]:
        """``show``, ``list``, ``unread``, ``reports``, ``send``, ``preview``."""
        return commands_of(
            received=self.received, inbox=self.inbox, sending=self.sending, facts=self.facts, clock=self._clock
        )

    async def run_periodically(self) -> None:
        """Send what is due; once an hour forget what is too old."""
        now = self._clock.seconds()
        if now - self._tidied_at >= HOUR_SECONDS or now < self._tidied_at:
            self._tidied_at = now
            await self._forget(now - self._options.retention)
        if self.sending is not None:
            self._metrics.count("reports_sent", await self.sending.run())

    async def _forget(self, before: float) -> None:
        """No report of ours waits for that."""
        try:
            await self.received.forget(before)
            if self.sending is not None:
                await self.sending.sent.forget(before)
        except StorageFault as fault:
            self.log.warn("old DMARC reports cannot be forgotten now: {fault}", fault=fault)

    # --- What we report. ---

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """A finding for what is a report itself, and says whose: nobody is told about it, and only such a one is read."""
        passed = passed_for(envelope)
        if passed is None or not (SUBJECT.search(content.headers.get("Subject") or "") or self.inbox.is_addressed(envelope)):
            return Pass()
        await self.inbox.remember(envelope, passed)
        return Pass(findings=(Finding(FINDING, 0.0, f"a DMARC report of {passed}", {"domain": passed}),))

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

    # --- What others report. ---

    async def read(self, envelope: Envelope, content: Content, address: Address) -> Outcome:
        """Keep the report; what cannot be read is told, and nobody hears of it: a report is never bounced."""
        outcome, is_read = await self.inbox.read(envelope, content, address)
        if isinstance(outcome, Delivered) and envelope.sender is not None:
            self._metrics.count("reports_read" if is_read else "reports_unread")
        return outcome

    async def _keep(self, plain: Any, reporter: str, id: str, at: float) -> str:
        report = AggregateReport.of(plain)
        if not self.inbox.is_own(report.domain):
            return f"it is about {report.domain}, which is no domain of ours"
        await self.received.keep(report, reporter=reporter, id=id, at=at)
        return ""

    async def _query(self, name: str, record_type: str) -> Any:
        if self._resolver is None:
            raise LookupFailed("there is no resolver")
        return await self._resolver.query(name, record_type)


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
