"""DMARC aggregate reports (RFC 9990): those that we send about mail we have judged, and those of others about our domains.

The filter judges nothing.  It counts what the filter `dmarc` has found, sends the reports of each day when that is over, and
reads the mail for ``dmarc-reports@`` of each of our domains.  No report is about a report, so two hosts never keep each other
writing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.api import (
    Address,
    Clock,
    ComponentCommand,
    Content,
    Delayed,
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
    IStateStore,
    ITransactionEnd,
    LookupFailed,
    MailAddress,
    Options,
    Outcome,
    Pass,
    ProcessFailed,
    Reply,
    RunInProcess,
    Services,
    StorageFault,
    TransactionEnd,
    Verdict,
    normal_local,
)
from mailserver.filters.dmarc_facts import DAY_SECONDS, DMARCFacts, day_of, row_about
from mailserver.filters.dmarc_received import ReceivedReports
from mailserver.filters.dmarc_report_commands import commands_of
from mailserver.filters.dmarc_sending import DMARCSending
from mailserver.trust.dmarc_report import AggregateReport
from mailserver.trust.dmarc_report_reading import report_in_plain_values

__all__ = ["DMARCReports", "DMARCReportsOptions", "factory"]

FINDING = "dmarc-report"
SUBJECT = re.compile(r"report\s+domain\s*:", re.IGNORECASE)  # what RFC 9990 prescribes, more or less
READ_SECONDS = 15.0
ALIGNED_SECONDS = 35 * 86_400.0  # longer than a message is in the queue, or held
REPORTS_OF_ONE_MOST = 300  # in a day
UNREAD_MOST = 1_000  # in a day
HOUR_SECONDS = 3600.0
LATER = Reply.of(451, "4.3.0", "Local error, please try again later")
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
        self._state: IStateStore = services.state
        self._clock: Clock = services.clock
        self._resolver: Any = services.resolver
        self._is_own_domain: Callable[[str], bool] = services.is_own_domain
        self._run_in_process: RunInProcess = services.run_in_process
        self._metrics = services.metrics
        self._tidied_at = 0.0
        self.reads = (options.local_part,) if options.local_part else ()
        self.facts = DMARCFacts(services.state, services.clock)
        self.received = ReceivedReports(services.records, services.state, options.retention)
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
            received=self.received, sending=self.sending, facts=self.facts, state=self._state, clock=self._clock
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
                await self.sending.forget(before)
        except StorageFault as fault:
            self.log.warn("old DMARC reports cannot be forgotten now: {fault}", fault=fault)

    # --- What we report. ---

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """A finding for what is a report itself, and says whose: nobody is told about it, and only such a one is read."""
        passed = _passed(envelope)
        if passed is None or not (SUBJECT.search(content.headers.get("Subject") or "") or self._is_for_us(envelope)):
            return Pass()
        try:
            await self._state.put(f"passed/{envelope.id}", passed.encode(), ALIGNED_SECONDS)
        except StorageFault as fault:  # then it is not read; no mail waits for that
            self.log.warn("{id}: that DMARC has passed cannot be remembered: {fault}", id=envelope.id, fault=fault)
        return Pass(findings=(Finding(FINDING, 0.0, f"a DMARC report of {passed}", {"domain": passed}),))

    async def ended(self, envelope: Envelope, how: TransactionEnd) -> None:
        """Count the message."""
        if self.sending is None or how not in (TransactionEnd.ACCEPTED, TransactionEnd.REFUSED):
            return
        found = next((one for one in envelope.findings if one.name == "dmarc"), None)
        if found is None or any(one.name == FINDING for one in envelope.findings) or self._is_for_us(envelope):
            return
        row = row_about(envelope, found)
        if row is not None:
            is_counted = await self.facts.take(str(found.properties["terms"]), str(found.properties["record"]), row)
            self._metrics.count("messages_counted" if is_counted else "messages_left_out")

    def _is_for_us(self, envelope: Envelope) -> bool:
        return any(
            normal_local(one.address.local).partition("+")[0] in self.reads and self._is_own_domain(one.address.domain)
            for one in envelope.recipients
        )

    # --- What others report. ---

    async def read(self, envelope: Envelope, content: Content, address: Address) -> Outcome:
        """Keep the report; what cannot be read is told, and nobody hears of it: a report is never bounced."""
        if envelope.sender is None:  # of one of ours that has failed, say; whoever answers it keeps a loop going
            return Delivered("not read: it has the null sender, as reports of delivery have")
        try:
            why_not = await self._read(envelope, content)
            self._metrics.count("reports_unread" if why_not else "reports_read")
            if not why_not:
                return Delivered("a DMARC report: it is kept")
            await self._tell_unread(envelope, address, why_not)
        except StorageFault as fault:
            return Delayed(LATER, f"the report cannot be kept: {fault}")
        return Delivered(f"not read: {why_not}"[:500])

    async def _read(self, envelope: Envelope, content: Content) -> str:
        """Why it is not read, "" where it is kept.  Raises `StorageFault`."""
        reporter = await self._reporter(envelope)
        if not reporter:
            return "nothing shows that it is from whom it says (DMARC has not passed)"
        now = self._clock.seconds()
        if await self._state.add(f"from/{day_of(now)}/{reporter}", 1, 2.0 * DAY_SECONDS) > REPORTS_OF_ONE_MOST:
            return f"{reporter} has sent more than {REPORTS_OF_ONE_MOST} reports today"
        try:
            found = await self._run_in_process(report_in_plain_values, content, seconds=READ_SECONDS)
        except ProcessFailed as error:
            return f"reading it has failed: {error}"
        if isinstance(found, str):
            return found
        report = AggregateReport.of(found)
        if not self._is_ours(report.published.domain):
            return f"it is about {report.published.domain}, which is no domain of ours"
        await self.received.keep(report, reporter=reporter, id=envelope.id, at=now)
        return ""

    async def _reporter(self, envelope: Envelope) -> str:
        """The author's domain, where DMARC has passed for it; our own for what we have written."""
        if envelope.peer.service == "report" and self.sending is not None and envelope.sender == self.sending.sender:
            return self.sending.receiver
        return (await self._state.get(f"passed/{envelope.id}") or b"").decode()

    def _is_ours(self, domain: str) -> bool:
        """A domain of ours, or one below it."""
        labels = domain.split(".")
        return any(self._is_own_domain(".".join(labels[n:])) for n in range(len(labels)))

    async def _tell_unread(self, envelope: Envelope, address: Address, why: str) -> None:
        now = self._clock.seconds()
        self.log.info("{id}: a DMARC report for {address} is not read: {why}", id=envelope.id, address=str(address), why=why)
        if await self._state.add(f"unread-of/{day_of(now)}", 1, 2.0 * DAY_SECONDS) <= UNREAD_MOST:
            sender = "" if envelope.sender is None else envelope.sender.domain_key
            told = json.dumps([now, envelope.id, sender, str(address), why[:1000]])
            await self._state.put(f"unread/{now:014.2f}/{envelope.id}", told.encode(), self._options.retention)

    async def _query(self, name: str, record_type: str) -> Any:
        if self._resolver is None:
            raise LookupFailed("there is no resolver")
        return await self._resolver.query(name, record_type)


def _passed(envelope: Envelope) -> str | None:
    """The author's domain, where DMARC has passed."""
    for one in envelope.findings:
        said = one.properties
        if one.name == "dmarc" and said.get("result") == "pass" and said.get("domain") and not said.get("weak"):
            return str(said["domain"])
    return None


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
