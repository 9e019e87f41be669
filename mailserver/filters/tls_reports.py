"""TLS reports (RFC 8460): those that we send about TLS with other hosts, and those of others about ours.

The filter judges nothing.  It counts what the relay has seen, sends the reports of each day when that is over, and reads the mail
for ``tls-reports@`` of each of our domains.  No report is about the sessions of reports, so two hosts never keep each other
writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from twisted.internet.defer import Deferred
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
    IComponent,
    IComponentFactory,
    IContentFilter,
    IMailReader,
    IPeriodic,
    LookupFailed,
    MailAddress,
    Options,
    Outcome,
    Pass,
    Services,
    StorageFault,
    Verdict,
)
from mailserver.filters.received_reports import ReceivedReports
from mailserver.filters.report_inbox import TLS_FINDING, ReportInbox, passed_for
from mailserver.filters.tls_report_commands import tls_commands_of
from mailserver.filters.tls_report_facts import TLSReportFacts
from mailserver.filters.tls_report_sending import TLSSending
from mailserver.filters.tls_report_wishes import ReportWishes
from mailserver.trust.tls_report import TLSReport, policy_row_of
from mailserver.trust.tls_report_reading import tls_report_in_plain_values
from mailserver.trust.tls_result import TLSResult

__all__ = ["TLSReports", "TLSReportsOptions", "factory"]

HOUR_SECONDS = 3600.0
COUNTING_MOST = 5_000  # results that wait for the DNS or the store


def _in_ascii(address: Address) -> Address:
    if not address.local.isascii():
        raise ValueError("the address from which reports are sent is in ASCII")
    return Address(address.local, address.domain_key)


Sender = Annotated[MailAddress, AfterValidator(_in_ascii)]
LocalPart = Annotated[str, Field(pattern=r"^[a-z0-9._\-]{0,64}$")]


class TLSReportsOptions(Options):
    """Who reports, and where reports of others are read."""

    sender: Sender | None = None
    """From whom reports are sent, of a domain of ours with keys for DKIM: `tls-reports@example.org`. Absent: none are sent."""
    organization: str = Field(default="", max_length=100)
    """The name under which they are sent; empty: the sender's domain."""
    spread: Duration = 4 * 3600.0
    """The reports of a day (in UTC) leave within so long after its end, each domain's at a moment of its own."""
    without: tuple[DomainName, ...] = ()
    """Domains to which none are sent."""
    local_part: LocalPart = "tls-reports"
    """The mail for this name in each of our domains is read as reports of others. Empty: none are read."""
    retention: Duration = 180 * 86_400.0
    """How long reports of others are kept, and what is known of those that were sent."""


@implementer(IContentFilter, IMailReader, IPeriodic, ICommands, IComponent)
class TLSReports:
    """Joins the parts: `TLSReportFacts`, `TLSSending`, `ReceivedReports`, `ReportInbox`."""

    cost = 160  # after `dmarc`
    interval_seconds = 60.0
    deadline_seconds = 1800.0
    log = Logger()

    def __init__(self, options: TLSReportsOptions, services: Services) -> None:
        self._options = options
        self._name = services.name
        self._clock: Clock = services.clock
        self._resolver: Any = services.resolver
        self._results: Any = services.tls_results
        self._metrics = services.metrics
        self._tidied_at = 0.0
        self._counting = 0
        self._wishes = ReportWishes(self._query, services.steady_seconds)
        self.reads = (options.local_part,) if options.local_part else ()
        self.facts = TLSReportFacts(services.state, services.clock)
        self.received = ReceivedReports(
            services.records, services.state, options.retention, of=TLSReport.of, row_of=policy_row_of
        )
        self.inbox = ReportInbox(
            name="TLS",
            reads=self.reads,
            state=services.state,
            clock=services.clock,
            retention_seconds=options.retention,
            is_own_domain=services.is_own_domain,
            run_in_process=services.run_in_process,
            parse=tls_report_in_plain_values,
            keep=self._keep,
            own_sender=options.sender,
        )
        self.sending: TLSSending | None = None
        if options.sender is not None:
            self.sending = TLSSending(
                facts=self.facts,
                records=services.records,
                query=self._query,
                send=services.send,
                fetch=services.fetch,
                make=services.run_in_thread,
                clock=services.clock,
                sender=options.sender,
                hostname=services.hostname,
                organization=options.organization,
                spread_seconds=options.spread,
                without=options.without,
            )

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
        return tls_commands_of(
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
            self.log.warn("old TLS reports cannot be forgotten now: {fault}", fault=fault)

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

    # --- What others report. ---

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """A finding for what is a report itself, and says whose: only such a one is read, and none is about it."""
        passed = passed_for(envelope)
        if passed is None or not (content.headers.get("TLS-Report-Domain") or self.inbox.is_addressed(envelope)):
            return Pass()
        await self.inbox.remember(envelope, passed)
        return Pass(findings=(Finding(TLS_FINDING, 0.0, f"a TLS report of {passed}", {"domain": passed}),))

    async def read(self, envelope: Envelope, content: Content, address: Address) -> Outcome:
        """Keep the report; what cannot be read is told, and nobody hears of it: a report is never bounced."""
        outcome, is_read = await self.inbox.read(envelope, content, address)
        if isinstance(outcome, Delivered) and envelope.sender is not None:
            self._metrics.count("reports_read" if is_read else "reports_unread")
        return outcome

    async def _keep(self, plain: Any, reporter: str, id: str, at: float) -> str:
        report = TLSReport.of(plain)
        if not self.inbox.is_own(report.domain):
            return f"it is about {report.domain}, which is no domain of ours"
        await self.received.keep(report, reporter=reporter, id=id, at=at)
        return ""

    async def _query(self, name: str, record_type: str) -> Any:
        if self._resolver is None:
            raise LookupFailed("there is no resolver")
        return await self._resolver.query(name, record_type)


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
