"""A domain that sends and takes nothing says so in four records: then nobody can use its name (RFC 7505, RFC 7208, RFC 9989)."""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, wrong
from mailserver.doctor.seen import Seen, SeenRecords
from mailserver.doctor.wanted import parked
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.trust.dmarc_record import find_record
from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["check_parked"]

GROUP = "parked"
ANY_SELECTOR = "any-selector"  # a wildcard answers for whatever is asked for


def check_parked(domain: str, seen: Seen) -> Iterator[CheckedRecord]:
    """A verdict for each of the four."""
    mx, spf, dmarc, dkim = parked(domain)
    found = seen.of(domain, "MX")
    yield _same(found, mx, "parked-mx", "the domain takes no mail", others=found.records)
    found = _beginning(seen.of(domain, "TXT"), "v=spf1")
    yield _same(found, spf, "parked-spf", "nobody sends for the domain", others=found.records)
    found = _beginning(seen.of(dmarc.name, "TXT"), "v=dmarc1")
    record = find_record(domain, found.texts)
    if record is not None and record.valid and {record.policy, record.subdomains or "reject"} == {"reject"}:
        yield all_right(GROUP, found, "mail in its name is refused")
    else:
        yield _same(found, dmarc, "parked-dmarc", "mail in its name is refused", others=found.records)
    found = seen.of(f"{ANY_SELECTOR}._domainkey.{domain}", "TXT")
    shown = SeenRecords(dkim.name, "TXT", found.state, found.records, found.alias, found.why)
    if any(_is_revoked(one) for one in found.records):
        yield all_right(GROUP, shown, "no key is valid")
    else:
        yield _same(shown, dkim, "parked-dkim", "no key is valid", others=found.records)


def _same(found: SeenRecords, wanted: ZoneRecord, fault: str, why: str, *, others: tuple[str, ...]) -> CheckedRecord:
    if cannot_tell(found):
        return not_known(GROUP, found)
    if [*others] == [wanted.data]:
        return all_right(GROUP, found, why)
    if not others and not found.alias:
        return missing(GROUP, found, fault, f"no record says that {why}", [wanted])
    remove = [one for one in others if one != wanted.data]
    add = [] if wanted.data in others else [wanted]
    return wrong(GROUP, found, fault, f"the record does not say that {why}", add=add, remove=remove)


def _beginning(found: SeenRecords, beginning: str) -> SeenRecords:
    records = tuple([one for one in found.records if one.lower().startswith(beginning)])
    return SeenRecords(found.name, found.type, found.state, records, found.alias, found.why)


def _is_revoked(text: str) -> bool:
    try:
        tags = parse_tags(text)
    except TagFault:
        return False
    return "p" in tags and not tags["p"]
