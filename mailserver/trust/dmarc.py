"""Says whether an author's domain answers for a message, and what it asks for where it does not (DMARC, RFC 9989).

The DNS is asked through `IResolver`: eight names at most for each domain (section 4.10), each once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.quick import quick
from mailserver.trust.dmarc_record import DMARCRecord, find_record

__all__ = ["DMARCResult", "Evidence", "Query", "evaluate", "same_organization"]

LABELS_MOST = 7  # section 4.10: what is left of a longer name after the first query
MILDER = {"reject": "quarantine", "quarantine": "none", "none": "none"}
Query = Callable[[str, str], Awaitable[Answer]]


@quick
@dataclass(frozen=True, slots=True)
class Evidence:
    """What SPF or DKIM has found about a domain: `kind` is "spf" or "dkim", `result` a word of RFC 8601."""

    kind: str
    domain: str
    result: str


@quick
@dataclass(frozen=True, slots=True)
class DMARCResult:
    """`result` is "pass", "fail", "none" (the domain takes no part) or "temperror".

    `policy` is what the domain asks for where the result is not "pass": t=y has made it milder already; "" where nobody knows.
    `published` is what stands in the record.  `aligned` says what has spoken for the domain: "", "spf", "dkim" or "spf dkim".
    `record` is None where there is none.
    """

    result: str
    domain: str
    policy: str = "none"
    aligned: str = ""
    reason: str = ""
    published: str = "none"
    record: DMARCRecord | None = None


async def evaluate(query: Query, author: str, evidence: Sequence[Evidence]) -> DMARCResult:
    """Judge the domain of an author.  Raises nothing."""
    records = _Records(query)
    try:
        record = await records.policy(author)
    except LookupFailed as error:
        return DMARCResult("temperror", author, "", reason=str(error))
    if record is None or (not record.valid and not record.reports_to):
        return DMARCResult("none", author, reason="" if record is None else "the record has no valid policy")
    aligned: dict[str, None] = {}
    doubt = ""
    for one in evidence:
        if one.result not in ("pass", "temperror"):
            continue
        try:
            is_aligned = await records.are_aligned(author, one.domain, _is_strict(record, one.kind))
        except LookupFailed as error:
            doubt = doubt or str(error)
            continue
        if is_aligned and one.result == "pass":
            aligned[one.kind] = None
        elif is_aligned:
            doubt = doubt or f"{one.kind} could not tell about {one.domain}"
    try:
        published = record.policy_for(author, exists=await records.exists(author, record))
    except LookupFailed as error:
        published = record.policy_for(author, exists=True)
        doubt = doubt or str(error)
    policy = MILDER[published] if record.testing else published
    if aligned:
        return DMARCResult("pass", author, policy, " ".join(sorted(aligned, reverse=True)), "", published, record)
    if doubt:
        return DMARCResult("temperror", author, policy, "", doubt, published, record)
    return DMARCResult("fail", author, policy, "", "neither SPF nor DKIM speaks for it", published, record)


async def same_organization(query: Query, one: str, other: str) -> bool:
    """Whether both domains belong to one organization (section 4.10.2).  Raises `LookupFailed`."""
    records = _Records(query)
    return await records.are_aligned(one, other, False) or await records.are_aligned(other, one, False)


def _is_strict(record: DMARCRecord, kind: str) -> bool:
    return record.strict_spf if kind == "spf" else record.strict_dkim


class _Records:
    """The records that have been asked for.  Everything raises `LookupFailed`."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._known: dict[str, DMARCRecord | None] = {}

    async def at(self, domain: str) -> DMARCRecord | None:
        if domain not in self._known:
            answer = await self._query(f"_dmarc.{domain}", "TXT")
            self._known[domain] = find_record(domain, answer.texts)
        return self._known[domain]

    async def walk(self, domain: str) -> list[DMARCRecord]:
        """Section 4.10: the records from this domain upwards, the longest name first."""
        found = []
        labels = domain.split(".")
        while labels:
            record = await self.at(".".join(labels))
            if record is not None:
                found.append(record)
                if record.psd != "u":
                    break
            labels = labels[1:] if len(labels) <= LABELS_MOST else labels[-LABELS_MOST:]
        return found

    async def policy(self, author: str) -> DMARCRecord | None:
        """Section 4.10.1: the author's own record, that of its organization, or that of the public suffix."""
        own = await self.at(author)
        if own is not None:
            return own
        found = await self.walk(author)
        organization = _organization(author, found)
        return next((one for one in found if one.domain == organization), found[-1] if found else None)

    async def are_aligned(self, author: str, domain: str, strict: bool) -> bool:
        """Section 4.10.2.

        An organization's name ends all names that belong to it.  So nothing is asked about what does not end with the author's:
        a stranger's DNS, which may well fail on purpose, has no say in whether this is a failure.
        """
        domain = domain.lower().removesuffix(".")
        if domain == author:
            return True
        if strict:
            return False
        organization = _organization(author, await self.walk(author))
        if domain != organization and not domain.endswith(f".{organization}"):
            return False
        return _organization(domain, await self.walk(domain)) == organization

    async def exists(self, author: str, record: DMARCRecord) -> bool:
        """Asked only where np= makes a difference; NXDOMAIN is what counts."""
        if author == record.domain or not record.missing:
            return True
        return (await self._query(author, "A")).name_exists


def _organization(start: str, records: Sequence[DMARCRecord]) -> str:
    for record in records:
        if record.psd == "n":
            return record.domain
        if record.psd == "y" and record.domain != start:
            labels = start.split(".")
            return ".".join(labels[-(record.domain.count(".") + 2) :])
    return records[-1].domain if records else start
