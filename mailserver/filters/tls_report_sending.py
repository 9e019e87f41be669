"""Sends the TLS reports of the days that are over: each once, by mail or by https, to those who want it (RFC 8460)."""

from __future__ import annotations

from collections.abc import Iterable

from mailserver.api import Address, CannotTell, Fetch, FetchFailed
from mailserver.filters.report_days import DAY_SECONDS, start_of
from mailserver.filters.report_sending import ReportSender, ReportSending
from mailserver.filters.sent_reports import SentReport
from mailserver.filters.tls_report_facts import TLSReportFacts, TLSReportGroup
from mailserver.trust.dmarc_report import report_id
from mailserver.trust.dmarc_report_mail import report_address
from mailserver.trust.tls_report import TLSReport, report_uris
from mailserver.trust.tls_report_mail import packed_report, tls_report_message

__all__ = ["TLSSending"]

ADDRESSES_MOST = 5  # of one domain
OCTETS_MOST = 2 << 20  # of a message, or a POST
MEDIA_TYPE = "application/tlsrpt+gzip"
LATER = frozenset({408, 425, 429})  # of HTTP: the same may work tomorrow


class TLSSending(ReportSending[TLSReportGroup]):
    """`fetch` posts those that are wanted by https."""

    kind = "TLS"

    def __init__(self, reporter: ReportSender, *, facts: TLSReportFacts, fetch: Fetch) -> None:
        super().__init__(reporter)
        self._facts = facts
        self._fetch = fetch

    async def _groups(self, day: str) -> Iterable[TLSReportGroup]:
        return await self._facts.groups(day)

    def id_of(self, group: TLSReportGroup) -> str:
        """The id of the report."""
        return report_id(self._domain, group.domain, start_of(group.day), f"{self._hostname} TLS")

    async def report(self, group: TLSReportGroup) -> TLSReport:
        """The report as it is now; it has no rows where there were no sessions."""
        begin = start_of(group.day)
        return TLSReport(
            self._organization, str(self._sender), self.id_of(group), group.domain, begin, begin + DAY_SECONDS - 1,
            tuple(await self._facts.rows(group)),
        )  # fmt: skip

    async def wanted_at(self, domain: str) -> tuple[str, ...]:
        """The URIs where reports about the domain go, by its record as it is now.  Raises `LookupFailed`."""
        if domain in self._without:
            return ()
        answer = await self._query(f"_smtp._tls.{domain}", "TXT")
        return report_uris(answer.texts)[:ADDRESSES_MOST]

    async def _report(self, group: TLSReportGroup) -> None:
        sent = await self.sent.get(group.path)
        if sent is not None and sent.is_done:
            return
        report = await self.report(group)
        if not report.rows:
            return
        to = await self.wanted_at(group.domain)
        if sent is None:
            sessions = sum([row.successes + row.failures for row in report.rows])
            sent = SentReport(report.id, group.day, group.domain, sessions, len(report.rows), self._clock.seconds())

        async def send(uri: str) -> str:
            return await self._sent_to(uri, report)

        await self.sent.to_all(group.path, sent, to, send)

    async def _sent_to(self, uri: str, report: TLSReport) -> str:
        """The id of the message, or how it was posted, or why not.  Raises `CannotTell` and `StorageFault` for later again."""
        found = report_address(uri)
        return await (self._posted(uri, report) if found is None else self._written(found.address, report))

    async def _written(self, to: Address, report: TLSReport) -> str:
        message: bytes = await self._make(_message, report, self._domain, self._sender, to, self._clock.seconds())
        if len(message) > OCTETS_MOST:
            return f"not sent: it has {len(message)} octets, and {OCTETS_MOST} are the most"
        return await self._mailed(message, to)

    async def _posted(self, uri: str, report: TLSReport) -> str:
        octets: bytes = await self._make(packed_report, report)
        if len(octets) > OCTETS_MOST:
            return f"not sent: it has {len(octets)} octets, and {OCTETS_MOST} are the most"
        try:
            found = await self._fetch(uri, body=octets, content_type=MEDIA_TYPE)
        except FetchFailed as error:
            raise CannotTell(str(error)) from error
        except ValueError as error:
            return f"not sent: {error}"
        if 200 <= found.status < 300:
            return f"posted: {found.status}"
        if found.status >= 500 or found.status in LATER:
            raise CannotTell(f"{uri} answers {found.status}")
        return f"not taken: {found.status}"


def _message(report: TLSReport, submitter: str, sender: Address, to: Address, now: float) -> bytes:
    return tls_report_message(report, submitter=submitter, sender=sender, to=to, now=now)
