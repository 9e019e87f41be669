"""What the domain asks of whoever gets mail in its name: DMARC (RFC 9989), and who gets reports (RFC 9990)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailserver.doctor.evaluation import at_once, query_of
from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, wrong
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.seen import Seen, SeenRecords, SeenState, followed
from mailserver.doctor.wanted import dmarc_record
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.mail.dns_records import LookupFailed
from mailserver.trust.dmarc import same_organization
from mailserver.trust.dmarc_record import parse_record
from mailserver.trust.dmarc_report_mail import consents, report_address
from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["check_dmarc"]

GROUP = "DMARC"
LOOKS_LIKE_ONE = re.compile(r"\s*v\s*=\s*dmarc1?\b", re.IGNORECASE)
LABELS_LEAST = 2  # of a domain above that may have the record


def check_dmarc(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """One verdict, or one for each fault."""
    ours = dmarc_record(facts)
    found = followed(seen, ours.name, "TXT")
    if cannot_tell(found):
        yield not_known(GROUP, found)
        return
    texts = [one for one in found.records if LOOKS_LIKE_ONE.match(one)]
    shown = SeenRecords(ours.name, "TXT", found.state, tuple(texts), found.alias)
    if not texts:
        above = _above(facts, seen)
        if above is not None:
            yield all_right(GROUP, above, f"the record of {above.name} holds for this domain, too")
        else:
            why = "no record says what the domain asks for: large providers want one of everybody who sends much"
            yield missing(GROUP, shown, "dmarc-missing", why, [ours])
    elif len(texts) > 1:
        why = f"there are {len(texts)} records, which counts as none (RFC 9989 section 4.7)"
        yield wrong(GROUP, shown, "dmarc-two", why, remove=texts[1:])
    else:
        faults = [*_faults(facts, seen, shown)]
        yield from faults
        if all(one.is_advice for one in faults):
            yield all_right(GROUP, shown, "there is a policy")


def _above(facts: DomainFacts, seen: Seen) -> SeenRecords | None:
    labels = facts.domain.split(".")
    for start in range(1, len(labels) - LABELS_LEAST + 1):
        found = followed(seen, f"_dmarc.{'.'.join(labels[start:])}", "TXT")
        if any(parse_record(facts.domain, one) is not None for one in found.texts):
            return found
    return None


def _faults(facts: DomainFacts, seen: Seen, found: SeenRecords) -> Iterator[CheckedRecord]:
    ours = dmarc_record(facts)
    (text,), (octets,) = found.records, found.texts
    record = parse_record(facts.domain, octets)
    try:
        tags = {name.lower(): value for name, value in parse_tags(text).items()}
    except TagFault as error:
        yield wrong(GROUP, found, "dmarc-syntax", f"the record cannot be read: {error}", add=[ours], remove=[text])
        return
    if record is None or not record.valid:
        why = "v=DMARC1 must come first" if record is None else "p= must be none, quarantine or reject, and so sp= and np="
        yield wrong(GROUP, found, "dmarc-syntax", f"the record cannot be read: {why}", add=[ours], remove=[text])
        return
    yield from _of_tags(facts, seen, found, tags)


def _of_tags(facts: DomainFacts, seen: Seen, found: SeenRecords, tags: dict[str, str]) -> Iterator[CheckedRecord]:
    """What is to be put in is one record for all of these faults."""
    uris = [one.strip() for one in tags.get("rua", "").split(",") if one.strip()]
    unusable = [one for one in uris if report_address(one) is None]
    lacks_ours = bool(facts.dmarc_reports_to) and not _has(uris, facts.dmarc_reports_to)
    rua = [one for one in uris if one not in unusable] + ([f"mailto:{facts.dmarc_reports_to}"] if lacks_ours else [])
    better = {**tags, "rua": ",".join(rua), "pct": ""}
    add = [ZoneRecord(found.name, "TXT", "; ".join([f"{name}={value}" for name, value in better.items() if value]))]
    if unusable:
        why = f"no report can go to {unusable[0]}: rua= has mailto: and an address, several with commas between them"
        yield wrong(GROUP, found, "dmarc-syntax", why, add=add, remove=found.records)
    if "pct" in tags:
        why = "pct= is no more (RFC 9989): whoever reads the record today ignores it; t=y asks for a milder policy"
        yield wrong(GROUP, found, "dmarc-pct", why, add=add, remove=found.records)
    for uri in uris:
        yield from _without_consent(facts, seen, found, uri)
    if lacks_ours:
        why = f"reports to {facts.dmarc_reports_to} would be read here"
        yield wrong(GROUP, found, "dmarc-without-our-rua", why, add=add, remove=found.records, is_advice=True)


def _has(uris: list[str], address: str) -> bool:
    found = [report_address(one) for one in uris]
    return any(one is not None and str(one.address).lower() == address.lower() for one in found)


def _without_consent(facts: DomainFacts, seen: Seen, found: SeenRecords, uri: str) -> Iterator[CheckedRecord]:
    """RFC 9990 section 4: another's domain has to say that it wants them."""
    address = report_address(uri)
    if address is None:
        return
    host = str(address.address.domain_key)
    try:
        if host == facts.domain or at_once(same_organization(query_of(seen), facts.domain, host)):
            return
    except LookupFailed:
        return
    name = f"{facts.domain}._report._dmarc.{host}"
    said = followed(seen, name, "TXT")
    if said.state is SeenState.FAILED or consents(host, said.texts)[0]:
        return
    why = f"reports go to {host}, which does not say that it wants them: nobody sends any there (RFC 9990 section 4)"
    consent = ZoneRecord(name, "TXT", "v=DMARC1")
    to_do = f"the record belongs into the zone of {host}"
    yield wrong(GROUP, found, "dmarc-rua-without-consent", why, add=[consent], to_do=to_do)
