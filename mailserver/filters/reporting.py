"""What the filters share that send reports about others and read theirs about us (``dmarc_reports``, ``tls_reports``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, Field
from twisted.logger import Logger

from mailserver.api import (
    Address,
    Clock,
    Content,
    Delivered,
    DomainName,
    Duration,
    Envelope,
    Finding,
    LookupFailed,
    MailAddress,
    Options,
    Outcome,
    Pass,
    Services,
    StorageFault,
    Verdict,
)
from mailserver.filters.received_reports import Keepable, ReceivedReports
from mailserver.filters.report_inbox import ReportInbox, passed_for
from mailserver.filters.report_sending import ReportSender, ReportSending

__all__ = ["LocalPart", "Reporting", "ReportingOptions"]

HOUR_SECONDS = 3600.0


def _in_ascii(address: Address) -> Address:
    if not address.local.isascii():
        raise ValueError("the address from which reports are sent is in ASCII")
    return Address(address.local, address.domain_key)


Sender = Annotated[MailAddress, AfterValidator(_in_ascii)]
LocalPart = Annotated[str, Field(pattern=r"^[a-z0-9._\-]{0,64}$")]


class ReportingOptions(Options):
    """Who reports, and where reports of others are read."""

    sender: Sender | None = None
    """From whom reports are sent, of a domain of ours with keys for DKIM. Absent: none are sent."""
    organization: str = Field(default="", max_length=100)
    """The name under which they are sent; empty: the sender's domain."""
    spread: Duration = 4 * 3600.0
    """The reports of a day (in UTC) leave within so long after its end, each domain's at a moment of its own."""
    without: tuple[DomainName, ...] = ()
    """Domains to which none are sent."""
    local_part: LocalPart = ""
    """The mail for this name in each of our domains is read as reports of others. Empty: none are read."""
    retention: Duration = 180 * 86_400.0
    """How long reports of others are kept, and what is known of those that were sent."""


Report = TypeVar("Report", bound=Keepable)
Sending = TypeVar("Sending", bound=ReportSending[Any])


class Reporting(Generic[Report, Sending]):
    """`what` names the kind of report, `finding` what says of a message that it is one.

    `of` makes a report of plain values and `row_of` one of its rows; `parse` reads one, in another process.  A filter sets
    `sending` where it has a sender.
    """

    cost = 160  # after `dmarc`
    interval_seconds = 60.0
    deadline_seconds = 1800.0
    log = Logger()

    def __init__(
        self,
        options: ReportingOptions,
        services: Services,
        *,
        what: str,
        finding: str,
        of: Callable[[Any], Report],
        row_of: Callable[[Any], Any],
        parse: Callable[[Content], Any],
    ) -> None:
        self._options = options
        self._what = what
        self._finding = finding
        self._of = of
        self._clock: Clock = services.clock
        self._resolver: Any = services.resolver
        self._metrics = services.metrics
        self._tidied_at = 0.0
        self.reads = (options.local_part,) if options.local_part else ()
        self.received: ReceivedReports[Report] = ReceivedReports(
            services.records, services.state, options.retention, of=of, row_of=row_of
        )
        self.inbox = ReportInbox(
            name=what,
            reads=self.reads,
            state=services.state,
            clock=services.clock,
            retention_seconds=options.retention,
            is_own_domain=services.is_own_domain,
            run_in_process=services.run_in_process,
            parse=parse,
            keep=self._keep,
            own_sender=options.sender,
        )
        self.sending: Sending | None = None
        self._reporter: ReportSender | None = None  # who sends them, where the options name a sender
        if options.sender is not None:
            self._reporter = ReportSender(
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
            self.log.warn("old {what} reports cannot be forgotten now: {fault}", what=self._what, fault=fault)

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """A finding for what is a report itself, and says whose: only such a one is read, and none is about it."""
        passed = passed_for(envelope)
        if passed is None or not (self._looks_like_one(content) or self.inbox.is_addressed(envelope)):
            return Pass()
        await self.inbox.remember(envelope, passed)
        return Pass(findings=(Finding(self._finding, 0.0, f"a {self._what} report of {passed}", {"domain": passed}),))

    def _looks_like_one(self, content: Content) -> bool:
        """Whether its header says that it is a report."""
        raise NotImplementedError

    async def read(self, envelope: Envelope, content: Content, address: Address) -> Outcome:
        """Keep the report; what cannot be read is told, and nobody hears of it: a report is never bounced."""
        outcome, is_read = await self.inbox.read(envelope, content, address)
        if isinstance(outcome, Delivered) and envelope.sender is not None:
            self._metrics.count("reports_read" if is_read else "reports_unread")
        return outcome

    async def _keep(self, plain: Any, reporter: str, id: str, at: float) -> str:
        report = self._of(plain)
        if not self.inbox.is_own(report.domain):
            return f"it is about {report.domain}, which is no domain of ours"
        await self.received.keep(report, reporter=reporter, id=id, at=at)
        return ""

    async def _query(self, name: str, record_type: str) -> Any:
        if self._resolver is None:
            raise LookupFailed("there is no resolver")
        return await self._resolver.query(name, record_type)
