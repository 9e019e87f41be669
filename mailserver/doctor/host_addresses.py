"""The addresses of our host, and their reverse names, both ways (RFC 1912 section 2.1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, not_wanted, wrong
from mailserver.doctor.house_facts import DomainFacts, SendsBy
from mailserver.doctor.mail_exchangers import own_addresses
from mailserver.doctor.seen import Seen, SeenState, followed
from mailserver.doctor.wanted import address_type, ptr_record
from mailserver.doctor.zone_text import ZoneRecord

__all__ = ["check_addresses", "check_reverse_names"]

ADDRESS_GROUP, REVERSE_GROUP = "A", "PTR"
NAMES_MOST = 10
AT_THE_LENDER = "whoever lends you the address sets its reverse name: look for \"reverse DNS\" in their pages"


def check_addresses(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """A and AAAA of our host."""
    for type in ("A", "AAAA"):
        yield from _addresses(facts, seen, type)


def _addresses(facts: DomainFacts, seen: Seen, type: str) -> Iterator[CheckedRecord]:
    found = seen.of(facts.hostname, type)
    ours = [one for one in facts.addresses if address_type(one) == type]
    lacking = [one for one in ours if one not in found.records]
    strange = [one for one in found.records if one not in ours] if facts.addresses_are_sure else []
    add = [ZoneRecord(facts.hostname, type, one) for one in lacking]
    if cannot_tell(found):
        yield not_known(ADDRESS_GROUP, found)
    elif found.alias:
        if type == "A":
            why = f"the host's name is an alias (CNAME) of {found.alias}: no MX record may lead to one (RFC 2181 section 10.3)"
            yield wrong(ADDRESS_GROUP, found, "host-is-cname", why, add=add)
    elif found.state is not SeenState.FOUND:
        if ours or (type == "A" and not own_addresses(facts, seen)):
            why = f"{facts.hostname} has no {type} record"
            to_do = "" if ours else "say with --address which addresses are ours"
            yield missing(ADDRESS_GROUP, found, f"{type.lower()}-missing", why, add, to_do=to_do)
        else:
            yield not_wanted(ADDRESS_GROUP, facts.hostname, type, f"we know of no IPv{4 if type == 'A' else 6} address of ours")
    elif lacking or strange:
        why = f"{facts.hostname} leads to {', '.join(found.records)}, and we have {', '.join(ours) or 'no such address'}"
        yield wrong(ADDRESS_GROUP, found, f"{type.lower()}-other", why, add=add, remove=strange or _others(found.records, ours))
    else:
        yield all_right(ADDRESS_GROUP, found, "the addresses of our host")


def _others(records: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Those to be taken out where it is not sure which are ours: all, where none of ours is among them."""
    return [] if any(one in ours for one in records) else list(records)


def check_reverse_names(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """PTR of each of our addresses.  Where others send for us, they are others' matter."""
    for address in own_addresses(facts, seen):
        if facts.sends_by is SendsBy.OURSELVES:
            yield _reverse_name(facts, seen, address)


def _reverse_name(facts: DomainFacts, seen: Seen, address: str) -> CheckedRecord:
    record = ptr_record(facts, address)
    found = followed(seen, record.name, "PTR")
    if cannot_tell(found):
        return not_known(REVERSE_GROUP, found)
    if found.state is not SeenState.FOUND:
        fault = "ptr-missing" if ipaddress.ip_address(address).version == 4 else "aaaa-without-ptr"
        why = f"{address} has no reverse name: large providers refuse mail from such addresses"
        return missing(REVERSE_GROUP, found, fault, why, [record], to_do=AT_THE_LENDER)
    if facts.hostname in found.records:
        return all_right(REVERSE_GROUP, found, f"{address} is {facts.hostname}")
    names = found.records[:NAMES_MOST]
    type = address_type(address)
    confirmed = [one for one in names if address in followed(seen, one, type).records]
    if confirmed:
        why = f"the reverse name of {address} is {confirmed[0]}, and the server calls itself {facts.hostname}"
        return wrong(REVERSE_GROUP, found, "ptr-other", why, add=[record], remove=names, to_do=AT_THE_LENDER)
    why = f"the reverse name of {address} is {names[0]}, which has not this address: nobody believes it"
    return wrong(REVERSE_GROUP, found, "ptr-not-confirmed", why, add=[record], remove=names, to_do=AT_THE_LENDER)
