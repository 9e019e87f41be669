"""What DMARC has found, counted for the reports: by day, policy domain and policy, one row for equal messages.

The facts are in the state store, so they outlive a restart; a power loss may cost seconds of them.  All is bounded: rows of a day
and of a report, and the days that are kept.  What goes beyond is counted and told, and is in no report.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.api import Envelope, Finding
from mailserver.filters.report_days import day_of
from mailserver.filters.report_facts import ENCODE, KEPT_SECONDS, ReportFacts
from mailserver.trust.dmarc_record import DMARCRecord, parse_record
from mailserver.trust.dmarc_report import DomainResult, Override, ReportRow

__all__ = ["DMARCFacts", "ReportGroup", "row_about"]

ROWS_MOST = 2_000  # of a report
ROWS_OF_DAY_MOST = 100_000
SIGNATURES_MOST = 10
TEXT_CHARACTERS = 255
DOMAIN = re.compile(r"[a-z0-9._\-]{1,253}")  # a stranger may have others in his zone


@dataclass(frozen=True, slots=True, order=True)
class ReportGroup:
    """What one report is about: a UTC day, the domain where the record stands, and its terms, as a digest."""

    day: str
    domain: str
    digest: str

    @property
    def path(self) -> str:
        """In keys."""
        return f"{self.day}/{self.domain}/{self.digest}"


class DMARCFacts(ReportFacts):
    """`take` counts a message, the others read."""

    beyond = "DMARC reports of {day}: too many different messages; some will be in none"

    async def take(self, terms: str, domain: str, row: ReportRow) -> bool:
        """Count the message of this row, whose `count` is left out.  Whether it will be in a report.  Raises `StorageFault`."""
        group = ReportGroup(day_of(self._clock.seconds()), domain, _digest(terms))
        text = _text_of(row)
        key = f"{group.path}/{_digest(text)}"
        if key not in self._known and not await self._has_room(group, key, terms, text):
            return False
        await self._state.add(f"count/{key}", 1, KEPT_SECONDS)
        return True

    async def groups(self, day: str) -> list[tuple[ReportGroup, DMARCRecord]]:
        """What there is to report of a day, each with its policy."""
        found = []
        for key, value in await self._all(f"group/{day}/"):
            _, day, domain, digest = key.split("/")
            record = parse_record(domain, value)
            if record is not None:
                found.append((ReportGroup(day, domain, digest), record))
        return found

    async def rows(self, group: ReportGroup) -> list[ReportRow]:
        """The rows of a report, the largest first."""
        counts = {key.rpartition("/")[2]: int(value) for key, value in await self._all(f"count/{group.path}/")}
        rows = []
        for key, value in await self._all(f"row/{group.path}/"):
            count = counts.get(key.rpartition("/")[2], 0)
            if count > 0:
                rows.append(_row_of(value, count))
        return sorted(rows, key=lambda row: (-row.count, row.source, row.header_from))

    async def messages(self, day: str) -> Mapping[ReportGroup, int]:
        """How many messages each report of a day is about."""
        found: Counter[ReportGroup] = Counter()
        for key, value in await self._all(f"count/{day}/"):
            found[ReportGroup(*key.split("/")[1:4])] += int(value)
        return found

    async def _has_room(self, group: ReportGroup, key: str, terms: str, text: str) -> bool:
        """Whether the row is there, or has a place now."""
        state = self._state
        if await state.get(f"row/{key}") is None:
            if not await self._has_group(group.day, group.path, terms.encode()):
                return await self._beyond(group.day)
            if not await self._have_room((f"rows/{group.path}", ROWS_MOST), (f"rows/{group.day}", ROWS_OF_DAY_MOST)):
                return await self._beyond(group.day)
            await state.put_if_absent(f"row/{key}", text.encode(), KEPT_SECONDS)
        self._remember(key)
        return True


def row_about(envelope: Envelope, finding: Finding) -> ReportRow | None:
    """The row of a message that DMARC has judged; None for one that no report is about.

    A public suffix gets none: what is below it belongs to others, who have asked for nothing (RFC 9990, "Feedback Leakage").
    """
    said = finding.properties
    result, domain, record = (str(said.get(name) or "") for name in ("result", "domain", "record"))
    if result not in ("pass", "fail") or not said.get("reports") or envelope.peer.ip is None:
        return None
    if DOMAIN.fullmatch(record) is None or ("psd=y" in str(said.get("terms")) and record != domain):
        return None
    aligned = str(said.get("aligned") or "").split()
    disposition = str(said.get("disposition") or "none")
    if result == "pass" and said.get("published") not in (None, "", "none"):
        disposition = "pass"
    override = str(said.get("override") or "")
    sender = envelope.sender
    return ReportRow(
        source=str(envelope.peer.ip),
        count=1,
        disposition=disposition,
        dkim="pass" if "dkim" in aligned else "fail",
        spf="pass" if "spf" in aligned else "fail",
        header_from=domain[:TEXT_CHARACTERS],
        envelope_from="" if sender is None else sender.domain_key[:TEXT_CHARACTERS],
        overrides=(Override(override, str(said.get("comment") or "")[:TEXT_CHARACTERS]),) if override else (),
        signatures=_signatures(envelope.findings, domain),
        senders=_senders(envelope.findings),
    )


def _signatures(findings: Sequence[Finding], domain: str) -> tuple[DomainResult, ...]:
    """First those that count (RFC 9990, "DKIM Signatures in Aggregate Reports")."""
    found = [one for one in map(_result_of, findings) if one is not None and one[0] == "dkim"]
    found.sort(key=lambda one: (one[1].result != "pass", one[1].domain != domain, not domain.endswith(f".{one[1].domain}")))
    return tuple(dict.fromkeys([result for _, result in found]))[:SIGNATURES_MOST]


def _senders(findings: Sequence[Finding]) -> tuple[DomainResult, ...]:
    """The sender's domain; that of the HELO name stands for it where there is no sender."""
    spf = [one for one in findings if one.name == "spf"]
    senders = [one for one in spf if one.properties.get("scope") == "mfrom"] or spf
    found = [one[1] for one in map(_result_of, senders) if one is not None]
    return tuple(found[:1])


def _result_of(finding: Finding) -> tuple[str, DomainResult] | None:
    said: Any = finding.properties
    domain, result, selector = (str(said.get(name) or "")[:TEXT_CHARACTERS] for name in ("domain", "result", "selector"))
    return (finding.name, DomainResult(domain, result, selector)) if domain and result else None


def _text_of(row: ReportRow) -> str:
    """A row without its count: the same text for equal messages."""
    results = [[[one.domain, one.result, one.selector] for one in several] for several in (row.signatures, row.senders)]
    overrides = [[one.kind, one.comment] for one in row.overrides]
    values = row.source, row.disposition, row.dkim, row.spf, row.header_from, row.envelope_from
    return ENCODE([*values, overrides, *results])


def _row_of(text: bytes, count: int) -> ReportRow:
    source, disposition, dkim, spf, header_from, envelope_from, overrides, signatures, senders = json.loads(text)
    return ReportRow(
        source,
        count,
        disposition,
        dkim,
        spf,
        header_from,
        envelope_from,
        tuple([Override(*one) for one in overrides]),
        tuple([DomainResult(*one) for one in signatures]),
        tuple([DomainResult(*one) for one in senders]),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
