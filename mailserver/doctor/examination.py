"""Examines a domain: a verdict for each record that is wanted, and for each fault of those that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from mailserver.doctor.client_set_up import check_clients
from mailserver.doctor.dmarc_policy import check_dmarc
from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.host_addresses import check_addresses, check_reverse_names
from mailserver.doctor.host_certificate import check_authorities, check_tlsa
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.mail_exchangers import check_exchangers
from mailserver.doctor.parked_domain import check_parked
from mailserver.doctor.policy_seen import FetchPolicy
from mailserver.doctor.seen import DNSSECState, Seen, SeenRecords, ZoneSeen
from mailserver.doctor.sender_policy import check_sender_policy
from mailserver.doctor.signing_records import check_signing
from mailserver.doctor.transport_policy import check_mta_sts, check_tls_reports
from mailserver.doctor.wanted import dmarc_record, policy_records, ptr_record, wanted
from mailserver.doctor.zone_health import check_signatures, check_zone

__all__ = ["examined", "examined_parked", "questions_of"]

class _Noted:
    """Notes which sets are looked at."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.sets: dict[tuple[str, str], SeenRecords] = {}

    def of(self, name: str, type: str) -> SeenRecords:
        found = self._seen.of(name, type)
        self.sets[name, type] = found
        return found

    def zone(self, name: str) -> ZoneSeen:
        return self._seen.zone(name)


def questions_of(facts: DomainFacts) -> tuple[tuple[str, str], ...]:
    """What is asked for in any case, name and type: whoever asks the DNS may ask for all of it at once."""
    names = [facts.domain, facts.hostname]
    found = [(name, type) for name in names for type in ("MX", "A", "AAAA", "TXT", "CAA")]
    found += [(one.name, one.type) for one in (*wanted(facts, signed=True), *[ptr_record(facts, one) for one in facts.addresses])]
    found += [(one.name, "TXT") for one in (dmarc_record(facts), *policy_records(facts)[:1])]
    return tuple(dict.fromkeys([(name, "A" if type == "CNAME" else type) for name, type in found]))


def examined(facts: DomainFacts, seen: Seen, *, now: float, fetch: FetchPolicy | None = None) -> tuple[CheckedRecord, ...]:
    """Everything, in the order in which people read it; `now` in seconds since the epoch.  `fetch` asks the host of the policy.

    Of a zone of which nobody answers, or whose signatures do not fit, that alone is told of all its records that cannot be seen.
    """
    noted = _Noted(seen)
    found: list[CheckedRecord] = []
    check: Callable[[DomainFacts, Seen], Iterable[CheckedRecord]]
    for check in (
        check_exchangers, check_addresses, check_reverse_names, check_sender_policy, check_signing, check_dmarc,
        lambda facts, seen: check_mta_sts(facts, seen, now, fetch), check_tls_reports,
        lambda facts, seen: check_tlsa(facts, seen, now), check_authorities, check_clients,
    ):  # fmt: skip
        found += check(facts, noted)
    return _with_zones(found, noted, [facts.domain, facts.hostname])


def examined_parked(domain: str, seen: Seen) -> tuple[CheckedRecord, ...]:
    """A domain that sends and takes nothing."""
    noted = _Noted(seen)
    return _with_zones([*check_parked(domain, noted)], noted, [domain])


def _with_zones(found: Sequence[CheckedRecord], noted: _Noted, names: Sequence[str]) -> tuple[CheckedRecord, ...]:
    zones = {zone.name or name: name for name in names for zone in [noted.zone(name)]}
    health = [one for name in zones.values() for one in check_zone(name, noted)]
    dumb = {key for key, name in zones.items() if all(server.fault for server in noted.zone(name).servers)}
    told = [one for one in found if not (one.verdict is RecordVerdict.UNKNOWN and noted.zone(one.name).name in dumb)]
    judged = [_where_they_differ(one, noted) for one in told]
    return (*judged, *health, *_signatures(noted))


def _signatures(noted: _Noted) -> Iterator[CheckedRecord]:
    """Where the keys of a zone are in order, and a signature is not; each once."""
    yield from check_signatures(
        [one for one in noted.sets.values() if one.signature_fault and noted.zone(one.name).dnssec is DNSSECState.SECURE]
    )


def _where_they_differ(one: CheckedRecord, noted: _Noted) -> CheckedRecord:
    found = noted.sets.get((one.name, one.type))
    if found is None or not found.differing:
        return one
    why = f"the servers of the zone do not agree: {'; '.join(found.differing)}"
    to_do = "look at the zone's serial numbers (SOA), and whether the transfer to the other servers works"
    return replace(one, verdict=RecordVerdict.DIFFERS, fault="servers-differ", why=why, to_do=to_do, is_advice=False)
