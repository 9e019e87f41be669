"""Sends the DMARC reports of the days that are over: each once, to those who want it (RFC 9990)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mailserver.api import Address
from mailserver.filters.dmarc_facts import DMARCFacts, ReportGroup
from mailserver.filters.report_days import DAY_SECONDS, DAYS, day_of, start_of
from mailserver.filters.report_sending import ReportSender, ReportSending
from mailserver.filters.sent_reports import SentReport
from mailserver.trust.dmarc import same_organization
from mailserver.trust.dmarc_record import DMARCRecord, find_record
from mailserver.trust.dmarc_report import AggregateReport, Published, report_id
from mailserver.trust.dmarc_report_mail import ReportAddress, consents, report_address, report_message

__all__ = ["DMARCSending", "ReportDestination"]

ADDRESSES_MOST = 5  # of one domain


@dataclass(frozen=True, slots=True)
class ReportDestination:
    """An address of a record, and why no report goes there ("": it does)."""

    address: Address
    octets_most: int | None = None
    why_not: str = ""


class DMARCSending(ReportSending[ReportGroup]):
    """Those of one filter."""

    kind = "DMARC"

    def __init__(self, reporter: ReportSender, *, facts: DMARCFacts) -> None:
        super().__init__(reporter)
        self._facts = facts
        self._policies: dict[ReportGroup, DMARCRecord] = {}  # of those that wait

    def id_of(self, group: ReportGroup) -> str:
        """The id of the report."""
        return report_id(self._domain, group.domain, start_of(group.day), f"{self._hostname} {group.digest}")

    async def report(self, group: ReportGroup, record: DMARCRecord) -> AggregateReport:
        """The report as it is now; it has no rows where there were no messages."""
        begin = start_of(group.day)
        published = Published(
            group.domain,
            record.policy,
            record.subdomains,
            record.missing,
            "s" if record.strict_dkim else "r",
            "s" if record.strict_spf else "r",
            "y" if record.testing else "n",
        )
        return AggregateReport(
            self._organization,
            str(self._sender),
            self.id_of(group),
            begin,
            begin + DAY_SECONDS - 1,
            published,
            tuple(await self._facts.rows(group)),
        )

    async def destinations(self, domain: str) -> list[ReportDestination]:
        """Where reports about the domain go, by its record as it is now.  Raises `LookupFailed`."""
        if domain in self._without:
            return []
        answer = await self._query(f"_dmarc.{domain}", "TXT")
        record = find_record(domain, answer.texts)
        found: dict[str, ReportDestination] = {}
        for uri in record.reports_to if record is not None else ():
            wanted = report_address(uri)
            if wanted is None:  # another scheme
                continue
            for one in await self._consented(domain, wanted):
                found.setdefault(str(one.address), one)
        return list(found.values())[:ADDRESSES_MOST]

    async def _consented(self, domain: str, wanted: ReportAddress) -> list[ReportDestination]:
        """Another organization has to say that it wants them."""
        host = wanted.address.domain_key
        as_it_is = ReportDestination(wanted.address, wanted.octets_most)
        if host == domain or await same_organization(self._query, domain, host):
            return [as_it_is]
        name = f"{domain}._report._dmarc.{host}"
        if len(name) > 253:
            return [ReportDestination(wanted.address, why_not=f"there is no name at which {host} could consent")]
        is_wanted, others = consents(host, (await self._query(name, "TXT")).texts)
        if not is_wanted:
            return [ReportDestination(wanted.address, why_not=f"{host} does not say that it wants them ({name})")]
        return [ReportDestination(one.address, one.octets_most) for one in others] or [as_it_is]

    async def _groups(self, day: str) -> Iterable[ReportGroup]:
        oldest = day_of(start_of(day) - DAYS * DAY_SECONDS)
        self._policies = {group: record for group, record in self._policies.items() if group.day > oldest}
        found = await self._facts.groups(day)
        for group, record in found:
            self._policies[group] = record
        return [group for group, _ in found]

    async def _report(self, group: ReportGroup) -> None:
        sent = await self.sent.get(group.path)
        if sent is None or not sent.is_done:
            report = await self.report(group, self._policies[group])
            if report.rows:
                if sent is None:
                    messages = sum([row.count for row in report.rows])
                    sent = SentReport(report.id, group.day, group.domain, messages, len(report.rows), self._clock.seconds())
                to = {str(one.address): one for one in await self.destinations(group.domain)}

                async def send(address: str) -> str:
                    return to[address].why_not or await self._sent_to(to[address], report)

                await self.sent.to_all(group.path, sent, to, send)
        self._policies.pop(group, None)

    async def _sent_to(self, to: ReportDestination, report: AggregateReport) -> str:
        """The id of the message, or why there is none.  Raises `CannotTell` and `StorageFault`."""
        message: bytes = await self._make(_message, report, self._domain, self._sender, to.address, self._clock.seconds())
        if to.octets_most is not None and len(message) > to.octets_most:
            return f"not sent: it has {len(message)} octets, and {to.octets_most} are wanted at most"
        return await self._mailed(message, to.address)


def _message(report: AggregateReport, receiver: str, sender: Address, to: Address, now: float) -> bytes:
    return report_message(report, receiver=receiver, sender=sender, to=to, now=now)
