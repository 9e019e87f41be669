"""What the domain says about TLS with its hosts: MTA-STS (RFC 8461), and who gets reports of it (RFC 8460)."""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, not_wanted, wrong
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.policy_host import check_policy
from mailserver.doctor.policy_seen import FetchPolicy
from mailserver.doctor.seen import Seen, SeenRecords, SeenState, followed
from mailserver.doctor.wanted import policy_records, tls_report_record
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.trust.mta_sts import find_id
from mailserver.trust.tls_report import report_uris

__all__ = ["check_mta_sts", "check_tls_reports"]

STS_GROUP, REPORT_GROUP = "MTA-STS", "TLS-RPT"


def check_mta_sts(facts: DomainFacts, seen: Seen, now: float, fetch: FetchPolicy | None = None) -> Iterator[CheckedRecord]:
    """The record that announces the policy, and the host that has it; what it shows where `fetch` says it."""
    if not facts.receives:
        return
    announcement, host = policy_records(facts)
    found = _those_with(followed(seen, announcement.name, "TXT"), "v=sts")
    if cannot_tell(found):
        yield not_known(STS_GROUP, found)
    elif not found.records:
        why = "no policy says that mail for the domain comes over TLS alone: who can change answers of the DNS can read it"
        to_do = "" if facts.serves_web else f"the policy has to stand at https://{host.name}/.well-known/mta-sts.txt first"
        add, advice = [announcement, host], not facts.serves_web
        yield missing(STS_GROUP, found, "mta-sts-missing", why, add, to_do=to_do, is_advice=advice)
    elif len(found.records) > 1:
        why = f"there are {len(found.records)} records, which counts as none (RFC 8461 section 3.1)"
        yield wrong(STS_GROUP, found, "mta-sts-two", why, remove=found.records[1:])
    elif not find_id(found.texts):
        why = "the record cannot be read: v=STSv1; and an id of 1 to 32 letters and digits (RFC 8461 section 3.1)"
        yield wrong(STS_GROUP, found, "mta-sts-syntax", why, add=[announcement], remove=found.records)
    else:
        yield from _id(facts, announcement, found)
        yield from _policy_host(facts, host, found, seen, now, fetch)


def _id(facts: DomainFacts, announcement: ZoneRecord, found: SeenRecords) -> Iterator[CheckedRecord]:
    """Where the policy is ours its id follows from its text, so nobody can forget to change it."""
    if facts.policy and find_id(found.texts) != find_id([announcement.data.encode()]):
        why = "the record has not the id of the policy that is shown: senders who keep another one do not fetch it"
        yield wrong(STS_GROUP, found, "mta-sts-id", why, add=[announcement], remove=found.records)


def _policy_host(
    facts: DomainFacts, host: ZoneRecord, announced: SeenRecords, seen: Seen, now: float, fetch: FetchPolicy | None
) -> Iterator[CheckedRecord]:
    addresses = [followed(seen, host.name, type) for type in ("A", "AAAA")]
    if any(one.state is SeenState.FOUND for one in addresses):
        yield all_right(STS_GROUP, announced, "a policy is announced, and its host is there")
        if fetch is not None:
            answers = fetch(host.name, [record for one in addresses for record in one.records])
            yield from check_policy(facts, seen, host.name, answers, now)
    elif any(cannot_tell(one) for one in addresses):
        yield not_known(STS_GROUP, next(one for one in addresses if cannot_tell(one)))
    else:
        why = f"a policy is announced, and {host.name} has no address: nobody can fetch it"
        yield missing(STS_GROUP, seen.of(host.name, "A"), "mta-sts-host-missing", why, [host])


def check_tls_reports(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """Who gets reports."""
    name = f"_smtp._tls.{facts.domain}"
    ours = tls_report_record(facts)
    found = _those_with(followed(seen, name, "TXT"), "v=tlsrpt")
    if cannot_tell(found):
        yield not_known(REPORT_GROUP, found)
    elif not found.records and not ours:
        yield not_wanted(REPORT_GROUP, name, "TXT", "nobody here reads reports about TLS (filter tls_reports)")
    elif not found.records:
        why = "no record says who wants to know when TLS with our hosts fails"
        yield missing(REPORT_GROUP, found, "tls-rpt-missing", why, ours)
    elif len(found.records) > 1:
        why = f"there are {len(found.records)} records, which counts as none (RFC 8460 section 3)"
        yield wrong(REPORT_GROUP, found, "tls-rpt-two", why, remove=found.records[1:])
    elif not (uris := report_uris(found.texts)):
        why = "the record cannot be read: v=TLSRPTv1; rua= and mailto: or https: (RFC 8460 section 3)"
        yield wrong(REPORT_GROUP, found, "tls-rpt-syntax", why, add=ours, remove=found.records)
    else:
        yield all_right(REPORT_GROUP, found, f"reports go to {', '.join(uris)}")
        if ours and f"mailto:{facts.tls_reports_to}".lower() not in [one.lower() for one in uris]:
            why = f"reports to {facts.tls_reports_to} would be read here"
            text = f"v=TLSRPTv1; rua={','.join([*uris, f'mailto:{facts.tls_reports_to}'])}"
            add = [ZoneRecord(name, "TXT", text)]
            yield wrong(REPORT_GROUP, found, "tls-rpt-without-ours", why, add=add, remove=found.records, is_advice=True)


def _those_with(found: SeenRecords, beginning: str) -> SeenRecords:
    """What is meant to be one, however it is written."""
    records = tuple([one for one in found.records if one.strip().lower().startswith(beginning)])
    return SeenRecords(found.name, found.type, found.state, records, why=found.why)
