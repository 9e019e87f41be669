"""Sends the DMARC reports of the days that are over: each once, to those who want it.

A report is sent and then recorded, address by address.  Who is killed between the two sends that one again, with the same id and
the same file name, so that whoever gets both knows (RFC 9990, "Email").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from mailserver.api import Address, CannotTell, Clock, IRecords, LookupFailed, Send, StorageFault
from mailserver.filters.dmarc_facts import DAY_SECONDS, DMARCFacts, ReportGroup, day_of, start_of
from mailserver.trust.dmarc import Query, same_organization
from mailserver.trust.dmarc_record import DMARCRecord, find_record
from mailserver.trust.dmarc_report import AggregateReport, Published, report_id
from mailserver.trust.dmarc_report_mail import ReportAddress, consents, report_address, report_message

__all__ = ["DMARCSending", "ReportDestination", "SentReport"]

DAYS = 2  # after so many days a report is not sent any more
FIRST_SECONDS = 600  # after the end of the day: messages that were under way then have been counted
ADDRESSES_MOST = 5  # of one domain
AT_ONCE_MOST = 50  # reports of one run
AGAIN_SECONDS = 900.0
PAGE = 500


@dataclass(frozen=True, slots=True)
class ReportDestination:
    """An address of a record, and why no report goes there ("": it does)."""

    address: Address
    octets_most: int | None = None
    why_not: str = ""


@dataclass(slots=True)
class SentReport:
    """What has become of a report.  `to` has for each address the id of the message, or why there is none."""

    id: str
    day: str
    domain: str
    messages: int
    rows: int
    at: float
    to: dict[str, str] = field(default_factory=dict)
    is_done: bool = False

    def octets(self) -> bytes:
        """For the records."""
        return json.dumps([self.id, self.day, self.domain, self.messages, self.rows, self.at, self.to, self.is_done]).encode()

    @classmethod
    def read(cls, octets: bytes) -> SentReport | None:
        """What `octets` has made; None for what it has not."""
        try:
            return cls(*json.loads(octets))
        except (ValueError, TypeError):
            return None


class DMARCSending:
    """`sender` is who reports, `hostname` the server that does.

    `spread_seconds`: the reports of a day leave within so long after its end.

    `make` calls a function that takes its time, in a thread.  Domains in `without` get no reports.
    """

    log = Logger()

    def __init__(
        self,
        *,
        facts: DMARCFacts,
        records: IRecords,
        query: Query,
        send: Send,
        make: Callable[..., Awaitable[Any]],
        clock: Clock,
        sender: Address,
        hostname: str,
        organization: str,
        spread_seconds: float,
        without: Sequence[str] = (),
    ) -> None:
        self._facts = facts
        self._records = records
        self._query = query
        self._send = send
        self._make = make
        self._clock = clock
        self.sender = sender
        self.receiver = sender.domain_key
        self._organization = organization or self.receiver
        self._spread_seconds = spread_seconds
        self._without = frozenset(without)
        self._hostname = hostname
        self._waiting: dict[str, dict[ReportGroup, tuple[float, DMARCRecord]]] = {}  # by day
        self._again: dict[ReportGroup, float] = {}
        self._told: set[ReportGroup] = set()
        self._turn = DeferredLock()

    async def run(self) -> int:
        """Send what is due; how many reports that were.  One report's trouble is no other's.  Two runs go one after the other."""
        await self._turn.acquire()
        try:
            return await self._run()
        finally:
            self._turn.release()

    async def _run(self) -> int:
        now = self._clock.seconds()
        self._again = {one: until for one, until in self._again.items() if until > now}
        await self._look_at_days(now)
        due = [
            (at, group, record)
            for waiting in self._waiting.values()
            for group, (at, record) in waiting.items()
            if at <= now and group not in self._again
        ]
        done = 0
        for _, group, record in sorted(due, key=lambda one: one[:2])[:AT_ONCE_MOST]:
            try:
                await self._report(group, record)
                self._waiting[group.day].pop(group, None)
                self._told.discard(group)
                done += 1
            except (LookupFailed, CannotTell, StorageFault) as error:
                self._later(group, f"{type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001  of one report, whatever it is
                self.log.failure("the DMARC report {group} cannot be sent yet", group=group.path)
                self._later(group, "")
        return done

    async def _look_at_days(self, now: float) -> None:
        """What waits of the days that are over.  A day that is over does not change: each is looked at once."""
        today = start_of(day_of(now))
        days = [day_of(today - n * DAY_SECONDS) for n in range(DAYS, 0, -1)]
        days = [day for day in days if start_of(day) + DAY_SECONDS + FIRST_SECONDS <= now]
        self._waiting = {day: groups for day, groups in self._waiting.items() if day in days}
        for day in days:
            if day not in self._waiting:
                found = await self._facts.groups(day)
                self._waiting[day] = {group: (self.due_at(group), record) for group, record in found}

    def due_at(self, group: ReportGroup) -> float:
        """When a report leaves: each domain has a moment of its own, so that not all hosts of the world send at midnight."""
        digest = hashlib.sha256(f"{self._hostname}/{group.path}".encode()).digest()
        share = int.from_bytes(digest[:4], "big") / 2**32
        return start_of(group.day) + DAY_SECONDS + FIRST_SECONDS + share * self._spread_seconds

    def id_of(self, group: ReportGroup) -> str:
        """The id of the report."""
        return report_id(self.receiver, group.domain, start_of(group.day), f"{self._hostname} {group.digest}")

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
            str(self.sender),
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

    async def sent(self, first: str = "") -> list[SentReport]:
        """What has been sent, from the first day on."""
        found: list[SentReport] = []
        at = f"sent/{first}"
        while page := await self._records.items(at, "sent/\U0010ffff", PAGE):
            found += [one for _, value in page if (one := SentReport.read(value)) is not None]
            at = page[-1][0] + "\0"
        return found

    async def forget(self, before: float) -> None:
        """Drop what is known of reports on days that ended before then."""
        for key, _ in await self._records.items("sent/", f"sent/{day_of(before)}", PAGE):
            await self._records.drop(key)

    async def _report(self, group: ReportGroup, record: DMARCRecord) -> None:
        key = f"sent/{group.path}"
        kept = await self._records.get(key)
        sent = SentReport.read(kept) if kept is not None else None
        if sent is None or not sent.is_done:
            report = await self.report(group, record)
            if report.rows:
                if sent is None:
                    messages = sum([row.count for row in report.rows])
                    sent = SentReport(report.id, group.day, group.domain, messages, len(report.rows), self._clock.seconds())
                await self._send_to_all(key, sent, report)

    async def _send_to_all(self, key: str, sent: SentReport, report: AggregateReport) -> None:
        for one in await self.destinations(report.published.domain):
            if str(one.address) in sent.to:
                continue
            sent.to[str(one.address)] = one.why_not or await self._sent_to(one, report)
            await self._records.put(key, sent.octets())
        sent.is_done = True
        await self._records.put(key, sent.octets())

    async def _sent_to(self, to: ReportDestination, report: AggregateReport) -> str:
        """The id of the message, or why there is none.  Raises `CannotTell` and `StorageFault`."""
        message: bytes = await self._make(_message, report, self.receiver, self.sender, to.address, self._clock.seconds())
        if to.octets_most is not None and len(message) > to.octets_most:
            return f"not sent: it has {len(message)} octets, and {to.octets_most} are wanted at most"
        try:
            return await self._send(message, sender=self.sender, recipients=[to.address], reports=False)
        except ValueError as error:
            return f"not sent: {error}"

    def _later(self, group: ReportGroup, why: str) -> None:
        self._again[group] = self._clock.seconds() + AGAIN_SECONDS
        if why and group not in self._told:
            self._told.add(group)
            self.log.warn(
                "the DMARC report of {day} about {domain} is sent later: {why}", day=group.day, domain=group.domain, why=why
            )


def _message(report: AggregateReport, receiver: str, sender: Address, to: Address, now: float) -> bytes:
    return report_message(report, receiver=receiver, sender=sender, to=to, now=now)
