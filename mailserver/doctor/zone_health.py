"""The zones themselves: do all their servers answer, do they agree, do the signatures hold (RFC 4035)?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailserver.doctor.findings import CheckedRecord, RecordVerdict, not_wanted
from mailserver.doctor.seen import DNSSECState, Seen, SeenRecords, ZoneSeen

__all__ = ["check_signatures", "check_zone"]

SERVERS_GROUP, DNSSEC_GROUP = "NS", "DNSSEC"
DNSSEC_FAULTS = {
    DNSSECState.BOGUS: "dnssec-bogus", DNSSECState.EXPIRED: "dnssec-expired", DNSSECState.NO_DS: "dnssec-no-ds",
    DNSSECState.UNKNOWN: "dnssec-unknown",
}  # fmt: skip
DNSSEC_TO_DO = {
    DNSSECState.BOGUS: "who validates sees nothing of the zone: the zone above needs the DS record of a key that signs, or none",
    DNSSECState.EXPIRED: "whoever validates sees nothing of the zone: let the signer run, and look why it has stopped",
    DNSSECState.NO_DS: "give the DS record to your registrar: until then nobody knows that the zone is signed",
}


def check_zone(name: str, seen: Seen) -> Iterator[CheckedRecord]:
    """The servers of the zone that this name is in, and how it is signed."""
    zone = seen.zone(name)
    if not zone.name:
        yield CheckedRecord(
            group=SERVERS_GROUP, name=name, type="NS", verdict=RecordVerdict.UNKNOWN, fault="ns-unknown",
            why=f"nobody says who answers for {name}: {zone.why}",
        )  # fmt: skip
        return
    yield from _servers(zone)
    yield from _signing(zone)


def _servers(zone: ZoneSeen) -> Iterator[CheckedRecord]:
    faulty = [one for one in zone.servers if one.fault]
    for one in faulty:
        fault, verdict = f"ns-{one.fault}", RecordVerdict.WRONG
        why = f"the zone above says that {one} answers for {zone.name}: {one.why}"
        yield CheckedRecord(group=SERVERS_GROUP, name=zone.name, type="NS", verdict=verdict, fault=fault, why=why)
    if not faulty:
        servers = tuple([str(one) for one in zone.servers])
        why = f"{len(servers)} {'server answers' if len(servers) == 1 else 'servers answer'}"
        yield CheckedRecord(
            group=SERVERS_GROUP, name=zone.name, type="NS", verdict=RecordVerdict.OK, why=why, seen=servers
        )


def _signing(zone: ZoneSeen) -> Iterator[CheckedRecord]:
    if zone.dnssec is DNSSECState.UNSIGNED:
        yield not_wanted(DNSSEC_GROUP, zone.name, "DNSKEY", "the zone is not signed: without that there is no DANE")
    elif zone.dnssec is DNSSECState.SECURE:
        why = "the zone is signed, and the zone above knows its key"
        yield CheckedRecord(group=DNSSEC_GROUP, name=zone.name, type="DNSKEY", verdict=RecordVerdict.OK, why=why)
    elif all(one.fault for one in zone.servers):
        return  # it is told already that nobody answers
    else:
        verdict = RecordVerdict.UNKNOWN if zone.dnssec is DNSSECState.UNKNOWN else RecordVerdict.WRONG
        yield CheckedRecord(
            group=DNSSEC_GROUP, name=zone.name, type="DNSKEY", verdict=verdict, fault=DNSSEC_FAULTS[zone.dnssec],
            why=zone.why or zone.dnssec.value, to_do=DNSSEC_TO_DO.get(zone.dnssec, ""),
            is_advice=zone.dnssec is DNSSECState.NO_DS,
        )  # fmt: skip


def check_signatures(found: Iterable[SeenRecords]) -> Iterator[CheckedRecord]:
    """A verdict for each set whose signature does not hold, where the zone's keys are in order."""
    for one in found:
        if one.signature_fault:
            state = DNSSECState.EXPIRED if one.has_expired else DNSSECState.BOGUS
            yield CheckedRecord(
                group=DNSSEC_GROUP, name=one.name, type=one.type, verdict=RecordVerdict.WRONG, fault=DNSSEC_FAULTS[state],
                why=f"the signature of these records does not hold: {one.signature_fault}", seen=one.records,
                to_do="sign the zone anew: whoever validates does not see them",
            )  # fmt: skip
